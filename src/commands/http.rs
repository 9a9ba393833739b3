//! Asks an HTTP/1.1 server that closes the connection after its answer.

use std::io::{self, Read, Write};

/// Sends a request and reads an answer of at most `most` bytes: status and body, if it is a whole one.
pub fn ask(mut stream: impl Read + Write, request: &str, most: u64) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(most).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
