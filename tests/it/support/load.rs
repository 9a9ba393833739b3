//! Load: clients that send views as fast as they are answered, and keep account of each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::harness::Beacon;
use crate::support::http::Connection;

/// What became of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 204 was read.
    Accepted,
    /// It was sent, and no answer came.
    Unknown,
    /// It was answered otherwise.
    Refused,
}

/// A view that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub page: String,
    pub visitor: u32,
    pub fate: Fate,
}

/// What a client sends: its page, its visitor, the beacon.
pub type Next = fn(client: u32, number: u32) -> (String, u32, Beacon);

/// See the module.
pub struct Load {
    target: Arc<Mutex<Option<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

impl Load {
    /// Begins with a number of clients; they wait until there is somewhere to go.
    pub fn begin(clients: u32, next: Next) -> Self {
        let (target, stop) = (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::<AtomicBool>::default());
        let clients = (0..clients).map(|client| {
            let (target, stop) = (target.clone(), stop.clone());
            std::thread::spawn(move || send_all(client, next, &target, &stop))
        });
        Load { clients: clients.collect(), target, stop }
    }

    /// Tells the clients where to go, or to wait.
    pub fn aim(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap() = target;
    }

    /// Ends it.
    pub fn end(self) -> Account {
        self.stop.store(true, Ordering::Release);
        Account(self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect())
    }
}

fn send_all(client: u32, next: Next, target: &Mutex<Option<SocketAddr>>, stop: &AtomicBool) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut connection: Option<(SocketAddr, Connection)> = None;
    while !stop.load(Ordering::Acquire) {
        let aim = *target.lock().unwrap();
        let open = connection.take().filter(|(address, _)| Some(*address) == aim);
        let open = open.or_else(|| Some((aim?, Connection::open(aim?).ok()?)));
        let Some((address, mut open)) = open else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let (page, visitor, beacon) = next(client, sent.len() as u32);
        let answer = open.ask(beacon.bytes());
        let fate = match &answer {
            Ok(answer) if answer.status == 204 => Fate::Accepted,
            Ok(_) => Fate::Refused,
            Err(_) => Fate::Unknown,
        };
        if answer.is_ok_and(|answer| !answer.is_last()) {
            connection = Some((address, open));
        }
        sent.push(Sent { page, visitor, fate });
    }
    sent
}

/// Every view that was sent.
pub struct Account(pub Vec<Sent>);

impl Account {
    /// Views of a fate.
    pub fn number(&self, fate: Fate) -> u64 {
        self.0.iter().filter(|sent| sent.fate == fate).count() as u64
    }

    /// The visitors of views of a fate.
    pub fn visitors(&self, fate: Fate) -> BTreeSet<u32> {
        self.0.iter().filter(|sent| sent.fate == fate).map(|sent| sent.visitor).collect()
    }

    /// What was accepted is counted; what is not known may be.
    #[track_caller]
    pub fn check(&self, counted: u64) {
        let (accepted, unknown) = (self.number(Fate::Accepted), self.number(Fate::Unknown));
        println!(
            "accepted {accepted}, unknown {unknown}, refused {}, counted {counted}",
            self.number(Fate::Refused)
        );
        assert!(accepted >= 1000, "with {accepted} views nothing is tested");
        assert!(accepted <= counted, "{} accepted views are lost", accepted - counted);
        assert!(counted <= accepted + unknown, "{} views are counted twice", counted - accepted - unknown);
    }
}
