//! `ebb-bench stall`: the cost for writers of preempted readers and of a running cleaner.
//!
//! ```text
//!   readers   a full store, readers of one large value, a writer        items evicted per set, without and with readers
//!   roomy     the same readers, a store with room for everything        keys lost
//!   waits     busy threads, a writer at a fixed rate                    the longest Sets, with and without a cleaner
//!   run       a requested run during writes at full speed               seconds until it ends
//!   target    an evicting target set during such a run                  seconds until it is reached
//! ```
//! T1. Each part has its own stores. Compared figures are measured in the same run, alternating if they are repeated.
//! T2. A reader takes no lock, but a thread that is preempted during a read keeps the item that it reads alive until it
//!     runs again. With more readers than cores, this happens all the time.
//! T3. In `readers` there is no cleaner, so every eviction during a Set is caused by that Set. A Set that finds the
//!     index too small also evicts for a larger one, with or without readers: compare the two rows.

mod options;
mod readers;
mod report;
mod runs;
mod threads;
mod waits;

pub(crate) use options::StallArgs;

use ebb_terminal::{Failure, Outcome, Output, output};
use options::Part;
use readers::{fill_full, fill_roomy};
use report::{Results, as_json, as_text};
use runs::{RUN_BOUND, TARGET_BOUND, await_run, await_target};
use waits::wait_for_sets;

pub(super) fn run(args: StallArgs) -> Outcome {
    if args.keys > args.roomy.0 / 1_000 {
        let (keys, most) = (args.keys, args.roomy.0 / 1_000);
        return Err(Failure::Usage(format!("--keys {keys}: must be at most {most} with --roomy {}", args.roomy)));
    }
    let results = measure(&args)?;
    match args.output {
        Output::Json => output::json(&as_json(&args, &results)),
        Output::Text => output::line(as_text(&args, &results).trim_end()),
    }
}

fn measure(args: &StallArgs) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let is_wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    let note = |text: &dyn std::fmt::Display| output::note(format_args!("stall: {text}"));
    if is_wanted(Part::Readers) {
        for readers in [0, args.readers] {
            note(&format_args!("a full store beside {readers} readers for {} s", args.seconds));
            results.readers.push(fill_full(args, readers)?);
        }
    }
    if is_wanted(Part::Roomy) {
        for cleaner in [false, true] {
            note(&format_args!("{} keys into a roomy store", args.keys));
            results.roomy.push(fill_roomy(args, cleaner)?);
        }
    }
    if is_wanted(Part::Waits) {
        note(&format_args!("{} rounds of {} s without and with a cleaner", args.rounds, args.seconds));
        for _ in 0..args.rounds {
            for cleaner in [true, false] {
                results.waits.push(wait_for_sets(args, cleaner)?);
            }
        }
    }
    if is_wanted(Part::Run) {
        note(&format_args!("a requested run for at most {} s", RUN_BOUND.as_secs()));
        results.run = Some(await_run(args)?);
    }
    if is_wanted(Part::Target) {
        note(&format_args!("a new target during a run for at most {} s", TARGET_BOUND.as_secs()));
        results.target = Some(await_target(args)?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests;
