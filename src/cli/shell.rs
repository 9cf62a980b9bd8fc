//! `ebb completions` and `ebb man`.

use super::{Cli, Failure, Outcome, output};
use clap::{Args, CommandFactory as _};
use std::path::PathBuf;

/// Print shell completions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb completions bash > /etc/bash_completion.d/ebb
  ebb completions zsh > \"${fpath[1]}/_ebb\"")]
pub(crate) struct CompletionsArgs {
    /// Shell.
    shell: clap_complete::Shell,
}

/// Prints the completions.
pub(super) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ebb", &mut text);
    output::line(String::from_utf8_lossy(&text).trim_end())
}

/// Print the manual page, or write one for each command.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb man | man -l -
  ebb man --into /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Directory for the pages ebb.1, ebb-serve.1 and so on.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// Prints or writes the pages.
pub(super) fn man(args: &ManArgs) -> Outcome {
    match &args.into {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder)
            .map_err(|error| Failure::Failed(format!("--into {}: {error}", folder.display()))),
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            output::line(String::from_utf8_lossy(&text).trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { into: Some(folder.path().to_owned()) }).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("ebb-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(&page).unwrap().contains("NAME"), "{page:?}");
        }
    }
}
