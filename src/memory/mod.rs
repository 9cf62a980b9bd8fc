//! The governor: reads how much memory there is and how much is used, decides, and tells the cleaner.
//!
//! ```text
//!  cgroup files ┐
//!  limit file   ├─► Sample ─► decide (pure) ─► budget ─► ledger        each tick, freshly read:
//!  RSS, engine  ┘                        └──► order ──► cleaner        a limit that moves is followed
//! ```
//! It is a thread of its own, not a task: a data plane that is busy must not delay the decision that keeps it alive.

pub mod decide;

#[cfg(feature = "server")]
mod cgroup;
#[cfg(feature = "server")]
mod governor;
#[cfg(feature = "server")]
mod limit;
#[cfg(feature = "server")]
mod mounts;
#[cfg(feature = "server")]
mod node;
#[cfg(feature = "server")]
mod process;

#[cfg(feature = "server")]
pub use cgroup::{Cgroup, Events, Paths, Pressure, Reading};
pub use decide::{Marks, Regime};
#[cfg(feature = "server")]
pub use governor::{Governor, Limits, Setting, Snapshot, View, sample_limits};
#[cfg(feature = "server")]
pub use limit::LimitSource;
#[cfg(feature = "server")]
pub use process::disable_huge_pages;
