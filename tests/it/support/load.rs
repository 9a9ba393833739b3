//! Load: clients that send views, and keep account of each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::harness::{Beacon, SITE, view};
use crate::support::http::Connection;
use crate::support::service::Service;
use crate::support::wait::{pause, until};

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
    pub reader: u32,
    pub fate: Fate,
    pub at: Instant,
}

/// Views to send. Each has a page of its own, so that a lost one cannot hide behind one that counted twice.
#[derive(Clone, Copy)]
pub struct Load {
    /// What the pages' names begin with.
    pub pages: &'static str,
    /// All views are of this one page instead, and each has an id.
    pub hot_page: Option<&'static str>,
    pub clients: u32,
    pub readers: u32,
    /// Each view has an id, and is sent until it is accepted: then it counts once, whatever happens.
    pub resends: bool,
    /// What a client rests after each view: faults are what is tested, not speed.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        let rest = Duration::from_millis(2);
        Load { pages: "/tin", hot_page: None, clients: 4, readers: 100, resends: false, rest }
    }
}

/// How many views are on their way or were, and how many were answered 204.
#[derive(Default)]
pub struct Tally {
    sent: AtomicU64,
    accepted: AtomicU64,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Load {
    /// Begins to send to a service, which may be down at times.
    pub fn begin(self, service: &Service) -> Running {
        let (tally, stop, address) =
            (Arc::<Tally>::default(), Arc::<AtomicBool>::default(), service.public());
        let clients = (0..self.clients).map(|client| {
            let (tally, stop) = (tally.clone(), stop.clone());
            std::thread::spawn(move || self.send(client, address, &tally, &stop))
        });
        Running { clients: clients.collect(), tally, stop }
    }

    /// Sends at least so many views.
    #[track_caller]
    pub fn run(self, service: &Service, accepted: u64) -> Account {
        let running = self.begin(service);
        running.until_accepted(accepted);
        running.end()
    }

    fn send(self, client: u32, address: SocketAddr, tally: &Tally, stop: &AtomicBool) -> Vec<Sent> {
        let (mut sent, mut open) = (Vec::new(), None);
        while !stop.load(Ordering::Acquire) {
            let Some(mut connection) = open.take().or_else(|| Connection::open(address).ok()) else {
                pause(Duration::from_millis(2));
                continue;
            };
            let (page, reader, beacon) = self.next(client, sent.len() as u32);
            tally.sent.fetch_add(1, Ordering::AcqRel);
            let at = Instant::now();
            let mut answer = connection.ask(beacon.bytes());
            let deadline = Instant::now() + Duration::from_secs(120);
            while self.resends && !answer.as_ref().is_ok_and(|answer| answer.status == 204) {
                assert!(Instant::now() < deadline, "{page} is never accepted: {answer:?}");
                pause(Duration::from_millis(2));
                answer = Connection::open(address).and_then(|fresh| {
                    connection = fresh;
                    connection.ask(beacon.bytes())
                });
            }
            let fate = match &answer {
                Ok(answer) if answer.status == 204 => Fate::Accepted,
                Ok(_) => Fate::Refused,
                Err(_) => Fate::Unknown,
            };
            tally.accepted.fetch_add(u64::from(fate == Fate::Accepted), Ordering::AcqRel);
            open = answer.is_ok_and(|answer| !answer.is_last()).then_some(connection);
            sent.push(Sent { page, reader, fate, at });
            pause(self.rest);
        }
        sent
    }

    /// A client's next view.
    fn next(&self, client: u32, number: u32) -> (String, u32, Beacon) {
        let name = format!("{client}-{number}");
        let page = self.hot_page.map_or_else(|| format!("{}/{name}", self.pages), str::to_owned);
        let reader = (number + client) % self.readers;
        let beacon = view(&page).by(reader);
        let named = self.resends || self.hot_page.is_some();
        (page, reader, if named { beacon.id(&name) } else { beacon })
    }
}

/// A load that goes on.
pub struct Running {
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

impl Running {
    /// Waits until so many further views are accepted.
    #[track_caller]
    pub fn until_accepted(&self, more: u64) {
        let goal = self.tally.accepted() + more;
        until("further views are accepted", || self.tally.accepted() >= goal);
    }

