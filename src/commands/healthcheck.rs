//! `healthcheck`: asks the running service's `/readyz`, for containers that have no other client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::http;
use super::outcome::{Failure, Outcome};
use crate::config::Config;

/// How long the whole question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The most of an answer that is read, bytes.
const MAX_ANSWER: u64 = 16 * 1024;

/// One line: whether the service is ready.
pub fn run(config: &Config) -> Outcome {
    let address = reachable(config.serve.admin_listen);
    let (answered, answer) = mpsc::channel();
    // It is not waited for longer than the limit, and ends with the process.
    std::thread::spawn(move || answered.send(ask(address)));
    match answer.recv_timeout(LIMIT).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((200, _)) => Ok(format!("ready: http://{address}/readyz\n")),
        Ok((status, said)) => {
            let said: String = said.split_whitespace().map(|word| format!(" {word}")).collect();
            Err(Failure::No(format!("not ready: http://{address}/readyz answers {status}{said}\n")))
        }
        Err(fault) => Err(Failure::No(format!("not ready: http://{address}/readyz: {fault}\n"))),
    }
}

/// The address of a listener for its own machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Status and body of the answer.
fn ask(address: SocketAddr) -> io::Result<(u16, String)> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    http::ask(TcpStream::connect(address)?, &request, MAX_ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("10.0.0.7:8081", "10.0.0.7:8081"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
