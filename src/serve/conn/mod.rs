//! Connections: taken, bounded, timed, and let go.

pub mod body;
pub mod drain;
pub mod head_timer;
pub mod takeover;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet};
use tokio_io_timeout::TimeoutStream;

use crate::clock::{Clock, Moment};
use crate::metrics::{Bound, Metrics};
use crate::serve::answer::Response;
use crate::serve::conn::drain::{Course, Drain};
use crate::serve::conn::head_timer::HeadTimer;
use crate::serve::conn::takeover::{Handover, Streaming, Wire};

/// Connections that the kernel keeps for us while the loop is busy.
const BACKLOG: i32 = 1024;

/// Room for a request's head and what is read of its body at once.
const BUFFER: usize = 16 * 1024;

/// What the kernel keeps of answers that a peer has not taken yet: more than the largest answer, and far
/// less than it would come to hold for readers of live counters that are slow.
const SEND_BUFFER: usize = 64 * 1024;

/// A pause that lets descriptors come free instead of spinning.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound address that no one is served at yet.
pub struct Listener {
    socket: std::net::TcpListener,
    /// Whether somebody else holds it too, and will have it served after us.
    outlives: bool,
}

/// Binds an address; a peer that takes nothing of an answer is cut off after `write_timeout`. Needs no
/// runtime: the listener may be served by another thread's.
///
/// # Errors
/// The address is taken, not this machine's, or not permitted.
pub fn bind(address: SocketAddr, write_timeout: Duration) -> io::Result<Listener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::from([0u16; 8]) {
        // `[::]` means every address, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    bound(&socket, write_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener { socket: socket.into(), outlives: false })
}

/// Bounds what the kernel holds for a peer that takes nothing, and for how long. Connections inherit both
/// from the listener; those that the kernel takes before the service runs have them only if they are set
/// before it listens.
fn bound(listener: &socket2::Socket, write_timeout: Duration) -> io::Result<()> {
    listener.set_send_buffer_size(SEND_BUFFER)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_user_timeout(Some(write_timeout))?;
    Ok(())
}

impl Listener {
    /// Takes over a listener that somebody else bound, a service manager mostly, as [`bind`] makes one.
    ///
    /// # Errors
    /// The system refuses to make it so.
    pub fn inherited(listener: std::net::TcpListener, write_timeout: Duration) -> io::Result<Listener> {
        bound(&socket2::SockRef::from(&listener), write_timeout)?;
        listener.set_nonblocking(true)?;
        Ok(Listener { socket: listener, outlives: true })
    }

    /// The address bound, with the port the system chose for port 0.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Lets one message through a minute.
#[derive(Default)]
pub struct OnceAMinute(AtomicU64);

impl OnceAMinute {
    /// Whether the last message is a minute old.
    pub fn due(&self, now: Moment) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now.uptime_ms.saturating_sub(last) >= 60_000;
        due && self.0.compare_exchange(last, now.uptime_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How connections are taken.
pub struct Door {
    /// A further connection is closed at once.
    pub max_connections: usize,
    /// Longest wait for a complete head.
    pub header_timeout: Duration,
    /// Longest time in which a peer takes nothing of an answer.
    pub write_timeout: Duration,
    /// Whether the gauge of open connections is this listener's.
    pub public: bool,
    /// The time.
    pub clock: Clock,
    /// Counts bounds and faults.
    pub metrics: Arc<Metrics>,
}

/// What ended a connection.
enum Broken {
    Http(hyper::Error),
    Stream(io::Error),
}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Broken::Http(error)
    }
}

async fn run(stream: Streaming) -> Result<(), Broken> {
    stream.run().await.map_err(Broken::Stream)
}

impl Door {
    /// Takes connections until `stop`, then drains them for at most `drain` and drops the rest.
    pub async fn serve<S>(
        &self,
        listener: Listener,
        service: impl Fn(IpAddr, Handover) -> S,
        stop: impl Future<Output = ()>,
        drain: Duration,
    ) -> io::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response> + Send + 'static,
        S::Future: Send,
        S::Error: std::error::Error + Send + Sync + 'static,
    {
        let Listener { socket, outlives } = listener;
        let listener = TcpListener::from_std(socket)?;
        let mut room = Room::of(self, service, drain);
        let failing = OnceAMinute::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                () = room.turn() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => room.let_in(stream, peer.ip()),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.rest_after(&error, &failing).await,
            }
        }
        // Who waits at a listener that outlives us is let in by the next process.
        match outlives {
            true => drop(listener),
            false => room.let_in_who_waits(listener.into_std()?),
        }
        room.empty(drain).await;
        Ok(())
    }

    fn http(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        // Answers are small: copied into one piece they leave by a cheaper call.
        http.header_read_timeout(self.header_timeout).max_buf_size(BUFFER).writev(false);
        // Who has sent a request and says that it sends no more is answered all the same. And nothing
        // is read while an answer is on its way.
        http.half_close(true);
        http
    }

    /// Answers leave at once, and not for ever.
    fn prepare(&self, stream: TcpStream) -> io::Result<Pin<Box<TimeoutStream<TcpStream>>>> {
        stream.set_nodelay(true)?;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        Ok(Box::pin(stream))
    }

    async fn rest_after(&self, error: &io::Error, failing: &OnceAMinute) {
        self.metrics.accept_errors.inc();
        if failing.due(self.clock.now()) {
            tracing::warn!(%error, "connections cannot be accepted; is the limit on open files too low?");
        }
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }

    fn ended(&self, ended: Result<Result<(), Broken>, JoinError>) {
        match ended {
            Ok(Ok(())) => {}
            // The service took the connection over.
            Ok(Err(Broken::Http(error))) if error.is_user() => {}
            Ok(Err(error)) => {
                let kind = kind(&error);
                if kind == "timeout" && matches!(error, Broken::Stream(_)) {
                    self.metrics.live_dropped.inc();
                }
                self.metrics.connection_errors.with_label_values(&[kind]).inc();
            }
            Err(panic) => tracing::error!(%panic, "a connection ended by a fault of ours"),
        }
    }
}

