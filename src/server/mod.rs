//! The composition root: settings → sockets → workers → gateway and admin → signals → drain.
//!
//! The data plane is one single-threaded runtime per worker, each with its own sockets and upstream connections; a
//! request never changes threads. Everything else (admin, signals, upkeep, reload) runs on a small runtime of its own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};

use crate::admin::{self, AdminSource as _};
use crate::clock::Clock;
use crate::config::settings::{AdminSettings, ListenerSettings, Settings};
use crate::config::{self, Loaded, Problems};
use crate::gateway::{Gateway, Handle, StartError};
use crate::listen::drain::Drain;
use crate::listen::http1::Date;
use crate::listen::serve::{self, Place, Server, Tally};
use crate::listen::tls::TlsError;
use crate::listen::{Accept, Callers, Peer, socket};
use crate::metrics::{Seat, WorkerMeter};
use crate::proxy::access_log::{AccessLog, LogWriter};
use crate::traces::Tracer;

mod keeping;
mod sites;
mod source;

use sites::Sites;

/// A running server.
pub struct Running {
    handle: Handle,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    runtime: Runtime,
    log: Option<LogWriter>,
    /// Where each listener listens, in the order of the settings.
    pub listeners: Vec<SocketAddr>,
    /// Where the admin listener listens.
    pub admin: Option<SocketAddr>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The gateway cannot be built.
    #[error("cannot build the gateway")]
    Gateway(#[from] StartError),
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A listener's certificate or key cannot be used.
    #[error("listener {address}")]
    Tls {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: Box<TlsError>,
    },
    /// The access log cannot be opened.
    #[error("cannot write the access log")]
    Log(#[source] io::Error),
    /// The system gives no thread or event queue.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// What the admin listener and the signals act on.
struct Control {
    handle: Handle,
    drain: Drain,
    log: Option<AccessLog>,
    /// Where the configuration came from; none for a drop-in.
    file: Option<PathBuf>,
    /// With what the admin listener was started: it stays, whatever a reload says.
    admin: Option<AdminSettings>,
    loaded: Mutex<Loaded>,
    sites: Sites,
    /// Somebody asked over the admin listener for the end.
    end: Notify,
    started: SystemTime,
    /// The last status, and when it was made.
    status: Mutex<Option<(Instant, serde_json::Value)>>,
}

/// Starts everything that `loaded` asks for. `file` is where a reload reads from.
///
/// # Errors
/// See [`ServerError`]; then nothing is left running.
pub fn start(loaded: Loaded, file: Option<PathBuf>) -> Result<Running, ServerError> {
    let settings = loaded.settings.clone();
    let (log, writer) = open_log(&settings)?;
    let mut builder = Gateway::builder().settings(settings.clone()).workers(settings.workers);
    if let Some(log) = &log {
        builder = builder.access_log(log.clone());
    }
    let (tracer, exporter) = settings.traces.clone().map(Tracer::new).unzip();
    if let Some(tracer) = tracer {
        builder = builder.tracer(tracer);
    }
    let handle = builder.build()?;
    handle.metrics().configured(loaded.hash());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ServerError::Worker)?;
    let drain = Drain::default();
    let sites = Sites::load(&settings.listeners)?;
    let admin = settings.admin;
    let loaded = Mutex::new(loaded);
    let control = Arc::new(Control {
        handle: handle.clone(),
        drain: drain.clone(),
        log,
        file,
        admin,
        loaded,
        sites,
        end: Notify::new(),
        started: handle.clock().moment().wall,
        status: Mutex::default(),
    });
    let admin = settings.admin.as_ref().map(|admin| serve_admin(&runtime, &control, admin.listen)).transpose()?;
    let mut workers: Vec<Vec<Share>> = (0..settings.workers).map(|_| Vec::new()).collect();
    let mut listeners = Vec::new();
    for listener in &settings.listeners {
        listeners.push(open_listener(listener, &control, &mut workers)?);
    }
    control.sites.watch(&settings.listeners, &listeners, handle.metrics());
    // Who connects now waits for a moment, rather than to be a miss.
    handle.restore(RESTORE_PATIENCE);
    let threads = workers
        .into_iter()
        .enumerate()
        .map(|(index, shares)| spawn_worker(index, shares, &handle, drain.clone()))
        .collect::<io::Result<_>>()
        .map_err(ServerError::Worker)?;
    if let Some(exporter) = exporter {
        runtime.spawn(exporter.run());
    }
    runtime.spawn(upkeep(Arc::clone(&control)));
    runtime.spawn(keeping::answers(handle.clone()));
    runtime.spawn(keeping::state(handle.clone()));
    let probing = handle.clone();
    runtime.spawn(async move { probing.probe().await });
    Ok(Running { handle, control, threads, runtime, log: writer, listeners, admin })
}

impl Running {
    /// The gateway's shared side.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `future` on the control runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Serves until SIGTERM or SIGINT (reloading on SIGHUP), then drains.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn until_signal(self) -> io::Result<()> {
        let control = Arc::clone(&self.control);
        self.runtime.block_on(signals(control))?;
        self.stop();
        Ok(())
    }

    /// Ends in order: no new connections, requests finish, at the latest after the settings' `drain`.
    pub fn stop(self) {
        let patience = self.control.loaded.lock().settings.drain;
        self.control.drain.begin();
        let ended = self.runtime.block_on(async { tokio::time::timeout(patience, self.control.drain.ended()).await });
        match ended {
            Ok(()) => tracing::info!("all connections ended"),
            Err(_) => {
                tracing::warn!(left = self.control.drain.connections(), "connections were cut at the end of the drain")
            }
        }
        if ended.is_ok() {
            for thread in self.threads {
                let _ = thread.join();
            }
        }
        self.handle.save(ended.is_ok());
        self.handle.save_state();
        if let Some(log) = self.log {
            log.finish(LOG_PATIENCE);
        }
        self.runtime.shutdown_background();
    }
}

/// One worker's share of a listener.
enum Share {
    /// A socket of its own.
    Socket(Arc<Server>, TcpListener),
    /// What an acceptor hands over.
    Handed(Arc<Server>, mpsc::UnboundedReceiver<Handed>),
}

fn open_listener(
    settings: &ListenerSettings,
    control: &Control,
    workers: &mut [Vec<Share>],
) -> Result<SocketAddr, ServerError> {
    let address = settings.listen;
    let bind_error = |source| ServerError::Bind { address, source };
    let sockets = socket::bind(address, settings.accept, workers.len(), settings.backlog).map_err(bind_error)?;
    let bound = sockets.first().map_or(Ok(address), TcpListener::local_addr).map_err(bind_error)?;
    let (handle, drain) = (&control.handle, &control.drain);
    let tls = settings.tls.as_ref().and_then(|_| control.sites.find(address));
    let (open, callers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Callers::default()));
    let server = |worker| {
        Arc::new(Server {
            tls: tls.cloned(),
            limits: settings.limits.clone(),
            worker,
            open: Arc::clone(&open),
            callers: Arc::clone(&callers),
            drain: drain.clone(),
            meter: handle.metrics().listener(&bound.to_string()),
            metrics: handle.metrics().clone(),
            refuse: refuser(handle.gateway(worker)),
            date: Date::new(handle.clock().clone()),
        })
    };
    if settings.accept == Accept::Reuseport || workers.len() == 1 {
        for (index, (shares, socket)) in workers.iter_mut().zip(sockets).enumerate() {
            shares.push(Share::Socket(server(index), socket));
        }
        return Ok(bound);
    }
    let mut hands = Vec::new();
    for (index, shares) in workers.iter_mut().enumerate() {
        let (hand, handed) = mpsc::unbounded_channel();
        shares.push(Share::Handed(server(index), handed));
        hands.push((hand, Place::default()));
    }
    for socket in sockets {
        let tally = Tally { meter: handle.metrics().listener(&bound.to_string()), worker: 0 };
        spawn_acceptor(socket, hands.clone(), drain.clone(), tally).map_err(ServerError::Worker)?;
    }
    Ok(bound)
}

