//! Starts the parts in order and stops them in reverse, under one deadline.
//!
//! Threads: the event loop (public listener, group commits, expiry) is the caller's; the admin listener,
//! the writer of totals and the sync of the journal have one each. So neither an operator's request nor a slow
//! disk or store delays a beacon.

mod reload;
mod supervisor;

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::{Bound, Metrics, Part};
use crate::serve::{self, ControlSocket, Kept, Listener, Parts};
use crate::sessions::Sessions;
use crate::sites::{Hours, Registry};
use crate::totals::{self, Answer, OpenError, Order, Sync, Totals};

/// Sessions that expire before other tasks get their turn.
const SWEEP_STEP: usize = 500;

/// About how many files are open beside the public listener's connections: those of operators, of `data_dir` and of
/// the store.
const OTHER_FILES: usize = 200;

/// Why the service did not start, or did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error("cannot listen on {0}: {1}; {hint} ({2})", hint = listen_hint(.1))]
    Listen(SocketAddr, std::io::Error, &'static str),
    /// The data directory or the store.
    #[error("{0}")]
    Totals(#[from] OpenError),
    /// The series.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The runtime, a thread or a signal.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// A thread or a task that runs as long as the process.
    #[error("{0} has ended, and with it the service: a promise would be kept no more")]
    Ended(&'static str),
}

/// What an operator can do about an address that cannot be listened on.
fn listen_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: choose one that it has"
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 are root's: choose a higher one",
        _ => "choose another address",
    }
}

/// A service that is built and bound, and not yet serving.
pub struct App {
    public: (Listener, SocketAddr),
    admin: (Listener, SocketAddr),
    control: Option<(ControlSocket, UnixListener)>,
    config: Config,
    parts: Arc<Parts>,
}

impl App {
    /// Binds the listeners, reads back what is in `data_dir`, and opens the store.
    pub async fn build(config: Config, clock: Clock) -> Result<App, StartError> {
        Self::build_on(config, clock, [None, None]).await
    }

    /// As [`App::build`], on listeners (public, admin) that may be bound already.
    async fn build_on(config: Config, clock: Clock, bound: [Option<Listener>; 2]) -> Result<App, StartError> {
        let bind = |bound: Option<Listener>, addr, key| {
            let is_handed_over = bound.is_some();
            let listener = bound.map_or_else(|| serve::bind(addr, config.serve.write_timeout), Ok);
            let listener = listener.and_then(|listener| listener.local_addr().map(|at| (listener, at)));
            if let Ok((_, at)) = &listener
                && is_handed_over
            {
                tracing::info!("{key} = {addr} is not used: the service manager hands over a socket at {at}");
            }
            listener.map_err(|error| StartError::Listen(addr, error, key))
        };
        let [public, admin] = bound;
        let public = bind(public, config.serve.listen, "listen")?;
        let admin = bind(admin, config.serve.admin_listen, "admin_listen")?;
        Totals::check_owner(&config.totals)?;
        let parts = open(&config, clock).await?;
        parts.totals.will_serve();
        let control = match ControlSocket::bind(&config.totals.data_dir) {
            Ok(bound) => Some(bound),
            Err(error) => {
                tracing::warn!(%error, "no control socket can be made in data_dir: this service takes no orders");
                None
            }
        };
        Ok(App { public, admin, control, config, parts })
    }

