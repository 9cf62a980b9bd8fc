//! `ebb serve`: arguments and start of the sidecar.
//!
//! Flags override the file, and the file overrides the environment. [`ebb_config`] reads the flags' variables with all
//! others, since clap would give them the precedence of flags.

use super::signals::Signals;
use super::{Failure, Outcome, output};
use crate::server::{self, Addresses, Server};
use clap::Args;
use ebb_config::environment::first_log_format;
use ebb_config::{Environment, Flags, Live, LogFormat, LogLevel, Problems, Source};
use std::path::PathBuf;

/// Run the sidecar.
#[derive(Args, Debug)]
#[allow(rustdoc::broken_intra_doc_links, reason = "clap prints these comments as they are, brackets included")]
#[command(after_help = "\
Every flag and every other setting has an environment variable (--max-memory: EBB_MAX_MEMORY); see
docs/configuration.md.

Examples:
  ebb serve
  ebb serve --listen 127.0.0.1:0 --max-memory 256Mi
  ebb serve --socket /run/ebb/ebb.sock --config /etc/ebb/ebb.yaml")]
pub(crate) struct ServeArgs {
    /// Address of the data listener, or `off` with --socket; port 0 selects a free port [env: EBB_LISTEN=] [default:
    /// 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Unix socket of the data listener, in addition to the address [env: EBB_SOCKET=].
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Address of the admin listener [env: EBB_ADMIN_LISTEN=] [default: 127.0.0.1:7071].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Unix socket of the admin listener, instead of the address [env: EBB_ADMIN_SOCKET=].
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<String>,
    /// Address of the HTTP listener: live page, /livez, /readyz, /metrics [env: EBB_HTTP_LISTEN=] [default:
    /// 127.0.0.1:7072].
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<String>,
    /// Names, separated by commas, under which browsers may open the live page, in addition to localhost and the
    /// listener's addresses [env: EBB_HTTP_HOSTS=].
    #[arg(long, value_name = "NAMES")]
    http_hosts: Option<String>,
    /// The configuration file, or the directory of a pod's projected volume (ebb.yaml, annotations, memory-limit,
    /// memory-request, each optional); changes apply without a restart.
    #[arg(long, env = "EBB_CONFIG", value_name = "PATH")]
    config: Option<PathBuf>,
    /// Follow the key ebb.yaml of this ConfigMap through the API server instead; needs the rights to get, list and
    /// watch it.
    #[arg(long, env = "EBB_CONFIG_MAP", value_name = "NAMESPACE/NAME", conflicts_with = "config")]
    config_map: Option<String>,
    /// Memory limit, such as 256Mi; a smaller limit of the container applies instead [env: EBB_MAX_MEMORY=].
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// Threads of the data listener [env: EBB_CORES=] [default: 1].
    #[arg(long, value_name = "N")]
    cores: Option<String>,
}

impl ServeArgs {
    /// The arguments of a server that is started with variables alone, and with this file instead of theirs.
    pub(super) fn of_environment(file: Option<PathBuf>) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (config, config_map) = match file {
            Some(file) => (Some(file), None),
            None => (variable("EBB_CONFIG").map(PathBuf::from), variable("EBB_CONFIG_MAP")),
        };
        if config.is_some() && config_map.is_some() {
            return Err(Failure::Usage("EBB_CONFIG cannot be used with EBB_CONFIG_MAP".to_owned()));
        }
        let (listen, socket, admin_listen, admin_socket) = Default::default();
        let (http_listen, http_hosts, max_memory, cores) = Default::default();
        Ok(Self {
            listen,
            socket,
            admin_listen,
            admin_socket,
            http_listen,
            http_hosts,
            config,
            config_map,
            max_memory,
            cores,
        })
    }

    /// The environment, the source and the flags of these arguments.
    fn parts(self) -> Result<(Environment, Source, Flags), Failure> {
        let Self {
            listen,
            socket,
            admin_listen,
            admin_socket,
            http_listen,
            http_hosts,
            config,
            config_map,
            max_memory,
            cores,
        } = self;
        let flags = [
            ("listen", listen, "flag --listen"),
            ("socket", socket, "flag --socket"),
            ("adminListen", admin_listen, "flag --admin-listen"),
            ("adminSocket", admin_socket, "flag --admin-socket"),
            ("httpListen", http_listen, "flag --http-listen"),
            ("httpHosts", http_hosts, "flag --http-hosts"),
            ("maxMemory", max_memory, "flag --max-memory"),
            ("cores", cores, "flag --cores"),
        ];
        let given = |(key, value, flag): (&str, Option<String>, &'static str)| Some((key.to_owned(), (value?, flag)));
        let flags: Flags = flags.into_iter().filter_map(given).collect();
        let environment = Environment::of_process().map_err(|problems| Failure::Config(problems.to_string()))?;
        let source = match config_map {
            Some(reference) => crate::config_map::follow(&reference).map_err(invalid)?,
            None => config.map_or(Source::Nothing, Source::at),
        };
        Ok((environment, source, flags))
    }

    /// Every problem of what a start would read, also those with which a server starts; and warnings about unknown
    /// variables.
    pub(super) fn check(self) -> Result<(Vec<String>, Vec<String>), Failure> {
        let (environment, source, flags) = self.parts()?;
        let checked = ebb_config::check_start(&source, &environment.variables, &flags);
        Ok((checked.err().map(|problems| problems.0).unwrap_or_default(), environment.warnings))
    }

    /// Reads the configuration from these arguments, the environment and the file.
    pub(super) fn load(self) -> Result<Loaded, Failure> {
        let (environment, source, flags) = self.parts()?;
        let log_format = environment.log_format(&source);
        let from = source.to_string();
        let problems = |problems: Problems| Failure::Config(problems.to_string());
        let live = Live::start(source, environment.variables, flags).map_err(problems);
        Ok(Loaded { live, log_format, from, warnings: environment.warnings })
    }
}

