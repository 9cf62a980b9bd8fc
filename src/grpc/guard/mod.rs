//! What stands between a socket and `h2`, and looks at the frames that pass.
//!
//! ```text
//!  socket ──► Guarded: frames ─┬─ header blocks: what they decode to; `:authority` made acceptable   ──► h2
//!                              ├─ DATA: what counts as progress
//!                              └─ control frames: a budget
//! ```
//! `h2` decodes whatever has arrived before it hands out the first call. So the guard lets it read little at a time, and
//! no more header blocks than a bound before the calls they belong to have been taken over and accounted for.
//!
//! Bytes are inspected, and changed, where the socket put them; only an unfinished Huffman-coded authority is kept back.

mod authority;
mod frames;
mod hpack;
mod huffman;

use crate::traffic::Rejection;
use frames::{Frames, PREFACE};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes that `h2` may read at a time: one byte of a header block can name a field of the HPACK tables, which decodes to
/// some 150 bytes.
const READ_BYTES: usize = 8 << 10;
/// The same within the payload of a frame, which is what most bytes of a large value are.
const LARGE_READ_BYTES: usize = 16 << 10;
/// Decoded headers that may wait to be taken over before reading pauses, in bytes.
const WAITING_HEADER_BYTES: u64 = 64 << 10;
/// What a decoded field takes beside its name and value, in bytes: its place in a header map.
pub(super) const FIELD_BYTES: usize = 128;
/// The longest header list that `h2` decodes, as HTTP/2 counts it, in bytes; it answers a longer one with 431.
pub(super) const MAX_HEADER_LIST_BYTES: usize = 64 << 10;
/// Bytes that may be read before the connection takes calls: the handshake has been read already.
const HANDSHAKE_BYTES: u64 = 256;
/// Bytes kept back at most. Only an authority cut into many tiny frames comes to this; it stays as it is then.
const MAX_HELD_BYTES: usize = 1 << 10;

/// What has passed on a connection. Shared by the guard and by who watches the connection.
#[derive(Debug)]
pub(super) struct Activity {
    read: AtomicU64,
    written: AtomicU64,
    data: AtomicU64,
    waiting_headers: AtomicU64,
    oversized_headers: AtomicU64,
    /// Bytes that may be read until more are allowed.
    allowed: AtomicU64,
    is_flooded: AtomicBool,
}

impl Default for Activity {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            read: zero(),
            written: zero(),
            data: zero(),
            waiting_headers: zero(),
            oversized_headers: zero(),
            allowed: AtomicU64::new(HANDSHAKE_BYTES),
            is_flooded: AtomicBool::new(false),
        }
    }
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

    /// Header blocks since the last call that `h2` refuses for their size.
    pub(super) fn take_oversized_headers(&self) -> u64 {
        match self.oversized_headers.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.oversized_headers.swap(0, Ordering::Relaxed),
        }
    }

    /// Allows `bytes` to be read before the next call.
    pub(super) fn allow(&self, bytes: u64) {
        self.allowed.store(bytes, Ordering::Relaxed);
    }

    /// Every call that was decoded has been taken over.
    pub(super) fn headers_taken(&self) {
        self.waiting_headers.store(0, Ordering::Relaxed);
    }

    /// Whether the client sent more control frames than its work explains. Nothing more is read then.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }
}

/// A socket whose frames are looked at.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    activity: Arc<Activity>,
    frames: Frames,
    /// Bytes that were read and not handed on: first `free` bytes that may be, then an unfinished authority.
    held: Vec<u8>,
    free: usize,
    /// The connection's byte that comes after the held ones.
    position: u64,
}

