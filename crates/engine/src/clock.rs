//! Time, as passed by the caller. The engine uses milliseconds of the caller's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of time: the machine's clock, or a manual one for tests.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// `CLOCK_BOOTTIME`: a jump of the wall clock changes no deadline, and time asleep counts.
    Boot { offset_ms: u64 },
    /// Moved by [`Clock::advance`].
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's monotonic clock, counted from 1 ms at this call.
    pub fn monotonic() -> Self {
        Self(Kind::Boot { offset_ms: boot_ms() - 1 })
    }

    /// A clock that stays at `now_ms` until it is advanced. Clones share the time.
    pub fn manual(now_ms: u64) -> Self {
        Self(Kind::Manual(Arc::new(AtomicU64::new(now_ms))))
    }

    /// Milliseconds since the clock's start; never 0, never decreasing.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Kind::Boot { offset_ms } => boot_ms() - offset_ms,
            Kind::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// If the clock is the machine's.
    pub fn advance(&self, by_ms: u64) {
        match &self.0 {
            Kind::Boot { .. } => panic!("only a manual clock can be advanced"),
            Kind::Manual(now) => now.fetch_add(by_ms, Ordering::Relaxed),
        };
    }
}

fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// CPU time of the calling thread, in microseconds. It bounds the cleaner's steps.
pub fn thread_cpu_micros() -> u64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1000
}
