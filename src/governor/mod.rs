//! The governor: reads how much memory there is and how much is used, decides, and tells the cleaner.
//!
//! ```text
//!  cgroup files ┐
//!  limit file   ├─► Sample ─► ebb_engine::decide ─► budget ─► ledger        each tick, freshly read:
//!  RSS, engine  ┘                     └───────────► order ──► cleaner        a limit that moves is followed
//! ```
//! It is a thread of its own, not a task: a data plane that is busy must not delay the decision that keeps it alive.

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