fn refuser(gateway: Gateway) -> serve::Refuse {
    Arc::new(move |peer, reason| gateway.peer(peer).refuse(reason))
}

/// A connection on its way to a worker, and its place there.
type Handed = (std::net::TcpStream, SocketAddr, Place);

/// Where an acceptor hands a worker's connections, and what all their places there are clones of.
type Hand = (mpsc::UnboundedSender<Handed>, Place);

/// Hands each connection to the worker that has the fewest.
fn spawn_acceptor(socket: TcpListener, hands: Vec<Hand>, drain: Drain, tally: Tally) -> io::Result<()> {
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "no event queue for an acceptor"),
        };
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
            serve::take_each(&listener, &drain, &tally, |stream, address| hand_over(&hands, stream, address)).await;
        });
    };
    std::thread::Builder::new().name("acceptor".to_owned()).spawn(work).map(drop)
}

fn hand_over(hands: &[Hand], stream: TcpStream, address: SocketAddr) {
    let fewest = hands.iter().min_by_key(|(_, place)| Arc::strong_count(place));
    let (Some((hand, place)), Ok(stream)) = (fewest, stream.into_std()) else { return };
    let _ = hand.send((stream, address, Arc::clone(place)));
}

fn spawn_worker(index: usize, shares: Vec<Share>, handle: &Handle, drain: Drain) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (gateway, meter, clock) = (handle.gateway(index), handle.metrics().worker(index), handle.clock().clone());
    let event_loop = runtime.metrics();
    meter.watch_busy(move || event_loop.worker_total_busy_duration(0));
    let work = move || {
        let _seat = Seat::take(index);
        runtime.block_on(async {
            tokio::spawn(measure_lag(meter, clock));
            for share in shares {
                let gateway = gateway.clone();
                let answer = move |peer| gateway.peer(peer);
                match share {
                    Share::Socket(server, socket) => match tokio::net::TcpListener::from_std(socket) {
                        Ok(listener) => drop(tokio::spawn(serve::accept(server, listener, answer))),
                        Err(error) => tracing::error!(%error, "cannot use a listening socket"),
                    },
                    Share::Handed(server, handed) => drop(tokio::spawn(take(server, handed, answer))),
                }
            }
            drain.ended().await;
        });
    };
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)
}

