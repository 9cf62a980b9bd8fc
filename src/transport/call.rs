//! A call from its first header to the last byte of its answer: what a connection knows of it, and how it is counted.

use super::drain::Stage;
use super::status;
use crate::service::Refusal;
use crate::spans::{Sampled, Tracer};
use crate::traffic::{Edge, Lane, Method, Outcome, Rejection};
use ebb_listener::RateLimit;
use http::{HeaderMap, Request};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use strum::EnumCount as _;
use tokio::sync::watch;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Who hears of the calls of a connection.
#[derive(Clone, Debug)]
pub(super) struct Watchers {
    /// Counts them.
    pub(super) lane: Arc<Lane>,
    /// Traces those that are sampled.
    pub(super) tracer: Tracer,
    /// Log lines about clients that are no gRPC clients of the listener.
    pub(super) complaints: Arc<Complaints>,
}

/// How often clients of one kind are complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Rate limits of the log lines about rejected clients, one for each kind.
#[derive(Debug)]
pub(super) struct Complaints([Mutex<RateLimit>; Rejection::COUNT]);

impl Default for Complaints {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(RateLimit::new(COMPLAIN_EVERY))))
    }
}

impl Complaints {
    fn complain(&self, rejection: Rejection) {
        let due = self.0[rejection as usize].lock().unwrap_or_else(PoisonError::into_inner).due();
        if let Some(left_out) = due {
            tracing::warn!(kind = rejection.name(), left_out, "rejected a client with the wrong protocol or port");
        }
    }
}

/// The calls of a connection. The pings of either side are none.
#[derive(Debug)]
pub(super) struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
    watchers: Watchers,
    drain: watch::Receiver<Stage>,
}

impl Calls {
    /// Of a new connection.
    pub(super) fn new(watchers: Watchers, drain: watch::Receiver<Stage>) -> Arc<Self> {
        watchers.lane.connection(Edge::Begun);
        Arc::new(Self { begun: AtomicU64::new(0), ended: AtomicU64::new(0), watchers, drain })
    }

    /// How far the end of the server has come.
    pub(super) fn drain(&self) -> &watch::Receiver<Stage> {
        &self.drain
    }

    /// A call begins.
    pub(super) fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> Call {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.watchers.lane.call(Edge::Begun);
        let path = request.uri().path();
        let sampled = self.watchers.tracer.begin(path, request.headers());
        // What does work goes on for a while when the server drains; what waits for something to happen does not.
        let method = Method::of(path);
        let leaves_at = match (method, path.rsplit('/').next()) {
            (Method::Pipe, _) | (Method::Other, Some("Watch" | "WatchStats" | "ServerReflectionInfo")) => {
                Stage::Draining
            }
            _ => Stage::Ending,
        };
        Call { calls: self.clone(), method, leaves_at, began: Instant::now(), sampled, ended: false }
    }

    /// Counts what the transport ended.
    pub(super) fn rejected(&self, rejection: Rejection, count: u64) {
        self.watchers.lane.rejected(rejection, count);
        if rejection.is_misdirected() {
            self.watchers.complaints.complain(rejection);
        }
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether one has not ended.
    pub(super) fn are_open(&self) -> bool {
        self.begun() != self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.watchers.lane.connection(Edge::Ended);
    }
}

/// A call, until its response has been taken whole.
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
    /// The service has answered: with a status already, if it refuses, or with what it ends in its trailers.
    pub(super) fn answered(&mut self, headers: &HeaderMap) {
        let took = self.began.elapsed();
        let outcome = self.end_with(headers).map_or(Outcome::Ok, Outcome::of);
        self.calls.watchers.lane.took(self.method, outcome, took);
    }

    /// Counts the status, if it is among these headers or trailers, and says which it is.
    pub(super) fn end_with(&mut self, headers: &HeaderMap) -> Option<Code> {
        let status = headers.get(Status::GRPC_STATUS)?;
        if status == "0" {
            self.end(Code::Ok);
            return Some(Code::Ok);
        }
        let status = Status::from_header_map(headers).unwrap_or_else(|| Status::unknown(""));
        if let Some(info) = status.get_details_error_info() {
            self.calls.watchers.lane.refused(&info.reason);
        }
        self.end(status.code());
        Some(status.code())
    }

    /// Counts that it was refused after it had begun to answer.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let (code, reason, _) = status::table(refusal);
        self.calls.watchers.lane.refused(reason);
        self.end(code);
    }

    /// Whether the call reads or writes a single item.
    pub(super) fn is_of_one_item(&self) -> bool {
        self.method.is_of_one_item()
    }

    /// The stage of the server's end at which it has to end if it waits.
    pub(super) fn leaves_at(&self) -> Stage {
        self.leaves_at
    }

    /// Counts that it ended with the server.
    pub(super) fn leave(&mut self) {
        self.end(Code::Unavailable);
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.calls.watchers.lane.ended(self.method, code);
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
        self.calls.watchers.lane.call(Edge::Ended);
    }
}
