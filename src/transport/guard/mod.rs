//! A guard between a socket and `h2` that inspects the frames.
//!
//! ```text
//!  socket ──► Guarded: frames ─┬─ header blocks: their decoded size; `:authority` rewritten          ──► h2
//!                              ├─ DATA: progress
//!                              └─ control frames: a budget
//! ```
//! `h2` decodes everything that has arrived before it returns the first call. So the guard passes only a little at a
//! time, and bounds the header blocks whose calls are not accepted and accounted for yet. An unfinished block is
//! charged as it grows. A connection reads a bounded number of bytes per turn, and then the other connections of its
//! thread run.
//!
//! Bytes are inspected and changed in place; only an unfinished Huffman-coded authority is held back.

mod authority;
mod frames;
mod hpack;
mod huffman;
pub(super) mod linger;

use super::quota::HeaderBlock;
use crate::traffic::Rejection;
use frames::{Frames, PREFACE};
use linger::Linger;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Maximum bytes that `h2` reads at a time: one byte of a header block can refer to a field of the HPACK tables, which
/// decodes to about 150 bytes.
const READ_BYTES: usize = 8 << 10;
/// Maximum bytes that `h2` reads at a time within the payload of a frame, such as most of a large value.
const LARGE_READ_BYTES: usize = 16 << 10;
/// Bytes that a connection reads per turn.
const TURN_BYTES: u64 = 32 << 10;
/// Costly bytes among these: all except those after the first 512 bytes of a DATA payload.
const TURN_FRAME_BYTES: u64 = 8 << 10;
/// Costly bytes per turn of a connection that sends only control frames.
const SUSPECT_TURN_FRAME_BYTES: u64 = 1 << 10;
/// Decoded headers of calls that are not accepted yet, above which reading pauses, in bytes.
const WAITING_HEADER_BYTES: u64 = 128 << 10;
/// Memory of a decoded field without its name and value, in bytes: its slot in a header map (`tests/call_memory.py`).
pub(super) const FIELD_BYTES: usize = 128;
/// Maximum header list that `h2` decodes, as HTTP/2 counts it, in bytes; it answers a larger one with 431.
pub(super) const MAX_HEADER_LIST_BYTES: usize = 64 << 10;
/// Bytes that may be read before the connection accepts calls: the handshake has already been read.
const HANDSHAKE_BYTES: u64 = 256;
/// Maximum bytes held back. Only an authority cut into many tiny frames reaches this; it is then passed unchanged.
const MAX_HELD_BYTES: usize = 1 << 10;

/// Counters of a connection. Only the connection's task writes them, so additions need not be atomic; the tasks of its
/// calls read them.
#[derive(Debug)]
pub(super) struct Activity {
    read: AtomicU64,
    written: AtomicU64,
    data: AtomicU64,
    small_data_frames: AtomicU64,
    waiting_headers: AtomicU64,
    oversized_headers: AtomicU64,
    /// Costly bytes, and total bytes, that may still be read in this turn.
    turn_frames: AtomicU64,
    turn: AtomicU64,
    is_suspect: AtomicBool,
    refused: OnceLock<Rejection>,
}

impl Default for Activity {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            read: zero(),
            written: zero(),
            data: zero(),
            small_data_frames: zero(),
            waiting_headers: zero(),
            oversized_headers: zero(),
            turn_frames: AtomicU64::new(HANDSHAKE_BYTES),
            turn: AtomicU64::new(TURN_BYTES),
            is_suspect: AtomicBool::new(true),
            refused: OnceLock::new(),
        }
    }
}

/// Adds to a counter that only this task writes.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl Activity {
    /// Bytes read from the client.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes read and written.
    pub(super) fn total_bytes(&self) -> u64 {
        self.read_bytes() + self.written.load(Ordering::Relaxed)
    }

    /// Bytes of DATA frames read from the client.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// Small DATA frames read from the client.
    pub(super) fn small_data_frames(&self) -> u64 {
        self.small_data_frames.load(Ordering::Relaxed)
    }

    /// Counts bytes read in this turn, of which `cheap` are cheap.
    fn take_turn(&self, read: u64, cheap: u64) {
        let less =
            |left: &AtomicU64, bytes| left.store(left.load(Ordering::Relaxed).saturating_sub(bytes), Ordering::Relaxed);
        less(&self.turn, read);
        less(&self.turn_frames, read.saturating_sub(cheap));
    }

    /// Number of header blocks since the last call that `h2` rejects for their size.
    pub(super) fn take_oversized_headers(&self) -> u64 {
        match self.oversized_headers.load(Ordering::Relaxed) {
            0 => 0,
            count => {
                self.oversized_headers.store(0, Ordering::Relaxed);
                count
            }
        }
    }

    /// Begins a turn, in which at most `frames` costly bytes may be read.
    pub(super) fn begin_turn(&self, frames: u64) {
        let most = if self.is_suspect.load(Ordering::Relaxed) { SUSPECT_TURN_FRAME_BYTES } else { TURN_FRAME_BYTES };
        self.turn_frames.store(frames.min(most), Ordering::Relaxed);
        self.turn.store(TURN_BYTES, Ordering::Relaxed);
    }

    /// Records that every decoded call has been accepted.
    pub(super) fn headers_taken(&self) {
        self.waiting_headers.store(0, Ordering::Relaxed);
    }

    /// Why the connection must be closed, if it must. Nothing more is read then.
    pub(super) fn refused(&self) -> Option<Rejection> {
        self.refused.get().copied()
    }
}

