//! The webhook that injects sidecars: `ebb injector`.
//!
//! ```text
//!  API server ──TLS──► serve ──► review (pure) ──► inject (pure)
//!                        ▲          ▲    └──► Events, metrics, log line
//!          certificates ─┘          └── template (a mounted file), namespaces (a watch)
//!
//!  lease ──► leader: certificates, watchdog (pods that lack their sidecar)
//! ```
//! It rejects no pod: a pod that cannot be injected is skipped, with the reason.

mod bucket;
mod calls;
mod certificates;
mod clients;
mod coverage;
mod events;
mod excerpt;
mod lease;
mod metrics;
mod namespaces;
mod owners;
mod pages;
mod review;
mod self_probe;
mod serve;
mod template;
mod watchdog;

pub use certificates::{Objects, Times};
pub use clients::ClientCaError;
pub use watchdog::Watchdog;

use crate::inject::{Allowed, Namespace};
use arc_swap::ArcSwapOption;
use bucket::{Buckets, REVIEWS};
use certificates::{Keeper, Served};
use clients::Clients;
use ebb_listener::Connections;
use events::Events;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use lease::Candidate;
use metrics::Metrics;
use namespaces::Namespaces;
use self_probe::SelfProbe;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use template::Followed;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

/// Settings of the injector.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the webhook.
    pub listen: SocketAddr,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http_listen: SocketAddr,
    /// The file with the PodTemplate of the sidecar.
    pub template: PathBuf,
    /// Files with certificate and key; if `None`, the injector issues them.
    pub files: Option<(PathBuf, PathBuf)>,
    /// The file with the secrets of the path, one a line; only with `files`.
    pub paths: Option<PathBuf>,
    /// The CA of the API servers' client certificates; if `None`, reviews need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Names of these certificates: common names, DNS names or URIs; if empty, every name is accepted.
    pub client_names: Vec<String>,
    /// The objects with the certificates.
    pub objects: Objects,
    /// DNS names of the webhook.
    pub names: Vec<String>,
    /// Lifetimes of the certificates.
    pub times: Times,
    /// Interval between checks of certificates and template.
    pub look: Duration,
    /// Time after SIGTERM during which calls are accepted, until API servers stop calling.
    pub drain_delay: Duration,
    /// The annotations that namespaces and pods may set.
    pub allowed: Allowed,
    /// Whether to write Events.
    pub events: bool,
    /// The watchdog, if it is on.
    pub watchdog: Option<Watchdog>,
}

/// Maximum memory of all connections for probes and metrics, in bytes.
const HTTP_BYTES: u64 = 4 << 20;

/// Shared state of admissions.
pub(super) struct Injector {
    /// The last good template; `None` before there was one.
    template: ArcSwapOption<crate::inject::Template>,
    namespaces: Namespaces,
    own_namespace: String,
    by: String,
    metrics: Arc<Metrics>,
    events: Option<Events>,
    connections: Arc<Connections>,
    reviews: Buckets,
    /// The turn of a large review.
    large: Semaphore,
    clients: Option<Arc<Clients>>,
}

impl Injector {
    /// The namespace, if it is known.
    fn namespace(&self, name: &str) -> Namespace {
        self.namespaces.get(name)
    }
}

/// Addresses of an injector.
#[derive(Debug)]
pub struct Addresses {
    pub webhook: String,
    pub http: String,
}

/// Why the injector cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The template cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address as given.
        address: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Neither a ServiceAccount nor a kubeconfig names an API server.
    #[error("cannot reach the API server: {0}")]
    NoApiServer(kube::config::InferConfigError),
    /// The CA of clients cannot be used.
    #[error("the CA of clients: {0}")]
    ClientCa(#[from] ClientCaError),
    /// The API server's configuration cannot be used.
    #[error("cannot reach the API server: {0}")]
    Client(kube::Error),
    /// The webhook's listener refuses its backlog.
    #[error("cannot listen: {0}")]
    Listen(rustix::io::Errno),
    /// The TLS server cannot be configured.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// A bound listener cannot be used.
    #[error("{0}")]
    Listener(std::io::Error),
    /// The webhook's task ended early.
    #[error("{0}")]
    Task(tokio::task::JoinError),
}

/// A metrics page with a series of each metric; a test generates `docs/metrics.md` from it.
#[doc(hidden)]
pub fn metrics_page() -> String {
    metrics::example_page(serve::connections())
}

/// Task polls between two polls of the sockets. A large review takes milliseconds; the default of 61 would hold back the
/// handshakes and the small reviews of others for a second.
const POLLS_BETWEEN_EVENTS: u32 = 2;

/// The runtime which [`run`] takes: one thread.
///
/// # Errors
/// If the system refuses it.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().event_interval(POLLS_BETWEEN_EVENTS).build()
}

