//! Which states of a key a read may return: those its owner has begun, from a certain one on.
//!
//! ```text
//!  states   … 41 ──── 42 ──── 43 ──── 44        one owner begins them, one after the other
//!                acknowledged┘         └begun
//! ```
//! R1. The owner appends a state before the operation that makes it, and acknowledges it after the operation.
//! R2. A read shows a state not older than the one acknowledged before the read began, and one that was begun before
//!     the read ended.
//! R3. What one reader sees of a key never goes back, not even from "gone" to the state that has gone.
//!
//! With one writer per key this is linearizability of a register (Gibbons and Korach, 1997). A reader keeps the
//! earliest position that explains its sights, so it never reports a failure that another explanation would exclude.

use crate::values::Origin;
use ebb_engine::store::{Attributes, Item};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of states kept per key.
const REMEMBERED: usize = 48;

/// The item of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// The sequence number from which the value's pattern is computed.
    pub(crate) base: u64,
    pub(crate) len: usize,
    pub(crate) attributes: Attributes,
    /// Marked stale; `None`: not checked.
    pub(crate) stale: Option<bool>,
    /// `None` until the write is acknowledged.
    pub(crate) version: Option<u64>,
}

/// A key after one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) seq: u64,
    /// The operation of the owner.
    pub(crate) operation: &'static str,
    pub(crate) at_ms: u64,
    /// `None`: no item.
    pub(crate) content: Option<Content>,
}

impl State {
    /// Whether a caller at `now_ms` must miss the item.
    pub(crate) fn must_be_missed(&self, now_ms: u64) -> bool {
        self.content.is_none_or(|content| {
            let deadline = content.attributes.deadline_ms;
            deadline != 0 && deadline <= now_ms
        })
    }

    /// Whether the item may be missing at `after_ms`, the time after the call: the cleaner's own reading of the clock
    /// was not later.
    pub(crate) fn may_be_missed(&self, after_ms: u64) -> bool {
        self.must_be_missed(after_ms)
    }

    /// The item that may remain after a miss. An expired item may still exist for callers with an older reading of the
    /// clock, and may still be marked stale.
    pub(crate) fn left_when_missed(&self, after_ms: u64) -> Option<Content> {
        self.content.filter(|_| self.must_be_missed(after_ms))
    }

    pub(crate) fn version(&self) -> u64 {
        self.content.and_then(|content| content.version).unwrap_or(0)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} at {} ms, {}: ", self.seq, self.at_ms, self.operation)?;
        let Some(content) = self.content else { return write!(f, "no item") };
        let Content { base, len, attributes, stale, version } = content;
        let Attributes { flags, deadline_ms, stale_at_ms, negative } = attributes;
        write!(f, "base {base}, {len} bytes, version {version:?}, flags {flags:#x}, deadline {deadline_ms}, ")?;
        write!(f, "stale at {stale_at_ms}, marked stale {stale:?}, negative {negative}")
    }
}

/// The position of a reader in the states of a key: twice the sequence number, plus 1 after the item of that state is
/// missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) fn of(seq: u64) -> Self {
        Self(seq * 2)
    }

    fn gone(seq: u64) -> Self {
        Self(seq * 2 + 1)
    }

    fn seq(self) -> u64 {
        self.0 / 2
    }
}

/// The result of a read of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sight<'a> {
    /// The item, with its value.
    Item(&'a Item),
    /// The item without its value, and the length of the value.
    Outline(&'a Item, usize),
    /// No item.
    Miss,
}

/// A call, between two readings of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The time passed to the store.
    pub(crate) now_ms: u64,
    /// The time after the answer.
    pub(crate) after_ms: u64,
    /// Items may be evicted: any miss is explained.
    pub(crate) lossy: bool,
}

/// The verdict on a sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The earliest position that explains it.
    Explained(Position),
    /// The states that could explain it are forgotten.
    Forgotten,
    /// No state explains it.
    Wrong,
}

/// A key and its states.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) number: u32,
    pub(crate) writer: u32,
    pub(crate) namespace: u16,
    pub(crate) name: Box<[u8]>,
    acknowledged: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    states: VecDeque<State>,
    highest_version: u64,
}

impl Register {
    pub(crate) fn new(number: u32, writer: u32, namespace: u16, name: Vec<u8>) -> Self {
        let first = State { seq: 0, operation: "begin", at_ms: 0, content: None };
        let log = Log { states: VecDeque::from([first]), highest_version: 0 };
        let (name, acknowledged) = (name.into(), AtomicU64::new(0));
        Self { number, writer, namespace, name, acknowledged, log: Mutex::new(log) }
    }

