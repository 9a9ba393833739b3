//! `footfall doctor` at the real binary, with pages that are served on loopback.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::harness::{SITE, Setup, view};
use crate::support::http::{ask, request};
use crate::support::service::Service;

const SITES: &str = "[[site]]\nkey = \"lamdong\"\nhosts = [\"127.0.0.1\"]\ntime_zone = \"UTC\"\n\
    [[site]]\nkey = \"asks\"\nhosts = [\"127.0.0.1\"]\ntime_zone = \"UTC\"\nrequire_consent = true\n";

/// A web server that has one page at a time, sent in chunks; any other path redirects there.
struct Pages {
    port: u16,
    html: Arc<Mutex<String>>,
}

impl Pages {
    fn serve() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, html) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
        let shown = html.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                let html = shown.lock().unwrap().clone();
                let (start, rest) = html.split_at(html.len() / 2);
                let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
                let answer = match head.starts_with(b"GET /tin/1.html ") {
                    true => format!(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                        chunk(start),
                        chunk(rest)
                    ),
                    false => {
                        "HTTP/1.1 302 Found\r\nLocation: /tin/1.html\r\nContent-Length: 0\r\n\r\n".to_owned()
                    }
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Pages { port, html }
    }

    fn show(&self, html: &str) {
        *self.html.lock().unwrap() = html.to_owned();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/old#top", self.port)
    }
}

#[test]
fn a_page_is_visited_and_its_line_found_wanting() {
    let mut service = Service::start(Setup::default().sites(SITES));
    let pages = Pages::serve();
    let src = format!("http://{}/footfall.js", service.public());
    let line =
        |site: &str, more: &str| format!("<script defer src=\"{src}\" data-site=\"{site}\"{more}></script>");
    let local = " data-localhost";
    for (html, more, code, told) in [
        (
            line(SITE, local),
            &[][..],
            0,
            "[+]visit would be counted: site lamdong, page /tin/1.html, kind view",
        ),
        (line(SITE, local), &["--address", "203.0.113.9"], 0, "client header"),
        (
            line(SITE, local),
            &["--user-agent", "curl/8.5"],
            1,
            "is filtered, robot: It is taken for a program's; robots_allow of the site takes in those that are readers'. \
             The user agent does not begin as a browser's.",
        ),
        (line(SITE, local), &["--origin", "https://copy.example"], 1, "The sending page is of copy.example"),
        ("<p>no line</p>".to_owned(), &[], 1, "[-]line none"),
        (format!("<!-- {} -->", line(SITE, local)), &[], 1, "[-]line none"),
        (line(SITE, ""), &[], 1, "the line needs data-localhost"),
        (
            line("lamdnog", local),
            &[],
            1,
            "is refused, unknown-site: No site is registered under this name or host.",
        ),
        (line("asks", local), &[], 1, "is filtered, no-consent: "),
        (
            line("asks", " data-localhost data-consent=required"),
            &[],
            0,
            "sends nothing until the page has called",
        ),
        (line(SITE, local).replace(".js", ".jz"), &[], 1, "[-]script http://"),
        (line(SITE, " data-localhost data-beacon=collect"), &[], 1, "collect?dry_run answers 404"),
        (
            format!("<link rel=canonical href=https://m.baolamdong.vn/tin/1.html>{}", line(SITE, local)),
            &[],
            1,
            "[-]name the page is named https://m.baolamdong.vn/tin/1.html, which is refused",
        ),
    ] {
        pages.show(&format!("<html><head>{html}</head></html>"));
        let url = pages.url();
        let (exit, said) = service.order(&[&["doctor", &url], more].concat());
        assert_eq!(exit, code, "{html} {more:?}: {said}");
        assert!(said.contains(told), "{told} is not in {said}");
        assert!(said.lines().count() <= 24, "one screen: {said}");
    }
    assert_eq!(service.counters(SITE)["views"]["all"], 0, "nothing was counted");
    let refused = service.metric("footfall_beacons_total{outcome=\"unknown-site\"}");
    assert_eq!(refused, 0.0, "nor refused");
    service.stop();
}

/// A proxy that ends TLS as `localhost`, before the service and the pages. Its port, and the authority to trust.
fn proxy_with_tls(service: SocketAddr, pages: u16) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            // Who does not trust the certificate ends the connection.
            let _ = passed_on(StreamOwned::new(tls, stream.unwrap()), service, pages);
        }
    });
    (port, made.cert.pem())
}

