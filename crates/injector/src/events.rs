//! Writes Events in the background. Failures are counted and otherwise ignored.
//!
//! After a refusal for lack of rights, writing pauses for a while, so that a missing right does not cause a stream of
//! refused calls. The API server keeps the first note of a repeated Event, so notes contain no changing numbers.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use std::time::{Duration, Instant};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tokio::sync::mpsc;

/// Maximum number of queued Events; more are dropped, since a rollout of hundreds of pods repeats one message.
const WAITING: usize = 64;
/// Number of Events after which repeated ones are forgotten, which bounds the memory of the recorder.
const REMEMBERED: usize = 1_000;
/// Pause after a refusal for lack of rights.
const FORBIDDEN_FOR: Duration = Duration::from_secs(600);

/// Outcome of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Fate {
    /// The API server accepted it.
    Written,
    /// The account lacks the right.
    Forbidden,
    /// The API server returned another error.
    Failed,
    /// The queue was full.
    Dropped,
}

impl Fate {
    /// The stable name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The queue of Events.
#[derive(Clone, Debug)]
pub struct EventWriter(mpsc::Sender<(Event, ObjectReference)>);

impl EventWriter {
    /// Starts on this runtime, and counts outcomes.
    pub fn start(client: Client, reporter: Reporter, count: impl Fn(Fate) + Send + 'static) -> Self {
        Self::with_pause(FORBIDDEN_FOR, client, reporter, count)
    }

    fn with_pause(pause: Duration, client: Client, reporter: Reporter, count: impl Fn(Fate) + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let start = move || Recorder::new(client.clone(), reporter.clone());
        tokio::spawn(async move {
            let (mut forbidden_until, mut recorder, mut remembered) = (None, start(), 0);
            while let Some((event, about)) = receiver.recv().await {
                if forbidden_until.is_some_and(|until| Instant::now() < until) {
                    count(Fate::Forbidden);
                    continue;
                }
                forbidden_until = None;
                if remembered == REMEMBERED {
                    (recorder, remembered) = (start(), 0);
                }
                remembered += 1;
                let fate = match recorder.publish(&event, &about).await {
                    Ok(()) => Fate::Written,
                    Err(kube::Error::Api(status)) if status.code == 403 => {
                        tracing::warn!(
                            retry_after_s = pause.as_secs(),
                            why = status.message,
                            "account lacks permission to write Kubernetes Events"
                        );
                        forbidden_until = Some(Instant::now() + pause);
                        Fate::Forbidden
                    }
                    Err(error) => {
                        tracing::debug!(%error, "failed to write a Kubernetes Event");
                        Fate::Failed
                    }
                };
                count(fate);
            }
        });
        Self(sender)
    }

    /// Queues an Event, unless the queue is full.
    pub fn write(&self, event: Event, about: ObjectReference) -> Result<(), Fate> {
        self.0.try_send((event, about)).map_err(|_| Fate::Dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use kube::runtime::events::EventType;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    /// An API server that answers every call with one status.
    fn answering(status: StatusCode, calls: Arc<Mutex<usize>>) -> Client {
        let answer = move |_: Request<Body>| {
            *calls.lock().unwrap() += 1;
            let body = match status {
                StatusCode::CREATED => r#"{"metadata":{"name":"e","namespace":"shop"},"eventTime":null}"#.to_owned(),
                status => {
                    format!(r#"{{"kind":"Status","status":"Failure","message":"no","code":{}}}"#, status.as_u16())
                }
            };
            async move {
                Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn event(reason: &str) -> (Event, ObjectReference) {
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: None,
            action: "Look".to_owned(),
            secondary: None,
        };
        (event, ObjectReference { namespace: Some("shop".to_owned()), ..ObjectReference::default() })
    }

    /// Writes three Events, one after another; returns the number of calls and the outcome of each.
    async fn told(status: StatusCode, pause: Duration) -> (usize, Vec<Fate>) {
        let (calls, (fates, mut seen)) = (Arc::<Mutex<usize>>::default(), mpsc::unbounded_channel());
        let reporter = Reporter { controller: "ebb-cache.io/test".to_owned(), instance: None };
        let count = move |fate| fates.send(fate).unwrap();
        let writer = EventWriter::with_pause(pause, answering(status, calls.clone()), reporter, count);
        let mut all = Vec::new();
        for reason in ["a", "b", "c"] {
            let (event, about) = event(reason);
            writer.write(event, about).unwrap();
            all.push(seen.recv().await.unwrap());
        }
        (*calls.lock().unwrap(), all)
    }

    #[tokio::test]
    async fn pauses_after_a_refusal_for_lack_of_rights() {
        assert_eq!(told(StatusCode::FORBIDDEN, FORBIDDEN_FOR).await, (1, vec![Fate::Forbidden; 3]));
        assert_eq!(told(StatusCode::FORBIDDEN, Duration::ZERO).await, (3, vec![Fate::Forbidden; 3]));
    }

    #[tokio::test]
    async fn what_is_taken_is_counted_and_the_next_is_told_too() {
        assert_eq!(told(StatusCode::CREATED, FORBIDDEN_FOR).await, (3, vec![Fate::Written; 3]));
    }
}
