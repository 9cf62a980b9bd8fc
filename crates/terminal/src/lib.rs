//! Output and exit codes of Ebb's programs.
//!
//! Results go to standard output; progress, misses and errors go to standard error. Texts of others are escaped
//! ([`escape`]).

pub mod escape;
mod failure;
mod finding;
pub mod output;
mod stream;
mod table;

pub use failure::{Failure, Outcome, exit_code};
pub use finding::{Finding, Severity};
pub use stream::{has_colours, is_screen, write_all};
pub use table::Table;

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}
