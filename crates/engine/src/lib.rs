//! Ebb's engine: a store that returns memory to the kernel while it is read and written.
//!
//! ```text
//!  callers ──► store ◄── cleaner ◄── a target, decided by `decide` from a sample of the memory in use
//! ```
//! It has no async runtime, no files, no configuration and no wall clock: its callers pass the time ([`clock::Clock`]),
//! the target and the settings. Only `store/arena.rs` contains unsafe code.

#![warn(missing_docs)]

pub mod cleaner;
pub mod clock;
pub mod decide;
pub mod huge_pages;
pub mod per_thread;
pub mod store;
pub mod sync;