/// A socket whose frames are inspected.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    activity: Arc<Activity>,
    frames: Frames,
    block: HeaderBlock,
    /// Bytes that were read but not passed on: first `free` bytes that may be passed, then an unfinished authority.
    held: Vec<u8>,
    free: usize,
    /// Offset in the connection of the byte after the held ones.
    position: u64,
    closing: Option<Linger>,
}

impl<S> Guarded<S> {
    /// Guards `stream`, of which `first` has already been read. It rewrites authorities if `rewrite`, and charges to
    /// `block` the memory that `h2` keeps for header blocks.
    pub(super) fn new(stream: S, first: &[u8], rewrite: bool, activity: Arc<Activity>, block: HeaderBlock) -> Self {
        let mut frames = Frames::new(rewrite, Instant::now());
        let mut held = first.to_vec();
        frames.pass(&mut held, 0, 0);
        activity.read.store(held.len() as u64, Ordering::Relaxed);
        Self { stream, activity, frames, block, free: held.len(), position: held.len() as u64, held, closing: None }
    }

    /// Bytes that may be read now. A payload contains no headers, so running calls receive theirs even while the
    /// connection may read no other frame, unless decoded headers wait to be accepted.
    fn may_read(&self) -> usize {
        if self.activity.waiting_headers.load(Ordering::Relaxed) > WAITING_HEADER_BYTES {
            return 0;
        }
        let turn = self.activity.turn.load(Ordering::Relaxed) as usize;
        let frames = self.activity.turn_frames.load(Ordering::Relaxed) as usize;
        match self.frames.cheap_left() {
            0 => turn.min(frames).min(READ_BYTES),
            cheap => turn.min(cheap + frames).min(LARGE_READ_BYTES),
        }
    }

    /// Inspects bytes that were read to the end of `buffer`, which begins with the held ones. Returns how many may be
    /// passed on.
    fn look(&mut self, buffer: &mut [u8], held: usize) -> usize {
        let at = self.position - held as u64;
        let read = (buffer.len() - held) as u64;
        self.frames.pass(buffer, held, at);
        self.position += read;
        add(&self.activity.read, read);
        let passed = self.frames.take_passed();
        self.activity.take_turn(read, passed.cheap_bytes);
        add(&self.activity.data, passed.data_bytes);
        add(&self.activity.small_data_frames, passed.small_data_frames);
        if passed.oversized_headers > 0 {
            add(&self.activity.oversized_headers, passed.oversized_headers);
        }
        let decoded = passed.headers.list_bytes + passed.headers.fields * FIELD_BYTES;
        add(&self.activity.waiting_headers, decoded as u64);
        let written = self.activity.written.load(Ordering::Relaxed);
        if self.frames.is_flood(written, Instant::now) {
            let _ = self.activity.refused.set(Rejection::ControlFrames); // the first reason stays
        }
        self.activity.is_suspect.store(self.frames.is_suspect(), Ordering::Relaxed);
        if !self.block.resize(self.frames.kept_bytes()) {
            let _ = self.activity.refused.set(Rejection::HeaderList);
        }
        match self.frames.unsettled() {
            _ if self.activity.refused().is_some() => 0, // `h2` must not decode bytes of a rejected connection
            Some(first) if self.position - first <= MAX_HELD_BYTES as u64 => first.saturating_sub(at) as usize,
            _ => buffer.len(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.free > 0 {
                let n = into.remaining().min(this.free);
                into.put_slice(&this.held[..n]);
                this.held.drain(..n);
                this.free -= n;
                return Poll::Ready(Ok(()));
            }
            if this.activity.refused().is_some() {
                return Poll::Pending; // no wake-up: the connection is being closed
            }
            let most = this.may_read();
            if most == 0 {
                return yield_now(cx); // continue after waiting calls are accepted and other tasks have run
            }
            if !this.held.is_empty() {
                let mut space = [0; 1024];
                let mut buffer = ReadBuf::new(&mut space);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    this.free = this.held.len(); // end of the stream: pass the held bytes unchanged
                    continue;
                }
                let mut held = std::mem::take(&mut this.held);
                let before = held.len();
                held.extend_from_slice(buffer.filled());
                this.free = this.look(&mut held, before);
                this.held = held;
                continue;
            }
            let before = into.filled().len();
            let is_end = if into.remaining() <= most {
                ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
                let is_end = into.filled().len() == before;
                let free = before + this.look(&mut into.filled_mut()[before..], 0);
                this.held.extend_from_slice(&into.filled()[free..]);
                into.set_filled(free);
                is_end
            } else {
                let mut space = [const { MaybeUninit::uninit() }; LARGE_READ_BYTES];
                let mut buffer = ReadBuf::uninit(&mut space[..most]);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
                let read = buffer.filled_mut();
                let free = this.look(read, 0);
                into.put_slice(&read[..free]);
                this.held.extend_from_slice(&read[free..]);
                read.is_empty()
            };
            if is_end || into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.closing.get_or_insert_with(Linger::new).poll_close(&mut this.stream, cx)
    }
}

impl<S> Guarded<S> {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = result {
            add(&self.activity.written, written as u64);
        }
        result
    }
}

