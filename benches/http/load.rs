//! The client: keep-alive connections on one thread, light enough to saturate a server on one core.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Fault;
use crate::requests::{Requests, mix};

/// Connections of a load, where more are not the question.
pub const CONNECTIONS: usize = 64;

/// What a load does.
pub struct Plan {
    /// The server.
    pub to: SocketAddr,
    /// The requests.
    pub requests: Requests,
    /// The number of the first request.
    pub first: u64,
    /// How many there are; none: until it is stopped.
    pub count: Option<u64>,
    /// The connections that send them.
    pub connections: usize,
    /// The status that every answer must have.
    pub expect: u16,
}

/// What was answered.
#[derive(Default)]
pub struct Tally {
    /// Time to each answer as expected, microseconds: from when the request was due, or sent if it
    /// was due whenever a connection is free.
    pub latencies: Vec<u32>,
    /// Answers of another status.
    pub unexpected: BTreeMap<u16, u64>,
    fault: Option<String>,
}

/// A load that runs until it is stopped or dropped.
pub struct Load {
    shared: Rc<Shared>,
    connections: JoinSet<()>,
    awake: JoinSet<()>,
}

struct Shared {
    plan: Plan,
    next: Cell<u64>,
    stopped: Cell<bool>,
    tally: RefCell<Tally>,
    /// When the requests that wait for a connection were due; a permit each. None: no schedule.
    due: Option<(RefCell<VecDeque<Instant>>, Semaphore)>,
}

impl Load {
    /// Each connection sends its next request when the last one is answered.
    ///
    /// The client stays awake: to wake another core costs a server more than some of what is measured, and
    /// the slower server, whose client sleeps more often, would have more of it.
    pub async fn closed_loop(plan: Plan) -> Result<Load, Fault> {
        let mut load = Load::start(plan, None).await?;
        load.awake.spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        Ok(load)
    }

    /// Requests come due at random (exponential gaps, `rate` a second in the mean), whatever the server
    /// does. They are handed to the connections in turn and wait if none is free.
    pub async fn scheduled(plan: Plan, rate: f64) -> Result<Load, Fault> {
        let first = plan.first;
        let mut load = Load::start(plan, Some((RefCell::default(), Semaphore::new(0)))).await?;
        let (sender, mut arrivals) = unbounded_channel();
        // The runtime's timer ticks in milliseconds; a thread that sleeps keeps the single due times.
        std::thread::spawn(move || keep_schedule(&sender, first, rate));
        let shared = load.shared.clone();
        load.connections.spawn_local(async move {
            while let (Some(at), false, Some((queue, permits))) =
                (arrivals.recv().await, shared.stopped.get(), &shared.due)
            {
                if shared.is_over(shared.next.get()) {
                    permits.close();
                    break;
                }
                queue.borrow_mut().push_back(at);
                permits.add_permits(1);
            }
        });
        Ok(load)
    }

    async fn start(plan: Plan, due: Option<(RefCell<VecDeque<Instant>>, Semaphore)>) -> Result<Load, Fault> {
        let mut streams = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            let stream = TcpStream::connect(plan.to).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let shared = Rc::new(Shared {
            next: Cell::new(plan.first),
            plan,
            stopped: Cell::new(false),
            tally: RefCell::default(),
            due,
        });
        let mut connections = JoinSet::new();
        for stream in streams {
            let shared = shared.clone();
            connections.spawn_local(async move {
                if let Err(fault) = shared.drive(stream).await {
                    shared.tally.borrow_mut().fault.get_or_insert(fault.to_string());
                }
            });
        }
        Ok(Load { shared, connections, awake: JoinSet::new() })
    }

    /// Takes what was answered since the last call.
    pub fn take(&self) -> Result<Tally, Fault> {
        let mut tally = self.shared.tally.borrow_mut();
        if let Some(fault) = tally.fault.take() {
            return Err(format!("{} broke off: {fault}", self.shared.plan.to).into());
        }
        let room = tally.latencies.capacity();
        Ok(std::mem::replace(&mut tally, Tally { latencies: Vec::with_capacity(room), ..Tally::default() }))
    }

    /// Waits until a counted load is done.
    pub async fn done(&mut self) -> Result<Tally, Fault> {
        while self.connections.join_next().await.is_some() {}
        self.take()
    }

    /// Ends the load; what is on its way is given up.
    pub async fn stop(mut self) {
        self.shared.stopped.set(true);
        self.awake.abort_all();
        self.connections.shutdown().await;
    }
}

impl Shared {
    /// One connection's life.
    async fn drive(&self, mut stream: TcpStream) -> Result<(), Fault> {
        let mut request = Vec::with_capacity(2048);
        let mut answer = Vec::with_capacity(8192);
        while let Some((number, due)) = self.next().await? {
            request.clear();
            (self.plan.requests)(number, &mut request);
            let due = due.unwrap_or_else(Instant::now);
            stream.write_all(&request).await?;
            let status = read_answer(&mut stream, &mut answer).await?;
            let mut tally = self.tally.borrow_mut();
            if status == self.plan.expect {
                tally.latencies.push(u32::try_from(due.elapsed().as_micros())?);
            } else {
                *tally.unexpected.entry(status).or_default() += 1;
            }
        }
        Ok(())
    }

    /// The next request's number and, on a schedule, when it was due; none at the end.
    async fn next(&self) -> Result<Option<(u64, Option<Instant>)>, Fault> {
        let mut at = None;
        if let Some((queue, permits)) = &self.due {
            // Closed once all requests were sent.
            let Ok(permit) = permits.acquire().await else { return Ok(None) };
            permit.forget();
            at = queue.borrow_mut().pop_front();
        }
        let number = self.next.replace(self.next.get() + 1);
        Ok((!self.is_over(number)).then_some((number, at)))
    }

    /// Whether a request's number is beyond the last one.
    fn is_over(&self, number: u64) -> bool {
        self.plan.count.is_some_and(|count| number - self.plan.first >= count)
    }
}

/// Reads one answer and gives its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<u16, Fault> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let (status, body) = read_head(std::str::from_utf8(&answer[..head])?)?;
        if answer.len() >= head + 4 + body {
            return Ok(status);
        }
    }
}

/// Status and length of the body.
fn read_head(head: &str) -> Result<(u16, usize), Fault> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status")?.parse()?;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("unreadable header")?;
        if name.eq_ignore_ascii_case("content-length") {
            return Ok((status, value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the body has no length".into());
        }
    }
    Ok((status, 0))
}

/// Tells when each request is due until the receiver is gone. The same `first`, the same gaps.
fn keep_schedule(to: &UnboundedSender<Instant>, first: u64, rate: f64) {
    let mut due = Instant::now();
    for k in first.. {
        let even = (mix(k ^ 0x5eed) >> 11) as f64 / (1_u64 << 53) as f64;
        due += Duration::from_secs_f64(-(1.0 - even).ln() / rate);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if to.send(due).is_err() {
            return;
        }
    }
}
