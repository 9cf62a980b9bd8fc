//! The server: builds its components, announces its addresses, serves, and drains.

mod announce;
mod limits;
mod listeners;

use crate::governor::{self, Governor, View, sample_limits};
use crate::history::History;
use crate::metrics::Metrics;
use crate::page;
use crate::pod_events::{Fates, PodEvents};
use crate::receipts::Receipts;
use crate::regimes::Regimes;
use crate::service::Cache;
use crate::settings;
use crate::sources::{Sockets, Sources};
use crate::spans::Tracer;
use crate::traffic::Traffic;
use crate::transport::{Address, Admin, Connections, InFlight, Listener, Plane, Services, Stage};
use crate::wall_clock;
use announce::{announce_receipts, announce_regime, follow};
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use ebb_config::units::ByteSize;
use ebb_config::{Compaction, Live, LogLevel, OFF, Reload, StaticSettings};
use ebb_engine::cleaner::{Cleaner, Target};
use ebb_engine::clock::Clock;
use ebb_engine::store::{Options, Reservation, Store, first_version};
use ebb_listener::http;
use limits::{limits, memory_limits, transport};
use listeners::{Listeners, tcp};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Minimum memory limit, in bytes: below it the process itself leaves no room for a cache.
const LEAST_LIMIT: u64 = 16 << 20;
/// Part of the drain time, at its end, in which calls that still run are ended with a status.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Interval between checks of the configuration and of the socket files.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum memory of all connections of the HTTP listener, in bytes; at most 1/16 of the memory limit.
const HTTP_BYTES: u64 = 8 << 20;

/// Charges connections of the HTTP listener to the ledger.
struct HttpAccount {
    store: Arc<Store>,
    clock: Clock,
}

impl ebb_listener::Account for HttpAccount {
    fn add(&self, bytes: u64) {
        self.store.ledger().add_in_flight(bytes);
        if !self.store.ledger().has_room(0) {
            self.store.make_room(self.clock.now_ms());
        }
    }

    fn remove(&self, bytes: u64) {
        self.store.ledger().remove_in_flight(bytes);
    }
}

/// The addresses of a server, in the form that clients use, and its memory limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Address of the data listener; `off` if there is only a socket.
    pub data: String,
    /// Unix socket of the data listener, if there is one.
    pub socket: Option<String>,
    /// Address of the admin listener.
    pub admin: String,
    /// Address of the HTTP listener.
    pub http: String,
    /// The memory limit at the start, in bytes.
    pub limit_bytes: u64,
    /// The source of the limit.
    pub limit_source: &'static str,
}

/// A command from outside the server, such as a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Drain and end.
    Stop {
        /// The reason, for the log.
        reason: &'static str,
    },
    /// Read the configuration again.
    Reload,
}

/// A server whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    live: Live,
    limits: governor::Limits,
    at_start: governor::Snapshot,
    store: Arc<Store>,
    data: Vec<Listener>,
    admin: Listener,
    http: std::net::TcpListener,
}

/// The runtime of the control plane, which [`Server::run`] takes.
///
/// # Errors
/// If the system refuses it.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

impl Server {
    /// Finds the memory limit, reserves address space and binds every listener, before anything is started.
    ///
    /// # Errors
    /// A message about the address that cannot be bound, the memory limit that is too small, or the address space that
    /// the system refuses.
    pub fn bind(live: Live) -> anyhow::Result<Self> {
        let limits = memory_limits(&live.config().static_settings);
        let at_start = sample_limits(&limits, &settings::setting(live.dynamic()));
        if at_start.limit_bytes < LEAST_LIMIT {
            let (limit, source) = (at_start.limit_bytes, at_start.limit_source.name());
            bail!("memory limit ({source}): {} is too small (at least {})", ByteSize(limit), ByteSize(LEAST_LIMIT));
        }
        let StaticSettings { listen, socket, admin_listen, admin_socket, http_listen, max_value, .. } =
            &live.config().static_settings;
        let store = Store::new(Options {
            max_value_bytes: max_value.0 as usize,
            first_version: first_version(wall_clock::unix_ms()),
            ..Options::new(at_start.limit_bytes - at_start.limit_bytes / 16)
        });
        let store = Arc::new(store.context("memory")?);
        let Reservation { most_bytes, reserved_bytes, tried } = store.reservation();
        if let Some(refused_bytes) = tried.first() {
            let tries = tried.len() + 1;
            tracing::warn!(
                refused_bytes,
                reserved_bytes,
                tries,
                most_bytes,
                "the system refused address space; the cache cannot grow beyond most_bytes without a restart"
            );
        }
        let mut data = Vec::new();
        if listen != OFF {
            data.push(Listener::bind(&tcp("listen", listen)?)?);
        }
        if !socket.is_empty() {
            data.push(Listener::bind(&Address::Unix(socket.into()))?);
        }
        let admin = match admin_socket.as_str() {
            "" => Listener::bind(&tcp("adminListen", admin_listen)?)?,
            path => Listener::bind(&Address::Unix(path.into()))?,
        };
        let http = match Listener::bind(&tcp("httpListen", http_listen)?)? {
            Listener::Tcp(listener) => listener,
            Listener::Unix(..) => unreachable!("an address was bound"),
        };
        Ok(Self { live, limits, at_start, store, data, admin, http })
    }

