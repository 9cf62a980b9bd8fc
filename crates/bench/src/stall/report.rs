//! The results, as tables and as JSON.

use serde_json::{Value, json};

use super::options::StallArgs;
use super::readers::{Readers, Roomy};
use super::runs::{Awaited, LIVE_PERCENT, RUN_BOUND, TARGET_BOUND};
use super::waits::{BUSY_THREADS, Waits, medians};
use ebb_config::units::format::{bytes, count};
use ebb_terminal::Table;

#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) readers: Vec<Readers>,
    pub(super) roomy: Vec<Roomy>,
    pub(super) waits: Vec<Waits>,
    pub(super) run: Option<Awaited>,
    pub(super) target: Option<Awaited>,
}

pub(super) fn as_text(args: &StallArgs, results: &Results) -> String {
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

pub(super) fn as_json(args: &StallArgs, results: &Results) -> Value {
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
