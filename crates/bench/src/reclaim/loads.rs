//! Loads of the phases: writes, deletions, checks, and steady Gets that measure the cleaner's effect on latency.

use anyhow::anyhow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::connection::{Connection, Load};
use super::super::latency::Timeline;
use super::super::wire::{Kind, Reply, Request, System};
use super::super::workload::{Entries, key};
use ebb_proto::client::Address;

/// Stores entries, each with the value of a round.
pub(super) struct Store<I> {
    pub(super) entries: Entries,
    pub(super) numbers: I,
    pub(super) refused: u64,
    /// Keys and values sent, in bytes.
    pub(super) sent_bytes: u64,
}

impl<I: Iterator<Item = (u64, u64)>> Load for Store<I> {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        let Some((n, round)) = self.numbers.next() else { return false };
        request.begin(Kind::Set, false, n);
        request.pair(key(n), |value| self.entries.write_value(n, round, value));
        self.sent_bytes += 16 + self.entries.value_bytes(n, round) as u64;
        true
    }

    fn take(&mut self, _: u64, _: Duration, reply: Reply<'_>) {
        self.refused += u64::from(reply != Reply::Done);
    }
}

/// Deletes entries.
pub(super) struct Delete<I> {
    pub(super) numbers: I,
    pub(super) refused: u64,
}

impl<I: Iterator<Item = u64>> Load for Delete<I> {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        let Some(n) = self.numbers.next() else { return false };
        request.begin(Kind::Delete, false, n);
        request.key(key(n));
        true
    }

    fn take(&mut self, _: u64, _: Duration, reply: Reply<'_>) {
        self.refused += u64::from(matches!(reply, Reply::Refused(_)));
    }
}

/// Reads every entry and compares it. `round` is the round of its value, `None` if it must be missing.
pub(super) struct Check<F> {
    pub(super) entries: Entries,
    pub(super) at: u64,
    pub(super) round: F,
    /// Entries with a wrong value, and deleted entries that are present.
    pub(super) wrong: u64,
    /// Stored entries that are missing.
    pub(super) missing: u64,
    pub(super) expected: Vec<u8>,
}

impl<F: Fn(u64) -> Option<u64>> Load for Check<F> {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        if self.at == self.entries.count {
            return false;
        }
        request.begin(Kind::Get, false, self.at);
        request.key(key(self.at));
        self.at += 1;
        true
    }

    fn take(&mut self, n: u64, _: Duration, reply: Reply<'_>) {
        match (reply, (self.round)(n)) {
            (Reply::Value(value), Some(round)) => {
                self.expected.clear();
                self.entries.write_value(n, round, &mut self.expected);
                self.wrong += u64::from(value != self.expected);
            }
            (Reply::Miss, Some(_)) => self.missing += 1,
            (Reply::Miss, None) => {}
            _ => self.wrong += 1,
        }
    }
}

/// Maximum duration of the Gets.
const LONGEST: Duration = Duration::from_secs(600);

/// Gets surviving keys one by one over a connection, on its own thread, until stopped.
pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Timeline>>,
}

struct Trickle {
    survivors: Vec<u64>,
    at: usize,
    stop: Arc<AtomicBool>,
    timeline: Timeline,
}

impl Load for Trickle {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        self.at = (self.at + 7919) % self.survivors.len();
        request.begin(Kind::Get, false, 0);
        request.key(key(self.survivors[self.at]));
        true
    }

    fn take(&mut self, _: u64, took: Duration, _: Reply<'_>) {
        self.timeline.0.push((Instant::now(), took));
    }
}

impl Probe {
    pub(super) fn start(at: &Address, system: System, survivors: Vec<u64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (at, ended) = (at.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime?.block_on(async {
                let mut connection = Connection::open(&at, system).await?;
                let mut trickle = Trickle { survivors, at: 0, stop: ended, timeline: Timeline::default() };
                let driven = tokio::time::timeout(LONGEST, connection.drive(1, &mut trickle)).await;
                driven.map_err(|_| anyhow!("Gets took longer than ten minutes"))??;
                Ok(trickle.timeline)
            })
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> anyhow::Result<Timeline> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that measured latency panicked"))?
    }
}
