//! The phases of a run, in order.

use anyhow::{Context as _, anyhow};
use std::time::{Duration, Instant};

use super::super::connection::{Connection, Load};
use super::super::process::{Server, pause};
use super::super::watch::{Settled, Watch};
use super::super::workload::{Entries, Pattern, Sizes, mix};
use super::loads::{Check, Delete, Probe, Store};
use super::receipts::Receipts;
use super::report::{Measured, Moment};
use ebb_config::units::Span;
use ebb_config::units::format::counted;
use ebb_terminal::output;

/// Requests in flight while filling and deleting.
const DEEP: usize = 64;
/// Maximum duration of a phase; the run fails if one takes longer.
const PHASE: Duration = Duration::from_secs(300);
/// Duration of Gets on the loaded idle server, unless memory is watched for less.
const AT_REST: Duration = Duration::from_secs(3);

/// A run.
pub(super) struct Run<'a> {
    server: &'a Server,
    connection: Connection,
    receipts: Receipts,
    least: Duration,
    most: Duration,
    measured: Measured,
}

impl<'a> Run<'a> {
    /// Connects and reads the memory of the idle server.
    pub(super) async fn begin(server: &'a Server, least: Span, most: Span) -> anyhow::Result<Self> {
        pause(Duration::from_millis(500));
        let idle_rss_bytes = server.rss_bytes()?;
        let connection = Connection::open(&server.data, server.system).await?;
        let receipts = Receipts::of(server.admin.as_ref()).await;
        let measured = Measured { name: server.name, idle_rss_bytes, ..Measured::default() };
        let [least, most] = [least, most].map(|span| Duration::from_millis(span.0));
        Ok(Self { server, connection, receipts, least, most, measured })
    }

    /// Fill, delete 90 %, verify, delete the rest.
    pub(super) async fn reclaim(mut self, entries: Entries, pattern: Pattern) -> anyhow::Result<Measured> {
        let keeps = |n: u64| pattern.keeps(n);
        self.fill(entries, (0..entries.count).map(|n| (n, 0))).await?;
        self.measured.entries = entries.count;
        let before = self.rest().await?;
        self.measured.loaded = Moment { rss_bytes: before, live_bytes: entries.live_bytes(|_| true) };
        self.receipts.forget().await;

        let survivors: Vec<u64> = (0..entries.count).filter(|&n| keeps(n)).collect();
        let probe = (!survivors.is_empty()).then(|| Probe::start(&self.server.data, self.server.system, survivors));
        self.say("measuring the loaded server at rest");
        let at_rest = Instant::now();
        pause(AT_REST.min(self.least));
        let rested = Instant::now();

        let watch = Watch::start(self.server.pid);
        let begun = Instant::now();
        let deleted = entries.shuffled().filter(move |&n| !pattern.keeps(n));
        self.delete("deleting 90 %", deleted).await?;
        let done = Instant::now();
        self.say("waiting for memory to settle");
        let settled = self.settle(&watch, done).await?;
        self.measured.after = Moment { rss_bytes: settled.rss_bytes, live_bytes: entries.live_bytes(keeps) };
        self.measured.settle = Some(settled.at.saturating_duration_since(done));
        self.measured.still = settled.still;
        self.measured.extra_bytes = Some(watch.peak_since(begun) as i64 - before as i64);
        drop(watch);
        if let Some(probe) = probe {
            let timeline = probe.stop()?;
            self.measured.at_rest = timeline.between(at_rest, rested);
            self.measured.compacting = timeline.between(done, settled.at.max(done + Duration::from_secs(1)));
        }
        self.account(before.saturating_sub(settled.rss_bytes)).await;

        self.check(entries, |n| keeps(n).then_some(0)).await?;
        let rest = (0..entries.count).filter(move |&n| pattern.keeps(n));
        self.delete("deleting the rest", rest).await?;
        self.empty().await
    }

