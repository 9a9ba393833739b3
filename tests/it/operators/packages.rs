//! What `config/` brings for those who deploy: under systemd, behind nginx, in containers, on Debian.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::http::connections::ambiguous;
use crate::support::harness::{SITE, Setup};
use crate::support::http::{self, BROWSER, Connection};
use crate::support::servers::on_a_free_port;
use crate::support::service::{Service, my_turn};
use crate::support::wait::until;

fn config(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

#[test]
fn the_unit_is_as_hard_as_it_claims() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd/footfall.service");
    let said = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(unit)
        .output()
        .unwrap_or_else(|_| panic!("this test needs systemd-analyze: apt-get install systemd"));
    assert!(said.status.success(), "an exposure above 2.0:\n{}", String::from_utf8_lossy(&said.stdout));
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    #[track_caller]
    fn until(&mut self, word: &str) {
        let mut message = [0; 4096];
        until(&format!("{word} is said"), || {
            if let Ok(read) = self.socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..read]).into_owned();
                self.heard.extend(text.lines().map(str::to_owned));
            }
            self.heard.iter().any(|line| line == word)
        });
    }
}

#[test]
fn systemd_is_told_of_start_and_stop_and_that_the_loop_turns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut manager = Manager { socket, heard: Vec::new() };
    let says = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=300000", path.display());
    let mut service = Service::prepare(Setup::default()).after(&says);
    service.spawn();
    manager.until("READY=1");
    // It is ready when it says so.
    assert_eq!(http::get(service.public(), "/api/v1/sites/lamdong/counters").status, 200);
    manager.heard.clear();
    manager.until("WATCHDOG=1");
    manager.heard.clear();
    assert!(service.reload());
    manager.until("RELOADING=1");
    manager.until("READY=1");
    let said = |line: &&String| line.starts_with("MONOTONIC_USEC=");
    assert!(manager.heard.iter().any(|line| said(&line)), "{:?}", manager.heard);
    service.terminate();
    manager.until("STOPPING=1");
}

#[test]
fn a_start_says_which_socket_it_was_handed_and_which_bound_the_system_does_not_allow() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut service = Service::prepare(Setup::default().set("http.max_connections", "10")).handed(listener);
    service.begin();
    let log = service.log();
    assert!(
        log.contains(&format!("is not used: the service manager hands over a socket at {address}")),
        "{log}"
    );
    assert!(
        log.contains("listen = ") && !log.contains("admin_listen = ") && !log.contains("ulimit -n"),
        "{log}"
    );
    let mut service = Service::prepare(Setup::default().set("http.max_connections", "9000"));
    service = service.after("ulimit -n 900");
    service.begin();
    let log = service.log();
    assert!(log.contains("http.max_connections is 9000, and this process may open 900 files"), "{log}");
    assert!(log.contains("it takes 700 connections"), "{log}");
    assert!(!log.contains("is not used"), "{log}");
    // What may be raised is.
    let mut raised = Service::prepare(Setup::default().set("http.max_connections", "700"));
    raised = raised.after("ulimit -S -n 256");
    raised.begin();
    let idle: Vec<_> = (0..600).map(|_| Connection::open(raised.public()).unwrap()).collect();
    until("all are open", || raised.metric("footfall_connections") == 600.0);
    assert!(!raised.log().contains("ulimit"), "{}", raised.log());
    drop(idle);
    // However low it is, probes are answered while connections that do nothing take all that they may.
    let mut low = Service::prepare(Setup::default());
    low = low.after("ulimit -n 256");
    low.begin();
    let _idle: Vec<_> = (0..300).map(|_| Connection::open(low.public())).collect();
    until("no more are taken", || low.metric("footfall_bounds_reached_total{bound=\"connections\"}") > 100.0);
    assert_eq!(http::get(low.admin(), "/livez").status, 200);
    assert_eq!(low.order(&["healthcheck"]).0, 0);
}

/// The nginx of `config/nginx`, on a port of its own, before a service.
struct Nginx {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Nginx {
    fn before(service: &Service) -> Self {
        Self::with(service, "")
    }

