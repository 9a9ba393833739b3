//! Asks an HTTP/1.1 server that closes the connection after its answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use url::{Position, Url};

/// How long a server of the web may take for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of a page, bytes.
const MAX_PAGE: u64 = 8 << 20;

/// What a server answered.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(said, _)| said.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Sends a request and reads an answer of at most `most` bytes: status and body, if it is a whole one.
pub fn ask(stream: impl Read + Write, request: &str, most: u64) -> io::Result<(u16, String)> {
    answer(stream, request, most).map(|answer| (answer.status, answer.body))
}

fn answer(mut stream: impl Read + Write, request: &str, most: u64) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    match stream.take(most).read_to_end(&mut bytes) {
        // A server may end TLS without saying so.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof || bytes.is_empty() => return Err(error),
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let mut answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = without_chunks(&bytes[bytes.len().min(head.len() + 4)..]);
    }
    Ok(answer)
}

fn without_chunks(mut bytes: &[u8]) -> String {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let (line, rest) = bytes.split_at(end);
        let length = String::from_utf8_lossy(line);
        let length = length.split(';').next().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let Some(chunk) =
            length.filter(|length| *length > 0).and_then(|length| rest.get(2..length.checked_add(2)?))
        else {
            break;
        };
        whole.extend_from_slice(chunk);
        bytes = rest.get(chunk.len() + 4..).unwrap_or_default();
    }
    String::from_utf8_lossy(&whole).into_owned()
}

/// Asks a server of the web, by TLS where the URL says so. `more` are further lines of the head.
pub fn fetch(url: &Url, method: &str, more: &str, body: &str) -> io::Result<Answer> {
    let host = url.host_str().ok_or_else(|| io::Error::other("the URL has no host"))?;
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    let path = &url[Position::BeforePath..Position::AfterQuery];
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in url.socket_addrs(|| None)? {
        stream = stream.or_else(|_: io::Error| TcpStream::connect_timeout(&address, PATIENCE));
    }
    let stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if url.scheme() != "https" {
        return answer(stream, &request, MAX_PAGE);
    }
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // As browsers do: many networks have an authority of their own, which their machines trust.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = host.trim_matches(['[', ']']).to_owned().try_into().map_err(io::Error::other)?;
    let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    answer(StreamOwned::new(tls, stream), &request, MAX_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(without_chunks("3\r\nabc\r\n4;x=y\r\nđ12\r\n0\r\n\r\n".as_bytes()), "abcđ12");
        for broken in ["", "x", "5\r\nabc", "ffffffffffffffff\r\nabc\r\n", "\r\n"] {
            assert_eq!(without_chunks(broken.as_bytes()), "", "{broken:?}");
        }
    }
}