/// The result of reading the configuration.
pub(super) struct Loaded {
    /// The active configuration, or the error.
    pub(super) live: Result<Live, Failure>,
    /// The log format; known even if the configuration is invalid.
    log_format: LogFormat,
    /// The source of the configuration.
    from: String,
    /// Warnings about unknown variables.
    pub(super) warnings: Vec<String>,
}

/// Runs the sidecar until a signal stops it.
pub(crate) fn run(args: ServeArgs) -> Outcome {
    crate::logging::start(first_log_format("EBB_LOG_FORMAT"), LogLevel::Info);
    let done = serve(args).map_err(logged);
    crate::logging::flush();
    done
}

fn serve(args: ServeArgs) -> Outcome {
    if let Err(error) = ebb_engine::huge_pages::disable() {
        tracing::debug!(%error, "cannot disable transparent huge pages");
    }
    let runtime = server::runtime()?;
    // Install signal handlers first: the API server that holds the configuration may be slow.
    let mut signals = runtime.block_on(async { Signals::install() })?;
    let loaded = runtime.block_on(async {
        tokio::select! {
            loaded = tokio::task::spawn_blocking(|| args.load()) => Ok(loaded),
            reason = signals.stop() => Err(reason),
        }
    });
    let Loaded { live, log_format, from, warnings } = match loaded {
        Ok(loaded) => loaded??,
        Err(reason) => {
            tracing::info!(reason, "stopping before the configuration was read");
            runtime.shutdown_background();
            return Ok(());
        }
    };
    crate::logging::start(log_format, LogLevel::Info);
    let live = live?;
    crate::logging::start(live.config().static_settings.log_format, live.dynamic().log_level);
    if let Some(problem) = live.problem() {
        tracing::error!(problem, "invalid configuration; its valid settings are active");
    }
    let warnings = warnings.iter().chain(&live.effective().warnings);
    warnings.for_each(|warning| tracing::warn!(warning, "configuration warning"));
    let server = Server::bind(live).map_err(invalid)?;
    let announce = |at: &Addresses| {
        let socket = at.socket.as_ref().map_or_else(String::new, |socket| format!(" socket={socket}"));
        output::announce(format!("listening data={}{socket} admin={} http={}", at.data, at.admin, at.http));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data = at.data,
            socket = at.socket,
            admin = at.admin,
            http = at.http,
            config = from,
            limit_bytes = at.limit_bytes,
            limit_source = at.limit_source,
            "started"
        );
    };
    Ok(server.run(runtime, announce, async || signals.next().await)?)
}

fn invalid(error: anyhow::Error) -> Failure {
    Failure::Config(format!("{error:#}"))
}

/// Also logs the failure if the log format is JSON.
pub(super) fn logged(failure: Failure) -> Failure {
    match failure.code() {
        (code, Some(error)) if crate::logging::is_json() => {
            tracing::error!(error, exit_code = code, "cannot serve");
            Failure::Logged(code)
        }
        (1, Some(sentence)) => Failure::Failed(sentence),
        (2, Some(sentence)) => Failure::Usage(sentence),
        (_, Some(sentence)) => Failure::Config(sentence),
        (code, None) => Failure::Logged(code),
    }
}
