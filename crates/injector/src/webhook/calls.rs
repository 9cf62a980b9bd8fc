//! The calls of a connection, and when it must be closed: it stalls, idles, makes room or drains.

use ebb_listener::{Charge, Connection, Progress};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Timeout of the handshake, the headers of the first call, and the body.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Timeout of a client that does not read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum duration of a call, from its headers to the last byte of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection without a call is closed. An API server closes it after 90 s. It must be the first: a
/// review that crosses the webhook's close on the wire fails, since HTTP/1.1 has no farewell.
const IDLE: Duration = Duration::from_secs(120);
/// How long a connection that must make room may take to end in order.
const FAREWELL: Duration = Duration::from_millis(250);
/// Interval between checks of a connection's progress.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Memory of a call without its body, in bytes: decoded headers and task.
const CALL_BYTES: u64 = 16 << 10;

/// The calls of a connection.
pub(super) struct Calls {
    connection: Arc<Connection>,
    state: Mutex<CallsState>,
}

struct CallsState {
    begun: u64,
    open: BTreeSet<(Instant, u64)>,
    /// Time at which the last call ended, or the connection was opened.
    idle_since: Instant,
}

impl Calls {
    pub(super) fn new(opened: Instant, connection: Arc<Connection>) -> Self {
        let state = CallsState { begun: 0, open: BTreeSet::new(), idle_since: opened };
        Self { connection, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock()
    }

    pub(super) fn begin(self: &Arc<Self>) -> Call {
        let mut state = self.state();
        state.begun += 1;
        let id = (Instant::now(), state.begun);
        state.open.insert(id);
        self.connection.stalled_since(state.stalled_since());
        drop(state);
        Call { calls: self.clone(), id, charges: vec![self.connection.charge(CALL_BYTES)] }
    }
}

impl CallsState {
    /// Time of the last progress.
    fn stalled_since(&self) -> Instant {
        self.open.first().map_or(self.idle_since, |(since, _)| *since)
    }

    /// Why the connection must be closed, if it must.
    fn verdict(&self, now: Instant) -> Verdict {
        let stalled = now.duration_since(self.stalled_since());
        match (self.open.is_empty(), self.begun) {
            (false, _) if stalled >= CALL_TIMEOUT => Verdict::Stalled,
            (true, 0) if stalled >= PATIENCE => Verdict::Stalled,
            (true, _) if stalled >= IDLE + PATIENCE => Verdict::Stalled,
            (true, _) if stalled >= IDLE => Verdict::Idle,
            _ => Verdict::Well,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// Shut down gracefully.
    Idle,
    /// Close at once.
    Stalled,
}

/// A call; dropped when its answer is sent or abandoned.
pub(super) struct Call {
    calls: Arc<Calls>,
    id: (Instant, u64),
    charges: Vec<Charge>,
}

impl Call {
    pub(super) fn charge(&mut self, bytes: usize) {
        self.charges.push(self.calls.connection.charge(bytes as u64));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
        self.calls.connection.stalled_since(state.stalled_since());
    }
}

/// Watches the progress of a connection.
pub(super) struct Watch {
    pub(super) progress: Arc<Progress>,
    pub(super) calls: Arc<Calls>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) is_http2: bool,
}

impl Watch {
    /// Polls a connection until it ends, or must be closed; `shut_down` asks it to end after its open calls.
    pub(super) async fn over<C: Future>(mut self, served: C, shut_down: impl Fn(Pin<&mut C>)) {
        let mut served = std::pin::pin!(served);
        let mut checks = tokio::time::interval(CHECK_EVERY);
        let mut is_asked = false;
        loop {
            tokio::select! {
                // No client waits for an answer any more.
                _ = &mut served => return,
                () = self.calls.connection.displaced() => break,
                _ = self.draining.wait_for(|draining| *draining), if !is_asked => {
                    is_asked = true;
                    shut_down(served.as_mut());
                }
                _ = checks.tick() => {
                    let verdict = self.calls.state().verdict(Instant::now());
                    if verdict == Verdict::Stalled || self.progress.blocked_for() >= WRITE_TIMEOUT {
                        return self.calls.connection.count_stalled();
                    }
                    if verdict == Verdict::Idle && !is_asked {
                        is_asked = true;
                        shut_down(served.as_mut());
                    }
                }
            }
        }
        // HTTP/1.1 has no message for this, and a body that still arrives would take the memory that is needed.
        if !self.is_http2 {
            return;
        }
        // The client learns that the connection closes, and sends its next call on another.
        shut_down(served.as_mut());
        let _ = tokio::time::timeout(FAREWELL, served).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_judged_by_its_calls_alone() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let state = |begun, open: Option<u64>| CallsState {
            begun,
            open: open.map(|seconds| (after(seconds), 1)).into_iter().collect(),
            idle_since: start,
        };
        let cases = [
            ("no call yet", state(0, None), 4, Verdict::Well),
            ("no call at all", state(0, None), 5, Verdict::Stalled),
            ("a call is open", state(1, Some(20)), 29, Verdict::Well),
            ("a call that lasts", state(1, Some(20)), 30, Verdict::Stalled),
            ("idle for a while", state(1, None), 119, Verdict::Well),
            ("idle", state(1, None), 120, Verdict::Idle),
            ("idle, and does not go", state(1, None), 125, Verdict::Stalled),
        ];
        let found = cases.each_ref().map(|(what, state, seconds, _)| (*what, state.verdict(after(*seconds))));
        assert_eq!(found, cases.map(|(what, _, _, expected)| (what, expected)));
    }
}