impl<S> Guarded<S> {
    /// Guards `stream`, of which `first` was read already. Authorities are rewritten if `rewrite`.
    pub(super) fn new(stream: S, first: &[u8], rewrite: bool, activity: Arc<Activity>) -> Self {
        let mut frames = Frames::new(rewrite, Instant::now());
        let mut held = first.to_vec();
        frames.pass(&mut held, 0, 0);
        activity.read.store(held.len() as u64, Ordering::Relaxed);
        Self { stream, activity, frames, free: held.len(), position: held.len() as u64, held }
    }

    /// Looks at bytes that were read to the end of `buffer`, which begins with the held ones; returns how many may go on.
    fn look(&mut self, buffer: &mut [u8], held: usize) -> usize {
        let at = self.position - held as u64;
        let read = (buffer.len() - held) as u64;
        self.frames.pass(buffer, held, at);
        self.position += read;
        self.activity.read.fetch_add(read, Ordering::Relaxed);
        let passed = self.frames.take_passed();
        self.activity.data.fetch_add(passed.data_bytes, Ordering::Relaxed);
        if passed.oversized_headers > 0 {
            self.activity.oversized_headers.fetch_add(passed.oversized_headers, Ordering::Relaxed);
        }
        let decoded = passed.headers.list_bytes + passed.headers.fields * FIELD_BYTES;
        self.activity.waiting_headers.fetch_add(decoded as u64, Ordering::Relaxed);
        let written = self.activity.written.load(Ordering::Relaxed);
        if self.frames.is_flood(written, Instant::now) {
            self.activity.is_flooded.store(true, Ordering::Relaxed);
        }
        match self.frames.unsettled() {
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
            if this.activity.is_flooded() {
                return Poll::Pending; // for ever: the connection is being closed
            }
            let allowed = this.activity.allowed.load(Ordering::Relaxed);
            let payload = this.frames.payload_left();
            if (allowed == 0 && payload == 0)
                || this.activity.waiting_headers.load(Ordering::Relaxed) > WAITING_HEADER_BYTES
            {
                cx.waker().wake_by_ref(); // after the calls that wait have been taken over, and others have worked
                return Poll::Pending;
            }
            if !this.held.is_empty() {
                let mut space = [0; 1024];
                let mut buffer = ReadBuf::new(&mut space);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    this.free = this.held.len(); // the end: what was kept back stays as it is
                    continue;
                }
                let mut held = std::mem::take(&mut this.held);
                let before = held.len();
                held.extend_from_slice(buffer.filled());
                this.free = this.look(&mut held, before);
                this.held = held;
                continue;
            }
            let most = match (payload, allowed) {
                (0, _) => (allowed as usize).min(READ_BYTES),
                (_, u64::MAX) => LARGE_READ_BYTES,
                // A payload holds no headers, so the running calls receive theirs even while the queue is crowded.
                _ => payload.min(LARGE_READ_BYTES),
            };
            let mut space = [const { MaybeUninit::uninit() }; LARGE_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space[..into.remaining().min(most)]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled_mut();
            let free = this.look(read, 0);
            if allowed != u64::MAX {
                this.activity.allow(allowed.saturating_sub(read.len() as u64));
            }
            into.put_slice(&read[..free]);
            this.held.extend_from_slice(&read[free..]);
            if free > 0 || read.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Guarded<S> {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = result {
            self.activity.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        result
    }
}

/// What a client speaks.
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
    /// None of them.
    Unknown,
}

impl Protocol {
    /// What the first bytes of a connection say; `None` while they may still be HTTP/2.
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

    /// How it is counted, unless it is served.
    pub(super) fn rejection(self) -> Option<Rejection> {
        match self {
            Self::Http2 => None,
            Self::Http1 => Some(Rejection::Http1),
            Self::Tls => Some(Rejection::Tls),
            Self::Redis => Some(Rejection::Redis),
            Self::Unknown => Some(Rejection::UnknownProtocol),
        }
    }

    /// What is sent to a client that speaks it.
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

/// Reads until the client's protocol is known, and returns what was read. `None` when the client says nothing more.
///
/// # Errors
/// When the socket fails.
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
