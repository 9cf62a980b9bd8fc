//! What Ebb's programs share: how they print, and how they end.
//!
//! Standard output carries the answer and nothing else; progress, misses and errors go to standard error.

mod failure;
mod finding;
pub mod output;
mod stream;
mod table;

pub use failure::{Failure, Outcome, exit_code};
pub use finding::{Finding, Severity};
pub use stream::{has_colours, is_screen, write_all};
pub use table::Table;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}
