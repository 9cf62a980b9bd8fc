//! `ebb-bench stall`: what threads that are off their core, and a cleaner at work, cost writers.
//!
//! ```text
//!   readers   a full store, readers of one large value, a writer        items evicted per set, without and with readers
//!   roomy     the same readers beside a store with room for everything  keys lost
//!   waits     busy threads, a writer at a fixed rate                    the longest Sets, with and without a cleaner
//!   run       a requested run beside a writer at full speed             seconds until it ends
//!   target    an evicting target set during  such a run                 seconds until it is carried out
//! ```
//! T1. Each part has stores of its own. What is compared is measured in the same run, alternating where it is repeated.
//! T2. A reader takes no lock, but a thread that loses its core in the middle of a read keeps what it reads alive until
//!     it runs again. More readers than cores make that happen all the time.
//! T3. In `readers` there is no cleaner, so that every eviction during a set is the set's own. One that finds the index
//!     too small evicts for a larger one as well, also without readers: compare the two rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::engine::{self, Governed, Pace, ValueBytes, Writer, named, size_within};
use super::latency::{Latency, median};
use super::process::pause;
use ebb_config::units::ByteSize;
use ebb_config::units::format::{bytes, count};
use ebb_engine::cleaner::{Reason, Target};
use ebb_engine::clock::Clock;
use ebb_engine::store::{Attributes, Condition, Lookup, Stats, Store, Use};
use ebb_terminal::{Failure, Outcome, Output, Table, output};

/// Measure what readers off their core and a cleaner at work cost writers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb-bench stall
  ebb-bench stall --part waits --seconds 10 --rounds 9
  ebb-bench stall --part readers --readers 12 --large 256Ki --output json

Parts: readers (items evicted per set of a full store), roomy (keys lost where there is
room for all), waits (wall time of a Set with and without a cleaner), run (a requested
compaction beside a writer; given up after 30 s), target (a target that demands eviction to two thirds
during such a run; given up after 10 s). Small items have 16 + 128 bytes, overwritten
ones 16 + 100-500.")]
pub(crate) struct StallArgs {
    /// Only these parts.
    #[arg(long = "part", value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Threads that read the large value.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=64))]
    readers: u64,
    /// The size of the value they read.
    #[arg(long, value_name = "SIZE", default_value = "1Mi", value_parser = size_within(4 << 10, 1 << 20))]
    large: ByteSize,
    /// The capacity of the store in `readers` and `waits`.
    #[arg(long, value_name = "SIZE", default_value = "64Mi", value_parser = size_within(32 << 20, 4 << 30))]
    store: ByteSize,
    /// The capacity of the store in `run` and `target`.
    #[arg(long, value_name = "SIZE", default_value = "256Mi", value_parser = size_within(32 << 20, 4 << 30))]
    run_store: ByteSize,
    /// The capacity of the roomy store.
    #[arg(long, value_name = "SIZE", default_value = "1Gi", value_parser = size_within(64 << 20, 16 << 30))]
    roomy: ByteSize,
    /// Keys stored in the roomy store; at most a thousandth of its bytes.
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..=16_000_000))]
    keys: u64,
    /// How long to write in each measurement of `readers` and `waits`.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Sets a second in `waits`.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    rate: u64,
    /// How often `waits` measures with and without a cleaner.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// The seed of keys and sizes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Items evicted per set of a full store, without and with readers.
    Readers,
    /// Keys lost where there is room for all.
    Roomy,
    /// Wall time of a Set with and without a cleaner.
    Waits,
    /// A requested compaction beside a writer.
    Run,
    /// A target that demands eviction, set during such a run.
    Target,
}

/// The number of the value that is read; no small item has it.
const LARGE: u64 = u64::MAX;
const SMALL_BYTES: usize = 128;
const CHURNED: &str = "100-500";
/// Live items of what is overwritten beside a run, in percent of the store.
const LIVE_PERCENT: u64 = 60;
/// Of what is overwritten in `waits`: so little that nothing is evicted for want of a cleaner.
const LIVE_PERCENT_WAITS: u64 = 25;
/// Threads that only use a core, in `waits`.
const BUSY_THREADS: usize = 2;
/// What the governor orders beside a writer like this one.
const COMPACTING: Target = Target { reason: Reason::Drift, occupancy_percent: 90, evict_to_bytes: None };
const RUN_OCCUPANCY_PERCENT: u8 = 97;
const RUN_BOUND: Duration = Duration::from_secs(30);
const TARGET_BOUND: Duration = Duration::from_secs(10);
/// How long a writer writes before a run is requested, and a run runs before a target is set.
const HEAD_START: Duration = Duration::from_secs(1);