    /// Fill, delete 90 %, refill with larger values to the same live bytes.
    pub(super) async fn shift(mut self, entries: Entries, pattern: Pattern) -> anyhow::Result<Measured> {
        self.fill(entries, (0..entries.count).map(|n| (n, 0))).await?;
        self.measured.entries = entries.count;
        let before = self.rest().await?;
        let live_bytes = entries.live_bytes(|_| true);
        self.measured.loaded = Moment { rss_bytes: before, live_bytes };
        self.receipts.forget().await;
        let watch = Watch::start(self.server.pid);
        let begun = Instant::now();
        self.delete("deleting 90 %", entries.shuffled().filter(move |&n| !pattern.keeps(n))).await?;

        let larger = Entries { count: entries.count, sizes: Sizes::Fixed(140) };
        let room = live_bytes - entries.live_bytes(|n| pattern.keeps(n));
        let fresh = entries.count..entries.count + room / (16 + 140);
        let refilled = fresh.end - fresh.start;
        self.fill(larger, fresh.map(|n| (n, 0))).await?;
        let done = Instant::now();
        let settled = self.settle(&watch, done).await?;
        let peak = watch.peak_since(begun);
        let live_bytes = entries.live_bytes(|n| pattern.keeps(n)) + refilled * (16 + 140);
        self.measured.after = Moment { rss_bytes: settled.rss_bytes, live_bytes };
        self.measured.settle = Some(settled.at.saturating_duration_since(done));
        self.measured.still = settled.still;
        self.measured.peak_to_loaded = Some(peak as f64 / before as f64);
        drop(watch);
        self.account(0).await;
        self.check(entries, |n| pattern.keeps(n).then_some(0)).await?;
        let rest = (0..entries.count).filter(move |&n| pattern.keeps(n));
        self.delete("deleting the rest", rest.chain(entries.count..entries.count + refilled)).await?;
        self.empty().await
    }

    /// Fill, then overwrite random keys with values of new sizes.
    pub(super) async fn churn(mut self, entries: Entries, overwrites: u64) -> anyhow::Result<Measured> {
        self.fill(entries, (0..entries.count).map(|n| (n, 0))).await?;
        self.measured.entries = entries.count;
        let before = self.rest().await?;
        self.measured.loaded = Moment { rss_bytes: before, live_bytes: entries.live_bytes(|_| true) };
        self.receipts.forget().await;
        let written_before = self.receipts.written().await;

        let mut rounds = vec![0_u32; entries.count as usize];
        let watch = Watch::start(self.server.pid);
        let begun = Instant::now();
        // Round 0 was the fill, so overwrites count from 1. The last overwrite of a key determines its value.
        let numbers = (1..=overwrites).map(|round| {
            let mut n = mix(round ^ 0xc4a2) % entries.count;
            // At most one write per key is in flight, so the last one is known.
            while rounds[n as usize] != 0 && round - u64::from(rounds[n as usize]) < 4 * DEEP as u64 {
                n = (n + 1) % entries.count;
            }
            rounds[n as usize] = round as u32;
            (n, round)
        });
        self.fill(entries, numbers).await?;
        let done = Instant::now();
        let written = self.receipts.written().await;
        let settled = self.settle(&watch, done).await?;
        let round = |n: u64| u64::from(rounds[n as usize]);
        let live_bytes = (0..entries.count).map(|n| 16 + entries.value_bytes(n, round(n)) as u64).sum();
        self.measured.after = Moment { rss_bytes: settled.rss_bytes, live_bytes };
        self.measured.settle = Some(settled.at.saturating_duration_since(done));
        self.measured.still = settled.still;
        // By the second half every segment has been rewritten: the steady state.
        let steady = watch.mean_between(begun + (done - begun) / 2, done);
        self.measured.writing_to_live = Some(steady / live_bytes as f64);
        self.measured.peak_to_live = Some(watch.peak_since(begun) as f64 / live_bytes as f64);
        drop(watch);
        if let (Some((appended, copied)), Some((appended_now, copied_now))) = (written_before, written) {
            let appended = appended_now.saturating_sub(appended).max(1);
            self.measured.copied_per_written = Some(copied_now.saturating_sub(copied) as f64 / appended as f64);
        }
        self.account(0).await;
        self.check(entries, |n| Some(round(n))).await?;
        self.delete("deleting everything", 0..entries.count).await?;
        self.empty().await
    }

