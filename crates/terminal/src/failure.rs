//! What a command ends in, and its exit code.

use crate::output;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// A sentence for standard error; the exit code is 1.
    Failed(String),
    /// Already said what there is to say; the exit code is 1.
    Said,
    /// The log has the sentence already; the exit code.
    Logged(u8),
    /// Nobody reads standard output any more; the exit code is 0.
    ReaderGone,
    /// The arguments make no sense together; the exit code is 2.
    Usage(String),
    /// The configuration is bad; the exit code is 64.
    Config(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a command ends in.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The exit code, and the sentence that is still to be said.
    pub fn code(self) -> (u8, Option<String>) {
        match self {
            Self::Failed(sentence) => (1, Some(sentence)),
            Self::Said => (1, None),
            Self::Usage(sentence) => (2, Some(sentence)),
            Self::Config(sentence) => (64, Some(sentence)),
            Self::Logged(code) => (code, None),
            Self::ReaderGone => (0, None),
        }
    }
}

/// The exit code of a command; prints the sentence of a failure after the name of the program.
pub fn exit_code(program: &str, outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let (code, sentence) = failure.code();
    if let Some(sentence) = sentence {
        output::note(format_args!("{program}: {sentence}"));
    }
    ExitCode::from(code)
}
