//! `ebb injector`: the webhook that injects sidecars.

use super::signals::Signals;
use super::{Failure, Outcome, output};
use clap::Args;
use ebb_config::environment::first_log_format;
use ebb_config::units::Span;
use ebb_config::{Environment, LogFormat, LogLevel};
use ebb_injector::inject::{Allowed, names as annotation_names};
use ebb_injector::webhook::{self, Objects, Settings, Times, Watchdog};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Run the webhook that injects sidecars.
#[derive(Args, Debug)]
#[command(after_help = "\
The chart runs it with injector.mode: webhook. It finds the API server by the pod's ServiceAccount or by KUBECONFIG.

Without --tls-cert and --tls-key it issues a CA and a serving certificate and stores them in a Secret. The leader renews
them long before they expire and publishes the CA in the MutatingWebhookConfiguration, with a path that holds a secret.

Examples:
  ebb injector --template /etc/ebb-injector/sidecar.yaml
  ebb injector --template sidecar.yaml --tls-cert tls.crt --tls-key tls.key --listen 127.0.0.1:10250")]
pub(crate) struct InjectorArgs {
    /// Address of the webhook; port 0 selects a free port. `[::]` serves IPv6 and IPv4.
    #[arg(long, env = "EBB_INJECTOR_LISTEN", value_name = "ADDR", default_value = "[::]:10250")]
    listen: SocketAddr,
    /// Address of the HTTP listener: /livez, /readyz, /metrics.
    #[arg(long, env = "EBB_INJECTOR_HTTP_LISTEN", value_name = "ADDR", default_value = "[::]:10251")]
    http_listen: SocketAddr,
    /// File with the PodTemplate of the sidecar, as the chart renders it; changes apply without a restart.
    #[arg(long, env = "EBB_INJECTOR_TEMPLATE", value_name = "FILE")]
    template: PathBuf,
    /// Serving certificate (PEM), if another program renews it.
    #[arg(long, env = "EBB_INJECTOR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the serving certificate (PEM).
    #[arg(long, env = "EBB_INJECTOR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// File with secrets of the webhook's path, one a line: reviews go to /inject/SECRET. Without it they go to /inject.
    #[arg(long, env = "EBB_INJECTOR_PATHS", value_name = "FILE", requires = "tls_cert")]
    paths: Option<PathBuf>,
    /// CA of the API servers' client certificates (PEM); reviews without such a certificate are refused.
    #[arg(long, env = "EBB_INJECTOR_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Names of these certificates: a common name, DNS name or URI of each. Without this, every name is accepted.
    #[arg(long, env = "EBB_INJECTOR_CLIENT_NAMES", value_name = "NAME", value_delimiter = ',', requires = "client_ca")]
    client_names: Vec<String>,
    /// Namespace of the injector; its pods get no sidecars.
    #[arg(long, env = "EBB_INJECTOR_NAMESPACE", value_name = "NAME", default_value = "ebb-system")]
    namespace: String,
    /// Service of the webhook.
    #[arg(long, env = "EBB_INJECTOR_SERVICE", value_name = "NAME", default_value = "ebb-injector")]
    service: String,
    /// MutatingWebhookConfiguration whose CA bundle and path the injector updates.
    #[arg(long, env = "EBB_INJECTOR_WEBHOOK", value_name = "NAME", default_value = "ebb.ebb-system.ebb-cache.io")]
    webhook: String,
    /// Secret that holds the CA and the serving certificate.
    #[arg(long, env = "EBB_INJECTOR_SECRET", value_name = "NAME", default_value = "ebb-injector-tls")]
    secret: String,
    /// Lease used for leader election.
    #[arg(long, env = "EBB_INJECTOR_LEASE", value_name = "NAME", default_value = "ebb-injector")]
    lease: String,
    /// Identity of this replica: the name of its pod.
    #[arg(long, env = "EBB_INJECTOR_IDENTITY", value_name = "NAME", default_value = "ebb-injector")]
    identity: String,
    /// Lifetime of a serving certificate; it is renewed after two thirds.
    #[arg(long, env = "EBB_INJECTOR_CERTIFICATE_LIFETIME", value_name = "TIME", default_value = "24h")]
    certificate_lifetime: Span,
    /// Lifetime of a CA, at least three times that of a serving certificate.
    #[arg(long, env = "EBB_INJECTOR_CA_LIFETIME", value_name = "TIME", default_value = "8760h")]
    ca_lifetime: Span,
    /// Time for API servers to notice a new CA.
    #[arg(long, env = "EBB_INJECTOR_SETTLE", value_name = "TIME", default_value = "2m")]
    settle: Span,
    /// Interval between checks of certificates and template, at least 50ms.
    #[arg(long, env = "EBB_INJECTOR_LOOK", value_name = "TIME", default_value = "5s")]
    look: Span,
    /// Time after SIGTERM during which calls are still accepted.
    #[arg(long, env = "EBB_INJECTOR_DRAIN_DELAY", value_name = "TIME", default_value = "3s")]
    drain_delay: Span,
    /// Annotations that a namespace may set for its pods unless it has the label ebb-cache.io/trusted: true, without
    /// prefix. By default all but additional-env, image and unix-socket-path.
    #[arg(long, env = "EBB_INJECTOR_NAMESPACE_ANNOTATIONS", value_name = "NAME", value_delimiter = ',')]
    namespace_annotations: Option<Vec<String>>,
    /// The same for pods.
    #[arg(long, env = "EBB_INJECTOR_POD_ANNOTATIONS", value_name = "NAME", value_delimiter = ',')]
    pod_annotations: Option<Vec<String>>,
    /// Do not write Events.
    #[arg(long, env = "EBB_INJECTOR_NO_EVENTS")]
    no_events: bool,
    /// Evict pods that should have a sidecar but lack one, so that their owners replace them.
    #[arg(long, env = "EBB_INJECTOR_WATCHDOG")]
    watchdog: bool,
    /// Interval between searches of the watchdog, 100ms to 24h; a pod found twice in a row is evicted.
    #[arg(long, env = "EBB_INJECTOR_WATCHDOG_INTERVAL", value_name = "TIME", default_value = "5m")]
    watchdog_interval: Span,
    /// Maximum evictions of the watchdog per minute, 1 to 600.
    #[arg(long, env = "EBB_INJECTOR_WATCHDOG_MAX_PER_MINUTE", value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=600))]
    watchdog_max_per_minute: u32,
    /// Namespaces that the watchdog ignores because the webhook does not cover them.
    #[arg(long, env = "EBB_INJECTOR_WATCHDOG_EXCLUDED", value_name = "NAME", value_delimiter = ',')]
    watchdog_excluded: Vec<String>,
    /// Log format: text or json.
    #[arg(long, env = "EBB_INJECTOR_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Log level: error, warn, info, debug or trace.
    #[arg(long, env = "EBB_INJECTOR_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// Runs the webhook until a signal stops it.
pub(crate) fn run(args: InjectorArgs) -> Outcome {
    crate::logging::start(first_log_format("EBB_INJECTOR_LOG_FORMAT"), LogLevel::Info);
    let done = serve(args).map_err(super::serve::logged);
    crate::logging::flush();
    done
}

fn serve(args: InjectorArgs) -> Outcome {
    if let Err(error) = ebb_engine::huge_pages::disable() {
        tracing::debug!(%error, "cannot disable transparent huge pages");
    }
    let log_format = match args.log_format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => return Err(Failure::Usage(format!("--log-format: {other:?} is not a log format (text or json)"))),
    };
    let log_level = serde_json::from_value(args.log_level.as_str().into()).map_err(|_| {
        let levels = "error, warn, info, debug or trace";
        Failure::Usage(format!("--log-level: {:?} is not a log level ({levels})", args.log_level))
    })?;
    crate::logging::start(log_format, log_level);
    let seconds = |name: &str, span: Span, least: i64| {
        let seconds = i64::try_from(span.0 / 1000).unwrap_or(i64::MAX);
        match seconds >= least && seconds <= 10 * 365 * 86_400 {
            true => Ok(seconds),
            false => Err(Failure::Usage(format!("--{name}: {seconds} s is out of range ({least} s to 10 years)"))),
        }
    };
    let serving = seconds("certificate-lifetime", args.certificate_lifetime, 3)?;
    let ca = seconds("ca-lifetime", args.ca_lifetime, 9)?;
    if ca < serving * 3 {
        return Err(Failure::Usage("--ca-lifetime must be at least three times --certificate-lifetime".to_owned()));
    }
    if args.look.0 < 50 {
        return Err(Failure::Usage("--look must be at least 50ms".to_owned()));
    }
    if !(100..=86_400_000).contains(&args.watchdog_interval.0) {
        let given = args.watchdog_interval;
        return Err(Failure::Usage(format!("--watchdog-interval: {given} is out of range (100ms to 24h)")));
    }
    let watchdog = Watchdog {
        interval: args.watchdog_interval.duration(),
        max_per_minute: args.watchdog_max_per_minute,
        excluded: args.watchdog_excluded,
    };
    let allowed = Allowed::new(args.namespace_annotations, args.pod_annotations).map_err(|name| {
        let known = annotation_names().collect::<Vec<_>>().join(", ");
        Failure::Usage(format!("--namespace-annotations, --pod-annotations: {name:?} is no annotation ({known})"))
    })?;
    let settle = seconds("settle", args.settle, 0)?;
    let (service, namespace) = (&args.service, &args.namespace);
    let settings = Settings {
        names: vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")],
        listen: args.listen,
        http_listen: args.http_listen,
        template: args.template,
        files: args.tls_cert.zip(args.tls_key),
        paths: args.paths,
        client_ca: args.client_ca,
        client_names: args.client_names,
        times: Times { serving, ca, settle, grace: settle },
        look: args.look.duration(),
        drain_delay: args.drain_delay.duration(),
        allowed,
        events: !args.no_events,
        watchdog: args.watchdog.then_some(watchdog),
        objects: Objects {
            namespace: args.namespace,
            secret: args.secret,
            lease: args.lease,
            webhook: args.webhook,
            identity: args.identity,
        },
    };
    let warnings = Environment::of_process().map(|environment| environment.warnings).unwrap_or_default();
    warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration warning"));
    webhook::runtime()?.block_on(async {
        let mut signals = Signals::install()?;
        let announce = |at: &webhook::Addresses| {
            output::announce(format!("listening webhook={} http={}", at.webhook, at.http));
            tracing::info!(version = env!("CARGO_PKG_VERSION"), webhook = at.webhook, http = at.http, "started");
        };
        webhook::run(settings, announce, async { signals.stop().await })
            .await
            .map_err(|error| Failure::Config(error.to_string()))
    })
}
