//! G10: what a store says and cannot be is named, and nothing on disk changes by it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::harness::{Setup, TestApp};
use crate::support::servers::{Lie, RedisServer, array, bulk, liar};
use crate::support::wait::until;

/// Who the directory is to the store, without the runs of its processes.
fn identity(app: &TestApp) -> String {
    let text = std::fs::read_to_string(app.data_dir().join("writer")).unwrap();
    let lines =
        text.lines().filter(|line| ["writer ", "floor ", "dataset "].iter().any(|w| line.starts_with(w)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_store_makes_up_costs_no_view() {
    let redis = RedisServer::lasting();
    let lie = Arc::new(Mutex::new(None::<[String; 4]>));
    let told = lie.clone();
    let port = liar(redis.port(), move |words| {
        let lie = told.lock().unwrap().clone()?;
        let attaches = words[0] == "EVAL" && words[1].contains("Registers a writer");
        attaches.then(|| Lie::Says(array(&lie.map(bulk))))
    });
    let mut app = TestApp::start(Setup::default().store(&format!("redis://127.0.0.1:{port}")));
    app.read(5);
    let mut views = 5;
    until("everything is in the store", || redis.views() == views);
    let before = identity(&app);
    let dataset = redis.client().ask(&[b"HGET", b"footfall:{lamdong}:meta", b"dataset"]).text();
    let spoils = format!("{dataset} 0\nfloor 9");
    for (dataset, since, standing, fork) in [
        (&dataset, "2023-09-15", "twin", "18446744073709551615"),
        (&dataset, "2023-09-15", "twin", "4503599627370496"),
        (&dataset, "0001-01-01", "ours", ""),
        (&spoils, "2023-09-15", "born", ""),
        (&dataset, "\x1b[2J", "ours", ""),
    ] {
        app.stop();
        *lie.lock().unwrap() = Some([dataset.as_str(), since, standing, fork].map(str::to_owned));
        app.restart_after(Duration::from_secs(1));
        app.read(4);
        views += 4;
        until("it is held", || app.readiness().1.contains("the store refuses"));
        let told = app.readiness().1;
        assert!(!told.contains('\x1b') && told.len() < 5000, "{told}");
        app.stop();
        assert_eq!(identity(&app), before, "{since} {fork}");
        *lie.lock().unwrap() = None;
        app.restart_after(Duration::from_secs(1));
        until("everything is in the store", || redis.views() == views);
        assert_eq!(app.metric("footfall_identity_changes_total"), 0.0);
    }
}

#[test]
fn what_a_store_holds_moves_no_terminal() {
    let redis = RedisServer::start();
    let mut app = TestApp::start(Setup::default().store(&redis.url()));
    app.read(3);
    app.breaks_the_store();
    until("everything is in the store", || redis.views() == 3);
    let field = "+/\x1b[2J\x07\u{202e}a";
    redis.client().ask(&[
        b"HSET",
        b"footfall:{lamdong}:all:pages",
        field.as_bytes(),
        b"7 1 00000000000000aa",
    ]);
    redis.client().ask(&[b"HSET", b"footfall:{lamdong}:all", b"\x1b[2Jx\x07", b"\x1b]0;y"]);
    for command in ["verify", "export"] {
        let (_, said) = app.order(&[command]);
        assert!(said.contains("\\u{1b}"), "{command}: {said:?}");
        assert!(!said.contains(['\x1b', '\x07', '\u{202e}']), "{command}: {said:?}");
    }
}
