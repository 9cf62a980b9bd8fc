//! A call from its first header to the last byte of its answer: its state in the connection, and its counters.

use super::drain::Stage;
use super::status;
use crate::service::Refusal;
use crate::spans::{Sampled, Tracer};
use crate::traffic::{Edge, Method, Outcome, Rejection, Traffic};
use ebb_listener::RateLimit;
use http::{HeaderMap, Request};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strum::EnumCount as _;
use tokio::sync::watch;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The observers of a connection's calls.
#[derive(Clone, Debug)]
pub(super) struct Watchers {
    /// Counts calls.
    pub(super) traffic: Traffic,
    /// Traces sampled calls.
    pub(super) tracer: Tracer,
    /// Log lines about clients that are not gRPC clients of the listener.
    pub(super) complaints: Arc<Complaints>,
}

/// Minimum interval between log lines about one kind of rejected clients.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Rate limits of the log lines about rejected clients, one per kind.
#[derive(Debug)]
pub(super) struct Complaints([Mutex<RateLimit>; Rejection::COUNT]);

impl Default for Complaints {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(RateLimit::new(COMPLAIN_EVERY))))
    }
}

impl Complaints {
    fn complain(&self, rejection: Rejection) {
        let due = self.0[rejection as usize].lock().due();
        if let Some(suppressed) = due {
            tracing::warn!(kind = rejection.name(), suppressed, "rejected a client with the wrong protocol or port");
        }
    }
}

/// The calls of a connection. Pings do not count as calls.
#[derive(Debug)]
pub(super) struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
    watchers: Watchers,
    drain: watch::Receiver<Stage>,
}

impl Calls {
    /// The calls of a new connection.
    pub(super) fn new(watchers: Watchers, drain: watch::Receiver<Stage>) -> Arc<Self> {
        watchers.traffic.connection(Edge::Begun);
        Arc::new(Self { begun: AtomicU64::new(0), ended: AtomicU64::new(0), watchers, drain })
    }

    /// The stage of the server's shutdown.
    pub(super) fn drain(&self) -> &watch::Receiver<Stage> {
        &self.drain
    }

    /// Begins a call.
    pub(super) fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> Call {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.watchers.traffic.call(Edge::Begun);
        let path = request.uri().path();
        let sampled = self.watchers.tracer.begin(path, request.headers());
        // When the server drains, calls that do work may continue for a while; calls that wait for an event end.
        let method = Method::of(path);
        let leaves_at = match (method, path.rsplit('/').next()) {
            (Method::Pipe, _) | (Method::Other, Some("Watch" | "WatchStats" | "ServerReflectionInfo")) => {
                Stage::Draining
            }
            _ => Stage::Ending,
        };
        Call { calls: self.clone(), method, leaves_at, began: Instant::now(), sampled, ended: false }
    }

    /// Counts calls or connections that the transport rejected.
    pub(super) fn rejected(&self, rejection: Rejection, count: u64) {
        self.watchers.traffic.rejected(rejection, count);
        if rejection.is_misdirected() {
            self.watchers.complaints.complain(rejection);
        }
    }

    /// Number of calls begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether a call has not ended.
    pub(super) fn are_open(&self) -> bool {
        self.begun() != self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.watchers.traffic.connection(Edge::Ended);
    }
}

/// A call, until its response is complete.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    method: Method,
    leaves_at: Stage,
    began: Instant,
    sampled: Option<Sampled>,
    ended: bool,
}

impl Call {
    /// Records the answer of the service: a refusal has its status in these headers, other answers in their trailers.
    pub(super) fn answered(&mut self, headers: &HeaderMap) {
        let took = self.began.elapsed();
        let outcome = self.end_with(headers).map_or(Outcome::Ok, Outcome::of);
        self.calls.watchers.traffic.took(self.method, outcome, took);
    }

    /// Counts and returns the status, if these headers or trailers contain one.
    pub(super) fn end_with(&mut self, headers: &HeaderMap) -> Option<Code> {
        let status = headers.get(Status::GRPC_STATUS)?;
        if status == "0" {
            self.end(Code::Ok);
            return Some(Code::Ok);
        }
        let status = Status::from_header_map(headers).unwrap_or_else(|| Status::unknown(""));
        if let Some(reason) = status.get_details_error_info().and_then(|info| info.reason.parse().ok()) {
            self.calls.watchers.traffic.refused(reason);
        }
        self.end(status.code());
        Some(status.code())
    }

    /// Counts a refusal after the answer has begun.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.calls.watchers.traffic.refused(refusal.reason());
        self.end(status::code(refusal.reason()).0);
    }

    /// Whether the call reads or writes a single item.
    pub(super) fn is_of_one_item(&self) -> bool {
        self.method.is_of_one_item()
    }

    /// The stage of the shutdown at which the call must end if it waits.
    pub(super) fn leaves_at(&self) -> Stage {
        self.leaves_at
    }

    /// Counts that the shutdown ended the call.
    pub(super) fn leave(&mut self) {
        self.end(Code::Unavailable);
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.calls.watchers.traffic.ended(self.method, code);
            if let Some(sampled) = self.sampled.take() {
                self.calls.watchers.tracer.end(sampled, code);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled); // unless it had ended before
        self.calls.ended.fetch_add(1, Ordering::Relaxed);
        self.calls.watchers.traffic.call(Edge::Ended);
    }
}