    async fn fill(&mut self, entries: Entries, numbers: impl Iterator<Item = (u64, u64)>) -> anyhow::Result<()> {
        let most = numbers.size_hint().1.unwrap_or(0) as u64;
        self.say(&format!("storing {}", counted(most, "entry", "entries")));
        let begun = Instant::now();
        let mut load = Store { entries, numbers, refused: 0, sent_bytes: 0 };
        self.drive(&mut load).await?;
        self.measured.refused += load.refused;
        self.measured.stored_bytes_per_second = load.sent_bytes as f64 / begun.elapsed().as_secs_f64();
        Ok(())
    }

    async fn delete(&mut self, what: &str, numbers: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        self.say(what);
        let mut load = Delete { numbers, refused: 0 };
        self.drive(&mut load).await?;
        self.measured.refused += load.refused;
        Ok(())
    }

    async fn check(&mut self, entries: Entries, round: impl Fn(u64) -> Option<u64>) -> anyhow::Result<()> {
        self.say("verifying all entries");
        let mut load = Check { entries, at: 0, round, wrong: 0, missing: 0, expected: Vec::new() };
        self.drive(&mut load).await?;
        self.measured.wrong += load.wrong;
        self.measured.missing += load.missing;
        Ok(())
    }

    /// Waits a second for buffers to be freed, and reads the memory.
    async fn rest(&mut self) -> anyhow::Result<u64> {
        pause(Duration::from_secs(1));
        self.server.rss_bytes()
    }

    /// Reads the memory of the emptied server.
    async fn empty(mut self) -> anyhow::Result<Measured> {
        let done = Instant::now();
        let watch = Watch::start(self.server.pid);
        let settled = self.settle(&watch, done).await?;
        self.measured.empty_rss_bytes = settled.rss_bytes;
        self.measured.empty_settle = settled.at.saturating_duration_since(done);
        Ok(self.measured)
    }

    /// Waits until memory settles, within the given minimum and maximum.
    async fn settle(&mut self, watch: &Watch, from: Instant) -> anyhow::Result<Settled> {
        loop {
            tokio::time::sleep_until((Instant::now() + Duration::from_millis(50)).into()).await; // the next look
            self.receipts.collect().await;
            let settled = watch.settled(from).context("cannot read the memory of the server")?;
            let watched = from.elapsed();
            if watched >= self.most || (watched >= self.least && settled.still) {
                return Ok(settled);
            }
        }
    }

    /// Sends a load and collects receipts meanwhile.
    async fn drive(&mut self, load: &mut impl Load) -> anyhow::Result<()> {
        let driven = tokio::time::timeout(PHASE, self.connection.drive(DEEP, load));
        let mut driven = std::pin::pin!(driven);
        loop {
            tokio::select! {
                done = &mut driven => return done.map_err(|_| anyhow!("a phase took too long (at most {} s)", PHASE.as_secs()))?,
                () = tokio::time::sleep_until((Instant::now() + Duration::from_millis(500)).into()) => {
                    self.receipts.collect().await;
                }
            }
        }
    }

    /// Sums up the receipts since the server was loaded; `reclaimed` is the decrease of its memory.
    async fn account(&mut self, reclaimed: u64) {
        self.receipts.collect().await;
        let sum = self.receipts.sum();
        self.measured.runs = sum.runs;
        if sum.runs > 0 {
            self.measured.step_us = Some((sum.step_p999_us, sum.longest_step_us));
        }
        if sum.cpu_us > 0 && reclaimed > 0 {
            self.measured.reclaimed_per_cpu_second = Some(reclaimed as f64 * 1e6 / sum.cpu_us as f64);
        }
    }

    fn say(&self, what: &str) {
        output::note(format_args!("{}: {what}", self.server.name));
    }
}
