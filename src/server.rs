//! The server: builds the parts, announces its addresses, waits, drains.

use crate::cache::Cache;
use crate::cleaner::{Cleaner, Order};
use crate::clock::{self, Clock};
use crate::config::{Boot, Compaction, Live, LogLevel, Reload, Tuning};
use crate::grpc::{Address, Admin, InFlight, Limits, Listener, Plane, Services};
use crate::history::History;
use crate::http;
use crate::k8s::pod_events::{Fates, PodEvents};
use crate::memory::{self, Governor, Paths, View, sample_limits};
use crate::metrics::Metrics;
use crate::page;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::receipts::{Line, Receipts};
use crate::sources::Sources;
use crate::spans::Tracer;
use crate::store::{Options, Store};
use crate::traffic::Traffic;
use arc_swap::ArcSwap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tonic::service::Routes;

/// The least memory limit, in bytes: below it the process itself leaves no room for a cache.
const LEAST_LIMIT: u64 = 16 << 20;
/// How often the configuration file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What a batch may take beside its values, in bytes.
const MESSAGE_MARGIN: u64 = 64 << 10;
/// The largest batch, in bytes: what stock clients receive at most.
const BATCH_BYTES: u64 = 4 << 20;

/// Where a server listens, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For applications.
    pub data: String,
    /// For applications, too, if there is one.
    pub socket: Option<String>,
    /// For operators.
    pub admin: String,
    /// For probes and metrics.
    pub http: String,
}

/// A server whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    live: Live,
    limits: memory::Limits,
    at_start: memory::Snapshot,
    data: Vec<Listener>,
    admin: Listener,
    http: std::net::TcpListener,
}

impl Server {
    /// Looks for the memory limit and binds every listener, before anything is started.
    ///
    /// # Errors
    /// A sentence that names the address and what is in its way, or the limit that is too small.
    pub fn bind(live: Live) -> Result<Self, String> {
        let limits = memory_limits(&live.config().boot);
        let at_start = sample_limits(&limits, &live.tuning().setting());
        if at_start.limit_bytes < LEAST_LIMIT {
            let (limit, source) = (at_start.limit_bytes, at_start.limit_source);
            return Err(format!("the memory limit is {limit} bytes ({source}); it must be at least {LEAST_LIMIT}"));
        }
        let Boot { listen, socket, admin_listen, admin_socket, http_listen, .. } = &live.config().boot;
        let mut data = vec![Listener::bind(&tcp("listen", listen)?)?];
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
        Ok(Self { live, limits, at_start, data, admin, http })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            data: self.data[0].name(),
            socket: self.data.get(1).map(Listener::name),
            admin: self.admin.name(),
            http: self.http.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
        }
    }

    /// Serves until `shutdown` is ready, then drains. Blocks the thread, which becomes the control plane.
    ///
    /// # Errors
    /// A sentence about what the system refused.
    pub fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        let result = runtime.block_on(self.serve(shutdown)).map_err(|error| error.to_string());
        runtime.shutdown_background();
        result
    }

    async fn serve(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let Self { mut live, limits: memory_limits, at_start, data, admin, http: http_listener } = self;
        let (boot, tuning) = (live.config().boot.clone(), live.tuning().clone());
        let clock = Clock::monotonic();
        let setting = tuning.setting();
        announce_limit(&at_start);

        let store = Arc::new(Store::new(Options {
            max_value_bytes: boot.max_value.0 as usize,
            ..Options::new(at_start.limit_bytes - at_start.limit_bytes / 16)
        })?);
        let view = View::new(at_start.clone());
        let outside = view.clone();
        let cleaner = Cleaner::spawn(store.clone(), clock.clone(), tuning.pacing(), move || outside.outside())?;
        let mut governor =
            Governor::spawn(memory_limits, setting, store.clone(), cleaner.clone(), clock.clone(), view.clone())?;
        let cache = Arc::new(Cache::new(store.clone(), clock.clone(), tuning.defaults()));
        let in_force = Arc::new(ArcSwap::from_pointee(live.in_force()));
        let sources = Sources {
            cache: cache.clone(),
            store: store.clone(),
            cleaner: cleaner.clone(),
            memory: view.clone(),
            started_at_ms: clock::unix_ms() - clock.now_ms(),
            clock,
            traffic: Traffic::default(),
            tracer: Tracer::start(&boot.otlp_endpoint, tuning.trace_sample.0).map_err(std::io::Error::other)?,
            events: Fates::default(),
            config: in_force.clone(),
        };
        let mut pod_events = PodEvents::start(&boot.pod, sources.events.clone()).await;
        let metrics = Arc::new(Metrics::new(sources.clone()));
        let history = History::default();

        let limits = limits(&boot);
        let (drain, draining) = watch::channel(false);
        // Asked for anew each time: what is taken just after a limit was lowered must fit the new one.
        let in_flight_max = {
            let (view, most) = (view.clone(), boot.in_flight.0);
            move || most.min(view.limit_bytes() / 16)
        };
        let make_room = {
            let (store, clock) = (store.clone(), sources.clock.clone());
            move || store.make_room(clock.now_ms())
        };
        let most = boot.in_flight_per_connection.0;
        let in_flight = InFlight::new(store.ledger().clone(), in_flight_max, most, make_room);
        let plane = |services| Plane {
            services,
            limits,
            in_flight: in_flight.clone(),
            traffic: sources.traffic.clone(),
            tracer: sources.tracer.clone(),
            permits: Arc::new(Semaphore::new(limits.connections)),
            draining: draining.clone(),
        };
        let data_services = Services::new(Some(cache.clone()), standard_services().await, limits);
        let drain_time = boot.drain_timeout.duration();
        let running = plane(data_services).spawn(boot.cores.into(), &data, drain_time)?;
        let rest = standard_services()
            .await
            .add_service(AdminServiceServer::new(Admin::new(sources.clone(), history.clone())));
        let mut control = tokio::task::JoinSet::new();
        let admin_plane = plane(Services::new(None, rest, limits));
        control.spawn(async move { admin_plane.serve(&[admin], drain_time).await });
        let routes = http::metrics(move || metrics.text()).merge(page::routes(sources.clone(), history.clone()));
        control.spawn(http::serve(http_listener, routes, draining.clone(), draining.clone()));

        let mut receipts = Receipts::default();
        let look = |receipts: &mut Receipts, level: LogLevel| {
            history.record(&sources);
            let is_each = matches!(level, LogLevel::Debug | LogLevel::Trace);
            let new = history.receipts_after(receipts.last());
            announce_receipts(&receipts.look(sources.clock.now_ms(), is_each, &new));
        };
        let follow = async {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                look(&mut receipts, live.tuning().log_level);
                let compaction = live.tuning().compaction;
                let found = live.poll();
                if found != Reload::Unchanged {
                    in_force.store(Arc::new(live.in_force()));
                }
                if let Some(tuning) = follow(found, &live) {
                    sources.tracer.set_sample_percent(tuning.trace_sample.0);
                    governor.set(tuning.setting());
                    cleaner.set_pacing(tuning.pacing());
                    cache.set_defaults(tuning.defaults());
                    if tuning.compaction == Compaction::Now && compaction != Compaction::Now {
                        cleaner.run(Order::compact(100));
                    }
                }
                if let Some(events) = &mut pod_events {
                    events.look(&view.get(), &in_force.load());
                }
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = follow => {}
        }
        tracing::info!(drain_ms = drain_time.as_millis() as u64, "draining");
        drain.send_replace(true);
        governor.stop();
        cleaner.stop();
        look(&mut receipts, live.tuning().log_level);
        announce_receipts(&receipts.rest());
        while control.join_next().await.is_some() {}
        running.join();
        tracing::info!("stopped");
        Ok(())
    }
}

