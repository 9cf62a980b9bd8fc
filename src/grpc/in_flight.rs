//! Requests and responses in flight are memory too: they are counted in the ledger before they are buffered.
//!
//! ```text
//!  request bytes ──Counted──► tonic ──► cache ──► tonic ──Held──► h2 ──► socket
//!                 at the length a message announces        until the last byte has been written and dropped
//! ```
//! All messages together may hold a bound that follows the limit. Of it a connection may hold its share, which shrinks with what is
//! left for others, so that readers that stop reading never pin all of it: dynamic thresholds, as A. K. Choudhury and E. L.
//! Hahne gave the queues of a switch in "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches" (IEEE/ACM
//! Transactions on Networking 6(2), 1998). A request beyond the share is refused, the connection goes on.
//!
//! A call takes memory beside its messages. It is counted, too, and never refused for it: calls beyond half of the bound wait
//! to be accepted.

use crate::cache::Refusal;
use crate::grpc::call::Call;
use crate::grpc::status;
use crate::store::Ledger;
use crate::traffic::Lane;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tonic::Status;

/// What all connections together have in flight.
pub struct InFlight {
    ledger: Arc<Ledger>,
    max: Box<dyn Fn() -> u64 + Send + Sync>,
    max_per_connection: u64,
    make_room: Box<dyn Fn() + Send + Sync>,
    messages: AtomicU64,
    calls: AtomicU64,
}

/// What a call takes beside its messages, in bytes: task, headers, buffers (`ebb bench serve`, its burst).
const CALL_BYTES: u64 = 4 << 10;

impl InFlight {
    /// At most as many bytes as `max` says at the time, and `max_per_connection` for one connection. Where they take more
    /// than may be in use, `make_room` is called.
    pub fn new(
        ledger: Arc<Ledger>,
        max: impl Fn() -> u64 + Send + Sync + 'static,
        max_per_connection: u64,
        make_room: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let (max, make_room) = (Box::new(max), Box::new(make_room));
        Arc::new(Self { ledger, max, max_per_connection, make_room, messages: zero(), calls: zero() })
    }

    /// Counts `bytes` in the ledger, before their pages are touched.
    fn take_off(&self, bytes: u64) {
        self.ledger.take_off(bytes);
        if !self.ledger.has_room(0) {
            (self.make_room)();
        }
    }
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").field("max", &(self.max)()).finish_non_exhaustive()
    }
}

/// What one connection has in flight.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<InFlight>,
    used: AtomicU64,
    lane: Arc<Lane>,
}

impl Share {
    /// The share of a new connection.
    pub(super) fn new(all: Arc<InFlight>, lane: Arc<Lane>) -> Arc<Self> {
        Arc::new(Self { all, used: AtomicU64::new(0), lane })
    }

    /// Who counts what comes over the connection.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Bytes of this connection that are in flight.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether `need` more bytes may be taken.
    ///
    /// # Errors
    /// [`Refusal::InFlight`] says whose bound it is.
    pub(super) fn room(&self, need: u64) -> Result<(), Refusal> {
        let (all, max) = (self.all.messages.load(Ordering::Relaxed), (self.all.max)());
        let share = share(self.used(), all.saturating_add(need), max).min(self.all.max_per_connection);
        let bounds = [(self.used(), share, "by this connection"), (all, max, "by all connections")];
        bounds.into_iter().try_for_each(|(used, max, whose)| match used.saturating_add(need) {
            sum if sum <= max => Ok(()),
            _ => Err(Refusal::InFlight { need, used, max, whose }),
        })
    }

    /// Whether one more call should be accepted before those that run have ended.
    pub(super) fn has_room_for_call(&self) -> bool {
        self.all.calls.load(Ordering::Relaxed) + CALL_BYTES <= (self.all.max)() / 2
    }

    /// A call is accepted.
    pub(super) fn run_call(&self) -> Running {
        self.all.calls.fetch_add(CALL_BYTES, Ordering::Relaxed);
        self.all.take_off(CALL_BYTES);
        Running(self.all.clone())
    }

