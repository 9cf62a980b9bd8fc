//! Stock clients over a Unix socket: the one header they send that HTTP/2 servers refuse.
//!
//! C-core clients (Python, C++, Ruby, PHP) and Java name the socket's percent-encoded path as `:authority`; `h2` ends
//! every such stream with PROTOCOL_ERROR. This filter stands between a Unix socket and HTTP/2, looks at the headers a
//! client sends until it has seen one `:authority`, and replaces the bytes no authority may have by `-`. The decoded
//! length stays, so the HPACK tables of both ends stay alike; nothing else is changed, and what is not understood passes
//! untouched.
//!
//! Only literals with a plain (not Huffman-coded) value are rewritten: a byte for a byte. C-core sends that form.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames larger than this pass untouched: a header block with an authority is smaller.
const MAX_FRAME_BYTES: usize = 16 << 10;
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Header frames that are looked at before the filter stands aside.
const MAX_LOOKS: usize = 4;

/// A stream whose first `:authority` is made acceptable.
#[derive(Debug)]
pub(super) struct Scrubbed<S> {
    stream: S,
    filter: Filter,
    /// Filtered bytes that the reader has not taken yet.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Scrubbed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, filter: Filter::default(), ready: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Scrubbed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.taken < this.ready.len() {
                let n = into.remaining().min(this.ready.len() - this.taken);
                into.put_slice(&this.ready[this.taken..this.taken + n]);
                this.taken += n;
                return Poll::Ready(Ok(()));
            }
            (this.ready, this.taken) = (Vec::new(), 0);
            if this.filter.is_done() {
                return Pin::new(&mut this.stream).poll_read(cx, into);
            }
            let mut space = [0; 4096];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
            match buffer.filled() {
                [] => {
                    this.ready = this.filter.finish();
                    if this.ready.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
                bytes => this.ready = this.filter.feed(bytes),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Scrubbed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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

/// Bytes in, the same number of bytes out, sooner or later.
#[derive(Debug, Default)]
struct Filter {
    held: Vec<u8>,
    preface_seen: bool,
    looks: usize,
    done: bool,
}

impl Filter {
    fn is_done(&self) -> bool {
        self.done && self.held.is_empty()
    }

    fn finish(&mut self) -> Vec<u8> {
        self.done = true;
        std::mem::take(&mut self.held)
    }

    /// Takes bytes and returns those that may go on.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        while !self.done {
            let need = match self.next_piece() {
                Some(need) if need <= self.held.len() => need,
                Some(_) => return out,
                None => break,
            };
            let mut piece: Vec<u8> = self.held.drain(..need).collect();
            if self.preface_seen {
                self.look_at(&mut piece);
            }
            self.preface_seen = true;
            out.append(&mut piece);
        }
        out.append(&mut self.finish());
        out
    }

    /// The length of the next piece (the preface, then frames); `None` when the filter is to stand aside.
    fn next_piece(&self) -> Option<usize> {
        if !self.preface_seen {
            return Some(PREFACE_BYTES);
        }
        let Some([a, b, c]) = self.held.first_chunk::<3>() else { return Some(FRAME_HEADER_BYTES) };
        let length = FRAME_HEADER_BYTES + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        (length <= MAX_FRAME_BYTES).then_some(length)
    }

    fn look_at(&mut self, frame: &mut [u8]) {
        let (kind, flags) = (frame[3], frame[4]);
        if kind != HEADERS {
            return;
        }
        let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
        if let Some(block) = frame.get_mut(FRAME_HEADER_BYTES + before..) {
            self.done = scrub(block);
        }
        self.looks += 1;
        self.done |= self.looks >= MAX_LOOKS;
    }
}

/// Goes over a header block; says whether it found `:authority`.
fn scrub(block: &mut [u8]) -> bool {
    let mut at = 0;
    while at < block.len() {
        match next_field(block, at) {
            Some(Field { authority: Some(value), .. }) => {
                for byte in &mut block[value] {
                    if !is_authority_byte(*byte) {
                        *byte = b'-';
                    }
                }
                return true;
            }
            Some(Field { end, .. }) => at = end,
            None => return false,
        }
    }
    false
}

/// What RFC 3986 allows in a host and port, percent-encoding aside: `h2` takes `%2F` for an error.
fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]".contains(&byte)
}

