//! The queue of log lines, and the thread that writes them.

use super::quota::Quota;
use ebb_config::secret::redacted;
use ebb_terminal::escape::{escaped, escaped_colored};
use ebb_terminal::write_all;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Maximum bytes of queued lines.
const QUEUE_BYTES: usize = 256 << 10;
/// Maximum time that a process waits at its end until its lines are written.
const FLUSH: Duration = Duration::from_millis(250);
/// Interval between checks of open windows of dependencies.
const TICK: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Log lines dropped since the start: the queue was full, or writing to standard error failed.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until all lines are written, for a limited time.
pub(crate) fn flush() {
    QUEUE.flush(FLUSH);
}

/// Queues a line; the subscriber writes each line in one call.
pub(super) struct Line;

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !QUEUE.push(shown(line).as_bytes()) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as it may be written: one line, without characters that a terminal obeys, and without credentials of URLs,
/// which errors of dependencies quote.
fn shown(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let text = line.strip_suffix('\n').unwrap_or(&line);
    let text = redacted(text);
    match super::has_colors() {
        true => format!("{}\n", escaped_colored(&text)),
        false => format!("{}\n", escaped(&text)),
    }
}

/// Starts the thread that writes lines to standard error.
pub(super) fn start() {
    // Duplicate the descriptor: a blocking write must not hold the lock of `std::io::Stderr`.
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return };
    let stderr = File::from(stderr);
    let _ = std::thread::Builder::new().name("ebb-log".to_owned()).spawn(move || run(&stderr));
}

fn run(stderr: &File) {
    let mut out = Output { torn: false };
    let mut reported = 0;
    loop {
        let tick = Quota::shared().is_open().then_some(TICK);
        let batch = QUEUE.take(tick);
        if !batch.is_empty() {
            let lost = out.write(stderr, &batch);
            DROPPED.fetch_add(lost, Ordering::Relaxed);
            let dropped = dropped_lines() - reported;
            // The report itself must not be dropped; while the queue is full, another batch follows.
            if lost == 0 && dropped > 0 && QUEUE.has_room() {
                reported += dropped;
                tracing::warn!(lines = dropped, "log lines dropped");
            }
            QUEUE.written();
        }
        for suppressed in Quota::shared().close(Instant::now()) {
            tracing::warn!(
                lines = suppressed.lines,
                origin = suppressed.target,
                "log lines of a dependency suppressed"
            );
        }
    }
}

/// State of the last write.
struct Output {
    /// Whether the last line was cut, so that the next one must start on a new line.
    torn: bool,
}

impl Output {
    /// Writes lines; returns the number of lost ones.
    fn write(&mut self, into: &impl AsFd, lines: &[u8]) -> u64 {
        if self.torn && write_all(into, b"\n").is_ok() {
            self.torn = false;
        }
        match write_all(into, lines) {
            Ok(()) => 0,
            Err((_, written)) => {
                self.torn |= written > 0 && lines[written - 1] != b'\n';
                lines[written..].iter().filter(|byte| **byte == b'\n').count() as u64
            }
        }
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        Self { state: Mutex::new(State { waiting: Vec::new(), is_writing: false }), bell: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues a line if it fits.
    fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state();
        if state.waiting.len() + line.len() > QUEUE_BYTES {
            return false;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.bell.notify_all();
        true
    }

    /// Whether a few more lines fit.
    fn has_room(&self) -> bool {
        self.state().waiting.len() < QUEUE_BYTES / 2
    }

    /// Waits up to `tick` for lines, and returns them all.
    fn take(&self, tick: Option<Duration>) -> Vec<u8> {
        let is_empty = |state: &mut State| state.waiting.is_empty();
        let mut state = self.state();
        match tick {
            None => self.bell.wait_while(&mut state, is_empty),
            Some(tick) => drop(self.bell.wait_while_for(&mut state, is_empty, tick)),
        }
        state.is_writing = !state.waiting.is_empty();
        std::mem::take(&mut state.waiting)
    }

    /// Marks the returned lines as written.
    fn written(&self) {
        self.state().is_writing = false;
        self.bell.notify_all();
    }

    fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        self.bell.wait_while_for(&mut self.state(), is_busy, patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_full_queue_refuses_a_line_and_waits_for_nobody() {
        let queue = Queue::new();
        let line = [b'x'; 1 << 10];
        let taken = (0..1_000).filter(|_| queue.push(&line)).count();
        assert_eq!(taken, QUEUE_BYTES / line.len());
        assert_eq!(queue.take(None).len(), QUEUE_BYTES);
        assert!(queue.push(&line), "there is room again");
    }

    #[test]
    fn a_line_stays_one_line_without_escapes_and_credentials() {
        let line = "WARN \u{1b}[2Jtwo\nlines\u{202e} http://u:p@h/\n";
        assert_eq!(shown(line.as_bytes()), "WARN \\u001b[2Jtwo\\nlines\\u202e http://***@h/\n");
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut out = Output { torn: true };
        assert_eq!(out.write(&full, b"one\ntwo\n"), 2, "both are lost");
        let (mut read, write) = io::pipe().unwrap();
        assert_eq!(out.write(&write, b"three\n"), 0);
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nthree\n");
    }

    #[test]
    fn a_descriptor_that_does_not_block_gets_every_byte() {
        let (mut read, write) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            read.read_to_end(&mut all).map(|_| all)
        });
        write_all(&write, &bytes).unwrap();
        drop(write);
        assert!(reader.join().unwrap().unwrap() == bytes);
    }
}
