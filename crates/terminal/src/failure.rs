//! Results of commands and their exit codes.

use crate::output;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Failed, with a message for standard error; exit code 1.
    Failed(String),
    /// Failed; the message is printed already; exit code 1.
    Printed,
    /// Failed; the message is logged already. Holds the exit code.
    Logged(u8),
    /// Standard output is closed; exit code 0.
    ReaderGone,
    /// Invalid arguments; exit code 2.
    Usage(String),
    /// Invalid configuration; exit code 64.
    Config(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        // The alternate form of an `anyhow::Error` has the whole chain of causes.
        Self::Failed(format!("{error:#}"))
    }
}

/// Result of a command.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The exit code, and the message that is not printed yet.
    pub fn code(self) -> (u8, Option<String>) {
        match self {
            Self::Failed(sentence) => (1, Some(sentence)),
            Self::Printed => (1, None),
            Self::Usage(sentence) => (2, Some(sentence)),
            Self::Config(sentence) => (64, Some(sentence)),
            Self::Logged(code) => (code, None),
            Self::ReaderGone => (0, None),
        }
    }
}

/// Returns the exit code of a command; prints the message of a failure after the name of the program.
pub fn exit_code(program: &str, outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let (code, sentence) = failure.code();
    if let Some(sentence) = sentence {
        output::note(format_args!("{program}: {sentence}"));
    }
    ExitCode::from(code)
}