/// What a full store did, with some readers.
#[derive(Clone, Copy, Debug, Default)]
struct Readers {
    readers: u64,
    sets: u64,
    refused: u64,
    evicted: u64,
    most_evicted: u64,
    full_entries: u64,
    fewest_entries: u64,
    reads: u64,
}

/// What a roomy store did.
#[derive(Clone, Copy, Debug, Default)]
struct Roomy {
    cleaner: bool,
    took: Duration,
    evicted: u64,
    refused: u64,
    lost: u64,
    reads: u64,
}

/// The Sets of one round.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    cleaner: bool,
    sets: u64,
    evicted: u64,
    copied_bytes: u64,
    p9999_us: f64,
    longest_us: f64,
}

/// What was waited for beside a writer.
#[derive(Clone, Copy, Debug, Default)]
struct Awaited {
    /// `None`: not within the bound.
    took: Option<Duration>,
    written_bytes: u64,
    during: Duration,
    evicted: u64,
    from_bytes: u64,
    to_bytes: u64,
}

#[derive(Debug, Default)]
struct Results {
    readers: Vec<Readers>,
    roomy: Vec<Roomy>,
    waits: Vec<Waits>,
    run: Option<Awaited>,
    target: Option<Awaited>,
}

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

fn measure(args: &StallArgs) -> Result<Results, String> {
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

/// Threads that do something until they are stopped, also when this value is dropped early.
struct Threads<T> {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<T>>,
}

impl<T: Send + 'static> Threads<T> {
    fn start(number: u64, work: impl Fn(&AtomicBool) -> T + Clone + Send + 'static) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let start = |_| {
            let (work, stopping) = (work.clone(), stopping.clone());
            std::thread::spawn(move || work(&stopping))
        };
        Self { threads: (0..number).map(start).collect(), stopping }
    }

    fn stop(mut self) -> Result<Vec<T>, String> {
        self.stopping.store(true, Ordering::Relaxed);
        let threads = self.threads.drain(..);
        threads.map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())).collect()
    }
}

impl<T> Drop for Threads<T> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Stores the large value.
fn store_large(store: &Store, len: u64, now_ms: u64) -> Result<(), String> {
    let (name, value) = (super::workload::key(LARGE), vec![7; len as usize]);
    let stored = store.set(named(&name), &value, &Attributes::default(), Condition::Always, false, now_ms);
    stored.map(drop).map_err(|error| format!("cannot store the value of {len} bytes: {error}"))
}

/// Starts threads that read the large value, which each returns how often it did. A reader that misses it stores it
/// again, as an application would; while it stays hot, eviction keeps it.
fn start_readers(number: u64, store: &Arc<Store>, clock: &Clock, len: u64) -> Threads<u64> {
    let (store, clock) = (store.clone(), clock.clone());
    Threads::start(number, move |stopping| {
        let (name, mut reads) = (super::workload::key(LARGE), 0);
        while !stopping.load(Ordering::Relaxed) {
            match store.get(named(&name), clock.now_ms(), Use::Read) {
                Ok(Lookup::Found(_)) => reads += 1,
                _ => drop(store_large(&store, len, clock.now_ms())), // refused: the next one tries again
            }
        }
        reads
    })
}

/// Overwrites the items of a store at full speed until stopped; returns the bytes that were stored.
fn start_churn(mut writer: Writer, items: u64) -> (Arc<AtomicBool>, JoinHandle<Result<u64, String>>) {
    let stopping = Arc::new(AtomicBool::new(false));
    let stopped = stopping.clone();
    let thread = std::thread::spawn(move || {
        let before = writer.stored_bytes;
        while !stopped.load(Ordering::Relaxed) {
            let n = writer.random.u64(0..items);
            writer.set(n, 0)?;
        }
        Ok(writer.stored_bytes - before)
    });
    (stopping, thread)
}

