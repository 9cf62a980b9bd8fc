//! Ebb: gRPC over a minimal HTTP/2 client that sends the same frames as a stock client.
//!
//! ```text
//!   unary   HEADERS(22 to 60 bytes) DATA                     one stream per call
//!   pipe    HEADERS once, then DATA with all messages since the last write
//! ```
//! H1. Request headers are those of a real client: the first request adds its fields to the peer's dynamic table, and
//!     later ones use the index. `:path` is always a literal, as in stock clients.
//! H2. Response headers are not parsed. A call with a message succeeded; a call that ended without one was refused.
//! H3. Messages that do not fit the peer's windows wait in order.

use anyhow::{Context as _, bail};
use std::collections::VecDeque;

use super::{Heard, Kind, Protocol, Reply, Request, Shape, message};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Bytes that the peer may send before the next WINDOW_UPDATE.
const RECEIVE_WINDOW: u32 = 64 << 20;
/// Maximum size of a message; a larger one is an error.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const PIPE_STREAM: u32 = 1;

/// An open call.
#[derive(Debug)]
struct Open {
    stream: u32,
    slot: u32,
    kind: Kind,
    batch: bool,
    received: Vec<u8>,
}

/// A message that waits for the peer's windows (H3).
#[derive(Debug)]
struct Waiting {
    stream: u32,
    bytes: Vec<u8>,
    sent: usize,
    window: i64,
    last: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Http2 {
    shape: Shape,
    next_stream: u32,
    open: VecDeque<Open>,
    waiting: VecDeque<Waiting>,
    /// Send window of the connection, and the initial one of a stream.
    send_window: i64,
    initial_window: i64,
    pipe_window: i64,
    /// Bytes of DATA since the last WINDOW_UPDATE.
    consumed: u32,
    /// Whether the peer's table contains the fields of H1; `None` if it has no table.
    indexed: Option<bool>,
    /// Whether the next headers must announce an empty table.
    shrink: bool,
    max_in_flight: usize,
    pipe_out: Vec<u8>,
    pipe_in: Vec<u8>,
    scratch: Vec<u8>,
    /// Answers to SETTINGS and PING, and window updates.
    control: Vec<u8>,
}

impl Http2 {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            next_stream: 1,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            send_window: 65_535,
            initial_window: 65_535,
            pipe_window: 65_535,
            consumed: 0,
            indexed: Some(false),
            shrink: false,
            // The window of a pipe is known after its first reply; until then, send little.
            max_in_flight: if shape == Shape::Pipe { 16 } else { usize::MAX },
            pipe_out: Vec::new(),
            pipe_in: Vec::new(),
            scratch: Vec::new(),
            control: Vec::new(),
        }
    }

    fn headers(&mut self, stream: u32, path: &str, out: &mut Vec<u8>) {
        let start = out.len();
        frame(0, HEADERS, END_HEADERS, stream, out);
        if std::mem::take(&mut self.shrink) {
            out.push(0x20); // the table's size is 0 from here on
        }
        out.extend([0x83, 0x86]); // :method POST, :scheme http
        out.push(0x04); // :path, a literal that is not indexed
        literal(path.as_bytes(), out);
        if self.indexed == Some(true) {
            out.extend([0x80 | 64, 0x80 | 63, 0x80 | 62]);
        } else {
            // With bit 0x40 the peer adds the field to its table.
            let keep: [u8; 3] = if self.indexed.is_some() { [0x41, 0x40 | 31, 0x40] } else { [0x01, 0x0f, 0x00] };
            out.push(keep[0]);
            literal(b"localhost", out); // :authority
            out.push(keep[1]);
            if keep[1] == 0x0f {
                out.push(31 - 15);
            }
            literal(b"application/grpc", out); // content-type
            out.push(keep[2]);
            literal(b"te", out);
            literal(b"trailers", out);
            self.indexed = self.indexed.map(|_| true);
        }
        let len = out.len() - start - 9;
        out[start..start + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
    }

    /// Sends as much of a message as the windows allow; returns whether it is complete.
    fn send(&mut self, waiting: &mut Waiting, out: &mut Vec<u8>) -> bool {
        loop {
            let left = waiting.bytes.len() - waiting.sent;
            let allowed = self.send_window.min(waiting.window).clamp(0, 16_384) as usize;
            let part = left.min(allowed);
            if part < left && part == 0 {
                return false;
            }
            let end = part == left;
            let flags = if end && waiting.last { END_STREAM } else { 0 };
            frame(part, DATA, flags, waiting.stream, out);
            out.extend_from_slice(&waiting.bytes[waiting.sent..waiting.sent + part]);
            waiting.sent += part;
            waiting.window -= part as i64;
            self.send_window -= part as i64;
            if end {
                return true;
            }
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match setting[1] {
                1 if value < 4096 => (self.indexed, self.shrink) = (None, true), // HEADER_TABLE_SIZE
                3 if self.shape == Shape::Unary => self.max_in_flight = self.max_in_flight.min(value.max(1) as usize), // MAX_CONCURRENT_STREAMS
                4 => {
                    let change = i64::from(value) - self.initial_window;
                    self.initial_window += change;
                    self.pipe_window += change;
                    self.waiting.iter_mut().for_each(|waiting| waiting.window += change);
                }
                _ => {}
            }
        }
        frame(0, SETTINGS, ACK, 0, &mut self.control);
    }

    fn data(&mut self, stream: u32, payload: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<()> {
        if self.shape == Shape::Unary {
            if let Some(open) = self.open.iter_mut().find(|open| open.stream == stream) {
                open.received.extend_from_slice(payload);
            }
            return Ok(());
        }
        // Most frames contain whole messages, which need no copy.
        let mut carried = std::mem::take(&mut self.pipe_in);
        if carried.is_empty() {
            let used = self.piped(payload, heard)?;
            carried.extend_from_slice(&payload[used..]);
        } else {
            carried.extend_from_slice(payload);
            let used = self.piped(&carried, heard)?;
            carried.drain(..used);
        }
        self.pipe_in = carried;
        Ok(())
    }

    fn piped(&mut self, input: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some(message) = whole_message(&input[at..])? {
            let piped = message::decode_piped(message)?;
            if let Some(window) = piped.window.filter(|&window| window > 0) {
                self.max_in_flight = window as usize;
            }
            at += 5 + message.len();
            heard(piped.id as u32, piped.reply);
        }
        Ok(at)
    }

    fn ended(&mut self, stream: u32, heard: &mut Heard<'_>) -> anyhow::Result<()> {
        if self.shape == Shape::Pipe {
            bail!("the server ended the pipe");
        }
        let Some(at) = self.open.iter().position(|open| open.stream == stream) else { return Ok(()) };
        let Some(open) = self.open.remove(at) else { return Ok(()) };
        self.waiting.retain(|waiting| waiting.stream != stream);
        match whole_message(&open.received)? {
            Some(message) => heard(open.slot, message::decode(open.kind, open.batch, message)?),
            None => heard(open.slot, Reply::Refused("the server refused a call".into())),
        }
        Ok(())
    }

    fn consume(&mut self, bytes: u32) {
        self.consumed += bytes;
        if self.consumed < RECEIVE_WINDOW / 4 {
            return;
        }
        let streams: &[u32] = if self.shape == Shape::Pipe { &[0, PIPE_STREAM] } else { &[0] };
        for &stream in streams {
            frame(4, WINDOW_UPDATE, 0, stream, &mut self.control);
            self.control.extend(self.consumed.to_be_bytes());
        }
        self.consumed = 0;
    }
}

impl Protocol for Http2 {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(12, SETTINGS, 0, 0, out);
        out.extend([0, 2, 0, 0, 0, 0]); // no pushes
        out.extend([0, 4]); // INITIAL_WINDOW_SIZE
        out.extend(RECEIVE_WINDOW.to_be_bytes());
        frame(4, WINDOW_UPDATE, 0, 0, out);
        out.extend((RECEIVE_WINDOW - 65_535).to_be_bytes());
        if self.shape == Shape::Pipe {
            self.headers(PIPE_STREAM, "/ebb.v1.CacheService/Pipe", out);
        }
    }

    fn window(&self) -> usize {
        self.max_in_flight
    }

    fn ask(&mut self, slot: u32, request: &Request, out: &mut Vec<u8>) {
        if self.shape == Shape::Pipe {
            let start = self.pipe_out.len();
            self.pipe_out.extend([0; 5]);
            message::encode_piped(slot.into(), request, &mut self.scratch, &mut self.pipe_out);
            prefix(start, &mut self.pipe_out);
            return;
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        let Request { kind, batch, .. } = *request;
        self.open.push_back(Open { stream, slot, kind, batch, received: Vec::new() });
        let path = match (kind, batch) {
            (Kind::Empty, _) => "/ebb.v1.CacheService/GetCapabilities",
            (Kind::Get, false) => "/ebb.v1.CacheService/Get",
            (Kind::Get, true) => "/ebb.v1.CacheService/BatchGet",
            (Kind::Set, false) => "/ebb.v1.CacheService/Set",
            (Kind::Set, true) => "/ebb.v1.CacheService/BatchSet",
            (Kind::Delete, false) => "/ebb.v1.CacheService/Delete",
            (Kind::Delete, true) => "/ebb.v1.CacheService/BatchDelete",
        };
        self.headers(stream, path, out);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend([0; 5]);
        message::encode(request, &mut bytes);
        prefix(0, &mut bytes);
        let mut waiting = Waiting { stream, bytes, sent: 0, window: self.initial_window, last: true };
        if self.waiting.is_empty() && self.send(&mut waiting, out) {
            self.scratch = waiting.bytes;
        } else {
            self.waiting.push_back(waiting);
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.control);
        if !self.pipe_out.is_empty() {
            let bytes = std::mem::take(&mut self.pipe_out);
            self.waiting.push_back(Waiting { stream: PIPE_STREAM, bytes, sent: 0, window: 0, last: false });
        }
        while let Some(mut waiting) = self.waiting.pop_front() {
            let pipe = self.shape == Shape::Pipe;
            if pipe {
                waiting.window = self.pipe_window;
            }
            let all = self.send(&mut waiting, out);
            if pipe {
                self.pipe_window = waiting.window;
            }
            if !all {
                self.waiting.push_front(waiting);
                return;
            }
            if pipe && self.pipe_out.capacity() == 0 {
                waiting.bytes.clear();
                self.pipe_out = waiting.bytes;
            }
        }
    }

    fn hear(&mut self, input: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some(head) = input.get(at..at + 9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let Some(payload) = input.get(at + 9..at + 9 + len) else { break };
            at += 9 + len;
            match kind {
                DATA => {
                    self.consume(len as u32);
                    self.data(stream, unpadded(flags, payload)?, heard)?;
                }
                SETTINGS if flags & ACK == 0 => self.settings(payload),
                PING if flags & ACK == 0 => {
                    frame(payload.len(), PING, ACK, 0, &mut self.control);
                    self.control.extend_from_slice(payload);
                }
                WINDOW_UPDATE if len == 4 => {
                    let more = i64::from(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]));
                    if stream == 0 {
                        self.send_window += more;
                    } else if self.shape == Shape::Pipe {
                        self.pipe_window += more;
                    } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.stream == stream) {
                        waiting.window += more;
                    }
                }
                RST_STREAM => self.ended(stream, heard)?,
                GOAWAY => {
                    let why = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                    bail!("{}", format!("the server ended the connection {why}").trim_end());
                }
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                self.ended(stream, heard)?;
            }
        }
        Ok(at)
    }
}