    /// Whether calls of this connection that take no answers may hold `used` bytes of their requests: a quarter of what
    /// nobody holds, so that a client that only sends never keeps out the large messages of others.
    ///
    /// # Errors
    /// [`Refusal::InFlight`].
    pub(super) fn room_of_stuck(&self, used: u64) -> Result<(), Refusal> {
        let max = (self.all.max)().saturating_sub(self.all.messages.load(Ordering::Relaxed)) / 4;
        let whose = "by calls of this connection that take no answers";
        if used <= max { Ok(()) } else { Err(Refusal::InFlight { need: 0, used, max, whose }) }
    }

    /// Takes bytes, if there is room for them.
    ///
    /// # Errors
    /// As [`Share::room`].
    fn take(self: &Arc<Self>, bytes: u64) -> Result<Permit, Refusal> {
        self.room(bytes)?;
        Ok(self.force(bytes))
    }

    /// What a message of `len` bytes takes while it arrives: its buffer grows by doubling. One that comes alone may have
    /// all there is.
    fn buffered(&self, len: u64) -> u64 {
        len.saturating_mul(2).min((self.all.max)().max(len))
    }

    /// Takes bytes that are there already.
    pub(super) fn force(self: &Arc<Self>, bytes: u64) -> Permit {
        self.count(bytes);
        Permit { share: self.clone(), bytes }
    }

    fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.all.messages.fetch_add(bytes, Ordering::Relaxed);
        self.all.take_off(bytes);
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.all.messages.fetch_sub(bytes, Ordering::Relaxed);
        self.all.ledger.land(bytes);
    }
}

/// What a connection that holds `used` bytes may hold, where all together would hold `all` of `max`: twice what nobody would.
/// One that reads nothing comes to two thirds of `max`, a second one to two thirds of the rest, and something is always left. A
/// connection that holds nothing may take one message of any length, or large values would never arrive within small limits.
fn share(used: u64, all: u64, max: u64) -> u64 {
    if used == 0 { max } else { 2 * max.saturating_sub(all) }
}

/// Bytes that were taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    share: Arc<Share>,
    bytes: u64,
}

