//! What signals mean to a process that serves.
//!
//! | signal | meaning |
//! |---|---|
//! | TERM, INT, QUIT | drain and end |
//! | HUP | read the configuration again |
//! | every other signal that ends a process by default | ignored |
//!
//! Left alone are KILL and STOP, which nobody can handle, those of job control, and those that report a fault of the
//! process or a limit of its CPU time.

use crate::server::Command;
use signal_hook::consts::signal;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind};

/// Signals without a meaning for a server, although each of them would end it.
const IGNORED: [i32; 9] = [
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGALRM,
    signal::SIGVTALRM,
    signal::SIGPROF,
    signal::SIGIO,
    signal::SIGPIPE,
    signal::SIGXFSZ,
    16, // SIGSTKFLT, which Linux sends never and anybody may
];
/// SIGPWR.
const POWER: i32 = 30;
/// The signals that carry no meaning of their own; glibc keeps the two before for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Lets a write beyond a limit of file sizes fail, as on a full disk, instead of ending the process.
pub(super) fn ignore_file_size_limit() {
    let _ = ignore(signal::SIGXFSZ);
}

/// A handler that does nothing.
fn ignore(number: i32) -> io::Result<()> {
    signal_hook::flag::register(number, Arc::default()).map(drop)
}

/// The signals of a server. Whatever arrives after they are installed is remembered.
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

    /// Waits for the next signal that means something.
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
