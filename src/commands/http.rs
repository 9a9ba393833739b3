//! Reads the answer of an HTTP/1.1 server that closes the connection after it.

use std::io;

/// Status and body, if it is a whole answer.
pub fn read(answer: &[u8]) -> io::Result<(u16, String)> {
    let answer = String::from_utf8_lossy(answer);
    let status = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