struct Field {
    end: usize,
    /// Where the value of `:authority` is, if this is it and it is plain.
    authority: Option<std::ops::Range<usize>>,
}

/// One field of a header block (RFC 7541, section 6); `None` when it is cut off or broken.
fn next_field(block: &[u8], at: usize) -> Option<Field> {
    /// `:authority` in the static table.
    const STATIC_AUTHORITY: usize = 1;
    let first = *block.get(at)?;
    let prefix = match first {
        0x80.. => return integer(block, at, 7).map(|(_, end)| Field { end, authority: None }),
        0x40..=0x7f => 6,
        0x20..=0x3f => return integer(block, at, 5).map(|(_, end)| Field { end, authority: None }),
        0x00..=0x1f => 4,
    };
    let (index, mut at) = integer(block, at, prefix)?;
    let mut is_authority = index == STATIC_AUTHORITY;
    if index == 0 {
        let (name, huffman, end) = string(block, at)?;
        is_authority = !huffman && &block[name] == b":authority";
        at = end;
    }
    let (value, huffman, end) = string(block, at)?;
    Some(Field { end, authority: (is_authority && !huffman).then_some(value) })
}

/// A length-prefixed string: where it is, whether it is Huffman-coded, and where it ends.
fn string(block: &[u8], at: usize) -> Option<(std::ops::Range<usize>, bool, usize)> {
    let huffman = block.get(at)? & 0x80 != 0;
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length).filter(|end| *end <= block.len())?;
    Some((start..end, huffman, end))
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1), and where it ends.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1_usize << prefix) - 1;
    let first = usize::from(*block.get(at)?) & most;
    if first < most {
        return Some((first, at + 1));
    }
    let mut value = most;
    for (i, byte) in block.get(at + 1..)?.iter().enumerate().take(3) {
        value += usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + i));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(name: Option<&str>, value: &str) -> Vec<u8> {
        let mut field = match name {
            Some(name) => [&[0x40, name.len() as u8], name.as_bytes()].concat(),
            None => vec![0x41],
        };
        field.push(value.len() as u8);
        field.extend(value.bytes());
        field
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn through(bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut filter = Filter::default();
        let mut out: Vec<u8> = bytes.chunks(cut).flat_map(|piece| filter.feed(piece)).collect();
        out.extend(filter.finish());
        out
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    #[test]
    fn the_path_of_a_socket_becomes_an_authority_of_the_same_length() {
        for name in [Some(":authority"), None] {
            for (flags, before) in [(4, &[][..]), (4 | PADDED, &[0]), (4 | PRIORITY, &[0, 0, 0, 0, 9])] {
                let block = |value: &str| [before, &[0x83, 0x86], &literal(name, value), &[0x84]].concat();
                let stream = |value| {
                    [PREFACE, &frame(4, 0, &[]), &frame(HEADERS, flags, &block(value)), &frame(0, 1, b"%2F")].concat()
                };
                for cut in [1, 3, 10, 1000] {
                    let out = through(&stream("run%2Febb.sock"), cut);
                    assert_eq!(out, stream("run-2Febb.sock"), "{name:?} {flags} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn an_honest_authority_and_everything_after_it_pass_untouched() {
        let honest = [
            PREFACE,
            &frame(HEADERS, 4, &literal(Some(":authority"), "localhost:7070")),
            &frame(HEADERS, 4, &literal(Some(":authority"), "a%2Fb")),
        ]
        .concat();
        assert_eq!(through(&honest, 7), honest);
    }

    #[test]
    fn what_is_not_understood_passes_untouched_and_never_panics() {
        let mut state = 0x9e37_79b9_u64;
        for round in 0..5_000 {
            let mut bytes = PREFACE.to_vec();
            for _ in 0..round % 60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((state >> 40) as u8);
            }
            let out = through(&bytes, 1 + round % 13);
            assert_eq!(out.len(), bytes.len());
        }
        let huge = [PREFACE, &[0xff; 40]].concat();
        assert_eq!(through(&huge, 5), huge);
        assert_eq!(through(b"GET / HTTP/1.1\r\n\r\n", 4), b"GET / HTTP/1.1\r\n\r\n");
    }
}