/// Returns pending. The task runs again after the other tasks of its thread and after the sockets were polled. (A task
/// that wakes itself runs again before the thread polls its sockets.)
pub(super) fn yield_now<T>(cx: &mut Context<'_>) -> Poll<T> {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}

/// The protocol of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 with prior knowledge: gRPC without TLS.
    Http2,
    /// HTTP/1.
    Http1,
    /// TLS.
    Tls,
    /// The Redis protocol.
    Redis,
    /// Another protocol.
    Unknown,
}

impl Protocol {
    /// The protocol given by the first bytes of a connection; `None` while it is undecided.
    fn of(first: &[u8]) -> Option<Self> {
        let common = first.iter().zip(PREFACE).take_while(|(byte, expected)| byte == expected).count();
        if common == first.len() {
            return (first.len() == PREFACE.len()).then_some(Self::Http2);
        }
        let is_word = |byte: &u8| byte.is_ascii_alphabetic();
        Some(match first {
            [0x16, 3, ..] => Self::Tls,
            [0x16] => return None,
            [b'*' | b'+' | b'$' | b':', ..] => Self::Redis,
            _ if first.starts_with(b"PING\r") || first.starts_with(b"HELLO ") || first.starts_with(b"AUTH ") => {
                Self::Redis
            }
            [..] if first.len() < 8 && first.iter().all(is_word) => return None,
            _ if HTTP1_METHODS.iter().any(|method| first.starts_with(method)) => Self::Http1,
            _ => Self::Unknown,
        })
    }

    /// The counter for a rejected protocol; `None` if it is served.
    pub(super) fn rejection(self) -> Option<Rejection> {
        match self {
            Self::Http2 => None,
            Self::Http1 => Some(Rejection::Http1),
            Self::Tls => Some(Rejection::Tls),
            Self::Redis => Some(Rejection::Redis),
            Self::Unknown => Some(Rejection::UnknownProtocol),
        }
    }

    /// The answer to a client of this protocol.
    pub(super) fn refusal(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"",
            Self::Http1 => {
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\ncontent-length: 51\r\nconnection: close\r\n\r\nthis port serves gRPC over HTTP/2 (prior knowledge)"
            }
            // A fatal alert: protocol_version.
            Self::Tls => &[21, 3, 1, 0, 2, 2, 70],
            Self::Redis => b"-ERR this port serves gRPC over HTTP/2, not the Redis protocol\r\n",
            // GOAWAY with PROTOCOL_ERROR.
            Self::Unknown => &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        }
    }
}

const HTTP1_METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// Reads until the client's protocol is known, and returns the bytes read. `None` if the client closes its side before.
///
/// # Errors
/// If the socket fails.
pub(super) async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<(Protocol, Vec<u8>)>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    loop {
        if let Some(protocol) = Protocol::of(&first) {
            return Ok(Some((protocol, first)));
        }
        let mut space = [0; PREFACE.len()];
        let left = PREFACE.len() - first.len();
        match stream.read(&mut space[..left]).await? {
            0 => return Ok(None),
            read => first.extend_from_slice(&space[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