fn fill_full(args: &StallArgs, number: u64) -> Result<Readers, String> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.store.0, args.seed)?);
    let mut writer = Writer::new(&store, &clock, ValueBytes::fixed(SMALL_BYTES), args.seed);
    let mut n = 0;
    while store.stats().evictions == 0 {
        writer.set(n, 0)?;
        n += 1;
    }
    // Last, so that it is there when the readers begin.
    store_large(&store, args.large.0, clock.now_ms())?;
    let before = store.stats();
    let (sets, refused) = (writer.stored, writer.refused);
    let readers = start_readers(number, &store, &clock, args.large.0);
    let mut result = Readers { readers: number, full_entries: before.entries, ..Readers::default() };
    let (mut evictions, mut fewest_entries) = (before.evictions, before.entries);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(args.seconds) {
        writer.set(n, 0)?;
        n += 1;
        let Stats { evictions: now, entries, .. } = store.stats();
        result.most_evicted = result.most_evicted.max(now - evictions);
        fewest_entries = fewest_entries.min(entries);
        evictions = now;
    }
    result.reads = readers.stop()?.into_iter().sum();
    (result.sets, result.refused) = (writer.stored - sets, writer.refused - refused);
    (result.evicted, result.fewest_entries) = (evictions - before.evictions, fewest_entries);
    Ok(result)
}

fn fill_roomy(args: &StallArgs, cleaner: bool) -> Result<Roomy, String> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.roomy.0, args.seed)?);
    let _governed = cleaner.then(|| Governed::start(&store, &clock)).transpose()?;
    let mut writer = Writer::new(&store, &clock, ValueBytes::fixed(SMALL_BYTES), args.seed);
    store_large(&store, args.large.0, clock.now_ms())?;
    let readers = start_readers(args.readers, &store, &clock, args.large.0);
    let started = Instant::now();
    for n in 0..args.keys {
        writer.set(n, 0)?;
    }
    let took = started.elapsed();
    let reads = readers.stop()?.into_iter().sum();
    let lost = engine::lost(&store, 0..args.keys, clock.now_ms())?;
    Ok(Roomy { cleaner, took, evicted: store.stats().evictions, refused: writer.refused, lost, reads })
}

