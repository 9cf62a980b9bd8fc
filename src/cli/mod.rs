//! The command line.
//!
//! ```text
//!   data      get set del touch incr scan                                     calls of the data API
//!   admin     stats top doctor keys memory-map diagnostics compact release    calls of the admin API; dial-stdio
//!   server    serve config                                                    the sidecar itself
//!   cluster   inject uninject injector check                                  injection of sidecars
//!   shell     completions man                                                 shell completions and manual pages
//! ```
//!
//! C1. Results go to standard output; progress, misses and errors go to standard error.
//! C2. The exit code is 0 for success, 1 if a call failed or found nothing, 2 if the command line is invalid, and 64 if
//!     the configuration is invalid or the server cannot start with it.
//! C3. A command whose output pipe is closed exits with 0; a command that cannot write exits with 1 (see [`output`]).

mod check;
mod compact;
mod config;
mod connect;
mod contradictions;
mod data;
mod diagnostics;
mod dial_stdio;
mod doctor;
mod explain;
mod inject;
mod injector;
mod keys;
mod lease;
mod manifest;
mod memory_map;
mod namespaces;
mod numbers;
mod pods;
mod serve;
mod shell;
mod signals;
mod stats;
mod targets;
#[cfg(test)]
mod testing;
mod top;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use ebb_config::environment::first_log_format;
use ebb_config::secret::redacted;
use ebb_config::{LogFormat, LogLevel};
use ebb_terminal::{Failure, Outcome, output};

/// A cache sidecar that returns memory.
#[derive(Debug, Parser)]
#[command(
    name = "ebb",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ebb serve                            start the sidecar
  ebb set greeting hello --ttl 30s     store a value for half a minute
  ebb get greeting                     print it
  ebb stats --watch                    watch memory use
  ebb compact                          return memory now
  ebb top deploy/shop -n shop          watch the sidecars of a workload

Under the name kubectl-ebb on the PATH, the program is a plugin: kubectl ebb top deploy/shop.

Exit codes: 0 success, 1 failed call or nothing found, 2 invalid command line,
64 cannot start (configuration, address, memory).
A closed output pipe is not an error."
)]
pub(crate) struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[command(defer = true)] // `serve` needs none of the other commands' arguments: built, they stay resident
pub(crate) enum Command {
    /// Run the sidecar.
    Serve(serve::ServeArgs),
    /// Check a configuration file, or print the active values with their sources.
    Config(config::ConfigArgs),
    /// Print the value of a key.
    Get(data::GetArgs),
    /// Store a value.
    Set(data::SetArgs),
    /// Delete keys.
    #[command(visible_alias = "delete")]
    Del(data::DelArgs),
    /// Set the time to live of a key.
    Touch(data::TouchArgs),
    /// Add to a counter and print its value.
    #[command(visible_alias = "increment")]
    Incr(data::IncrArgs),
    /// List the keys of a namespace.
    Scan(data::ScanArgs),
    /// Show memory use, counters and recent receipts.
    Stats(stats::StatsArgs),
    /// Compact now and print the receipt.
    Compact(compact::CompactArgs),
    /// Compact, then evict, until memory use is at or below a target.
    Release(compact::ReleaseArgs),
    /// Watch sidecars in a terminal.
    Top(top::TopArgs),
    /// List problems of a server with evidence and a remedy, worst first.
    Doctor(doctor::DoctorArgs),
    /// List hot keys or the largest entries, from a sample.
    Keys(keys::KeysArgs),
    /// List the namespaces and what each of them uses, largest first.
    Namespaces(namespaces::NamespacesArgs),
    /// Show the occupancy of segments.
    MemoryMap(memory_map::MemoryMapArgs),
    /// Write a support bundle as JSON.
    Diagnostics(diagnostics::DiagnosticsArgs),
    /// Connect standard input and output to the admin listener.
    DialStdio(dial_stdio::DialStdioArgs),
    /// Check an installation in a cluster and suggest fixes.
    Check(check::CheckArgs),
    /// Add a sidecar to the pods and workloads of manifests.
    Inject(inject::InjectArgs),
    /// Remove the sidecars that `ebb inject` added.
    Uninject(inject::UninjectArgs),
    /// Run the webhook that injects sidecars.
    Injector(Box<injector::InjectorArgs>),
    /// Print shell completions.
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write one for each command.
    Man(shell::ManArgs),
}

/// Parses the command line, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    signals::ignore_file_size_limit();
    let done = parse().and_then(|cli| cli.map_or(Ok(()), |cli| dispatch(cli.command)));
    ebb_terminal::exit_code("ebb", done.map_err(without_credentials))
}

/// An error may quote a URL of the command line, the environment or a proxy.
fn without_credentials(failure: Failure) -> Failure {
    let shown = |sentence: String| redacted(&sentence).into_owned();
    match failure {
        Failure::Failed(sentence) => Failure::Failed(shown(sentence)),
        Failure::Usage(sentence) => Failure::Usage(shown(sentence)),
        Failure::Config(sentence) => Failure::Config(shown(sentence)),
        other @ (Failure::Printed | Failure::Logged(_) | Failure::ReaderGone) => other,
    }
}

