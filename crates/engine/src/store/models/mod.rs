//! Models of every race that lock-free readers make possible, for a model checker. Each model has a mutant, the same
//! model with a planted bug, which must fail: a model that cannot fail proves nothing.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release -p ebb-engine --lib models` runs the whole store under
//! shuttle: random schedules, and PCT (Burckhardt et al., ASPLOS 2010) for bugs that need few but rare switches.
//! `RUSTFLAGS="--cfg loom"` runs the parts that depend on memory order, a single item and the ledger, under loom, which
//! explores every execution of the C11 model. Tests assert the number of executions, because a checker that explored
//! only one schedule proves nothing.

#[cfg(loom)]
mod every_execution;
#[cfg(shuttle)]
mod whole_store;

use super::*;
use crate::sync::{Fault, plant};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicUsize as Count;

/// Serializes the models: a planted bug affects the whole process.
static TURN: StdMutex<()> = StdMutex::new(());

/// How long to search for a failure.
#[derive(Clone, Copy)]
enum Search {
    /// A model: a fixed number of schedules, bounded by the time of a test.
    Model,
    /// A mutant: until it fails. Some bugs show in one of five hundred schedules. The search ends at the first failure,
    /// so a generous bound costs nothing and no mutant passes by chance.
    Mutant,
}

/// Runs a model, which must hold, and then its mutant, which must fail. `explore` returns the number of executions.
fn with_mutant(
    fault: Fault,
    least: usize,
    explore: impl Fn(Search) -> usize + std::panic::UnwindSafe + std::panic::RefUnwindSafe,
) {
    let _turn = TURN.lock();
    plant(None);
    let executions = explore(Search::Model);
    println!("{fault:?}: held in {executions} executions");
    assert!(executions >= least, "only {executions} executions were explored");
    plant(Some(fault));
    let mutant = std::panic::catch_unwind(|| explore(Search::Mutant));
    plant(None);
    assert!(mutant.is_err(), "the mutant with {fault:?} planted must fail");
}
