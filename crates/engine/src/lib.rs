//! Ebb's engine: a store that gives memory back while it is read and written.
//!
//! ```text
//!  callers ──► store ◄── cleaner ◄── a target, decided by `decide` from a sample of the memory in use
//! ```
//! It has no runtime, no files, no configuration and no wall clock: its callers bring the time ([`clock::Clock`]), the
//! target and the settings. Unsafe code stands in `store/arena.rs` alone.

#![warn(missing_docs)]

pub mod cleaner;
pub mod clock;
pub mod decide;
pub mod huge_pages;
pub mod store;
pub mod sync;