/// Parses the command line; `None` after printing help or the version.
fn parse() -> Result<Option<Cli>, Failure> {
    let is_empty = |(name, value): (OsString, OsString)| name.to_string_lossy().starts_with("EBB_") && is_blank(&value);
    let parsed = match (std::env::vars_os().any(is_empty), is_plugin()) {
        (false, false) => read(Cli::command(), std::env::args_os()),
        // This path is slower, since it builds the arguments of all commands.
        (has_empty, is_plugin) => {
            let mut command = Cli::command();
            if is_plugin {
                command = command.bin_name("kubectl ebb");
            }
            if has_empty {
                // An empty variable counts as not set.
                command = without_empty_variables(command);
            }
            read(command, std::env::args_os())
        }
    };
    let mut error = match parsed {
        Ok(cli) => return Ok(Some(cli)),
        Err(error) => error,
    };
    hide_credentials(&mut error);
    if error.use_stderr() && logs_json() {
        let sentence = error.render().to_string();
        crate::logging::start(LogFormat::Json, LogLevel::Info);
        let failure = serve::logged(Failure::Usage(sentence.trim_end().to_owned()));
        crate::logging::flush();
        return Err(failure);
    }
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match error.exit_code() {
        0 => output::outcome(printed).map(|()| None),
        code => Err(Failure::Logged(u8::try_from(code).unwrap_or(2))),
    }
}

/// Replaces a wrong value that may hold credentials, which clap quotes: `user:token@host`, with or without a scheme.
fn hide_credentials(error: &mut clap::Error) {
    let is_secret = |value: &str| value.contains('@') || value.contains("://");
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if matches!(error.get(kind), Some(ContextValue::String(value)) if is_secret(value)) {
            error.insert(kind, ContextValue::String("***".to_owned()));
        }
    }
}

/// Reads a command line.
fn read<T: Into<OsString> + Clone>(
    command: clap::Command,
    words: impl IntoIterator<Item = T>,
) -> Result<Cli, clap::Error> {
    let mut matches = command.try_get_matches_from(words)?;
    contradictions::check(&matches)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// Whether this process logs JSON, judged by command line and environment.
fn logs_json() -> bool {
    let variable = match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some("serve") => "EBB_LOG_FORMAT",
        Some("injector") => "EBB_INJECTOR_LOG_FORMAT",
        _ => return false,
    };
    first_log_format(variable) == LogFormat::Json
}

/// Whether kubectl has run this program as its plugin, by the name `kubectl-ebb`.
fn is_plugin() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&called).file_stem().is_some_and(|name| name == "kubectl-ebb")
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|value| value.trim().is_empty())
}

fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    command.build();
    fn strip(command: clap::Command) -> clap::Command {
        let given = |arg: clap::Arg| match arg.get_env().and_then(std::env::var_os) {
            Some(value) if is_blank(&value) => arg.env(clap::builder::Resettable::Reset),
            _ => arg,
        };
        command.mut_args(given).mut_subcommands(strip)
    }
    strip(command)
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(args), // has its own runtimes
        Command::Config(args) => config::run(args),
        Command::Get(args) => wait(data::get(args)),
        Command::Set(args) => wait(data::set(args)),
        Command::Del(args) => wait(data::del(args)),
        Command::Touch(args) => wait(data::touch(args)),
        Command::Incr(args) => wait(data::incr(args)),
        Command::Scan(args) => wait(data::scan(args)),
        Command::Stats(args) => wait(stats::run(args)),
        Command::Compact(args) => wait(compact::compact(args)),
        Command::Release(args) => wait(compact::release(args)),
        Command::Doctor(args) => wait(doctor::run(args)),
        Command::Top(args) => wait(top::run(args)),
        Command::Keys(args) => wait(keys::run(args)),
        Command::Namespaces(args) => wait(namespaces::run(args)),
        Command::MemoryMap(args) => wait(memory_map::run(args)),
        Command::Diagnostics(args) => wait(diagnostics::run(args)),
        Command::DialStdio(args) => dial_stdio::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Check(args) => wait(check::run(args)),
        Command::Inject(args) => inject::inject(args),
        Command::Uninject(args) => inject::uninject(args),
        Command::Injector(args) => injector::run(*args), // has its own runtime
    }
}

