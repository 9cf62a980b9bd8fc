//! How calls end during the shutdown of the server.
//!
//! | stage | listeners | a call that waits for an event (a watch, an idle pipe, a lease) | any other call |
//! |---|---|---|---|
//! | serving | accept | continues | continues |
//! | draining | closed | ends with UNAVAILABLE | continues |
//! | ending | closed | | ends with UNAVAILABLE |
//!
//! After the last stage, the server aborts the remaining calls.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;

/// The stage of a server's shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The shutdown has not begun.
    #[default]
    Serving,
    /// No new connections are accepted.
    Draining,
    /// The remaining calls must end now.
    Ending,
}

/// Waits for a stage. Each poll reads the stage itself, because a watch channel notifies its receivers one after
/// another.
pub(super) async fn reached(drain: &mut watch::Receiver<Stage>, stage: Stage) {
    let now = drain.clone();
    let mut told = pin!(drain.wait_for(|now| *now >= stage));
    poll_fn(|cx| match *now.borrow() >= stage {
        true => Poll::Ready(()),
        // If the sender is gone, the server has ended.
        false => told.as_mut().poll(cx).map(drop),
    })
    .await;
}

/// The end of one call by the shutdown. It costs nothing until the call has to wait.
pub(super) struct Leave<'a> {
    drain: &'a watch::Receiver<Stage>,
    at: Stage,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<'a> Leave<'a> {
    /// The end of a call that ends at stage `at`.
    pub(super) fn new(drain: &'a watch::Receiver<Stage>, at: Stage) -> Self {
        Self { drain, at, waiting: None }
    }

    /// Whether the stage is reached for every call.
    pub(super) fn is_late(&self) -> bool {
        // Check the version first: that takes no lock.
        self.drain.has_changed().unwrap_or(true) && *self.drain.borrow() == Stage::Ending
    }

    /// Ready when the call must end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (drain, at) = (self.drain, self.at);
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut drain = drain.clone();
            Box::pin(async move { reached(&mut drain, at).await })
        });
        waiting.as_mut().poll(cx)
    }
}

/// The status of a call ended by the shutdown.
pub(super) fn status() -> Status {
    Status::unavailable("the server is shutting down")
}