    pub(crate) fn key(&self) -> ebb_engine::store::Key<'_> {
        ebb_engine::store::Key { namespace: self.namespace, bytes: &self.name }
    }

    pub(crate) fn origin(&self, base: u64) -> Origin {
        Origin { writer: self.writer, key: self.number, base }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock()
    }

    /// The earliest position that a read beginning now may return.
    pub(crate) fn acknowledged(&self) -> Position {
        // Acquire pairs with the Release in `acknowledge`.
        Position::of(self.acknowledged.load(Ordering::Acquire))
    }

    /// The last state. Between operations it is exact for the owner.
    pub(crate) fn current(&self) -> State {
        *self.log().states.back().expect("a key has a state")
    }

    /// Appends a state (R1); `content` gets its sequence number.
    pub(crate) fn begin(
        &self,
        operation: &'static str,
        at_ms: u64,
        content: impl FnOnce(u64) -> Option<Content>,
    ) -> State {
        let mut log = self.log();
        let seq = log.states.back().expect("a key has a state").seq + 1;
        let state = State { seq, operation, at_ms, content: content(seq) };
        log.states.push_back(state);
        if log.states.len() > REMEMBERED {
            log.states.pop_front();
        }
        state
    }

    /// Replaces the content of the last state, before a reader can see it.
    pub(crate) fn amend(&self, content: Option<Content>) {
        self.log().states.back_mut().expect("a key has a state").content = content;
    }

    /// Ends the last state with its actual content.
    pub(crate) fn acknowledge(&self, content: Option<Content>) {
        let mut log = self.log();
        log.highest_version = log.highest_version.max(content.and_then(|content| content.version).unwrap_or(0));
        let last = log.states.back_mut().expect("a key has a state");
        last.content = content;
        let seq = last.seq;
        drop(log);
        self.acknowledged.store(seq, Ordering::Release);
    }

    /// The highest version that was acknowledged.
    pub(crate) fn highest_version(&self) -> u64 {
        self.log().highest_version
    }

    /// Judges a sight that cannot be earlier than `least`.
    pub(crate) fn judge(&self, least: Position, sight: Sight<'_>, call: Call) -> Verdict {
        // Values are compared outside the lock: the owner is not to wait for that.
        let (states, complete) = {
            let log = self.log();
            let first = log.states.front().expect("a key has a state").seq;
            let from = least.seq().saturating_sub(first) as usize;
            (log.states.range(from..).copied().collect::<Vec<_>>(), first <= least.seq())
        };
        let explains = |state: &State| match sight {
            Sight::Miss => {
                let missed = call.lossy || state.may_be_missed(call.after_ms);
                missed.then(|| Position::gone(state.seq).max(least))
            }
            Sight::Item(item) => self.shows(state, item, item.value.len(), true, call).then(|| Position::of(state.seq)),
            Sight::Outline(item, len) => self.shows(state, item, len, false, call).then(|| Position::of(state.seq)),
        };
        let explained = states.iter().filter_map(explains).find(|position| *position >= least);
        match explained {
            Some(position) => Verdict::Explained(position),
            None if !complete => Verdict::Forgotten,
            None => Verdict::Wrong,
        }
    }

    fn shows(&self, state: &State, item: &Item, len: usize, with_value: bool, call: Call) -> bool {
        let Some(content) = state.content else { return false };
        !state.must_be_missed(call.now_ms)
            && content.len == len
            && content.attributes == item.attributes
            && content.stale.is_none_or(|stale| stale == item.marked_stale)
            && content.version.is_none_or(|version| version == item.version)
            && (!with_value || self.origin(content.base).difference(&item.value).is_none())
    }

    /// The last operations of the owner, for messages.
    pub(crate) fn history(&self) -> String {
        let log = self.log();
        let last = log.states.iter().rev().take(12).rev();
        let lines: Vec<_> = last.map(|state| format!("  {state}")).collect();
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let name = String::from_utf8_lossy(&self.name[..self.name.len().min(40)]).into_owned();
        format!(
            "key {} of writer {}, namespace {}, {:?} ({} bytes), acknowledged {acknowledged}:\n{}",
            self.number,
            self.writer,
            self.namespace,
            name,
            self.name.len(),
            lines.join("\n")
        )
    }
}