/// Runs until `shutdown` is ready with a reason, then drains. Calls `announce` with the addresses.
///
/// # Errors
/// Why the injector cannot run.
pub async fn run(
    settings: Settings,
    announce: impl FnOnce(&Addresses),
    shutdown: impl Future<Output = &'static str>,
) -> Result<(), RunError> {
    // A file that is not there is an error of the arguments. One that is invalid is repaired while the injector runs.
    let unreadable = |error| RunError::Unreadable { path: settings.template.clone(), error };
    std::fs::metadata(&settings.template).map_err(unreadable)?;
    let bind = |address: SocketAddr| {
        let bound = ebb_listener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        bound.map_err(|error| RunError::Bind { address, error })
    };
    let clients = settings
        .client_ca
        .clone()
        .map(|ca| Clients::read(ca, settings.client_names.clone()))
        .transpose()?
        .map(Arc::new);
    let webhook = bind(settings.listen)?;
    let http = bind(settings.http_listen)?;
    let config = Config::infer().await.map_err(RunError::NoApiServer)?;
    // An eviction blocked by a PodDisruptionBudget returns "too many requests", which must not be retried at once.
    let mut once = config.clone();
    once.default_retry = false;
    let asks_once = Client::try_from(once).map_err(RunError::Client)?;
    let client = Client::try_from(config).map_err(RunError::Client)?;
    let name = |listener: &TcpListener| listener.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string());
    announce(&Addresses { webhook: name(&webhook), http: name(&http) });

    let connections = serve::connections();
    let metrics = Arc::new(Metrics::new(connections.clone()));
    let identity = settings.objects.identity.clone();
    let namespaces = Namespaces::follow(client.clone());
    let start = || Events::start(client.clone(), identity, metrics.clone(), namespaces.clone());
    let events = settings.events.then(start);
    let injector = Arc::new(Injector {
        template: ArcSwapOption::empty(),
        namespaces,
        connections,
        reviews: Buckets::new(REVIEWS, Instant::now()),
        large: Semaphore::new(1),
        clients: clients.clone(),
        own_namespace: settings.objects.namespace.clone(),
        by: format!("webhook {}", settings.objects.webhook),
        events: events.clone(),
        metrics: metrics.clone(),
    });
    let mut template = Followed::new(settings.template.clone(), settings.allowed.clone(), &settings.objects);
    template.look(&injector.template, &injector.metrics, injector.events.as_ref());
    let served = Arc::new(Served::default());
    // Certificates in files need no leader.
    let is_needed = settings.files.is_none() || settings.watchdog.is_some();
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.objects.namespace);
    let mut candidate =
        is_needed.then(|| Candidate::new(settings.objects.lease.clone(), settings.objects.identity.clone()));
    let (lead, leads) = watch::channel(false);
    let watchdog = async {
        match settings.watchdog.clone() {
            Some(how) => {
                watchdog::watch(asks_once, injector.clone(), how, settings.objects.webhook.clone(), leads).await;
            }
            None => std::future::pending().await,
        }
    };
    let mut keeper = match settings.files.clone() {
        Some((certificate, key)) => Keeper::files(certificate, key, settings.paths.clone()),
        None => Keeper::own(client.clone(), settings.objects.clone(), settings.names.clone(), settings.times, events),
    };
    let (drain, draining) = watch::channel(false);
    let (unready, is_unready) = watch::channel(Some("starting".to_owned()));
    let page = metrics.clone();
    let watchers = ebb_listener::http::serve(
        http.into_std().map_err(RunError::Listener)?,
        ebb_listener::http::metrics(move || page.text()),
        ebb_listener::http::connections(|| HTTP_BYTES, ebb_listener::Unaccounted),
        is_unready,
        draining.clone(),
    );
    let watchers = tokio::spawn(watchers);
    let mut probe = SelfProbe::new(webhook.local_addr().map_err(RunError::Listener)?);
    let serving = tokio::spawn(serve::serve(webhook, injector.clone(), served.clone(), draining));

    let answers = AtomicBool::new(true);
    let probing = async {
        let mut ticks = tokio::time::interval(settings.look.max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Without a certificate the webhook cannot answer and is not ready.
            if served.is_there() {
                answers.store(probe.is_ready().await, Ordering::Relaxed);
                metrics.webhook_answers(answers.load(Ordering::Relaxed));
            }
        }
    };
    let look = async {
        let mut ticks = tokio::time::interval(settings.look);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let lease = match &mut candidate {
                Some(candidate) => candidate.tick(&leases).await.err(),
                None => None,
            };
            let is_leader = candidate.as_ref().is_none_or(Candidate::leads);
            lead.send_replace(is_leader);
            metrics.leads(is_leader);
            let kept = keeper.tick(is_leader, &served, &metrics).await;
            // As text, since a problem is logged when it differs from the last one.
            let client_ca = clients.as_ref().and_then(|clients| clients.follow().err());
            let problem = match (kept, lease, client_ca) {
                (Err(error), ..) => Some(error.to_string()),
                (Ok(()), Some(error), _) => Some(format!("the Lease: {error}")),
                (Ok(()), None, Some(error)) => Some(format!("the CA of clients: {error}")),
                (Ok(()), None, None) => None,
            };
            if let Some(why) = problem.as_ref().filter(|_| problem != last) {
                tracing::warn!(why, "failed to update the certificates or the Lease");
            }
            last = problem;
            template.look(&injector.template, &injector.metrics, injector.events.as_ref());
            let reason = match () {
                () if !served.is_there() => Some("there is no certificate".to_owned()),
                () if !answers.load(Ordering::Relaxed) => Some("the webhook does not answer its own probe".to_owned()),
                () if injector.template.load().is_none() => template.problem().map(str::to_owned),
                () => None,
            };
            unready.send_if_modified(|unready| std::mem::replace(unready, reason.clone()) != reason);
        }
    };
    let reason = tokio::select! {
        reason = shutdown => reason,
        () = look => "the certificate loop ended",
        () = probing => "the probe loop ended",
        () = watchdog => "the watchdog ended",
    };
    // API servers keep calling until they notice that this replica is not ready.
    unready.send_replace(Some("stopping".to_owned()));
    tracing::info!(reason, delay_ms = settings.drain_delay.as_millis() as u64, "stopping");
    if let Some(candidate) = &mut candidate {
        candidate.release(&leases).await;
    }
    #[expect(clippy::disallowed_methods, reason = "nothing tells when the last API server has noticed")]
    tokio::time::sleep(settings.drain_delay).await;
    drain.send_replace(true);
    let ended = serving.await.map_err(RunError::Task)?;
    watchers.abort();
    tracing::info!("stopped");
    ended
}
