//! How commands reach a service that runs, and what they do where none runs.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::support::harness::{SITE, Setup};
use crate::support::servers::RedisServer;
use crate::support::service::Service;
use crate::support::wait::until;

#[test]
fn the_control_socket_is_the_owners_and_outlives_no_service() {
    let mut service = Service::start(Setup::default());
    let socket = service.data_dir().join("control.sock");
    for round in 0..3 {
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&socket).is_ok(), "someone answers in round {round}");
        assert!(!service.data_dir().join("control.new").exists());
        // What a killed one leaves behind is replaced.
        service.kill9();
        assert!(socket.exists());
        service.begin();
    }
    service.terminate();
    assert!(!socket.exists());
}

#[test]
fn an_order_reaches_the_service_that_runs_however_long_its_path_is() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("a-directory-with-a-long-name".repeat(4)).join("data");
    let data_dir = long.display().to_string();
    assert!(data_dir.len() > 108);
    let service = Service::start(Setup::default().set("data_dir", &data_dir));
    let (code, said) = service.order(&["drain"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("stop it first"), "the service itself answers: {said}");
    assert!(service.log().contains("an operator orders"), "{}", service.log());
}

#[test]
fn without_a_service_the_command_does_it_itself_and_only_where_it_is_meant() {
    let service = Service::prepare(Setup::default());
    let (code, said) = service.order(&["drain"]);
    assert_eq!(code, 1);
    assert!(said.contains("holds no data of footfall"), "{said}");
    assert!(!service.data_dir().exists(), "a wrong data_dir is not made");
}

#[test]
fn a_service_that_cannot_be_reached_is_named() {
    let service = Service::start(Setup::default());
    std::fs::remove_file(service.data_dir().join("control.sock")).unwrap();
    let (code, said) = service.order(&["drain"]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("process {} uses data_dir", service.pid())), "{said}");
}

#[test]
fn drained_everything_is_in_the_store_and_a_later_start_is_another_writer() {
    let redis = RedisServer::start();
    let setup = Setup::default().store(&redis.url()).set("store.flush_interval", "5m");
    let mut service = Service::start(setup);
    service.read(20);
    service.kill9();
    let before = service.writer();
    let (code, said) = service.order(&["drain"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((redis.sum("all", "views"), redis.sum("all", "visits")), (Some(20), Some(20)));
    assert_ne!(service.writer(), before);
    service.set("store.flush_interval", "100ms");
    service.begin();
    service.read(5);
    until("they are stored, each once", || redis.views() == 25);
    assert_eq!(service.counters(SITE)["visits"]["all"], 20, "who was online still is");
}
