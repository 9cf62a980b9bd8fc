//! `ebb config`: check a file before it is mounted, and see which value came from where.

use super::{Failure, Outcome, output};
use clap::{Args, Subcommand};
use ebb_config::Row;
use std::path::PathBuf;

/// Check a configuration file, or print the values in effect and where each came from.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb config check ebb.yaml
  ebb config print --config ebb.yaml")]
pub(crate) struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every problem of a file, and exit with 64 if there is one.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print every value in effect and where it came from.
    Print {
        /// As for `ebb serve`.
        #[command(flatten)]
        serve: super::serve::ServeArgs,
    },
    /// Print the JSON schema of the file.
    Schema,
}

/// Checks or prints.
pub(crate) fn run(args: ConfigArgs) -> Outcome {
    match args.command {
        ConfigCommand::Check { file } => {
            ebb_config::check(&file).map_err(|problems| Failure::Config(problems.0.join("\n")))?;
            output::line(&format!("{} is good", file.display()))
        }
        ConfigCommand::Print { serve } => {
            let loaded = serve.load()?;
            let live = loaded.live?;
            let warnings = loaded.warnings.iter().chain(&live.effective().warnings);
            warnings.for_each(|warning| output::note(format_args!("ebb: warning: {warning}")));
            let rows = &live.effective().rows;
            let wide = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
            let (keys, values) = (wide(|row| row.key.len()), wide(|row| row.value.len()));
            let line = |Row { key, value, source }: &Row| format!("{key:keys$}  {value:values$}  {source}");
            output::line(&rows.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        ConfigCommand::Schema => output::json(&ebb_config::schema()),
    }
}
