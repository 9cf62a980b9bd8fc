//! Counters of requests, connections and refusals.

use crate::service::Reason;
use ebb_engine::per_thread::PerThread;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tonic::Code;

/// Methods: the calls of the cache service, the operations of a pipe, and all others.
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

    /// The method of a request path.
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

    /// Whether the client determines its duration, so that latency is meaningless.
    pub(crate) fn is_open_ended(self) -> bool {
        matches!(self, Self::Pipe | Self::Scan | Self::Other)
    }
}

const METHODS: usize = Method::COUNT;

/// Outcome of a request, as known when its service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[repr(u8)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Success, or the first message of a stream.
    Ok,
    /// Another status.
    Refused,
}

impl Outcome {
    /// The stable name, as in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The outcome for a status.
    pub(crate) fn of(code: Code) -> Self {
        if code == Code::Ok { Self::Ok } else { Self::Refused }
    }
}

const OUTCOMES: usize = Outcome::COUNT;
/// The codes of gRPC, 0 to 16.
pub const CODES: usize = Code::Unauthenticated as usize + 1;

/// Upper bounds of the buckets, in nanoseconds; an additional bucket has none.
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

/// One in this many operations of a pipe is timed: reading the clock twice costs a twentieth of an operation.
pub(crate) const PIPE_TIMED: u32 = 32;

/// Histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Number of durations per bucket.
    pub buckets: [u64; BUCKETS],
    /// Sum, in nanoseconds.
    pub sum_nanos: u64,
}

impl Durations {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The quantile, in thousandths, as the upper bound of its bucket in nanoseconds. `None` if there are no durations
    /// or if it lies beyond the last bound.
    pub fn within_nanos(&self, permille: u64) -> Option<u64> {
        let wanted = (self.count() * permille).div_ceil(1000).max(1);
        let mut sum = 0;
        let reached = self.buckets.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        BOUNDS_NANOS.get(reached?).copied()
    }

    /// Sum of two histograms.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = *self;
        both.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
        both.sum_nanos += other.sum_nanos;
        both
    }

    /// Difference from an earlier histogram.
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
    /// The client speaks an unknown protocol.
    UnknownProtocol,
    /// Too many control frames for the connection's work.
    ControlFrames,
    /// A header list that cannot be decoded.
    HeaderList,
    /// A call beyond the maximum of waiting calls.
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
    /// Whether the client is not a gRPC client of this listener, most likely because of a wrong address.
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

/// Totals of all threads.
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
    /// Calls in progress.
    pub open_calls: u64,
    /// Accepted connections.
    pub accepted_connections: u64,
    /// Open connections.
    pub open_connections: u64,
}

impl Totals {
    /// Writes refused because the value can never be stored.
    pub(crate) fn too_large(&self) -> u64 {
        self.refusals[Reason::ValueTooLarge as usize]
    }
}

/// The counters of a thread.
#[derive(Debug)]
struct Counters {
    ended: [[AtomicU64; CODES]; METHODS],
    buckets: [[[AtomicU64; BUCKETS]; OUTCOMES]; METHODS],
    sum_nanos: [[AtomicU64; OUTCOMES]; METHODS],
    refusals: [AtomicU64; Reason::COUNT],
    rejections: [AtomicU64; Rejection::COUNT],
    calls: [AtomicU64; 2],
    connections: [AtomicU64; 2],
}

/// Start or end of a call or connection.
#[derive(Clone, Copy)]
pub(crate) enum Edge {
    Begun,
    Ended,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

impl Default for Counters {
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

/// The counters of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<PerThread<Counters>>);

impl Traffic {
    /// Counts a finished request.
    pub(crate) fn ended(&self, method: Method, code: Code) {
        self.0.add(|counters| &counters.ended[method as usize][code as usize], 1);
    }

    /// Counts a duration.
    pub(crate) fn took(&self, method: Method, outcome: Outcome, duration: Duration) {
        if method.is_open_ended() {
            return;
        }
        let nanos = duration.as_nanos() as u64;
        let bucket = BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        self.0.add(|counters| &counters.buckets[method as usize][outcome as usize][bucket], 1);
        self.0.add(|counters| &counters.sum_nanos[method as usize][outcome as usize], nanos);
    }

    /// Counts a refusal by its reason.
    pub(crate) fn refused(&self, reason: Reason) {
        self.0.add(|counters| &counters.refusals[reason as usize], 1);
    }

    /// Counts connections or calls that the transport ended.
    pub(crate) fn rejected(&self, rejection: Rejection, count: u64) {
        self.0.add(|counters| &counters.rejections[rejection as usize], count);
    }

    /// Counts a call that begins or ends.
    pub(crate) fn call(&self, edge: Edge) {
        self.0.add(|counters| &counters.calls[edge as usize], 1);
    }

    /// Counts a connection that is accepted or closed.
    pub(crate) fn connection(&self, edge: Edge) {
        self.0.add(|counters| &counters.connections[edge as usize], 1);
    }

    /// Totals of all threads. Counting is not blocked, so the figures may differ by a few calls.
    pub fn totals(&self) -> Totals {
        let all: Vec<&Counters> = self.0.all().collect();
        let sum = |of: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
            all.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
        };
        let open = |of: &dyn Fn(&Counters) -> &[AtomicU64; 2]| {
            // Ends are read before starts, so that ends never exceed starts.
            let ended = sum(&|counters| &of(counters)[Edge::Ended as usize]);
            let begun = sum(&|counters| &of(counters)[Edge::Begun as usize]);
            (begun, begun.saturating_sub(ended))
        };
        let (_, open_calls) = open(&|counters| &counters.calls);
        let (accepted_connections, open_connections) = open(&|counters| &counters.connections);
        let durations = |method: usize, outcome: usize| Durations {
            buckets: std::array::from_fn(|bucket| sum(&|counters| &counters.buckets[method][outcome][bucket])),
            sum_nanos: sum(&|counters| &counters.sum_nanos[method][outcome]),
        };
        Totals {
            ended: std::array::from_fn(|method| {
                std::array::from_fn(|code| sum(&|counters| &counters.ended[method][code]))
            }),
            durations: std::array::from_fn(|method| std::array::from_fn(|outcome| durations(method, outcome))),
            refusals: std::array::from_fn(|reason| sum(&|counters| &counters.refusals[reason])),
            rejections: std::array::from_fn(|kind| sum(&|counters| &counters.rejections[kind])),
            open_calls,
            accepted_connections,
            open_connections,
        }
    }
}

#[cfg(test)]
mod tests;