    /// Ends it. (One that sends until views are accepted ends only where they can be.)
    pub fn end(self) -> Account {
        self.stop.store(true, Ordering::Release);
        Account(self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect())
    }
}

/// Every view that was sent.
pub struct Account(pub Vec<Sent>);

impl Account {
    /// Views of a fate.
    pub fn number(&self, fate: Fate) -> u64 {
        self.of(fate).count() as u64
    }

    fn of(&self, fate: Fate) -> impl Iterator<Item = &Sent> {
        self.0.iter().filter(move |sent| sent.fate == fate)
    }

    /// Sends each view of the last minutes once more, with the id that it had: it is known and counts no more.
    #[track_caller]
    pub fn send_again(&self, service: &Service) {
        let mut connection = Connection::open(service.public()).unwrap();
        let mut times = 0;
        // An id is remembered for ten minutes.
        for sent in self.0.iter().filter(|sent| sent.at.elapsed() < Duration::from_secs(300)) {
            let (_, id) = sent.page.rsplit_once('/').unwrap();
            let answer = connection.ask(view(&sent.page).by(sent.reader).id(id).bytes()).unwrap();
            assert_eq!(answer.status, 204, "{sent:?}: {answer:?}");
            times += 1;
        }
        println!("sent again {times}");
        assert!(times >= 500, "with {times} views nothing is tested");
    }

    /// Nothing is promised of these views any more.
    pub fn doubted(mut self) -> Account {
        self.0.iter_mut().for_each(|sent| sent.fate = Fate::Unknown);
        self
    }

    /// Two accounts as one.
    pub fn and(mut self, other: Account) -> Account {
        self.0.extend(other.0);
        self
    }

    /// How often each view is counted that has a page of its own: what was accepted once, what is not known at
    /// most once, what was refused not at all. The number of all that are counted.
    #[track_caller]
    pub fn check_pages(&self, service: &Service) -> u64 {
        let pages: Vec<String> = self.0.iter().map(|sent| sent.page.clone()).collect();
        let counted = service.pages(SITE, &pages);
        for (sent, views) in self.0.iter().zip(&counted) {
            let right = match sent.fate {
                Fate::Accepted => *views == 1,
                Fate::Unknown => *views <= 1,
                Fate::Refused => *views == 0,
            };
            assert!(right, "{sent:?} is counted {views} times");
        }
        counted.iter().sum()
    }

    /// Compares with what a service shows that was sent nothing else: each view, the site, the visits.
    #[track_caller]
    pub fn check(&self, service: &Service) {
        let [accepted, unknown, refused] =
            [Fate::Accepted, Fate::Unknown, Fate::Refused].map(|fate| self.number(fate));
        let counted = self.check_pages(service);
        println!("accepted {accepted}, unknown {unknown}, refused {refused}, counted {counted}");
        assert!(accepted >= 1000, "with {accepted} views nothing is tested");
        let shown = service.counters(SITE);
        assert_eq!(shown["views"]["all"], counted, "pages and site agree");
        let readers: BTreeSet<u32> = self.of(Fate::Accepted).map(|sent| sent.reader).collect();
        let others: BTreeSet<u32> = self.of(Fate::Unknown).map(|sent| sent.reader).collect();
        let visits = shown["visits"]["all"].as_u64().unwrap();
        let most = readers.union(&others).count() as u64;
        assert!((readers.len() as u64..=most).contains(&visits), "{visits} visits of {most} readers");
    }
}

/// Keeps a service busy with views of so many pages with long names, from four clients, until they are refused
/// because the journal is full, or until so many are taken. How many were taken.
pub fn fill(service: &Service, name: &str, pages: u64, most: u64) -> u64 {
    let (public, long) = (service.public(), "x".repeat(480));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let name = format!("/{name}/{client}");
            let long = long.clone();
            std::thread::spawn(move || {
                let mut connection = Connection::open(public).unwrap();
                let mut taken = 0;
                while taken < most / 4 {
                    let page = format!("{name}/{}/{long}", taken % (pages / 4));
                    let answer = connection.ask(view(&page).bytes()).unwrap();
                    match answer.outcome() {
                        (204, _) => taken += 1,
                        outcome => {
                            assert_eq!(outcome, (503, "journal-full".to_owned()));
                            assert!(answer.header("retry-after").is_some());
                            break;
                        }
                    }
                }
                taken
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).sum()
}

/// More views than any journal here takes.
pub const ENDLESS: u64 = 400_000;