    /// The same with further lines in the servers.
    fn with(service: &Service, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let counted = config("nginx/footfall-counted.conf");
        // What the news site's server is to hold, taken out of the comment that says so.
        let (_, rest) = counted.split_once("#     location / {\n").unwrap();
        let (locations, _) = rest.split_once("#\n# and in a page:").unwrap();
        let (pages, include) = locations.split_once("#     }\n").unwrap();
        assert!(pages.contains("ssi on;") && include.contains("location /counted/"));
        let news = format!(
            "root {};\ndefault_type text/html;\nlocation / {{\nssi on;\ntry_files $uri /index.php;\n}}\n{}",
            path("root"),
            include.replace("#     ", "")
        );
        let server = "server_name news.example.org;";
        let site = config("nginx/footfall.conf").replace(server, &format!("{server}\n{news}")) + &counted;
        let site = site
            .replace("127.0.0.1:8080", &service.public().to_string())
            .replace("/run/nginx-counted.sock", &path("counted.sock"))
            .replace("server_name stats.example.org;", &format!("server_name stats.example.org;\n{lines}"))
            .replace("/etc/nginx/footfall-proxy.conf", &path("proxy.conf"));
        let (_, lines) = counted.split_once("# and in a page:\n#\n").unwrap();
        let lines = lines.lines().take_while(|line| line.starts_with("#     ")).map(|line| &line[6..]);
        std::fs::create_dir(path("root")).unwrap();
        std::fs::write(path("root/index.php"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path(kind)))
            .concat();
        let main = format!(
            "pid {};\nerror_log {} warn;\ndaemon off;\nworker_processes 1;\nevents {{}}\n\
             http {{\naccess_log {};\n{temporary}{site}\n}}\n",
            path("pid"),
            path("error.log"),
            path("access.log"),
        );
        std::fs::write(path("proxy.conf"), config("nginx/footfall-proxy.conf")).unwrap();
        let spawn = |port| {
            let main = main.replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
            std::fs::write(path("nginx.conf"), main).unwrap();
            Command::new("nginx")
                .args(["-e", &path("error.log"), "-c", &path("nginx.conf")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap_or_else(|_| panic!("this test needs nginx: apt-get install nginx-light"))
        };
        let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let (child, port) = on_a_free_port(spawn, listens).expect("nginx listens");
        Nginx { child, port, dir }
    }

    fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn ask(&self, method: &str, target: &str, host: &str, client: &str, body: &str) -> http::Answer {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\n\
             User-Agent: {BROWSER}\r\nCookie: session=secret\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        http::ask(self.address(), request)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// What a page of the news site shows as its views, and the text around that.
    fn shown(&self, target: &str, header: &str) -> (String, String) {
        let mut page = Connection::open(self.address()).unwrap();
        // Of HTTP/1.0, or the answer would come in pieces.
        page.send(format!("GET {target} HTTP/1.0\r\nHost: news.example.org\r\n{header}\r\n")).unwrap();
        let text = page.rest().unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{target}: {text}");
        let (_, rest) = text.split_once("Lượt xem: ").unwrap_or_else(|| panic!("{target}: {text}"));
        (rest.lines().next().unwrap_or_default().trim().to_owned(), text.clone())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only if it is asked.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn the_nginx_recipe_serves_on_a_host_and_under_a_path_and_lets_no_client_forge_its_address() {
    let _turn = my_turn();
    let service = Service::start(Setup::default().set("public_url", "http://news.example.org/stats"));
    let nginx = Nginx::before(&service);
    for (number, (host, prefix)) in
        [("stats.example.org", ""), ("news.example.org", "/stats")].into_iter().enumerate()
    {
        for page in 0..2 {
            let body = format!(r#"{{"site":"lamdong","url":"/{number}/{page}"}}"#);
            // Each says it is somebody else: were it believed, there would be four visitors.
            let client = format!("203.0.113.{}", 10 * number + page);
            let target = format!("{prefix}/api/v1/beacon");
            assert_eq!(nginx.ask("POST", &target, host, &client, &body).status, 204);
        }
        let target = format!("{prefix}/api/v1/sites/lamdong/counters?page=/{number}/1");
        let answer = nginx.ask("GET", &target, host, "203.0.113.9", "");
        let shown = answer.json();
        assert_eq!(shown["page"]["views"]["all"], 1);
        assert_eq!(shown["visits"]["all"], 1, "one client, whatever it says of itself");
        assert_eq!(answer.header("set-cookie"), None);
    }
    let pages: String = (0..100).map(|n| format!("&page=/{:060}", n)).collect();
    let long = format!("/api/v1/sites/lamdong/pages?{}", &pages[1..]);
    assert_eq!(nginx.ask("GET", &long, "stats.example.org", "", "").status, 200, "a list of pages fits");
    let mut live = Connection::open(nginx.address()).unwrap();
    live.send("GET /stats/api/v1/sites/lamdong/live HTTP/1.1\r\nHost: news.example.org\r\n\r\n").unwrap();
    assert_eq!(live.head().unwrap().status, 200);
    let mut event = || String::from_utf8(live.chunk().unwrap().expect("the events go on")).unwrap();
    assert!(event().contains("\"all\":4"));
    nginx.ask("POST", "/api/v1/beacon", "stats.example.org", "", r#"{"site":"lamdong","url":"/live"}"#);
    assert!(event().contains("\"all\":5"), "it comes before the answer ends");
    assert_eq!(nginx.log("access.log"), "", "no address rests in nginx' log");
}

#[test]
fn behind_nginx_what_can_be_read_in_two_ways_counts_once_at_most() {
    let _turn = my_turn();
    let mut service = Service::start(Setup::default());
    let nginx = Nginx::before(&service);
    let mut taken = 0;
    for (bytes, _) in ambiguous() {
        let mut connection = Connection::open(nginx.address()).unwrap();
        connection.send(&bytes).unwrap();
        match connection.answer().map(|answer| answer.status) {
            Ok(204) => taken += 1,
            answer => assert!(answer.is_ok_and(|status| status >= 400), "{bytes:?}"),
        }
    }
    // What nginx takes for a second request of its own is answered by itself.
    assert_eq!(service.page(SITE, "/a"), taken);
    assert!(service.page(SITE, "/hidden") <= taken);
    service.breaks_the_store();
}

/// At both places, and the cookies of the news site stay at nginx.
#[test]
fn behind_nginx_the_newsrooms_link_opens_its_page() {
    let _turn = my_turn();
    let token = "0123456789abcdef";
    let service = Service::start(Setup::default().and(&format!("newsroom_token = \"{token}\"")));
    let nginx = Nginx::before(&service);
    for (host, prefix) in [("stats.example.org", ""), ("news.example.org", "/stats")] {
        let link = nginx.ask("GET", &format!("{prefix}/newsroom/lamdong?token={token}"), host, "", "");
        assert_eq!((link.status, link.header("location")), (303, Some("../newsroom/lamdong")));
        let path = "; Path=/newsroom/lamdong;";
        assert!(link.header("set-cookie").is_some_and(|cookie| cookie.contains(path)), "{link:?}");
        let page = |cookies: &str| {
            let target = format!("{prefix}/newsroom/lamdong");
            let asked = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n");
            Connection::open(nginx.address()).unwrap().ask(asked).unwrap().status
        };
        assert_eq!(page(&format!("session=secret; footfall_newsroom={token}")), 200);
        assert_eq!(page(&format!("session={token}; footfall_newsroom=x")), 403);
    }
}

#[test]
fn behind_a_cdn_nginx_takes_the_reader_that_the_cdn_names_and_believes_nobody_else() {
    let _turn = my_turn();
    let service = Service::start(Setup::default());
    let visits = |cdn: &str| {
        let cdn = config("nginx/footfall-cdn.conf").replace("173.245.48.0/20", cdn);
        let nginx = Nginx::with(&service, &cdn);
        let before = service.counters("lamdong")["visits"]["all"].as_u64().unwrap();
        for reader in 0..3 {
            let body = r#"{"site":"lamdong","url":"/a"}"#;
            let request = format!(
                "POST /api/v1/beacon HTTP/1.1\r\nHost: stats.example.org\r\nCF-Connecting-IP: 203.0.113.{reader}\r\n\
                 User-Agent: {BROWSER} {cdn}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len(),
                cdn = cdn.len(),
            );
            assert_eq!(http::ask(nginx.address(), request).status, 204);
        }
        service.counters("lamdong")["visits"]["all"].as_u64().unwrap() - before
    };
    assert_eq!(visits("127.0.0.1"), 3, "each reader is one visitor");
    assert_eq!(visits("173.245.48.0/20"), 1, "who is not the CDN names nobody");
}

#[test]
fn nginx_puts_the_counters_of_the_page_that_the_reader_sees_into_it_and_sends_nothing_else() {
    let _turn = my_turn();
    let token = "0123456789abcdef";
    let settings = format!("page_query = [\"id\"]\nnewsroom_token = \"{token}\"");
    let mut service = Service::start(Setup::default().and(&settings));
    let nginx = Nginx::before(&service);
    let beacon = r#"{"site":"lamdong","url":"/forged"}"#;
    let smuggled = format!(
        "/x%20HTTP/1.1%0d%0aHost:%20x%0d%0a%0d%0aPOST%20/api/v1/beacon%20HTTP/1.1%0d%0aX-Forwarded-For:%206.6.6.6\
         %0d%0aContent-Length:%20{}%0d%0a%0d%0a{beacon}",
        beacon.len()
    );
    let pages = [
        "/bai-viet/1.html",
        "/",
        "/tin%20t%E1%BB%A9c/m%C3%B3n%20ngon.html",
        "/a+b.html",
        "/a%2Bb.html",
        "/a&b=c.html",
        "/a%26b=c.html",
        "/a%3Fb",
        "/a%23b%25",
        "/xem?id=7&fbclid=x",
        "/xem?utm_source=thu&id=8",
        "/a?page=/bai-viet/1.html&figure=online&format=json",
        "/x%0d%0aFootfall-Page:%20/a",
        &smuggled,
    ];
    let pages = pages.map(|page| page.replace('"', "%22"));
    for (before, page) in pages.iter().enumerate() {
        for _ in 0..=before {
            let body = serde_json::json!({"site": "lamdong", "url": page}).to_string();
            assert_eq!(nginx.ask("POST", "/api/v1/beacon", "stats.example.org", "", &body).status, 204);
        }
    }
    let views = || service.counters("lamdong")["views"]["all"].as_u64().unwrap();
    let counted = views();
    for (before, page) in pages.iter().enumerate() {
        let known = (before + 1).to_string();
        until("the views are shown", || nginx.shown(page, "").0 == known);
        let (of_page, text) =
            nginx.shown(page, "Footfall-Page: /bai-viet/1.html\r\nAccept-Encoding: gzip\r\n");
        assert_eq!(of_page, known, "{page}: the reader has no say in it");
        assert!(text.contains("data-footfall=\"visits.week\""), "{text}");
    }
    assert_eq!(views(), counted, "nothing is sent but the question");
    // A page that cannot be one has the block all the same.
    let (none, text) = nginx.shown("//elsewhere.vn/a", "");
    assert!(none.is_empty() && text.contains("data-footfall=\"visits.week\""), "{text}");

    service.stop();
    let newsroom = format!("/newsroom/lamdong?token={token}");
    for (host, prefix) in [("stats.example.org", ""), ("news.example.org", "/stats")] {
        let answer = nginx.ask("GET", &format!("{prefix}{newsroom}"), host, "203.0.113.9", "");
        assert_eq!((answer.status, answer.header("footfall")), (502, None));
        nginx.ask("POST", &format!("{prefix}/api/v1/beacon"), host, "203.0.113.9", beacon);
    }
    let (none, text) = nginx.shown("/bai-viet/1.html?token=secret", "");
    assert!(none.is_empty() && !text.contains("error"), "{text}");
    for log in ["error.log", "access.log"] {
        let text = nginx.log(log);
        let of_readers = ["127.0.0.1", "client", token, "secret", "203.0.113.9"];
        // The news site's own log has its readers, as before.
        let text: String =
            text.lines().filter(|line| log == "error.log" || line.contains("/stats/")).collect();
        assert!(of_readers.iter().all(|word| !text.contains(word)), "{log}: {text}");
    }
}

/// Runs `check-config` with variables on a file.
fn check(file: Option<&Path>, variables: &BTreeMap<String, String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_footfall"));
    command.env_clear().envs(variables).current_dir(std::env::temp_dir());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let said = command.arg("check-config").output().unwrap();
    assert!(said.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn what_containers_are_given_is_a_configuration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    check(Some(&folder.join("config/kubernetes/footfall.toml")), &BTreeMap::new());
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    for (file, at_least) in [("Dockerfile", 3), ("config/compose.yaml", 2)] {
        let mut variables = BTreeMap::new();
        for word in read(file).lines().filter_map(|line| line.split_once("FOOTFALL_").map(|(_, rest)| rest)) {
            // `NAME=value \` in the one, `NAME: ${NAME:-value}` in the other.
            if let Some((name, value)) = word.split_once([':', '=']).filter(|_| !word.starts_with('$')) {
                let value = value.trim_end_matches('\\').trim();
                let value =
                    value.split_once(":-").map_or(value, |(_, default)| default.trim_end_matches('}'));
                variables.insert(format!("FOOTFALL_{name}"), value.to_owned());
            }
        }
        assert!(variables.len() >= at_least, "{file}: {variables:?}");
        check(None, &variables);
    }
}

#[test]
fn the_prometheus_configuration_is_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/prometheus.yml");
    let said = Command::new("promtool")
        .args(["check", "config"])
        .arg(path)
        .output()
        .unwrap_or_else(|_| panic!("this test needs promtool: apt-get install prometheus"));
    let mut out = std::io::stdout();
    out.write_all(&said.stdout).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_unit_of_backups_makes_one_by_way_of_the_service_and_keeps_those_of_two_weeks() {
    let service = Service::start(Setup::default());
    service.read(3);
    let (data, unit) = (service.data_dir(), config("systemd/footfall-backup.service"));
    let backups = data.join("backups");
    for name in ["20200101T000000Z", "2026-11-24T031522Z", "mine"] {
        std::fs::create_dir_all(backups.join(name)).unwrap();
    }
    for name in ["20200101T000000Z", "mine"] {
        let touched = Command::new("touch").args(["-d", "20 days ago"]).arg(backups.join(name)).status();
        assert!(touched.is_ok_and(|status| status.success()));
    }
    assert_eq!(service.metric("footfall_last_backup_timestamp_seconds"), 0.0);
    let start = unit.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let program = format!("\"{}\"", env!("CARGO_BIN_EXE_footfall"));
    for line in start {
        let line = line
            .replace("%%", "%")
            .replace("/var/lib/footfall", &data.display().to_string())
            .replace("/etc/footfall/footfall.toml", "footfall.toml")
            .replace("/usr/bin/footfall", &program);
        let (code, said) = service.shell(&line);
        assert_eq!(code, 0, "{line}: {said}");
    }
    let mut left =
        std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    left.retain(|path| !path.ends_with("mine") && !path.ends_with("2026-11-24T031522Z"));
    let [made] = &left[..] else { panic!("{left:?}") };
    let manifest = std::fs::read_to_string(made.join("MANIFEST")).unwrap();
    assert!(manifest.contains("\nsite lamdong views 3 visits 3\n"), "{manifest}");
    assert!(service.metric("footfall_last_backup_timestamp_seconds") > 0.0);
    assert!(config("systemd/footfall-backup.timer").contains("\n[Install]\nWantedBy=timers.target"));
}

/// Files of the project that a pattern of the package names.
fn matching(pattern: &str) -> Vec<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(pattern);
    match path.file_name().is_some_and(|name| name == "*") {
        true => crate::support::service::files(path.parent().unwrap()),
        false => [path].into_iter().filter(|path| path.is_file()).collect(),
    }
}

#[test]
fn the_debian_package_has_what_it_names_and_the_unit_finds_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let mut installed = Vec::new();
    for asset in package["assets"].as_array().unwrap() {
        let [from, to, mode] = [0, 1, 2].map(|place| asset[place].as_str().unwrap());
        let name = if to.ends_with('/') { from.rsplit('/').next().unwrap() } else { "" };
        installed.push(format!("/{to}{name}"));
        assert_eq!(mode == "755", from == "target/release/footfall", "{from}");
        assert!(from.starts_with("target/") || !matching(from).is_empty(), "{from} is not there");
    }
    let unit = config("systemd/footfall.service");
    let said = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let start = said("ExecStart=");
    for path in start.split(' ').filter(|word| word.starts_with('/')) {
        assert!(installed.iter().any(|installed| installed == path), "{path} of the unit is not installed");
    }
    assert_eq!(package["conf-files"][0].as_str(), Some("/etc/footfall/footfall.toml"));
    assert!(installed.contains(&"/usr/lib/systemd/system/footfall.service".to_owned()));

    // As it is brought, and with its example taken.
    let settings = folder.join("config/debian/footfall.toml");
    check(Some(&settings), &BTreeMap::new());
    let text = config("debian/footfall.toml");
    let (head, example) = text.split_once("# [[site]]").unwrap();
    let taken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(taken.path(), format!("{head}[[site]]{}", example.replace("\n# ", "\n"))).unwrap();
    check(Some(taken.path()), &BTreeMap::new());
}
