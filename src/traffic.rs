//! What came in and what became of it.
//!
//! ```text
//!  data-plane thread 1 ──► Lane ┐
//!  data-plane thread 2 ──► Lane ├─ summed when somebody asks
//!  control thread      ──► Lane ┘
//! ```
//! T1. A lane is written by one thread alone, so counting is a load and a store: no shared cache line, no locked
//!     instruction, no lookup of a label.

use crate::service::Reason;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tonic::Code;

/// What is asked for: the calls of the cache service, the operations of a pipe, and everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as the contract names them")]
#[strum(serialize_all = "snake_case")]
pub enum Method {
    Get,
    Set,
    Delete,
    Touch,
    Increment,
    Append,
    BatchGet,
    BatchSet,
    BatchDelete,
    Invalidate,
    Scan,
    Pipe,
    GetCapabilities,
    PipeGet,
    PipeSet,
    PipeDelete,
    PipeTouch,
    PipeIncrement,
    Other,
}

impl Method {
    /// The stable name, as in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The method that a request's path names.
    pub(crate) fn of(path: &str) -> Self {
        match path.strip_prefix("/ebb.v1.CacheService/") {
            Some("Get") => Self::Get,
            Some("Set") => Self::Set,
            Some("Delete") => Self::Delete,
            Some("Touch") => Self::Touch,
            Some("Increment") => Self::Increment,
            Some("Append") => Self::Append,
            Some("BatchGet") => Self::BatchGet,
            Some("BatchSet") => Self::BatchSet,
            Some("BatchDelete") => Self::BatchDelete,
            Some("Invalidate") => Self::Invalidate,
            Some("Scan") => Self::Scan,
            Some("Pipe") => Self::Pipe,
            Some("GetCapabilities") => Self::GetCapabilities,
            _ => Self::Other,
        }
    }

    /// Whether a call reads or writes a single item.
    pub(crate) fn is_of_one_item(self) -> bool {
        matches!(self, Self::Get | Self::Set | Self::Delete | Self::Touch | Self::Increment | Self::Append)
    }

    /// Whether it goes on for as long as the client likes: how long it took says nothing then.
    pub(crate) fn is_open_ended(self) -> bool {
        matches!(self, Self::Pipe | Self::Scan | Self::Other)
    }
}

const METHODS: usize = Method::COUNT;

/// What a request was answered with, as far as that is known when its service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[repr(u8)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// With what it asked for, or the first of it.
    Ok,
    /// With another status.
    Refused,
}

impl Outcome {
    /// The stable name, as in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The outcome that a status means.
    pub(crate) fn of(code: Code) -> Self {
        if code == Code::Ok { Self::Ok } else { Self::Refused }
    }
}

const OUTCOMES: usize = Outcome::COUNT;
/// The codes of gRPC, 0 to 16.
pub const CODES: usize = Code::Unauthenticated as usize + 1;

/// The upper bounds of the buckets, in nanoseconds; one more bucket has none.
pub const BOUNDS_NANOS: [u64; 12] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
];
const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// Of the operations of a pipe, one of so many is timed: two looks at a clock cost a twentieth of one.
pub(crate) const PIPE_TIMED: u32 = 32;

/// How long requests took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many fell into each bucket, and into none of those before it.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in nanoseconds.
    pub sum_nanos: u64,
}

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What this share of a thousand stayed within: the upper bound of a bucket, in nanoseconds. `None` when there was
    /// nothing, or when it lies beyond the last bound.
    pub fn within_nanos(&self, permille: u64) -> Option<u64> {
        let wanted = (self.count() * permille).div_ceil(1000).max(1);
        let mut sum = 0;
        let reached = self.buckets.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        BOUNDS_NANOS.get(reached?).copied()
    }

    /// Those of both.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = *self;
        both.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
        both.sum_nanos += other.sum_nanos;
        both
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.buckets.iter_mut().zip(before.buckets).for_each(|(now, before)| *now = now.saturating_sub(before));
        since.sum_nanos = self.sum_nanos.saturating_sub(before.sum_nanos);
        since
    }
}

/// Why the transport ended a connection or a call before a service saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[repr(u8)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// The client speaks HTTP/1.
    Http1,
    /// The client speaks TLS.
    Tls,
    /// The client speaks the Redis protocol.
    Redis,
    /// The client speaks no protocol that is known here.
    UnknownProtocol,
    /// More control frames than the connection's work explains.
    ControlFrames,
    /// A header list that is not decoded.
    HeaderList,
    /// A call beyond those that may wait to run.
    RefusedStream,
    /// An idle connection closed for a new one.
    ConnectionCap,
    /// A request with another HTTP method than POST.
    HttpMethod,
    /// A request whose content type is not that of gRPC with protobuf.
    ContentType,
    /// A call of a method that its listener does not have.
    UnknownMethod,
}

impl Rejection {
    /// Whether the client is not a gRPC client of this listener: most likely it was given the wrong address.
    pub(crate) fn is_misdirected(self) -> bool {
        match self {
            Self::Http1 | Self::Tls | Self::Redis | Self::UnknownProtocol => true,
            Self::HttpMethod | Self::ContentType | Self::UnknownMethod => true,
            Self::ControlFrames | Self::HeaderList | Self::RefusedStream | Self::ConnectionCap => false,
        }
    }

