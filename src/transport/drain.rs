//! How the calls of a server end with it.
//!
//! | stage | listeners | a call that waits for something to happen (a watch, an idle pipe) | any other call |
//! |---|---|---|---|
//! | serving | accept | goes on | goes on |
//! | draining | closed | ends with UNAVAILABLE | goes on |
//! | ending | closed | | ends with UNAVAILABLE |
//!
//! After the last stage, what has not ended is cut off.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;

/// How far the end of a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has not begun.
    #[default]
    Serving,
    /// Nobody new is accepted.
    Draining,
    /// What still goes on has to end now.
    Ending,
}

/// Waits for a stage. Each poll reads the stage itself, because a watch channel notifies its receivers one after another.
pub(super) async fn reached(drain: &mut watch::Receiver<Stage>, stage: Stage) {
    let now = drain.clone();
    let mut told = pin!(drain.wait_for(|now| *now >= stage));
    poll_fn(|cx| match *now.borrow() >= stage {
        true => Poll::Ready(()),
        // A server that is gone has come to its end.
        false => told.as_mut().poll(cx).map(drop),
    })
    .await;
}

/// The end of one call. It costs the call nothing before it has to wait.
pub(super) struct Leave<'a> {
    drain: &'a watch::Receiver<Stage>,
    at: Stage,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<'a> Leave<'a> {
    /// Of a call that ends at stage `at`.
    pub(super) fn new(drain: &'a watch::Receiver<Stage>, at: Stage) -> Self {
        Self { drain, at, waiting: None }
    }

    /// Whether the stage is reached for every call.
    pub(super) fn is_late(&self) -> bool {
        // The version is looked at first: that takes no lock.
        self.drain.has_changed().unwrap_or(true) && *self.drain.borrow() == Stage::Ending
    }

    /// Ready when the call has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (drain, at) = (self.drain, self.at);
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut drain = drain.clone();
            Box::pin(async move { reached(&mut drain, at).await })
        });
        waiting.as_mut().poll(cx)
    }
}

/// The status of a call that ends with the server.
pub(super) fn status() -> Status {
    Status::unavailable("the server is shutting down")
}
