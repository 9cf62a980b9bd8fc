//! Writes Events in the background. Failures are counted and otherwise ignored.
//!
//! An API server that has just started refuses calls whose rights it has not read yet, and one that is restarting does
//! not answer. So an Event is tried again some times. If it is still refused for lack of rights, writing pauses for a
//! while, so that a missing right does not cause a stream of refused calls. The API server keeps the first note of a
//! repeated Event, so notes contain no changing numbers.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::core::Status;
use kube::runtime::events::{Event, Recorder, Reporter};
use std::time::{Duration, Instant};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tokio::sync::mpsc;

/// Maximum number of queued Events; more are dropped, since a rollout of hundreds of pods repeats one message.
const WAITING: usize = 64;
/// Number of Events after which repeated ones are forgotten, which bounds the memory of the recorder.
const REMEMBERED: usize = 1_000;
/// The times between tries.
const PAUSES: Pauses = Pauses {
    before_retries: [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)],
    forbidden: Duration::from_secs(600),
};

/// The times between tries of Events.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    /// Before each further try of one Event.
    before_retries: [Duration; 3],
    /// After an Event that was refused for lack of rights in every try.
    forbidden: Duration,
}

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
        Self::with_pauses(PAUSES, client, reporter, count)
    }

    fn with_pauses(pauses: Pauses, client: Client, reporter: Reporter, count: impl Fn(Fate) + Send + 'static) -> Self {
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
                let fate = match publish(&recorder, &event, &about, pauses.before_retries).await {
                    Ok(()) => Fate::Written,
                    Err(kube::Error::Api(status)) if is_forbidden(&status) => {
                        tracing::warn!(
                            retry_after_s = pauses.forbidden.as_secs(),
                            why = status.message,
                            "account lacks permission to write Kubernetes Events"
                        );
                        forbidden_until = Some(Instant::now() + pauses.forbidden);
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

/// Writes an Event. Tries again after errors that may pass.
async fn publish<const N: usize>(
    recorder: &Recorder,
    event: &Event,
    about: &ObjectReference,
    pauses: [Duration; N],
) -> kube::Result<()> {
    for pause in pauses {
        match recorder.publish(event, about).await {
            Err(error) if may_pass(&error) => {
                tracing::debug!(%error, "failed to write a Kubernetes Event; trying again");
                #[allow(
                    clippy::disallowed_methods,
                    reason = "the task does nothing else, and not on a data-plane core"
                )]
                tokio::time::sleep(pause).await;
            }
            result => return result,
        }
    }
    recorder.publish(event, about).await
}

/// Whether the same call may succeed later.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_forbidden(status) || status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// Whether the account lacks the right. A namespace that is being deleted refuses new objects with the same code.
fn is_forbidden(status: &Status) -> bool {
    let is_ending =
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating");
    status.code == 403 && !is_ending
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;
    use kube::runtime::events::EventType;
    use serde_json::Value;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    /// An API server that answers each call with the next body, and the last one for ever.
    fn answering(answers: &'static [&'static str], calls: Arc<Mutex<usize>>) -> Client {
        let answer = move |_: Request<Body>| {
            let mut calls = calls.lock().unwrap();
            let answer = answers[(*calls).min(answers.len() - 1)];
            *calls += 1;
            let code = serde_json::from_str::<Value>(answer).unwrap()["code"].as_u64().unwrap_or(201);
            async move {
                Ok::<_, Infallible>(
                    Response::builder().status(code as u16).body(Body::from(answer.as_bytes().to_vec())).unwrap(),
                )
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    const WRITTEN: &str = r#"{"metadata":{"name":"e","namespace":"shop"},"eventTime":null}"#;
    const FORBIDDEN: &str = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
    const BUSY: &str = r#"{"kind":"Status","status":"Failure","message":"wait","code":503}"#;
    const INVALID: &str = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Invalid","code":422}"#;
    const ENDING: &str = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403,
        "details":{"causes":[{"reason":"NamespaceTerminating","message":"it ends","field":"metadata.namespace"}]}}"#;

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
    async fn told(answers: &'static [&'static str], forbidden: Duration) -> (usize, Vec<Fate>) {
        let (calls, (fates, mut seen)) = (Arc::<Mutex<usize>>::default(), mpsc::unbounded_channel());
        let reporter = Reporter { controller: "ebb-cache.io/test".to_owned(), instance: None };
        let count = move |fate| fates.send(fate).unwrap();
        let pauses = Pauses { before_retries: [Duration::from_millis(1); 3], forbidden };
        let writer = EventWriter::with_pauses(pauses, answering(answers, calls.clone()), reporter, count);
        let mut all = Vec::new();
        for reason in ["a", "b", "c"] {
            let (event, about) = event(reason);
            writer.write(event, about).unwrap();
            all.push(seen.recv().await.unwrap());
        }
        (*calls.lock().unwrap(), all)
    }

    #[tokio::test]
    async fn pauses_after_refusals_for_lack_of_rights() {
        assert_eq!(told(&[FORBIDDEN], PAUSES.forbidden).await, (4, vec![Fate::Forbidden; 3]));
        assert_eq!(told(&[FORBIDDEN], Duration::ZERO).await, (12, vec![Fate::Forbidden; 3]));
    }

    #[tokio::test]
    async fn what_is_taken_is_counted_and_the_next_is_told_too() {
        assert_eq!(told(&[WRITTEN], PAUSES.forbidden).await, (3, vec![Fate::Written; 3]));
    }

    #[tokio::test]
    async fn a_restarting_api_server_loses_no_event() {
        let written = vec![Fate::Written; 3];
        assert_eq!(told(&[FORBIDDEN, WRITTEN], PAUSES.forbidden).await, (4, written.clone()));
        assert_eq!(told(&[BUSY, FORBIDDEN, BUSY, WRITTEN], PAUSES.forbidden).await, (6, written));
        let (calls, fates) = told(&[BUSY, BUSY, BUSY, BUSY, WRITTEN], PAUSES.forbidden).await;
        assert_eq!((calls, fates), (6, vec![Fate::Failed, Fate::Written, Fate::Written]));
    }

    #[tokio::test]
    async fn a_refusal_that_cannot_pass_is_final_and_delays_nothing() {
        for answer in [&[INVALID, WRITTEN], &[ENDING, WRITTEN]] {
            assert_eq!(told(answer, PAUSES.forbidden).await, (3, vec![Fate::Failed, Fate::Written, Fate::Written]));
        }
    }
}
