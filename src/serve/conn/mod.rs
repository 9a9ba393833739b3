//! Connections: accepted, bounded, timed, and drained.

pub mod body;
pub mod drain;
pub mod head_timer;
pub mod takeover;

use std::collections::VecDeque;
use std::error::Error;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_io_timeout::TimeoutStream;

use self::{
    drain::Drain,
    head_timer::HeadTimer,
    takeover::{EventStream, Socket, Takeover},
};
use super::addresses::Held;
use super::answer::Response;
use crate::clock::{Clock, OnceAMinute};
use crate::ingest::Reason;
use crate::metrics::{Bound, Metrics};

/// Connections that the kernel keeps while the event loop is busy.
const BACKLOG: i32 = 1024;

/// Bytes of a connection's buffer: a request's head, and what is read of its body at once.
const BUFFER: usize = 16 * 1024;

/// Bytes of answers that the kernel keeps for a peer that has not taken them yet, and of requests that wait while one is
/// answered. It takes twice as much memory for each. Without it who reads nothing would make the kernel hold far more.
const KERNEL_BUFFER: usize = 16 * 1024;

/// How long to wait for descriptors to come free, instead of spinning.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound address that nobody is served at yet.
pub struct Listener {
    socket: std::net::TcpListener,
    /// Whether somebody else, a service manager, holds it too and will have it served by the next process.
    outlives: bool,
}

/// Binds an address; a peer that takes nothing of an answer is cut off after `write_timeout`. Needs no
/// runtime, so that another thread's runtime can serve the listener.
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
    limit(&socket, write_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener { socket: socket.into(), outlives: false })
}

/// Limits what the kernel holds for a peer that takes nothing, and for how long. It is done before the
/// socket listens: connections inherit both when the kernel accepts them.
fn limit(listener: &socket2::Socket, write_timeout: Duration) -> io::Result<()> {
    listener.set_send_buffer_size(KERNEL_BUFFER)?;
    listener.set_recv_buffer_size(KERNEL_BUFFER)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_user_timeout(Some(write_timeout))?;
    Ok(())
}

impl Listener {
    /// Takes a listener that a service manager bound, and makes it as [`bind`] makes one.
    ///
    /// # Errors
    /// The system refuses to make it so.
    pub fn inherited(listener: std::net::TcpListener, write_timeout: Duration) -> io::Result<Listener> {
        limit(&socket2::SockRef::from(&listener), write_timeout)?;
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

/// Which connections are let in.
pub enum Admission {
    /// So many, and of each address as it is let: a further one is closed at once.
    Bounded(usize, Box<dyn Fn(IpAddr) -> Option<Held> + Send + Sync>),
    /// So many: a further one takes the place of that which has been open longest, so that idle ones keep nobody out.
    Newest(usize),
}

pub struct Acceptor {
    pub admission: Admission,
    pub header_timeout: Duration,
    /// Longest time in which a peer may take nothing of an answer.
    pub write_timeout: Duration,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// What a connection goes on with, or what broke it: an error of hyper, or an I/O error of a stream of events.
type Ended = Result<Option<(EventStream, Socket, Option<Held>)>, Box<dyn Error + Send + Sync>>;

impl Acceptor {
    /// Accepts connections until `stop` and has their requests answered; then drains them for at most `drain`
    /// and drops the rest.
    pub async fn serve<A>(
        &self,
        listener: Listener,
        answer: impl Fn(IpAddr, Request<Incoming>) -> A + Clone + Send + 'static,
        stop: impl Future<Output = ()>,
        drain: Duration,
    ) -> io::Result<()>
    where
        A: Future<Output = Response> + Send + 'static,
    {
        let Listener { socket, outlives } = listener;
        let listener = TcpListener::from_std(socket)?;
        let mut connections = Connections::new(self, answer, drain);
        let failing = OnceAMinute::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                () = connections.changed() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if connections.open(stream, peer.ip()) {
                        // However many come at once, each is looked at before it has to make room in its turn.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.pause_after(&error, &failing).await,
            }
        }
        // Connections that wait at a listener that outlives this process are served by the next one.
        if !outlives {
            connections.open_waiting(listener.into_std()?);
        }
        connections.drain(drain).await;
        Ok(())
    }

    fn http(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        // Answers are small: copied into one piece they leave by a cheaper call.
        http.header_read_timeout(self.header_timeout).max_buf_size(BUFFER).writev(false);
        // A peer that closes its side after a request is answered all the same. And nothing is read while an
        // answer is on its way.
        http.half_close(true);
        http
    }

    /// Has answers leave at once, and limits for how long the peer may take nothing of them.
    fn prepare(&self, stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        Ok(Box::pin(stream))
    }

    async fn pause_after(&self, error: &io::Error, failing: &OnceAMinute) {
        self.metrics.accept_errors.inc();
        if failing.due(self.clock.now()) {
            tracing::warn!(%error, "connections cannot be accepted; is the limit on open files too low?");
        }
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }

    fn ended(&self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let of_hyper = error.downcast_ref::<hyper::Error>();
                let kind = kind(&*error, of_hyper);
                if kind == "timeout" && of_hyper.is_none() {
                    self.metrics.live_dropped.inc();
                }
                self.metrics.connection_errors.with_label_values(&[kind]).inc();
            }
            Err(made_room) if made_room.is_cancelled() => {}
            Err(panic) => tracing::error!(%panic, "a connection ended by a fault of ours"),
        }
    }
}

