//! `healthcheck`: asks the running service's `/readyz`, for containers that have no other client.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Config;

/// How long the whole question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The most of an answer that is read, bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks, prints one line and exits with 0 if the service is ready, else with 1.
pub fn run(config: &Config, out: &mut impl Write) -> io::Result<ExitCode> {
    let address = reachable(config.serve.admin_listen);
    let (line, code) = match ask(address) {
        Ok((200, _)) => (format!("ready: http://{address}/readyz"), ExitCode::SUCCESS),
        Ok((status, said)) => {
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            (format!("not ready: http://{address}/readyz answers {status} {said}"), ExitCode::FAILURE)
        }
        Err(fault) => (format!("not ready: http://{address}/readyz: {fault}"), ExitCode::FAILURE),
    };
    writeln!(out, "{}", line.trim_end())?;
    Ok(code)
}

/// The address of a listener for its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Status and body of the answer.
fn ask(address: SocketAddr) -> io::Result<(u16, String)> {
    let clock = Clock::system();
    let begun = clock.now().uptime_ms;
    let left = || {
        let spent = Duration::from_millis(clock.now().uptime_ms.saturating_sub(begun));
        LIMIT.checked_sub(spent).filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut)
    };
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_write_timeout(Some(left()?))?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 2048];
    while answer.len() < MAX_ANSWER {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend(piece.iter().take(read)),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(fault) => return Err(fault),
        }
    }
    super::answer::read(&answer)
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