fn wait_for_sets(args: &StallArgs, cleaner: bool) -> Result<Waits, String> {
    let (clock, store) = (Clock::monotonic(), engine::store(args.store.0, args.seed)?);
    let mut writer = Writer::new(&store, &clock, CHURNED.parse()?, args.seed);
    let items = writer.fill(args.store.0 / 100 * LIVE_PERCENT_WAITS)?;
    let _governed = cleaner.then(|| Governed::start(&store, &clock)).transpose()?;
    let busy = Threads::start(BUSY_THREADS as u64, |stopping| {
        while !stopping.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let mut latency = Latency::default();
    let (pace, length) = (Pace::new(args.rate as f64), Duration::from_secs(args.seconds));
    let (started, mut sets) = (Instant::now(), 0);
    while started.elapsed() < length {
        pace.wait(sets);
        let n = writer.random.u64(0..items);
        let begun = Instant::now();
        writer.set(n, 0)?;
        latency.record(begun.elapsed());
        sets += 1;
    }
    busy.stop()?;
    let stats = store.stats();
    Ok(Waits {
        cleaner,
        sets,
        evicted: stats.evictions,
        copied_bytes: stats.copied_bytes,
        p9999_us: latency.micros_at(0.9999),
        longest_us: latency.percentiles().max,
    })
}

/// A store that is overwritten at full speed, with a cleaner that works towards its target beside a busy writer until
/// the measurement gives it another.
struct Churned {
    store: Arc<Store>,
    cleaner: ebb_engine::cleaner::Cleaner,
    stopping: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<u64, String>>>,
    started: Instant,
    before: Stats,
}

impl Churned {
    fn start(args: &StallArgs) -> Result<Self, String> {
        let (clock, store) = (Clock::monotonic(), engine::store(args.run_store.0, args.seed)?);
        let mut writer = Writer::new(&store, &clock, CHURNED.parse()?, args.seed);
        let items = writer.fill(args.run_store.0 / 100 * LIVE_PERCENT)?;
        let cleaner = engine::cleaner(&store, &clock)?;
        cleaner.set_target(COMPACTING);
        let before = store.stats();
        let (stopping, writer) = start_churn(writer, items);
        pause(HEAD_START);
        Ok(Self { store, cleaner, stopping, writer: Some(writer), started: Instant::now() - HEAD_START, before })
    }

    /// Waits until a condition holds, at most for `bound`.
    fn wait(&self, bound: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
        let from = Instant::now();
        while from.elapsed() < bound {
            if holds() {
                return Some(from.elapsed());
            }
            pause(Duration::from_millis(1));
        }
        None
    }

    fn end(mut self, awaited: Awaited) -> Result<Awaited, String> {
        let (during, after) = (self.started.elapsed(), self.store.stats());
        self.stopping.store(true, Ordering::Relaxed);
        let writer = self.writer.take().expect("it is taken once");
        let written_bytes = writer.join().map_err(|_| "the writer panicked")??;
        let evicted = after.evictions - self.before.evictions;
        Ok(Awaited { written_bytes, during, evicted, ..awaited })
    }
}

impl Drop for Churned {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.cleaner.stop();
    }
}

fn await_run(args: &StallArgs) -> Result<Awaited, String> {
    let churned = Churned::start(args)?;
    let from_bytes = churned.store.ledger().total();
    let run = churned.cleaner.run(Target::compact(RUN_OCCUPANCY_PERCENT));
    let took = churned.wait(RUN_BOUND, || run.report().is_some());
    let to_bytes = churned.store.ledger().total();
    churned.end(Awaited { took, from_bytes, to_bytes, ..Awaited::default() })
}

fn await_target(args: &StallArgs) -> Result<Awaited, String> {
    let churned = Churned::start(args)?;
    let _run = churned.cleaner.run(Target::compact(RUN_OCCUPANCY_PERCENT));
    pause(HEAD_START);
    let from_bytes = churned.store.ledger().total();
    let bound_bytes = from_bytes / 3 * 2;
    churned.cleaner.set_target(Target { reason: Reason::High, evict_to_bytes: Some(bound_bytes), ..COMPACTING });
    let took = churned.wait(TARGET_BOUND, || churned.store.ledger().total() <= bound_bytes);
    let to_bytes = churned.store.ledger().total();
    churned.end(Awaited { took, from_bytes, to_bytes, ..Awaited::default() })
}

/// The medians of the rounds with a cleaner, those without, and the ratio: of the 99.99th percentile and of the longest.
fn medians(waits: &[Waits]) -> [(f64, f64); 3] {
    let of =
        |cleaner, figure: fn(&Waits) -> f64| median(waits.iter().filter(|round| round.cleaner == cleaner).map(figure));
    let [on, off] = [true, false].map(|cleaner| (of(cleaner, |r| r.p9999_us), of(cleaner, |r| r.longest_us)));
    [on, off, (on.0 / off.0, on.1 / off.1)]
}

fn as_text(args: &StallArgs, results: &Results) -> String {
    let mut parts = vec![format!("seed {}\n", args.seed)];
    if !results.readers.is_empty() {
        parts.push(readers_text(args, &results.readers));
    }
    if !results.roomy.is_empty() {
        parts.push(roomy_text(args, &results.roomy));
    }
    if !results.waits.is_empty() {
        parts.push(waits_text(args, &results.waits));
    }
    if results.run.is_some() || results.target.is_some() {
        parts.push(awaited_text(args, results));
    }
    parts.join("\n")
}

fn readers_text(args: &StallArgs, rows: &[Readers]) -> String {
    let header = ["readers", "items", "fewest", "sets", "refused", "evicted", "per set", "most by one", "reads"];
    let mut table = Table::new(header);
    for row in rows {
        table.row([
            row.readers.to_string(),
            count(row.full_entries),
            count(row.fewest_entries),
            count(row.sets),
            count(row.refused),
            count(row.evicted),
            format!("{:.2}", row.evicted as f64 / row.sets.max(1) as f64),
            count(row.most_evicted),
            count(row.reads),
        ]);
    }
    let (store, seconds, large) = (args.store, args.seconds, args.large);
    format!("A full store of {store}, small sets for {seconds} s, readers of one value of {large}:\n{table}")
}

fn roomy_text(args: &StallArgs, rows: &[Roomy]) -> String {
    let mut table = Table::new(["cleaner", "seconds", "keys lost", "evicted", "refused", "reads"]);
    for row in rows {
        table.row([
            on_or_off(row.cleaner).to_owned(),
            format!("{:.2}", row.took.as_secs_f64()),
            count(row.lost),
            count(row.evicted),
            count(row.refused),
            count(row.reads),
        ]);
    }
    let (keys, roomy, readers) = (count(args.keys), args.roomy, args.readers);
    format!("{keys} keys into a store of {roomy}, beside {readers} readers:\n{table}")
}

fn waits_text(args: &StallArgs, waits: &[Waits]) -> String {
    let mut table = Table::new(["cleaner", "p99.99 µs", "longest µs", "sets", "evicted", "copied"]);
    let [on, off, ratio] = medians(waits);
    for (cleaner, (p9999, longest)) in [(true, on), (false, off)] {
        let rounds = || waits.iter().filter(|round| round.cleaner == cleaner);
        table.row([
            on_or_off(cleaner).to_owned(),
            format!("{p9999:.0}"),
            format!("{longest:.0}"),
            count(rounds().map(|round| round.sets).sum()),
            count(rounds().map(|round| round.evicted).sum()),
            bytes(rounds().map(|round| round.copied_bytes).sum()),
        ]);
    }
    table.row(["on ÷ off".to_owned(), format!("{:.2}", ratio.0), format!("{:.2}", ratio.1)]);
    let (rate, rounds, seconds) = (count(args.rate), args.rounds, args.seconds);
    format!(
        "One Set of {rate} a second beside {BUSY_THREADS} busy threads, medians of {rounds} x {seconds} s:\n{table}"
    )
}

fn awaited_text(args: &StallArgs, results: &Results) -> String {
    let mut table = Table::new(["", "seconds", "used before", "used after", "evicted", "written MiB/s"]);
    let rows = [
        ("run at 97 %", results.run, format!("did not end in {} s", RUN_BOUND.as_secs())),
        ("target of 2/3", results.target, format!("not within {} s", TARGET_BOUND.as_secs())),
    ];
    for (name, awaited, never) in rows {
        let Some(awaited) = awaited else { continue };
        table.row([
            name.to_owned(),
            awaited.took.map_or(never, |took| format!("{:.2}", took.as_secs_f64())),
            bytes(awaited.from_bytes),
            bytes(awaited.to_bytes),
            count(awaited.evicted),
            format!("{:.1}", awaited.written_bytes as f64 / (1 << 20) as f64 / awaited.during.as_secs_f64()),
        ]);
    }
    format!(
        "A store of {} whose items, {LIVE_PERCENT} % of it, are overwritten at full speed:\n{table}",
        args.run_store
    )
}

fn on_or_off(cleaner: bool) -> &'static str {
    if cleaner { "on" } else { "off" }
}

