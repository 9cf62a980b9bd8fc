//! `ebb serve`: the arguments of the sidecar, and the start of it.
//!
//! A flag wins over the file, the file over the environment; each flag's variable is read with the other variables (see
//! [`crate::config`]), so that it takes its place among them.

use super::{Failure, Outcome};
use crate::config::{Flags, Live, Source};
use crate::server::Server;
use clap::Args;
use std::path::PathBuf;

/// Run the sidecar.
#[derive(Args, Debug)]
#[command(after_help = "\
Every flag can be given as an environment variable (--max-memory: EBB_MAX_MEMORY), and every other knob too: see
docs/configuration.md.

Examples:
  ebb serve
  ebb serve --listen 127.0.0.1:0 --max-memory 256Mi
  ebb serve --socket /run/ebb/ebb.sock --config /etc/ebb/ebb.yaml")]
pub(crate) struct ServeArgs {
    /// Where applications connect; port 0 takes a free one and says which [EBB_LISTEN; 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Serve applications on this Unix socket, too [EBB_SOCKET].
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Where operators connect [EBB_ADMIN_LISTEN; 127.0.0.1:7071].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Serve operators on this Unix socket instead [EBB_ADMIN_SOCKET].
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<String>,
    /// Where the live page, /livez, /readyz and /metrics are [EBB_HTTP_LISTEN; 127.0.0.1:7072].
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<String>,
    /// The configuration file, or the directory of a pod's projected volume (ebb.yaml, annotations, memory-limit,
    /// memory-request, each optional); changes apply without a restart.
    #[arg(long, env = "EBB_CONFIG", value_name = "PATH")]
    config: Option<PathBuf>,
    /// Follow the key ebb.yaml of this ConfigMap through the API server instead; needs get, list and watch of it.
    #[arg(long, env = "EBB_CONFIG_MAP", value_name = "NAMESPACE/NAME", conflicts_with = "config")]
    config_map: Option<String>,
    /// The memory limit to obey when the container has none or a larger one, such as 256Mi [EBB_MAX_MEMORY].
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// How many threads serve applications [EBB_CORES; 1].
    #[arg(long, value_name = "N")]
    cores: Option<String>,
}

impl ServeArgs {
    /// The configuration that these arguments, the environment and the file amount to.
    pub(super) fn load(self) -> Result<Live, Failure> {
        let Self { listen, socket, admin_listen, admin_socket, http_listen, config, config_map, max_memory, cores } =
            self;
        let flags = [
            ("listen", listen, "flag --listen"),
            ("socket", socket, "flag --socket"),
            ("adminListen", admin_listen, "flag --admin-listen"),
            ("adminSocket", admin_socket, "flag --admin-socket"),
            ("httpListen", http_listen, "flag --http-listen"),
            ("maxMemory", max_memory, "flag --max-memory"),
            ("cores", cores, "flag --cores"),
        ];
        let given = |(key, value, flag): (&str, Option<String>, &'static str)| Some((key.to_owned(), (value?, flag)));
        let flags: Flags = flags.into_iter().filter_map(given).collect();
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("EBB_")).collect();
        let source = match config_map {
            Some(reference) => crate::k8s::config_map::follow(&reference).map_err(Failure::Config)?,
            None => config.map_or(Source::Nothing, Source::at),
        };
        Live::start(source, environment, flags).map_err(|problems| Failure::Config(problems.to_string()))
    }
}

/// Runs the sidecar until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> Outcome {
    let live = args.load()?;
    crate::logging::start(live.config().boot.log_format, live.tuning().log_level);
    if let Some(problem) = live.problem() {
        tracing::error!(problem, "configuration; what is good in it is in force");
    }
    live.effective().warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
    let server = Server::bind(live).map_err(Failure::Config)?;
    let addresses = server.addresses();
    let socket = addresses.socket.map_or_else(String::new, |socket| format!(" socket={socket}"));
    println!("listening data={}{socket} admin={} http={}", addresses.data, addresses.admin, addresses.http);
    server.run(told_to_stop()).map_err(Failure::Failed)
}

/// Ready at SIGTERM or SIGINT.
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