    /// The address of the public listener.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.1
    }

    /// The address of the admin listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.1
    }

    /// The URL of the demo, while its site is registered.
    fn demo(&self) -> Option<String> {
        self.parts.sites.load().get(serve::DEMO_SITE)?;
        let public_url = &self.config.public_url;
        let base = if public_url.is_empty() { &format!("http://{}", self.public.1) } else { public_url };
        Some(format!("{base}/demo"))
    }

    /// Serves until `stop`. Then it turns unready, lets open requests end, brings pending views to the store and
    /// writes a checkpoint, all within `stop_timeout`.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let App { public: (public, _), admin: (admin, _), control, config, parts } = self;
        let (control, orders) = control.unzip();
        let patience = config.stop_timeout;
        let (stop_admin, admin_stops) = oneshot::channel();
        let mut operators_live = serve_operators(admin, orders, &config, parts.clone(), admin_stops)?;
        let mut committing = tokio::spawn({
            let totals = parts.totals.clone();
            async move { totals.commit_groups().await }
        });
        let mut ticking = tokio::spawn(tick(parts.clone()));
        // Each of these keeps a promise for as long as the service runs: where one ends, by a panic or by an
        // error, the service does.
        let ended = async {
            tokio::select! {
                _ = &mut committing => "what writes the journal",
                _ = &mut ticking => "what happens once a second",
                _ = operators_live.wait_for(|()| false) => "what answers operators",
                of_totals = parts.totals.ended() => of_totals,
            }
        };

        parts.ready.store(true, Ordering::Release);
        let mut stopped_at = None;
        let told = async {
            stop.await;
            tracing::info!("stopping");
            parts.ready.store(false, Ordering::Release);
            stopped_at = Some(Instant::now());
        };
        let drain = patience.mul_f32(0.4);
        let served = tokio::select! {
            served = serve::serve_public(public, config.serve.clone(), parts.clone(), told, drain) => {
                served.map_err(StartError::System)
            }
            what = ended => Err(StartError::Ended(what)),
        };

        // Views that were taken are written before the committing task ends.
        let left = patience.saturating_sub(stopped_at.map_or(Duration::ZERO, |at| at.elapsed()));
        let flush = left.mul_f32(0.8);
        // The socket is removed while the directory is still locked: the next process makes its own.
        drop(control);
        if tokio::time::timeout(left, parts.totals.stop(flush)).await.is_err() {
            tracing::warn!("the stop took too long; what is not in the store is sent after the next start");
        }
        committing.abort();
        ticking.abort();
        stop_admin.send(()).ok();
        operators_live.wait_for(|()| false).await.ok();
        tracing::info!("stopped");
        served
    }
}

/// Opens the parts that need no listener.
async fn open(config: &Config, clock: Clock) -> Result<Arc<Parts>, StartError> {
    let sites = &config.sites;
    let (serve, totals) = (&config.serve, &config.totals);
    let metrics = Arc::new(Metrics::new(sites, config.sessions.max_sessions)?);
    metrics.limit([
        (Bound::Ids, totals.max_ids as u64),
        (Bound::Pages, totals.max_pages as u64),
        (Bound::Connections, serve.max_connections as u64),
        (Bound::AdminConnections, serve::MAX_ADMIN_CONNECTIONS as u64),
        (Bound::LiveReaders, serve.live.max_readers as u64),
        (Bound::Journal, totals.journal.max_bytes),
        (Bound::Outbox, totals.outbox.max_bytes),
        (Bound::Unsynced, totals.journal.max_unsynced.as_secs()),
    ]);
    metrics.describe(config.totals.store.url.kind())?;
    metrics.reloaded(true, clock.now());
    let sessions = Sessions::new(config.sessions.clone(), sites.room(), metrics.clone(), clock.now());
    let sessions = Arc::new(sessions);
    let (settings, hours) = (config.totals.clone(), Hours::new(sites));
    let sites = Arc::new(Registry::from_pointee(sites.clone()));
    let totals =
        Totals::open(settings, clock.clone(), sites.clone(), sessions.clone(), metrics.clone()).await?;
    let (ready, lists) =
        (Arc::new(AtomicBool::new(false)), ArcSwap::from_pointee(config.serve.lists.clone()));
    let (names, base) = (config.serve.names.clone(), config.base());
    let settings = ArcSwap::from_pointee(config.to_toml());
    let kept = Kept {
        store: config.totals.store.url.kind(),
        has_journal: config.totals.journal.sync != Sync::Memory,
        outbox_s: config.totals.outbox.retention.as_secs(),
        visit_s: config.sessions.visit_timeout.as_secs(),
        page_days: config.totals.page_days,
    };
    let (crowds, proxies, refusals) = Default::default();
    Ok(Arc::new(Parts {
        clock,
        sites,
        names,
        base,
        lists,
        hours,
        sessions,
        totals,
        metrics,
        kept,
        settings,
        crowds,
        proxies,
        refusals,
        ready,
    }))
}