/// Runs a client's future on one thread; a command makes only a few calls.
fn wait<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_documented() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let source = include_str!("mod.rs");
        let listed: Vec<_> =
            source.lines().filter_map(|line| line.trim().strip_prefix("/// ")?.strip_suffix('.')).collect();
        for sub in command.get_subcommands_mut() {
            let about = sub.get_about().unwrap_or_else(|| panic!("{} has no description", sub.get_name())).to_string();
            assert!(listed.contains(&about.as_str()), "missing from the list of commands: {about}");
            assert!(sub.render_long_help().to_string().len() > 100);
        }
    }

    #[test]
    fn a_command_line_is_read_as_it_is_meant() {
        let cli = Cli::try_parse_from(["ebb", "set", "k", "v", "--ttl", "30s", "--if-absent"]).unwrap();
        let Command::Set(args) = cli.command else { panic!("set is set") };
        assert_eq!(args.ttl, Some(ebb_config::units::Span(30_000)));
        assert!(args.if_absent);
        assert!(Cli::try_parse_from(["ebb", "set", "k", "v", "--if-absent", "--if-present"]).is_err());
        assert!(Cli::try_parse_from(["ebb", "set", "k", "v", "--ttl", "30 parsecs"]).is_err());
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        let mut wrong = Vec::new();
        for words in [
            "stats pod/shop-0 --admin-addr 127.0.0.1:7071",
            "top deploy/shop --admin-addr 127.0.0.1:7071,unix:/run/ebb/admin.sock",
            "top --admin-addr 127.0.0.1:7071 pod/a pod/b",
            "doctor sts/db --admin-addr 127.0.0.1:7071",
            "keys --hot pod/a --admin-addr 127.0.0.1:7071",
            "memory-map pod/a --admin-addr 127.0.0.1:7071",
            "diagnostics pod/a --admin-addr 127.0.0.1:7071",
            "compact pod/a --admin-addr 127.0.0.1:7071",
            "release pod/a --to 1Mi --admin-addr 127.0.0.1:7071",
            "doctor pod/a --explain oom_killed",
            "doctor --explain --admin-addr 127.0.0.1:7071",
            "doctor --explain oom_killed -n shop",
            "doctor --explain --context kind",
            "incr visits --only-existing --ttl 1h",
            "incr visits --only-existing --initial 3",
        ] {
            let words = ["ebb"].into_iter().chain(words.split(' '));
            match read(Cli::command(), words.clone()) {
                Err(error) if error.kind() == clap::error::ErrorKind::ArgumentConflict => {}
                Ok(cli) => wrong.push(format!("accepted: {:?}", cli.command)),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for words in ["stats -n shop", "doctor --context kind", "top --namespace shop", "diagnostics -n shop"] {
            let error = read(Cli::command(), ["ebb"].into_iter().chain(words.split(' '))).unwrap_err().to_string();
            assert!(error.contains("add a TARGET such as pod/NAME"), "{words}: {error}");
        }
        for words in ["stats pod/shop-0", "stats --admin-addr 127.0.0.1:1", "doctor --explain", "incr visits --ttl 1h"]
        {
            read(Cli::command(), ["ebb"].into_iter().chain(words.split(' '))).unwrap();
        }
    }

    /// Whoever adds an argument with a default to the administrative commands decides what it means beside a target.
    #[test]
    fn every_command_with_a_target_refuses_an_address_beside_it() {
        let mut command = Cli::command();
        command.build();
        let ids = |command: &clap::Command| {
            command.get_arguments().map(|arg| arg.get_id().to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        let with_target: Vec<_> = command.get_subcommands().filter(|sub| ids(sub).contains("target")).collect();
        assert!(with_target.len() >= 8);
        assert!(with_target.iter().all(|sub| ids(sub).contains("admin_addr")), "the pair is known by these IDs");
    }

    #[test]
    fn every_variable_of_a_command_is_known_to_the_environment() {
        fn of(command: &clap::Command, into: &mut std::collections::BTreeSet<String>) {
            into.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())));
            command.get_subcommands().for_each(|sub| of(sub, into));
        }
        let mut command = Cli::command();
        command.build();
        let mut read = std::collections::BTreeSet::new();
        of(&command, &mut read);
        let known = ebb_config::environment::OF_COMMANDS.map(str::to_owned).into();
        assert_eq!(read, known);
    }

    async fn admin(words: &[&str]) -> Outcome {
        let server = testing::Server::start().await;
        let at = server.address.to_string();
        let cli = Cli::try_parse_from(["ebb"].iter().chain(words).chain(&["--admin-addr", &at])).unwrap();
        match cli.command {
            Command::Stats(args) => stats::run(args).await,
            Command::Compact(args) => compact::compact(args).await,
            Command::Release(args) => compact::release(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_operator_learns_from_the_outcome_how_it_went() {
        admin(&["stats"]).await.unwrap();
        admin(&["stats", "--watch", "--output", "json"]).await.unwrap();
        admin(&["compact"]).await.unwrap();
        admin(&["release", "--to", "64Mi"]).await.unwrap();
        let failed = async |words: &[&str]| match admin(words).await {
            Err(Failure::Failed(sentence) | Failure::Usage(sentence)) => sentence,
            other => panic!("{other:?}"),
        };
        assert!(failed(&["compact", "--dry-run"]).await.contains("without a receipt"));
        let said = failed(&["release", "--to", "16Mi", "--output", "json"]).await;
        assert_eq!(said, "memory use is 32.0 MiB, above the target of 16.0 MiB");
        assert!(failed(&["stats", "--watch", "--every", "50ms"]).await.contains("at least 100ms"));
        assert!(matches!(admin(&["doctor"]).await, Err(Failure::Printed)), "there is an error among the findings");
    }
}