fn passed_on(
    mut tls: StreamOwned<ServerConnection, TcpStream>,
    service: SocketAddr,
    pages: u16,
) -> io::Result<()> {
    let mut request = vec![0; 1 << 16];
    let mut length = 0;
    let is_whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request);
        let body = text.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let head = text.find("\r\n\r\n").map(|end| end + 4);
        head.zip(body).is_some_and(|(head, (body, _))| text.len() == head + body.parse::<usize>().unwrap())
    };
    while !is_whole(&request[..length]) {
        match tls.read(&mut request[length..])? {
            0 => return Ok(()),
            read => length += read,
        }
    }
    let to_page = request.starts_with(b"GET /tin/") || request.starts_with(b"GET /old");
    let to = if to_page { (Ipv4Addr::LOCALHOST, pages).into() } else { service };
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&request[..length])?;
    stream.read_to_end(&mut answer)?;
    tls.write_all(&answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

#[test]
fn a_page_of_https_is_visited_where_its_authority_is_trusted() {
    let sites = "[[site]]\nkey = \"lamdong\"\nhosts = [\"localhost\"]\ntime_zone = \"UTC\"\n";
    let mut service = Service::start(Setup::default().sites(sites));
    let pages = Pages::serve();
    let (port, authority) = proxy_with_tls(service.public(), pages.port);
    let base = format!("https://localhost:{port}");
    pages.show(&format!(
        "<html><head><script src={base}/footfall.js data-site=lamdong data-localhost></script></head></html>"
    ));
    let page = format!("{base}/old");
    let (exit, said) = service.order(&["doctor", &page]);
    assert!(exit == 1 && said.contains("cannot be fetched (invalid peer certificate"), "{said}");
    service.write("authority.pem", &authority);
    let program = env!("CARGO_BIN_EXE_footfall");
    let line = format!("SSL_CERT_FILE=authority.pem {program} --config footfall.toml doctor {page}");
    let (_, said) = service.shell(&line);
    for found in [
        "[+]page https://localhost",
        "[+]script https://localhost",
        "[+]visit would be counted: site lamdong",
    ] {
        assert!(said.contains(found), "{found} is not in {said}");
    }
    service.stop();
}

#[test]
fn the_service_is_asked_what_is_wrong_with_it() {
    let mut service = Service::start(Setup::default().set("trusted_proxies", ""));
    let (exit, said) = service.order(&["doctor"]);
    assert_eq!(exit, 0, "{said}");
    for found in [
        "[+]store ok",
        "[+]settings in force: store embedded",
        "[+]refused nothing",
        "[+]disk ",
        "[+]proxies no request named a client",
        "[+]instances this one alone",
        "[+]data_dir data",
    ] {
        assert!(said.contains(found), "{found} is not in {said}");
    }
    let forwarded = view("/a").with("site", "nobody").header("x-forwarded-for", "203.0.113.9");
    assert_eq!(ask(service.public(), forwarded.bytes()).status, 404);
    assert_eq!(ask(service.public(), request("GET", "/nothing", &[], b"")).status, 404);
    service.set("journal.sync", "always");
    let (exit, said) = service.order(&["doctor"]);
    assert_eq!(exit, 1, "{said}");
    for found in [
        "[-]settings journal.sync: the service runs with \"every-second\", here it is \"always\"",
        "[-]refused site -: 1 beacons refused in the last hour, unknown-site (nobody)",
        "[-]proxies 1 requests named a client and came from no trusted proxy (127.0.0.1): if it is yours,",
        "3 to look at",
    ] {
        assert!(said.contains(found), "{found} is not in {said}");
    }
    // A setting that takes effect at the next start is not taken for one in force.
    service.set("journal.sync", "every-second");
    service.write("footfall.toml", "totals.page_days = 90\n[[site]]\nkey = \"new\"\nhosts = [\"new.vn\"]\n");
    assert!(service.reload());
    let (_, said) = service.order(&["doctor"]);
    assert!(said.contains("[-]settings totals.page_days: the service runs with 62, here it is 90"), "{said}");
    assert!(!said.contains("settings site.0"), "{said}");
    service.stop();
    let (exit, said) = service.order(&["doctor"]);
    assert!(exit == 1 && said.contains("[-]service nobody answers at http://127.0.0.1:"), "{said}");
}