/// Looks now and then by how much later than it was due this event loop wakes up. Its timer is also the nearest one
/// at all times: without it tokio writes to its eventfd whenever a request's timer becomes the nearest (0.1 to 0.3 system
/// calls per pass).
async fn measure_lag(meter: Arc<WorkerMeter>, clock: Clock) {
    loop {
        let due = clock.now() + LAG_PAUSE;
        tokio::time::sleep_until(due.into()).await;
        meter.late(clock.now().saturating_duration_since(due));
    }
}

async fn take<A: serve::Answer>(
    server: Arc<Server>,
    mut handed: mpsc::UnboundedReceiver<Handed>,
    answer: impl Fn(Peer) -> A,
) {
    while let Some((stream, address, place)) = handed.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => serve::admit(&server, stream, address, &answer, Some(place)),
            Err(error) => tracing::warn!(%error, "cannot use a connection"),
        }
    }
}

fn open_log(settings: &Settings) -> Result<(Option<AccessLog>, Option<LogWriter>), ServerError> {
    let Some(target) = settings.log.access.target() else { return Ok((None, None)) };
    let (log, writer) = AccessLog::new(target, settings.log.format).map_err(ServerError::Log)?;
    Ok((Some(log.writing(settings.log.lines)), Some(writer)))
}

fn serve_admin(runtime: &Runtime, control: &Arc<Control>, address: SocketAddr) -> Result<SocketAddr, ServerError> {
    let bind_error = |source| ServerError::Bind { address, source };
    let socket = TcpListener::bind(address).map_err(bind_error)?;
    socket.set_nonblocking(true).map_err(bind_error)?;
    let bound = socket.local_addr().map_err(bind_error)?;
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(socket).map_err(bind_error)?;
    let source = Arc::clone(control);
    runtime.spawn(async move { admin::serve(listener, source, std::future::pending::<()>()).await });
    Ok(bound)
}

async fn upkeep(control: Arc<Control>) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        control.handle.upkeep().await;
        let control = Arc::clone(&control);
        // Files may be slow.
        let _ = tokio::task::spawn_blocking(move || control.sites.refresh()).await;
    }
}

/// Reloads on SIGHUP; returns on SIGTERM, SIGINT, or an order over the admin listener.
async fn signals(control: Arc<Control>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let control = Arc::clone(&control);
                let _ = tokio::task::spawn_blocking(move || {
                    if let Some(log) = &control.log {
                        log.reopen();
                    }
                    let _ = control.reload();
                }).await;
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = control.end.notified() => return Ok(()),
        }
    }
}

impl Control {
    /// What is probably not meant is told.
    fn try_reload(&self) -> Result<String, String> {
        let Some(file) = &self.file else { return Err("started without a configuration file".to_owned()) };
        let loaded = config::load(file).map_err(|problems: Problems| problems.to_string())?;
        let mut current = self.loaded.lock();
        let (new, old) = (&loaded.settings, &current.settings);
        let listen_alike = new.listeners.len() == old.listeners.len()
            && new.listeners.iter().zip(&old.listeners).all(|(new, old)| new.listens_like(old));
        let admin = |settings: &Settings| settings.admin.map(|admin| admin.listen);
        let mut told = loaded.warnings.to_string();
        let fixed =
            |settings: &Settings| (admin(settings), settings.workers, settings.log.clone(), settings.traces.clone());
        if !listen_alike || fixed(new) != fixed(old) {
            tracing::warn!("{LATER}");
            told.push_str(LATER);
        }
        let prepared = self.sites.prepare(&new.listeners)?;
        self.handle.reload(&loaded.settings).map_err(|error| error.to_string())?;
        for (site, prepared) in prepared {
            site.put(prepared);
        }
        self.handle.metrics().reloaded(true, self.handle.clock().moment().wall);
        self.handle.metrics().configured(loaded.hash());
        *current = loaded;
        Ok(told)
    }
}

const LATER: &str = "listeners (but their certificates), admin, workers, log and traces change at the next start only";

/// Between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_secs(1);
/// Between two looks at the lag of an event loop.
const LAG_PAUSE: Duration = Duration::from_millis(500);
/// For reading stored answers from disk, before the first request.
const RESTORE_PATIENCE: Duration = Duration::from_secs(10);
/// For the last lines of the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