fn tcp(key: &str, text: &str) -> Result<Address, String> {
    let address = text.parse().map(Address::Tcp);
    address.map_err(|_| format!("{key} ({text:?}) is not an address; write it like 127.0.0.1:7070"))
}

fn memory_limits(boot: &Boot) -> memory::Limits {
    let path = |text: &String| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
    memory::Limits {
        cgroup: Paths::new(PathBuf::from(&boot.cgroup_root)),
        file: path(&boot.limit_file),
        request: path(&boot.request_file),
        meminfo: PathBuf::from("/proc/meminfo"),
        default_bytes: boot.default_memory.0,
    }
}

fn announce_limit(found: &memory::Snapshot) {
    match found.is_default_limit {
        true => tracing::warn!(
            limit_bytes = found.limit_bytes,
            "no memory limit was found; set one on the container, or with --max-memory. Until then the default holds"
        ),
        false => tracing::info!(limit_bytes = found.limit_bytes, source = found.limit_source, "memory limit"),
    }
}

/// Logs what the cleaner has done.
fn announce_receipts(lines: &[Line]) {
    for Line { runs, sum, missed } in lines {
        tracing::info!(
            id = sum.id,
            runs,
            reason = sum.reason.name(),
            moved_bytes = sum.moved_bytes,
            evicted_items = sum.evicted_items,
            expired_items = sum.expired_items,
            freed_segments = sum.freed_segments,
            rss_before_bytes = sum.before.outside.rss_bytes,
            rss_after_bytes = sum.after.outside.rss_bytes,
            cpu_micros = sum.cpu_us,
            longest_step_micros = sum.longest_step_us,
            missed = Some(missed).filter(|missed| **missed > 0),
            "receipt",
        );
    }
}

fn limits(boot: &Boot) -> Limits {
    Limits {
        connections: boot.connections as usize,
        streams: boot.streams,
        stream_window: boot.stream_window.0 as u32,
        connection_window: boot.connection_window.0 as u32,
        handshake_timeout: boot.handshake_timeout.duration(),
        idle_timeout: boot.idle_timeout.duration(),
        write_timeout: boot.write_timeout.duration(),
        header_list: boot.header_list.0 as u32,
        message: boot.max_value.0.max(BATCH_BYTES).saturating_add(MESSAGE_MARGIN) as usize,
    }
}

/// Health and reflection, which every listener serves.
async fn standard_services() -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("ebb.v1.CacheService", tonic_health::ServingStatus::Serving).await;
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Routes::new(health)
        .add_service(described().build_v1().expect("our descriptors are whole"))
        .add_service(described().build_v1alpha().expect("our descriptors are whole"))
}

/// Logs what a look at the file has found; the tuning, if there is a new one.
fn follow(found: Reload, live: &Live) -> Option<Tuning> {
    match found {
        Reload::Unchanged => None,
        Reload::Rejected(why) => {
            tracing::error!(why, "configuration rejected; the last good one stays in force");
            None
        }
        Reload::Applied { changes, warnings } => {
            changes.iter().for_each(|change| tracing::info!(change, "configuration"));
            warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
            crate::logging::set_level(live.tuning().log_level);
            Some(live.tuning().clone())
        }
    }
}