/// The connections that are open.
struct Room<'d, F> {
    door: &'d Door,
    http: http1::Builder,
    service: F,
    /// Connections that hyper serves, and those that it has left to events.
    open: JoinSet<Result<(), Broken>>,
    /// How hyper leaves them.
    streams: (UnboundedSender<Streaming>, UnboundedReceiver<Streaming>),
    drain: Arc<Drain>,
}

impl<'d, F, S> Room<'d, F>
where
    F: Fn(IpAddr, Handover) -> S,
    S: Service<Request<Incoming>, Response = Response> + Send + 'static,
    S::Future: Send,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    fn of(door: &'d Door, service: F, drain: Duration) -> Self {
        let (open, drain) = (JoinSet::new(), Arc::new(Drain::within(drain)));
        Room { door, http: door.http(), service, open, streams: unbounded_channel(), drain }
    }

    /// Serves a connection, if there is room for it.
    fn let_in(&mut self, stream: TcpStream, peer: IpAddr) {
        if self.open.len() >= self.door.max_connections {
            self.door.metrics.bound(Bound::Connections);
        } else if let Ok(socket) = self.door.prepare(stream) {
            let handover = Handover::new(Course::new(self.drain.clone()));
            let service = (self.service)(peer, handover.clone());
            let wire = Wire::new(socket, handover.clone(), self.streams.0.clone());
            let mut http = self.http.clone();
            http.timer(HeadTimer::new(self.door.header_timeout));
            self.open.spawn(drain::run(handover, http.serve_connection(wire, service)));
            self.show();
        }
    }

    /// Lets in who would be turned away when the listener closes: the kernel has taken their connections.
    fn let_in_who_waits(&mut self, listener: std::net::TcpListener) {
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { break };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.let_in(stream, peer.ip());
            }
        }
    }

    /// Waits for a connection that ends, or goes on as a stream of events.
    async fn turn(&mut self) {
        tokio::select! {
            biased;
            // First, as it is sent before its connection ends.
            Some(stream) = self.streams.1.recv() => drop(self.open.spawn(run(stream))),
            Some(ended) = self.open.join_next() => self.door.ended(ended),
        }
        self.show();
    }

    /// Waits until all connections have ended, for so long; drops the rest.
    async fn empty(mut self, within: Duration) {
        self.drain.begin();
        let all = async {
            while !self.open.is_empty() {
                self.turn().await;
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!(connections = self.open.len(), "connections are cut off: they outlast the drain");
        }
        self.open.shutdown().await;
        self.show();
    }

    fn show(&self) {
        if self.door.public {
            self.door.metrics.connections.set(self.open.len() as i64);
        }
    }
}

/// Whether an accept failed for the one connection that it would have given.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
    )
}

/// What ended a connection, as a label.
fn kind(error: &Broken) -> &'static str {
    let error = match error {
        Broken::Http(error) => error,
        Broken::Stream(error) if error.kind() == io::ErrorKind::TimedOut => return "timeout",
        Broken::Stream(_) => return "io",
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return "timeout";
        }
        cause = inner.source();
    }
    match error {
        error if error.is_timeout() => "timeout",
        error if error.is_parse() => "parse",
        _ => "io",
    }
}