    /// The addresses of the server.
    pub fn addresses(&self) -> Addresses {
        let name = |is_socket| {
            let mut listeners = self.data.iter();
            listeners.find(|listener| matches!(listener, Listener::Unix(..)) == is_socket).map(Listener::name)
        };
        Addresses {
            data: name(false).unwrap_or_else(|| OFF.to_owned()),
            socket: name(true),
            admin: self.admin.name(),
            http: self.http.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            limit_bytes: self.at_start.limit_bytes,
            limit_source: self.at_start.limit_source.name(),
        }
    }

    /// Serves until `next` returns [`Command::Stop`], then drains. Calls `announce` with the addresses once everything
    /// that can fail has succeeded. Blocks the thread, which becomes the control plane.
    ///
    /// # Errors
    /// A message about the failed system call.
    pub fn run(
        self,
        runtime: Runtime,
        announce: impl FnOnce(&Addresses),
        next: impl AsyncFnMut() -> Command,
    ) -> anyhow::Result<()> {
        let result = runtime.block_on(self.serve(announce, next));
        runtime.shutdown_background();
        result
    }

    async fn serve(
        self,
        announce: impl FnOnce(&Addresses),
        mut next: impl AsyncFnMut() -> Command,
    ) -> anyhow::Result<()> {
        let addresses = self.addresses();
        let Self { mut live, limits: memory_limits, at_start, store, data, admin, http: http_listener } = self;
        let (static_settings, dynamic) = (live.config().static_settings.clone(), live.dynamic().clone());
        let clock = Clock::monotonic();
        let setting = settings::setting(&dynamic);
        if let Some((found_bytes, found_in)) = at_start.beyond_machine {
            let (limit_bytes, found_in) = (at_start.limit_bytes, found_in.name());
            tracing::warn!(
                limit_bytes,
                found_bytes,
                found_in,
                "memory limit exceeds the machine's memory; using the machine's memory"
            );
        }
        if at_start.is_default_limit() {
            let limit_bytes = at_start.limit_bytes;
            tracing::warn!(
                limit_bytes,
                "no memory limit found, using the default; set one on the container or with --max-memory"
            );
        }

        let view = View::new(at_start.clone());
        let process = view.clone();
        let cleaner =
            Cleaner::spawn(store.clone(), clock.clone(), settings::pacing(&dynamic), move || process.process())?;
        let mut governor =
            Governor::spawn(memory_limits, setting, store.clone(), cleaner.clone(), clock.clone(), view.clone())?;
        // Computed at each use, so that a lowered limit applies at once.
        let in_flight_max = {
            let (view, most) = (view.clone(), static_settings.in_flight.0);
            move || most.min(view.limit_bytes() / 16)
        };
        let make_room = {
            let (store, clock) = (store.clone(), clock.clone());
            move || store.make_room(clock.now_ms())
        };
        let most = static_settings.in_flight_per_connection.0;
        let in_flight = InFlight::new(store.ledger().clone(), in_flight_max, most, make_room);
        let cache = Cache::new(store.clone(), clock.clone(), settings::defaults(&dynamic));
        let cache = Arc::new(cache.behind(transport(&static_settings, in_flight.clone())));
        let active = Arc::new(ArcSwap::from_pointee(live.active()));
        // Computed at each use, so that a lowered limit applies at once.
        let http_max = {
            let view = view.clone();
            move || (view.limit_bytes() / 16).min(HTTP_BYTES)
        };
        let account = HttpAccount { store: store.clone(), clock: clock.clone() };
        let sources = Sources {
            http: http::connections(http_max, account),
            cache: cache.clone(),
            store: store.clone(),
            cleaner: cleaner.clone(),
            memory: view.clone(),
            started_at_ms: wall_clock::unix_ms() - clock.now_ms(),
            clock,
            traffic: Traffic::default(),
            tracer: Tracer::start(&static_settings.otlp_endpoint, dynamic.trace_sample.0)?,
            events: Fates::default(),
            sockets: Sockets::default(),
            config: active.clone(),
        };
        let mut pod_events = PodEvents::start(&static_settings.pod, sources.events.clone()).await;
        let metrics = Arc::new(Metrics::new(sources.clone()));
        let history = History::default();

        let limits = limits(&static_settings);
        let (stage, drain) = watch::channel(Stage::Serving);
        let mut listeners =
            [Listeners::new(data, &static_settings.socket), Listeners::new(vec![admin], &static_settings.admin_socket)];
        let plane = |name, services, listeners: &Listeners| Plane {
            name,
            services,
            limits,
            in_flight: in_flight.clone(),
            traffic: sources.traffic.clone(),
            tracer: sources.tracer.clone(),
            connections: Connections::new(limits.connections),
            listeners: listeners.subscribe(),
            drain: drain.clone(),
        };
        let drain_time = static_settings.drain_timeout.duration();
        let data_services = Services::data(cache.clone(), limits, drain.clone());
        let running = plane("data", data_services, &listeners[0]).spawn(static_settings.cores.into(), drain_time)?;
        let admin_services = Services::admin(Admin::new(sources.clone(), history.clone()), drain.clone());
        let mut control = tokio::task::JoinSet::new();
        let admin_plane = plane("admin", admin_services, &listeners[1]);
        control.spawn(async move { admin_plane.serve(drain_time).await });
        // The HTTP listener answers probes and scrapes until the last call has ended.
        let (unready, is_unready) = watch::channel(None);
        let (over, is_over) = watch::channel(false);
        let routes = http::metrics(move || metrics.text()).merge(page::routes(
            sources.clone(),
            history.clone(),
            http::Hosts::new(&static_settings.http_hosts),
        ));
        control.spawn(http::serve(http_listener, routes, sources.http.clone(), is_unready, is_over));
        announce(&addresses);

        let (mut receipts, mut regimes) = (Receipts::default(), Regimes::default());
        let look = |receipts: &mut Receipts, regimes: &mut Regimes, level: LogLevel| {
            history.record(&sources);
            let is_each = matches!(level, LogLevel::Debug | LogLevel::Trace);
            let new = history.receipts_after(receipts.last());
            let now_ms = sources.clock.now_ms();
            announce_receipts(&receipts.look(now_ms, is_each, &new));
            let memory = view.get();
            announce_regime(regimes.look(now_ms, &memory), &memory);
        };
        let mut ticks = tokio::time::interval(LOOK);
        let reason = loop {
            let is_asked = tokio::select! {
                _ = ticks.tick() => false,
                command = next() => match command {
                    Command::Reload => true,
                    Command::Stop { reason } => break reason.to_owned(),
                },
                Some(ended) = control.join_next() => {
                    let why = ended.map_err(|error| error.to_string()).and_then(|r| r.map_err(|error| error.to_string()));
                    break why.err().unwrap_or_else(|| "a listener of the control plane ended".to_owned());
                }
            };
            if !is_asked {
                look(&mut receipts, &mut regimes, live.dynamic().log_level);
                listeners.iter_mut().for_each(|listeners| listeners.repair(&sources.sockets, sources.clock.now_ms()));
            }
            let compaction = live.dynamic().compaction;
            let mut found = live.poll();
            if is_asked {
                if found == Reload::Unchanged {
                    found = live.poll(); // SIGHUP follows a complete write: do not wait for the next tick
                }
                tracing::info!(changed = found != Reload::Unchanged, "configuration reloaded on SIGHUP");
            }
            if found != Reload::Unchanged {
                active.store(Arc::new(live.active()));
            }
            if let Some(dynamic) = follow(found, &live) {
                sources.tracer.set_sample_percent(dynamic.trace_sample.0);
                governor.set(settings::setting(&dynamic));
                cleaner.set_pacing(settings::pacing(&dynamic));
                cache.set_defaults(settings::defaults(&dynamic));
                if dynamic.compaction == Compaction::Now && compaction != Compaction::Now {
                    cleaner.run(Target::compact(100));
                }
            }
            if let Some(events) = &mut pod_events {
                events.look(&view.get(), &active.load());
            }
        };
        let open_calls = sources.traffic.totals().open_calls;
        tracing::info!(reason, drain_ms = drain_time.as_millis() as u64, open_calls, "stopping");

        // First refuse new connections, then end the calls. The threads that calls need stop last.
        listeners.iter().for_each(Listeners::close);
        unready.send_replace(Some("stopping".to_owned()));
        stage.send_replace(Stage::Draining);
        let data = tokio::task::spawn_blocking(move || running.join());
        {
            let mut ended = std::pin::pin!(async {
                let _ = data.await;
                // Only the HTTP listener remains.
                while control.len() > 1 && control.join_next().await.is_some() {}
            });
            let patience = drain_time - LAST_WORDS.min(drain_time / 4);
            if tokio::time::timeout(patience, &mut ended).await.is_err() {
                stage.send_replace(Stage::Ending);
                ended.await;
            }
        }
        governor.stop();
        cleaner.stop();
        over.send_replace(true);
        while control.join_next().await.is_some() {}
        look(&mut receipts, &mut regimes, live.dynamic().log_level);
        announce_receipts(&receipts.rest());
        let memory = view.get();
        announce_regime(regimes.rest(sources.clock.now_ms(), &memory), &memory);
        tracing::info!(uptime_ms = sources.clock.now_ms(), "stopped");
        Ok(())
    }
}
