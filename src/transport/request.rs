//! The body of a request, message by message. It collects each message until it is complete, so that its cost is known
//! before it is decoded.
//!
//! ```text
//!  frames ──► prefix: length ──► reserved: wait for the turn ──► complete ──► measured, charged ──► tonic decodes it
//! ```
//! A message is charged for its arrived bytes plus one step. Only its own data counts as progress: a message without
//! progress is refused, sooner while others wait for their turn.

use super::chunks::Chunks;
use super::measure;
use super::quota::{CallQuota, Held, Permit, SMALL_BYTES};
use super::status;
use super::unread::Unread;
use crate::service::Refusal;
use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// Bytes charged in addition to the arrived bytes of a message.
const STEP_BYTES: u64 = 64 << 10;
/// Minimum progress per second, in bytes, of a message for which others wait, or of the other calls of its connection.
const PROGRESS_BYTES: u64 = 64 << 10;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Prefix of each message, in bytes: a flag and a length.
pub(super) const PREFIX_BYTES: usize = 5;
/// Size of an allocation for an incomplete message, in bytes.
const BLOCK_BYTES: usize = 32 << 10;
/// Minimum size of a frame to keep instead of copying, in bytes: it fills about half of its read buffer or more.
const FULL_FRAME_BYTES: usize = 15 << 10;

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The shape of its messages, if the contract describes them.
    pub(super) shape: Option<measure::Request>,
    /// Maximum length of a message, in bytes.
    pub(super) max_message: u64,
    /// Maximum time without progress of a message.
    pub(super) patience: Duration,
}

/// A request's body.
pub(super) struct RequestBody {
    inner: RecvStream,
    call: Arc<CallQuota>,
    expected: Expected,
    unread: Arc<Unread>,
    prefix: Prefix,
    /// Bytes taken from `inner` whose flow-control capacity is not released yet.
    unreleased: usize,
    /// The first bytes of an incomplete message. Small frames are copied, because a frame pins the buffer it was read
    /// into.
    partial: VecDeque<Bytes>,
    partial_tail: BytesMut,
    partial_bytes: u64,
    /// Frames of complete messages.
    whole: VecDeque<Bytes>,
    /// Whether the only message is complete.
    is_all: bool,
    /// Whether complete messages have been passed on since the permit was acquired.
    handed_on: bool,
    /// The quota of the message that arrives or is being handled.
    permit: Option<Permit>,
    turn: Option<Box<Turn>>,
    progress: Progress,
}

/// A message that waits for its turn.
struct Turn {
    granted: Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send>>,
    /// Bytes to charge at its turn.
    charge: u64,
    /// The charge of its arrived bytes.
    _held: Held,
}

/// Progress of an incomplete request.
#[derive(Default)]
struct Progress {
    timer: Option<Pin<Box<Sleep>>>,
    arrived_bytes: u64,
    /// Arrived bytes when the timer was set, and at the last progress.
    at_tick: u64,
    connection_at_tick: u64,
    at_progress: u64,
    still: Duration,
}

/// Minimum bytes within `patience`; fewer count as no progress.
const STILL_BYTES: u64 = 16 << 10;

impl RequestBody {
    /// The body of `inner`, within the bounds of `expected`.
    pub(super) fn new(inner: RecvStream, call: Arc<CallQuota>, expected: Expected, unread: Arc<Unread>) -> Self {
        Self {
            inner,
            call,
            expected,
            unread,
            prefix: Prefix::default(),
            unreleased: 0,
            partial: VecDeque::new(),
            partial_tail: BytesMut::new(),
            partial_bytes: 0,
            whole: VecDeque::new(),
            is_all: false,
            handed_on: false,
            permit: None,
            turn: None,
            progress: Progress::default(),
        }
    }

    /// Whether the call has a single message, which is handled at the end of the body.
    fn is_unary(&self) -> bool {
        self.expected.shape.is_some_and(|shape| !shape.is_stream())
    }

    /// Accepts the data of a frame.
    fn accept(&mut self, mut data: Bytes) -> Result<(), Refusal> {
        self.progress.arrived_bytes += data.len() as u64;
        let (mut whole_to, mut need) = (0, 0);
        let mut at = 0;
        while at < data.len() {
            if self.is_all {
                return Err(Refusal::Malformed("the body has more than one message"));
            }
            let (taken, len) = self.prefix.advance(&data[at..]);
            at += taken;
            if self.prefix.announced() > self.expected.max_message {
                let (len, max) = (self.prefix.announced(), self.expected.max_message);
                return Err(Refusal::MessageTooLarge { len, max });
            }
            let Some(len) = len else { break };
            self.is_all = self.is_unary();
            let cost = if self.partial_bytes == 0 {
                self.cost(len, &mut &data[whole_to..at])?
            } else {
                self.partial
                    .extend(Some(std::mem::take(&mut self.partial_tail).freeze()).filter(|tail| !tail.is_empty()));
                self.partial.push_back(data.split_to(at));
                let cost = self.cost(len, &mut self.partial.iter().cloned().collect::<Chunks>())?;
                self.whole.append(&mut self.partial);
                self.partial_bytes = 0;
                at = 0;
                cost
            };
            need = need.max(cost);
            whole_to = at;
        }
        if whole_to > 0 {
            self.whole.push_back(data.split_to(whole_to));
        }
        if !data.is_empty() {
            self.keep(data);
        }
        if need > SMALL_BYTES { self.take_turn(need, need) } else { Ok(()) }
    }

