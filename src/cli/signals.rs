//! Signals of a serving process.
//!
//! | signal | meaning |
//! |---|---|
//! | TERM, INT, QUIT | drain and end |
//! | HUP | read the configuration again |
//! | every other signal that ends a process by default | ignored |
//!
//! KILL and STOP cannot be handled. Job control, faults of the process and the CPU time limit keep their default
//! actions.

use crate::server::Command;
use signal_hook::consts::signal;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind};

/// Signals to ignore: each would end the process by default.
const IGNORED: [i32; 9] = [
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGALRM,
    signal::SIGVTALRM,
    signal::SIGPROF,
    signal::SIGIO,
    signal::SIGPIPE,
    signal::SIGXFSZ,
    16, // SIGSTKFLT: the kernel never sends it, other processes may
];
/// SIGPWR.
const POWER: i32 = 30;
/// Real-time signals. glibc uses 32 and 33 itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Makes a write beyond the file size limit fail with an error, as on a full disk, instead of ending the process.
pub(super) fn ignore_file_size_limit() {
    let _ = ignore(signal::SIGXFSZ);
}

/// Installs a handler that does nothing.
fn ignore(number: i32) -> io::Result<()> {
    signal_hook::flag::register(number, Arc::default()).map(drop)
}

/// Handlers of a server. Signals that arrive after `install` are kept until `next`.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers. Must be called on the runtime that will wait for them.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn install() -> io::Result<Self> {
        for number in IGNORED.into_iter().chain([POWER]).chain(REAL_TIME) {
            ignore(number)?;
        }
        let on = tokio::signal::unix::signal;
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            quit: on(SignalKind::quit())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal that is not ignored.
    pub(super) async fn next(&mut self) -> Command {
        let stop = |reason: &'static str| Command::Stop { reason };
        tokio::select! {
            _ = self.terminate.recv() => stop("SIGTERM"),
            _ = self.interrupt.recv() => stop("SIGINT"),
            _ = self.quit.recv() => stop("SIGQUIT"),
            _ = self.hang_up.recv() => Command::Reload,
        }
    }

    /// Waits for a signal that ends the process; returns its name.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            if let Command::Stop { reason } = self.next().await {
                return reason;
            }
        }
    }
}
