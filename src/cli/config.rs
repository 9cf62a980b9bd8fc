//! `ebb config`: check a file, and print active values with their sources.

use super::serve::ServeArgs;
use super::{Failure, Outcome, output};
use clap::{Args, Subcommand};
use ebb_config::Row;
use ebb_terminal::escape::escaped;
use std::path::PathBuf;

/// Check a configuration file, or print the active values with their sources.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb config check ebb.yaml
  EBB_TICK=5ms ebb config check --env
  ebb config print --config ebb.yaml")]
pub(crate) struct ConfigArgs {
    /// The subcommand.
    #[command(subcommand)]
    command: ConfigCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report all problems of a file (exit code 64), or of the environment (exit code 1).
    Check {
        /// The file.
        #[arg(required_unless_present = "env")]
        file: Option<PathBuf>,
        /// Check the environment of this process and its file as the start of `ebb serve` reads them; FILE replaces
        /// EBB_CONFIG.
        #[arg(long)]
        env: bool,
    },
    /// Print all active values with their sources.
    Print {
        /// Arguments of `ebb serve`.
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Print the JSON schema of the file.
    Schema,
}

/// Checks or prints.
pub(crate) fn run(args: ConfigArgs) -> Outcome {
    match args.command {
        ConfigCommand::Check { file, env: true } => {
            let (problems, warnings) = ServeArgs::of_environment(file)?.check()?;
            warnings.iter().for_each(|warning| output::note(format_args!("ebb: warning: {warning}")));
            match problems.is_empty() {
                true => output::line("the environment is valid"),
                false => Err(Failure::Failed(problems.join("\n"))),
            }
        }
        ConfigCommand::Check { file, env: false } => {
            let file = file.expect("clap requires it");
            ebb_config::check(&file).map_err(|problems| Failure::Config(problems.0.join("\n")))?;
            output::line(&format!("{} is valid", file.display()))
        }
        ConfigCommand::Print { serve } => {
            let loaded = serve.load()?;
            let live = loaded.live?;
            let warnings = loaded.warnings.iter().chain(&live.effective().warnings);
            warnings.for_each(|warning| output::note(format_args!("ebb: warning: {warning}")));
            let on_one_line = |row: &Row| Row { value: escaped(&row.value).into_owned(), ..row.clone() };
            let rows: Vec<Row> = live.effective().rows.iter().map(on_one_line).collect();
            let wide = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
            let (keys, values) = (wide(|row| row.key.len()), wide(|row| row.value.len()));
            let line = |Row { key, value, source }: &Row| format!("{key:keys$}  {value:values$}  {source}");
            output::line(&rows.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        ConfigCommand::Schema => output::json(&ebb_config::schema()),
    }
}
