//! What becomes of the service when one of its threads or tasks ends, and whom operators' answers are for.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::totals::tests::Breakable;

fn config(dir: &Path, flush: &str) -> Config {
    let dir = dir.display().to_string();
    let variables = [
        ("FOOTFALL_LISTEN", "127.0.0.1:0"),
        ("FOOTFALL_ADMIN_LISTEN", "127.0.0.1:0"),
        ("FOOTFALL_STOP_TIMEOUT", "1s"),
        ("FOOTFALL_STORE__FLUSH_INTERVAL", flush),
        ("FOOTFALL_DATA_DIR", &dir),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(None, variables.into_iter()).unwrap()
}

/// Runs a service of which a part is broken, and says with what it ends; nobody tells it to stop.
async fn end_of(app: App) -> String {
    let ended = tokio::time::timeout(Duration::from_secs(60), app.run(std::future::pending())).await;
    ended.expect("the service ends by itself").expect_err("it does not end well").to_string()
}

#[tokio::test]
async fn the_end_of_each_thread_and_task_ends_the_service() {
    for (part, flush, what) in [
        (Breakable::Writer, "100ms", "what writes to the store"),
        (Breakable::Sync, "5m", "what syncs the journal"),
        (Breakable::Commit, "5m", "what writes the journal"),
        (Breakable::Tick, "5m", "what happens once a second"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let app = App::build(config(dir.path(), flush), Clock::system()).await.unwrap();
        // The writer's first turn, after which it has nothing to do for a while.
        while !dir.path().join("checkpoint").exists() {
            tokio::task::yield_now().await;
        }
        app.parts.totals.break_part(part);
        let ended = end_of(app).await;
        assert!(ended.starts_with(what), "{part:?}: {ended}");
    }
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "an optimised runtime takes a socket that blocks, too")]
async fn the_end_of_the_admin_thread_ends_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "5m");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let twin = socket.try_clone().unwrap();
    let admin = Listener::inherited(socket, config.serve.write_timeout).unwrap();
    let app = App::build_on(config, Clock::system(), [None, Some(admin)]).await.unwrap();
    // No runtime takes a socket that blocks.
    twin.set_nonblocking(false).unwrap();
    let ended = end_of(app).await;
    assert!(ended.starts_with("what answers operators"), "{ended}");
}

/// Status and head, in lower case, of an answer.
fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = String::from_utf8_lossy(&answer).split("\r\n\r\n").next().unwrap().to_lowercase();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
}

#[tokio::test]
async fn no_web_page_reads_what_operators_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "5m");
    config.serve.admin_hosts = vec!["stats.example".to_owned()];
    let app = App::build(config, Clock::system()).await.unwrap();
    let address = app.admin_addr();
    let asks = tokio::task::spawn_blocking(move || {
        for path in serve::admin_paths().chain(["/nowhere", "/?part=figures"]) {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                for host in ["localhost:8081", "127.0.0.1", "stats.example", "evil.example"] {
                    let (status, head) = ask(address, method, path, host);
                    let asked = format!("{method} {path} of {host}: {head}");
                    assert!(!head.contains("access-control-"), "{asked}");
                    assert!(head.contains("cross-origin-resource-policy: same-origin"), "{asked}");
                    let is_refused =
                        host == "evil.example" && !["/livez", "/readyz", "/metrics"].contains(&path);
                    assert_eq!(status == 421, is_refused, "{asked}");
                }
            }
        }
    });
    let mut failed = None;
    app.run(async { failed = asks.await.err() }).await.unwrap();
    assert!(failed.is_none(), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_order_that_does_not_come_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let app = App::build(config(dir.path(), "5m"), Clock::system()).await.unwrap();
    let (_socket, orders) = app.control.unwrap();
    let parts = app.parts.clone();
    tokio::spawn(async { serve::serve_control(orders, parts).await });
    let mut stream = tokio::net::UnixStream::connect(dir.path().join(serve::CONTROL_SOCKET)).await.unwrap();
    let request =
        "POST /orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{\"order\"";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