    /// Keeps bytes of an incomplete message.
    fn keep(&mut self, mut bytes: Bytes) {
        self.partial_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.partial_tail.capacity() == 0 {
                if bytes.len() >= FULL_FRAME_BYTES {
                    return self.partial.push_back(bytes);
                }
                let left = bytes.len() as u64 + self.prefix.left;
                self.partial_tail.reserve(left.min(BLOCK_BYTES as u64) as usize);
            }
            let part = bytes.split_to(bytes.len().min(self.partial_tail.capacity() - self.partial_tail.len()));
            self.partial_tail.extend_from_slice(&part);
            if self.partial_tail.len() == self.partial_tail.capacity() {
                self.partial.push_back(std::mem::take(&mut self.partial_tail).freeze());
            }
        }
    }

    /// Memory of a complete message of `len` bytes during decoding.
    fn cost(&self, len: u64, message: &mut impl Buf) -> Result<u64, Refusal> {
        message.advance(PREFIX_BYTES);
        // The decoder rejects a compressed message.
        let decoded = match self.expected.shape {
            Some(shape) if !self.prefix.is_compressed => shape.decoded_bytes(message)?,
            _ => 0,
        };
        let wire = if len > SMALL_BYTES { self.call.connection().twice(len) } else { 0 };
        Ok(wire + decoded)
    }

    /// Reserves `need` bytes and charges `charge` of them, or starts to wait for the turn.
    fn take_turn(&mut self, need: u64, charge: u64) -> Result<(), Refusal> {
        if let Some(permit) = &mut self.permit
            && permit.try_grow(need)
        {
            permit.charge(charge);
            return Ok(());
        }
        self.permit = None;
        let quota = self.call.connection();
        match quota.try_reserve(need) {
            Ok(mut permit) => {
                permit.charge(charge);
                self.permit = Some(permit);
            }
            Err(_) => {
                let here = self.partial_bytes + self.whole.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
                let here = here.saturating_sub(self.unreleased as u64); // unreleased bytes count as unread
                quota.may_hold(here)?;
                self.turn = Some(Box::new(Turn {
                    granted: Box::pin(quota.clone().wait_for(need, self.call.patience())),
                    charge,
                    _held: quota.hold(here),
                }));
            }
        }
        Ok(())
    }

    /// Ready unless the body still waits for its turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let Some(turn) = &mut self.turn else { return Poll::Ready(Ok(())) };
        let mut permit = ready!(turn.granted.as_mut().poll(cx))?;
        permit.charge(turn.charge);
        self.permit = Some(permit);
        self.turn = None;
        self.progress.timer = None; // restart it, because the client could not send during the wait
        Poll::Ready(Ok(()))
    }

    /// Releases the flow-control capacity of the taken bytes. Not called while a message waits for its turn: otherwise
    /// each waiting message would hold more than a window.
    fn release(&mut self) -> Result<(), Status> {
        match std::mem::take(&mut self.unreleased) {
            0 => Ok(()),
            taken => {
                self.call.take(taken as u64);
                self.inner.flow_control().release_capacity(taken).map_err(|error| Status::from_error(error.into()))
            }
        }
    }

    /// Releases the quota of the messages that were passed on. Their unhandled bytes count as unread.
    pub(super) fn give_up_permit(&mut self) {
        self.permit = None;
    }

    /// Ready when the request has made no progress for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if self.prefix.is_between_messages() && self.expected.shape.is_some_and(measure::Request::is_stream) {
            self.progress.timer = None;
            return Poll::Pending;
        }
        let every = PROGRESS_EVERY.min(self.expected.patience);
        let progress = &mut self.progress;
        loop {
            let timer = progress.timer.get_or_insert_with(|| {
                progress.at_tick = progress.arrived_bytes;
                progress.connection_at_tick = self.unread.arrived_bytes();
                Box::pin(sleep_until(Instant::now() + every))
            });
            ready!(timer.as_mut().poll(cx));
            progress.timer = None;
            progress.still += every;
            if progress.arrived_bytes >= progress.at_progress + STILL_BYTES {
                (progress.at_progress, progress.still) = (progress.arrived_bytes, Duration::ZERO);
            }
            // Do not refuse this request if the client sends data of other calls, or the server is too busy to read.
            let is_slow = progress.arrived_bytes < progress.at_tick + PROGRESS_BYTES
                && self.unread.arrived_bytes() < progress.connection_at_tick + PROGRESS_BYTES;
            let is_in_the_way = is_slow && self.permit.is_some() && self.call.connection().others_wait();
            if progress.still >= self.expected.patience || is_in_the_way {
                let patience_ms = self.expected.patience.as_millis() as u64;
                return Poll::Ready(Refusal::Stalled { patience_ms });
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let refused = |refusal: Refusal| Poll::Ready(Some(Err(status::of(&refusal))));
        loop {
            match this.poll_turn(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(refusal)) => return refused(refusal),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(bytes) = this.whole.pop_front() {
                this.handed_on = true;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if std::mem::take(&mut this.handed_on) && !this.is_unary() {
                // The caller has handled the previous messages, and the next one may come much later.
                this.give_up_permit();
                this.whole = VecDeque::new();
                if this.partial.is_empty() {
                    this.partial = VecDeque::new();
                }
            }
            let announced = this.prefix.announced();
            if announced > SMALL_BYTES && this.partial_bytes > 0 {
                let need = this.call.connection().twice(announced);
                if let Err(refusal) = this.take_turn(need, this.partial_bytes + this.partial_bytes / 8 + STEP_BYTES) {
                    return refused(refusal);
                }
                if this.turn.is_some() {
                    continue;
                }
            }
            if let Err(error) = this.release() {
                return Poll::Ready(Some(Err(error)));
            }
            match this.inner.poll_data(cx) {
                Poll::Pending => {
                    return match this.poll_stalled(cx) {
                        Poll::Ready(refusal) => refused(refusal),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Ok(bytes))) => {
                    this.unreleased += bytes.len();
                    if let Err(refusal) = this.accept(bytes) {
                        return refused(refusal);
                    }
                }
                // The client has stopped sending and only waits for the answer.
                Poll::Ready(Some(Err(error))) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                Poll::Ready(None) if !this.prefix.is_between_messages() => {
                    return refused(Refusal::Malformed("the body ends within a message"));
                }
                Poll::Ready(None) => {
                    let trailers = match ready!(this.inner.poll_trailers(cx)) {
                        Ok(trailers) => trailers,
                        Err(error) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                    };
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty() && self.partial_bytes == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Follows the five-byte prefixes (a flag and a length) of gRPC messages.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFIX_BYTES],
    have: usize,
    len: u64,
    /// Bytes of the message that have not arrived.
    left: u64,
    is_compressed: bool,
}

impl Prefix {
    fn is_between_messages(&self) -> bool {
        self.have == 0
    }

    /// The length of the current message, in bytes; 0 if unknown.
    fn announced(&self) -> u64 {
        if self.have == PREFIX_BYTES { self.len } else { 0 }
    }

    /// Consumes `data` up to the end of one message. Returns the consumed bytes, and the message's length if it ends
    /// there.
    fn advance(&mut self, data: &[u8]) -> (usize, Option<u64>) {
        let mut taken = 0;
        if self.have < PREFIX_BYTES {
            taken = (PREFIX_BYTES - self.have).min(data.len());
            self.bytes[self.have..self.have + taken].copy_from_slice(&data[..taken]);
            self.have += taken;
            if self.have < PREFIX_BYTES {
                return (taken, None);
            }
            let [flag, length @ ..] = self.bytes;
            self.is_compressed = flag != 0;
            self.len = u32::from_be_bytes(length).into();
            self.left = self.len;
        }
        let body = self.left.min((data.len() - taken) as u64);
        self.left -= body;
        let ends = self.left == 0;
        if ends {
            self.have = 0;
        }
        (taken + body as usize, ends.then_some(self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_lengths_are_found_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 3, 70_000, 1] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(std::iter::repeat_n(9, length as usize));
        }
        let cuts = [1, 2, 4, 5, 7, 1000, stream.len()];
        let found = cuts.map(|cut| {
            let mut prefix = Prefix::default();
            let mut lengths = Vec::new();
            for mut piece in stream.chunks(cut) {
                while !piece.is_empty() {
                    let (taken, length) = prefix.advance(piece);
                    lengths.extend(length);
                    piece = &piece[taken..];
                }
            }
            (cut, lengths, prefix.is_between_messages())
        });
        assert_eq!(found, cuts.map(|cut| (cut, vec![0, 3, 70_000, 1], true)));
    }
}