impl Permit {
    /// How many.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As many as there are now.
    pub(super) fn resize(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.share.count(more),
            None => self.share.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

/// A call that runs.
#[derive(Debug)]
pub(super) struct Running(Arc<InFlight>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(CALL_BYTES, Ordering::Relaxed);
        self.0.ledger.land(CALL_BYTES);
    }
}

/// A request's body, counted message by message at the length that its prefix announces.
#[derive(Debug)]
pub(super) struct Counted<B> {
    inner: B,
    share: Arc<Share>,
    prefix: Prefix,
    /// For the message that is arriving, and for the one that is being handled.
    permit: Option<Permit>,
}

impl<B> Counted<B> {
    /// Counts what arrives against `share`.
    pub(super) fn new(inner: B, share: Arc<Share>) -> Self {
        Self { inner, share, prefix: Prefix::default(), permit: None }
    }
}

impl<B: Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.prefix.is_between_messages() {
            this.permit = None; // whoever asks for more has handled what came before
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref()
            && let Some(largest) = this.prefix.feed(data)
            && largest > SMALL_BYTES
        {
            match this.share.take(this.share.buffered(largest)) {
                Ok(permit) => this.permit = Some(permit),
                Err(refusal) => return Poll::Ready(Some(Err(status::of(&refusal)))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Messages and frames up to this size are not counted one by one: the bound on streams bounds them.
const SMALL_BYTES: u64 = 1024;

/// Follows the five-byte prefixes (a flag and a length) between which gRPC messages stand.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; 5],
    have: usize,
    left: u64,
}

impl Prefix {
    fn is_between_messages(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Goes over `data`; returns the length of the longest message that begins in it.
    fn feed(&mut self, mut data: &[u8]) -> Option<u64> {
        let mut longest = None;
        while !data.is_empty() {
            let skip = self.left.min(data.len() as u64);
            self.left -= skip;
            data = &data[skip as usize..];
            let take = (5 - self.have).min(data.len());
            self.bytes[self.have..self.have + take].copy_from_slice(&data[..take]);
            self.have += take;
            data = &data[take..];
            if self.have == 5 {
                let [_, length @ ..] = self.bytes;
                self.left = u32::from_be_bytes(length).into();
                self.have = 0;
                longest = longest.max(Some(self.left));
            }
        }
        longest
    }
}

/// A response's body whose bytes are counted until the last reference to them is gone.
#[derive(Debug)]
pub(super) struct Held {
    inner: tonic::body::Body,
    share: Arc<Share>,
    call: Call,
}

impl Held {
    /// Counts what leaves against `share`; `call` ends with it.
    pub(super) fn new(inner: tonic::body::Body, share: Arc<Share>, call: Call) -> Self {
        Self { inner, share, call }
    }

    /// The call ends with the server.
    pub(super) fn leave(&mut self) {
        self.call.leave();
    }

    /// The call is not carried on.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.call.refuse(refusal);
    }
}

/// Bytes with their permit.
struct WithPermit {
    bytes: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for WithPermit {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.end_with(trailers);
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| match bytes.len() as u64 {
                    0..=SMALL_BYTES => bytes,
                    len => Bytes::from_owner(WithPermit { bytes, _permit: self.share.force(len) }),
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
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
        for cut in [1, 2, 4, 5, 7, 1000, stream.len()] {
            let mut prefix = Prefix::default();
            let longest = stream.chunks(cut).filter_map(|piece| prefix.feed(piece)).max();
            assert_eq!((longest, prefix.is_between_messages()), (Some(70_000), true), "cut at {cut}");
        }
    }

    #[test]
    fn readers_that_do_not_read_leave_room_for_everybody_else() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let all = InFlight::new(ledger.clone(), || 90_000, 1 << 20, || {});
        let held: Vec<_> = (0..4)
            .map(|_| {
                let slow = Share::new(all.clone(), Arc::default());
                let permits: Vec<_> = std::iter::from_fn(|| slow.take(100).ok()).collect();
                (slow.used(), permits)
            })
            .collect();
        assert_eq!(held.iter().map(|held| held.0).collect::<Vec<_>>(), [60_000, 20_000, 6_600, 2_200]);
        let writer = Share::new(all, Arc::default());
        assert!(writer.take(1_200).is_ok(), "of 90,000 bytes 1,200 are left");
        drop(held);
        let slow = Share::new(writer.all.clone(), Arc::default());
        let permits: Vec<_> = std::iter::from_fn(|| slow.take(25_000).ok()).collect();
        assert_eq!(slow.used(), 50_000, "nor do steps that are large beside the whole go beyond two thirds");
        drop(permits);
        assert!(writer.take(90_000).is_ok(), "who holds nothing may take one message of any length");
        assert_eq!(ledger.in_flight(), 0);
    }

    #[test]
    fn what_is_taken_comes_back_and_beyond_the_share_nothing_is_given() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let all = InFlight::new(ledger.clone(), || 1_000, 600, || {});
        let (one, two) = (Share::new(all.clone(), Arc::default()), Share::new(all, Arc::default()));
        assert_eq!([100, 800, 2_000].map(|len| one.buffered(len)), [200, 1_000, 2_000], "twice, or all there is");
        let mut permit = one.take(600).unwrap();
        permit.resize(400);
        assert_eq!((ledger.in_flight(), one.used(), permit.bytes()), (400, 400, 400));
        permit.resize(600);
        assert!(matches!(one.take(1), Err(Refusal::InFlight { whose: "by this connection", .. })));
        assert!(matches!(two.take(401), Err(Refusal::InFlight { whose: "by all connections", .. })));
        drop(permit);
        assert_eq!((ledger.in_flight(), one.used()), (0, 0));
        assert!(two.take(401).is_ok());
    }
}