    /// The stable name, as in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What all lanes together have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By method and code.
    pub ended: [[u64; CODES]; METHODS],
    /// By method and outcome; none for methods that are open-ended.
    pub durations: [[Durations; OUTCOMES]; METHODS],
    /// By reason, in the order of [`Reason`].
    pub refusals: [u64; Reason::COUNT],
    /// By kind.
    pub rejections: [u64; Rejection::COUNT],
    /// Calls that have begun and not ended.
    pub open_calls: u64,
    /// Connections that were accepted.
    pub accepted_connections: u64,
    /// Those that are open.
    pub open_connections: u64,
}

impl Totals {
    /// Writes refused because the value can never be stored.
    pub(crate) fn too_large(&self) -> u64 {
        self.refusals[Reason::ValueTooLarge as usize]
    }
}

/// The counters of one thread (T1).
#[derive(Debug)]
pub(crate) struct Lane {
    ended: [[AtomicU64; CODES]; METHODS],
    buckets: [[[AtomicU64; BUCKETS]; OUTCOMES]; METHODS],
    sum_nanos: [[AtomicU64; OUTCOMES]; METHODS],
    refusals: [AtomicU64; Reason::COUNT],
    rejections: [AtomicU64; Rejection::COUNT],
    calls: [AtomicU64; 2],
    connections: [AtomicU64; 2],
}

/// Something has begun, or ended.
#[derive(Clone, Copy)]
pub(crate) enum Edge {
    Begun,
    Ended,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            ended: [const { [const { AtomicU64::new(0) }; CODES] }; METHODS],
            buckets: [const { [const { [const { AtomicU64::new(0) }; BUCKETS] }; OUTCOMES] }; METHODS],
            sum_nanos: [const { [const { AtomicU64::new(0) }; OUTCOMES] }; METHODS],
            refusals: zeros(),
            rejections: zeros(),
            calls: zeros(),
            connections: zeros(),
        }
    }
}

impl Lane {
    /// Counts a request that has ended.
    pub(crate) fn ended(&self, method: Method, code: Code) {
        add(&self.ended[method as usize][code as usize], 1);
    }

    /// Counts how long one took.
    pub(crate) fn took(&self, method: Method, outcome: Outcome, duration: Duration) {
        if method.is_open_ended() {
            return;
        }
        let nanos = duration.as_nanos() as u64;
        let bucket = BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        add(&self.buckets[method as usize][outcome as usize][bucket], 1);
        add(&self.sum_nanos[method as usize][outcome as usize], nanos);
    }

    /// Counts a refusal by its reason.
    pub(crate) fn refused(&self, reason: Reason) {
        add(&self.refusals[reason as usize], 1);
    }

    /// Counts connections or calls that the transport ended.
    pub(crate) fn rejected(&self, rejection: Rejection, count: u64) {
        add(&self.rejections[rejection as usize], count);
    }

    /// Counts a call that begins or ends.
    pub(crate) fn call(&self, edge: Edge) {
        add(&self.calls[edge as usize], 1);
    }

    /// Counts a connection that is accepted or closed.
    pub(crate) fn connection(&self, edge: Edge) {
        add(&self.connections[edge as usize], 1);
    }
}

/// The lanes of a process. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Vec<Arc<Lane>>>>);

impl Traffic {
    /// A lane for one more thread.
    pub(crate) fn lane(&self) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        self.lanes().push(lane.clone());
        lane
    }

    fn lanes(&self) -> parking_lot::MutexGuard<'_, Vec<Arc<Lane>>> {
        self.0.lock()
    }

    /// What all lanes together have counted. Takes none of the writers' time, so figures may be a few calls apart.
    pub fn totals(&self) -> Totals {
        let lanes = self.lanes();
        let sum = |of: &dyn Fn(&Lane) -> &AtomicU64| -> u64 {
            lanes.iter().map(|lane| of(lane).load(Ordering::Relaxed)).sum()
        };
        let open = |of: &dyn Fn(&Lane) -> &[AtomicU64; 2]| {
            // What has ended is read first: it never seems to be more than what has begun.
            let ended = sum(&|lane| &of(lane)[Edge::Ended as usize]);
            let begun = sum(&|lane| &of(lane)[Edge::Begun as usize]);
            (begun, begun.saturating_sub(ended))
        };
        let (_, open_calls) = open(&|lane| &lane.calls);
        let (accepted_connections, open_connections) = open(&|lane| &lane.connections);
        let durations = |method: usize, outcome: usize| Durations {
            buckets: std::array::from_fn(|bucket| sum(&|lane| &lane.buckets[method][outcome][bucket])),
            sum_nanos: sum(&|lane| &lane.sum_nanos[method][outcome]),
        };
        Totals {
            ended: std::array::from_fn(|method| std::array::from_fn(|code| sum(&|lane| &lane.ended[method][code]))),
            durations: std::array::from_fn(|method| std::array::from_fn(|outcome| durations(method, outcome))),
            refusals: std::array::from_fn(|reason| sum(&|lane| &lane.refusals[reason])),
            rejections: std::array::from_fn(|kind| sum(&|lane| &lane.rejections[kind])),
            open_calls,
            accepted_connections,
            open_connections,
        }
    }
}

#[cfg(test)]
mod tests;