/// Carries out an order without a running service: opens the parts, has the order carried out, and stops.
pub fn obey(config: Config, order: Order) -> Result<Answer, StartError> {
    alone(async {
        let parts = open(&config, Clock::system()).await?;
        let answer = parts.totals.order(order).await;
        parts.totals.stop(config.stop_timeout).await;
        Ok(answer)
    })?
}

/// Runs one piece of work on a runtime of its own.
pub fn alone<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(runtime()?.block_on(work))
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves the admin listener and the control socket on a thread of its own, which holds the other end of what is
/// returned.
fn serve_operators(
    listener: Listener,
    orders: Option<UnixListener>,
    config: &Config,
    parts: Arc<Parts>,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<watch::Receiver<()>> {
    let (life, lives) = watch::channel(());
    let settings = config.serve.clone();
    let runtime = runtime()?;
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let _life = life;
        let stop = async { stop.await.unwrap_or_default() };
        let asked = parts.clone();
        let admin = serve::serve_admin(listener, settings, parts, stop, Duration::from_millis(200));
        let control = async {
            match orders {
                Some(orders) => serve::serve_control(orders, asked).await,
                None => std::future::pending().await,
            }
        };
        let served = runtime.block_on(async {
            tokio::select! {
                served = admin => served,
                ended = control => ended,
            }
        });
        if let Err(error) = served {
            tracing::error!(%error, "operators are answered no more");
        }
    })?;
    Ok(lives)
}

/// Once a second: syncs the journal, forgets old ids, expires sessions in bounded steps.
async fn tick(parts: Arc<Parts>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        parts.clock.set_wall();
        let now = parts.clock.now();
        parts.totals.tick(now);
        parts.crowds.look(&parts.sites.load(), &parts.metrics, &parts.sessions, now);
        parts.metrics.had_turn(Part::EventLoop, now);
        while parts.sessions.sweep(now, SWEEP_STEP) {
            tokio::task::yield_now().await;
        }
    }
}

/// The signals that a service heeds: none of them ends the process from then on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangups: Signal,
}

impl Signals {
    /// Heeds them. One that comes before the service runs is heeded when it does.
    pub fn heed() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangups: signal(SignalKind::hangup())?,
        })
    }
}

/// Serves on the system's clock until SIGTERM or SIGINT. On SIGHUP the configuration is read again (of the file
/// that was named, if any), and the settings that can change while the service runs do.
pub async fn run(mut config: Config, file: Option<PathBuf>, signals: Signals) -> Result<(), StartError> {
    let Signals { mut terminate, mut interrupt, hangups } = signals;
    let connections = config.serve.max_connections;
    // What answers probes and what keeps views must find descriptors, whoever connects.
    let room =
        supervisor::most_open_files().map(|files| (files, files.saturating_sub(OTHER_FILES).max(files / 4)));
    if let Some((files, room)) = room.filter(|(_, room)| *room < connections) {
        config.serve.max_connections = room;
        tracing::warn!(
            "http.max_connections is {connections}, and this process may open {files} files (ulimit -n, \
             LimitNOFILE): it takes {room} connections"
        );
    }
    let handed_over = supervisor::listeners(config.serve.write_timeout)?;
    let app = App::build_on(config, Clock::system(), handed_over).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        sites = app.config.sites.keys(),
        store = %app.config.totals.store.url,
        data_dir = %app.config.totals.data_dir.display(),
        "serving pages on http://{}, operators on http://{}{}",
        app.public_addr(),
        app.admin_addr(),
        app.demo().map(|url| format!(", a page to look at on {url}")).unwrap_or_default(),
    );
    if totals::own_user() == Some(0) {
        tracing::warn!(
            "this process runs as root, and needs to be nobody special: give it a user of its own"
        );
    }
    let status = format!("serving pages on http://{}", app.public_addr());
    supervisor::tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let reloads = reload::on_each(hangups, app.parts.clone(), app.config.clone(), file);
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        supervisor::tell(&[NotifyState::Stopping]);
    };
    tokio::select! {
        ended = app.run(told) => ended,
        () = supervisor::keep_watchdog_quiet() => Err(StartError::Ended("what tells the watchdog")),
        () = reloads => Err(StartError::Ended("what reads the configuration again")),
    }
}

#[cfg(test)]
mod tests;
