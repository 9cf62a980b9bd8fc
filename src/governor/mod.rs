//! The governor: samples limit and use of memory, decides, and sets the cleaner's target.
//!
//! ```text
//!  cgroup files ┐
//!  limit file   ├─► Sample ─► ebb_engine::decide ─► budget ─► ledger        read again at each tick,
//!  RSS, engine  ┘                     └───────────► target ─► cleaner        so a changed limit is followed
//! ```
//! It is a thread, not a task: a busy data plane must not delay the decisions that prevent an OOM kill.

mod cgroup;
mod limit;
mod mounts;
mod node;
mod process;
mod thread;

pub use cgroup::{Cgroup, Events, Pressure, Reading};
pub use limit::LimitSource;
pub use mounts::Paths;
pub use thread::{Governor, Limits, Setting, Snapshot, View, sample_limits};
