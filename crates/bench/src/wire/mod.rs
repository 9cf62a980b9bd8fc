//! A lean client for Ebb, Redis and memcached: requests to bytes and bytes to replies, without any I/O.
//!
//! ```text
//!   Request ──ask──► bytes ──► connection ──► bytes ──hear──► (slot, Reply)
//! ```
//! A general client uses more CPU than the servers, so each protocol is hand-written and supports only the calls of the
//! benchmarks: keys of 16 bytes, plain gets, sets and deletes, and batches of them.
//!
//! W1. A slot is the caller's number of a request without a reply. Each slot gets exactly one reply.
//! W2. Unexpected input ends the connection with an error. It never causes a panic or an allocation of an announced
//! size.

mod http2;
mod memcached;
mod message;
mod resp;

use std::ops::Range;

use super::workload::Key;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// The cheapest call: GetCapabilities, PING, or memcached's `mn`.
    #[default]
    Empty,
    Get,
    Set,
    Delete,
}

/// A request with one key or a batch of keys. It is reused.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) batch: bool,
    /// A value of the caller, returned with the reply.
    pub(super) mark: u64,
    keys: Vec<Key>,
    values: Vec<u8>,
    bounds: Vec<Range<usize>>,
}

impl Request {
    /// Clears it for a request of this kind.
    pub(super) fn begin(&mut self, kind: Kind, batch: bool, mark: u64) {
        (self.kind, self.batch, self.mark) = (kind, batch, mark);
        self.keys.clear();
        self.values.clear();
        self.bounds.clear();
    }

    pub(super) fn key(&mut self, key: Key) {
        self.keys.push(key);
    }

    /// Adds a key and the value that `write` appends.
    pub(super) fn pair(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.values.len();
        write(&mut self.values);
        self.keys.push(key);
        self.bounds.push(start..self.values.len());
    }

    fn pairs(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        self.keys.iter().zip(self.bounds.iter().map(|bounds| &self.values[bounds.clone()]))
    }
}

/// A reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// Success.
    Done,
    /// The value of a single get.
    Value(&'a [u8]),
    /// No value or nothing to delete.
    Miss,
    /// A batch, with the number of found, stored or deleted keys.
    Many { found: usize },
    /// Refused, with the reason.
    Refused(String),
}

/// How Ebb is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One unary call per request.
    Unary,
    /// One Pipe for all requests of a connection.
    Pipe,
}

/// The measured system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Ebb(Shape),
    Redis,
    Memcached,
}

/// The protocol of one connection.
pub(super) trait Protocol: Send {
    /// Writes the connection preface.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// Maximum number of requests in flight.
    fn window(&self) -> usize;
    /// Writes a request.
    fn ask(&mut self, slot: u32, request: &Request, out: &mut Vec<u8>);
    /// Writes requests held back for larger writes.
    fn flush(&mut self, out: &mut Vec<u8>);
    /// Parses input and returns the number of consumed bytes. The caller passes the rest again with more input.
    fn hear(&mut self, input: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<usize>;
}

/// Callback for each reply and its slot.
pub(super) type Heard<'a> = dyn FnMut(u32, Reply<'_>) + 'a;

/// The protocol of a new connection.
pub(super) fn protocol(system: System) -> Box<dyn Protocol> {
    match system {
        System::Ebb(shape) => Box::new(http2::Http2::new(shape)),
        System::Redis => Box::new(resp::Resp::default()),
        System::Memcached => Box::new(memcached::Memcached::default()),
    }
}
