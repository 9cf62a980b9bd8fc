//! A lean client for Ebb, Redis and memcached: requests to bytes and bytes to replies, without any I/O.
//!
//! ```text
//!   Request ──ask──► bytes ──► connection ──► bytes ──hear──► (slot, Reply)
//! ```
//! A general client costs more than the servers it would measure, so each protocol here is written by hand and knows
//! only what the benchmarks send: keys of 16 bytes, plain gets, sets, deletes and batches of them.
//!
//! W1. A slot is the caller's number of a request that has no reply yet; each is heard exactly once.
//! W2. What a protocol does not expect ends the connection with a sentence; it never panics and never allocates for a
//!     length it was only told.

mod http2;
mod memcached;
mod message;
mod resp;

use std::ops::Range;

use super::workload::Key;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// The cheapest call there is: GetCapabilities, PING, or memcached's `mn`.
    #[default]
    Empty,
    Get,
    Set,
    Delete,
}

/// One request: one key, or a batch of them. Made once and filled again and again.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) batch: bool,
    /// Whatever the caller wants to know again with the reply.
    pub(super) mark: u64,
    keys: Vec<Key>,
    values: Vec<u8>,
    bounds: Vec<Range<usize>>,
}

impl Request {
    /// Empties it for a request of this kind.
    pub(super) fn begin(&mut self, kind: Kind, batch: bool, mark: u64) {
        (self.kind, self.batch, self.mark) = (kind, batch, mark);
        self.keys.clear();
        self.values.clear();
        self.bounds.clear();
    }

    pub(super) fn key(&mut self, key: Key) {
        self.keys.push(key);
    }

    /// Adds a key and what `write` appends.
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

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// Carried out.
    Done,
    /// The value of a single get.
    Value(&'a [u8]),
    /// No value, or nothing to delete.
    Miss,
    /// A batch: how many were found, stored or deleted.
    Many { found: usize },
    /// Not carried out, and why.
    Refused(String),
}

/// How Ebb is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A call for each request.
    Unary,
    /// One Pipe for all requests of a connection.
    Pipe,
}

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Ebb(Shape),
    Redis,
    Memcached,
}

/// One connection's protocol.
pub(super) trait Protocol: Send {
    /// Writes what is said first.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// How many requests the other side takes without an answer.
    fn window(&self) -> usize;
    /// Writes a request.
    fn ask(&mut self, slot: u32, request: &Request, out: &mut Vec<u8>);
    /// Writes what was held back for the sake of larger writes.
    fn flush(&mut self, out: &mut Vec<u8>);
    /// Reads what has come, and says how much of it: the rest is shown again, with more behind it.
    fn hear(&mut self, input: &[u8], heard: &mut Heard<'_>) -> Result<usize, String>;
}

/// Told each reply and the slot it belongs to.
pub(super) type Heard<'a> = dyn FnMut(u32, Reply<'_>) + 'a;

/// The protocol of a new connection.
pub(super) fn protocol(system: System) -> Box<dyn Protocol> {
    match system {
        System::Ebb(shape) => Box::new(http2::Http2::new(shape)),
        System::Redis => Box::new(resp::Resp::default()),
        System::Memcached => Box::new(memcached::Memcached::default()),
    }
}