struct Connections<'a, F> {
    acceptor: &'a Acceptor,
    http: http1::Builder,
    answer: F,
    /// Connections that hyper serves, and streams of events.
    open: JoinSet<Ended>,
    /// Those that may have to make room, in the order of their opening.
    in_order: VecDeque<AbortHandle>,
    drain: Arc<Drain>,
}

impl<'a, F, A> Connections<'a, F>
where
    F: Fn(IpAddr, Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    fn new(acceptor: &'a Acceptor, answer: F, drain: Duration) -> Self {
        let (open, drain) = (JoinSet::new(), Arc::new(Drain::within(drain, acceptor.clock.clone())));
        Connections { acceptor, http: acceptor.http(), answer, open, in_order: VecDeque::new(), drain }
    }

    /// Serves a connection, if there may be one more. Whether another had to make room for it.
    fn open(&mut self, stream: TcpStream, peer: IpAddr) -> bool {
        let metrics = &self.acceptor.metrics;
        let (held, is_full) = match &self.acceptor.admission {
            Admission::Bounded(most, _) if self.open.len() >= *most => {
                metrics.bound(Bound::Connections);
                return false;
            }
            Admission::Bounded(_, admit) => match admit(peer) {
                None => {
                    metrics.bound(Bound::AddressConnections);
                    return false;
                }
                held => (held, false),
            },
            Admission::Newest(most) => (None, self.open.len() >= *most),
        };
        if is_full {
            metrics.bound(Bound::AdminConnections);
            if let Some(oldest) = self.in_order.pop_front() {
                oldest.abort();
            }
        }
        if let Ok(socket) = self.acceptor.prepare(stream) {
            self.acceptor.clock.set_wall();
            if self.acceptor.clock.is_beyond() {
                self.open
                    .spawn(async { Ok(takeover::refuse(socket, Reason::ClockWrong).await.map(|()| None)?) });
                return is_full;
            }
            let takeover = Arc::new(Takeover::new(self.drain.clone()));
            let (answer, passes) = (self.answer.clone(), takeover.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (passes, version) = (passes.clone(), request.version());
                let answer = answer(peer, request);
                async move { passes.pass(answer.await, version) }
            });
            let mut http = self.http.clone();
            http.timer(HeadTimer::new(self.acceptor.header_timeout));
            let connection = http.serve_connection(TokioIo::new(socket), service);
            let opened = self.open.spawn(async move {
                let goes_on = takeover.run(connection).await?;
                Ok(goes_on.map(|(stream, socket)| (stream, socket, held)))
            });
            if matches!(self.acceptor.admission, Admission::Newest(_)) {
                self.in_order.retain(|earlier| !earlier.is_finished());
                self.in_order.push_back(opened);
            }
            self.count();
        }
        is_full
    }

    /// Serves connections that the kernel has accepted already: closing the listener would reset them.
    fn open_waiting(&mut self, listener: std::net::TcpListener) {
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { break };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.open(stream, peer.ip());
            }
        }
    }

    /// Waits until a connection ends or goes on as a stream of events.
    async fn changed(&mut self) {
        match self.open.join_next().await {
            Some(Ok(Ok(Some((stream, socket, held))))) => {
                self.open.spawn(async move {
                    let _held = held;
                    Ok(stream.send(socket).await.map(|()| None)?)
                });
            }
            Some(ended) => self.acceptor.ended(ended),
            None => pending().await,
        }
        self.count();
    }

    /// Waits until all connections have ended, for so long; drops the rest.
    async fn drain(mut self, within: Duration) {
        self.drain.begin();
        let all = async {
            while !self.open.is_empty() {
                self.changed().await;
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!(connections = self.open.len(), "connections are cut off: they outlast the drain");
        }
        self.open.shutdown().await;
        self.count();
    }

    fn count(&self) {
        match self.acceptor.admission {
            Admission::Bounded(..) => self.acceptor.metrics.connections.set(self.open.len() as i64),
            Admission::Newest(_) => self.acceptor.metrics.used(Bound::AdminConnections, self.open.len()),
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

/// What broke a connection, as a label.
fn kind(error: &(dyn Error + 'static), of_hyper: Option<&hyper::Error>) -> &'static str {
    let is_timeout = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
    };
    let timed_out = std::iter::successors(Some(error), |&cause| cause.source()).any(is_timeout);
    match of_hyper {
        _ if timed_out => "timeout",
        Some(error) if error.is_timeout() => "timeout",
        Some(error) if error.is_parse() => "parse",
        _ => "io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_little_for_a_peer_that_takes_nothing() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), Duration::from_secs(1)).unwrap();
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.socket.accept().unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        // As the system counts them: with what it needs for its own use.
        let kept = [accepted.send_buffer_size().unwrap(), accepted.recv_buffer_size().unwrap()];
        assert!(kept.iter().all(|kept| *kept <= 2 * KERNEL_BUFFER), "{kept:?}");
    }
}