/// The first message without its prefix of five bytes; `None` if it is incomplete.
fn whole_message(input: &[u8]) -> anyhow::Result<Option<&[u8]>> {
    let Some(head) = input.get(..5) else { return Ok(None) };
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || len > MAX_MESSAGE_BYTES {
        bail!("the server sent a message of {len} bytes, compressed: {}", head[0] != 0);
    }
    Ok(input.get(5..5 + len))
}

fn unpadded(flags: u8, payload: &[u8]) -> anyhow::Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let padding = payload.first().map_or(0, |&padding| usize::from(padding));
    let end = payload.len().checked_sub(padding).filter(|&end| end >= 1).context("padding longer than its frame")?;
    Ok(&payload[1..end])
}

fn frame(len: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// Fills in the prefix of the message that begins at `start`.
fn prefix(start: usize, out: &mut [u8]) {
    let len = (out.len() - start - 5) as u32;
    out[start + 1..start + 5].copy_from_slice(&len.to_be_bytes());
}

/// An HPACK string, not Huffman-coded.
fn literal(text: &[u8], out: &mut Vec<u8>) {
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_beyond_the_window_wait_in_order() {
        let mut http2 = Http2::new(Shape::Unary);
        let (mut request, mut out) = (Request::default(), Vec::new());
        request.begin(Kind::Set, false, 0);
        request.pair([b'k'; 16], |value| value.resize(100_000, 1));
        http2.ask(0, &request, &mut out);
        assert!(out.len() < 66_000 && http2.waiting.len() == 1);
        request.begin(Kind::Get, false, 0);
        request.key([b'k'; 16]);
        http2.ask(1, &request, &mut out);
        assert_eq!(http2.waiting.len(), 2, "the get waits behind the set");
        let mut update = Vec::new();
        for stream in [0, 1] {
            frame(4, WINDOW_UPDATE, 0, stream, &mut update);
            update.extend(1_000_000_u32.to_be_bytes());
        }
        http2.hear(&update, &mut |_, _| {}).unwrap();
        out.clear();
        http2.flush(&mut out);
        assert!(http2.waiting.is_empty() && out.len() > 34_000);
    }

    #[test]
    fn invalid_frames_end_the_connection_with_an_error() {
        let hear = |shape, frames: &[u8]| Http2::new(shape).hear(frames, &mut |_, _| {}).unwrap_err().to_string();
        let mut goaway = Vec::new();
        frame(16, GOAWAY, 0, 0, &mut goaway);
        goaway.extend(*b"\0\0\0\0\0\0\0\x0btoo_calm");
        assert_eq!(hear(Shape::Unary, &goaway), "the server ended the connection too_calm");
        let mut huge = Vec::new();
        frame(5, DATA, 0, 1, &mut huge);
        huge.extend([0, 255, 255, 255, 255]);
        assert!(hear(Shape::Pipe, &huge).contains("4294967295 bytes"));
        let mut padded = Vec::new();
        frame(1, DATA, PADDED, 1, &mut padded);
        padded.push(9);
        assert_eq!(hear(Shape::Unary, &padded), "padding longer than its frame");
    }
}