fn as_json(args: &StallArgs, results: &Results) -> Value {
    let readers = |row: &Readers| {
        json!({
            "readers": row.readers,
            "sets": row.sets,
            "refused": row.refused,
            "evicted_items": row.evicted,
            "most_evicted_by_one_set": row.most_evicted,
            "full_items": row.full_entries,
            "fewest_items": row.fewest_entries,
            "reads": row.reads,
        })
    };
    let roomy = |row: &Roomy| {
        json!({
            "cleaner": row.cleaner,
            "seconds": row.took.as_secs_f64(),
            "lost_keys": row.lost,
            "evicted_items": row.evicted,
            "refused": row.refused,
            "reads": row.reads,
        })
    };
    let round = |row: &Waits| {
        json!({
            "cleaner": row.cleaner,
            "sets": row.sets,
            "evicted_items": row.evicted,
            "copied_bytes": row.copied_bytes,
            "p99_99_us": row.p9999_us,
            "max_us": row.longest_us,
        })
    };
    let awaited = |awaited: Awaited| {
        json!({
            "seconds": awaited.took.map(|took| took.as_secs_f64()),
            "used_bytes_before": awaited.from_bytes,
            "used_bytes_after": awaited.to_bytes,
            "evicted_items": awaited.evicted,
            "written_bytes": awaited.written_bytes,
            "written_seconds": awaited.during.as_secs_f64(),
        })
    };
    let ratio = (!results.waits.is_empty()).then(|| medians(&results.waits)[2]);
    json!({
        "store_bytes": args.store.0,
        "run_store_bytes": args.run_store.0,
        "seed": args.seed,
        "readers": results.readers.iter().map(readers).collect::<Vec<_>>(),
        "roomy": results.roomy.iter().map(roomy).collect::<Vec<_>>(),
        "waits": results.waits.iter().map(round).collect::<Vec<_>>(),
        "waits_p99_99_on_to_off": ratio.map(|(p9999, _)| p9999),
        "waits_max_on_to_off": ratio.map(|(_, longest)| longest),
        "run": results.run.map(awaited),
        "target": results.target.map(awaited),
    })
}

#[cfg(test)]
mod tests;
