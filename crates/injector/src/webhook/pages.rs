//! Lists pods page by page and item by item: only a few excerpts are in memory at a time, however large the pods are.
//!
//! ```text
//!  API server ──bytes──► a few frames ──► parser (a thread of its own) ──► a few excerpts ──► see
//! ```

use super::excerpt::{self, Read};
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use std::io;
use tokio::sync::mpsc;

/// Items per page.
const PAGE: usize = 100;
/// Maximum number of frames, and of excerpts, that wait for the other side.
const WAITING: usize = 4;
/// Maximum length of an error that is read, in bytes.
const ERROR_BYTES: usize = 16 << 10;

/// The listed fields of each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Only the metadata: the API server sends nothing else.
    Metadata,
    /// The fields that injection reads.
    Pod,
}

impl Of {
    fn accept(self) -> &'static str {
        match self {
            Self::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Self::Pod => "application/json",
        }
    }
}

/// Reads a list; `path` already contains a query.
///
/// # Errors
/// The error of the API server, or the problem of its response.
pub(super) async fn each(client: &Client, path: &str, of: Of, mut see: impl FnMut(Read)) -> Result<(), kube::Error> {
    let mut token = String::new();
    loop {
        let request = Request::get(format!("{path}&limit={PAGE}&continue={token}")).header("accept", of.accept());
        let request = request.body(Body::empty()).expect("names and tokens are made of letters and digits");
        let response = client.send(request).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let (frames, arriving) = mpsc::channel::<Bytes>(WAITING);
        let (items, mut seen) = mpsc::channel::<Read>(WAITING);
        let parser = tokio::task::spawn_blocking(move || {
            // The receiver is gone if the search was cancelled.
            excerpt::pods(Frames { arriving, rest: Bytes::new() }, |item| drop(items.blocking_send(item)))
        });
        let feed = async move {
            let mut body = response.into_body().into_data_stream();
            while let Some(frame) = body.next().await {
                if frames.send(frame.map_err(|error| service(&error.to_string()))?).await.is_err() {
                    break;
                }
            }
            Ok::<(), kube::Error>(())
        };
        let take = async {
            while let Some(item) = seen.recv().await {
                see(item);
            }
        };
        let (fed, ()) = futures::future::join(feed, take).await;
        fed?;
        let next = parser.await.map_err(|error| service(&error.to_string()))?.map_err(kube::Error::SerdeError)?;
        match next {
            Some(next) => token = next,
            None => return Ok(()),
        }
    }
}

fn service(why: &str) -> kube::Error {
    kube::Error::Service(why.to_owned().into())
}

async fn refusal(response: http::Response<Body>) -> kube::Error {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ERROR_BYTES).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let message = serde_json::from_str(&text)
        .map_or(text, |said: serde_json::Value| said["message"].as_str().unwrap_or_default().to_owned());
    service(&format!("the API server answered {status}: {message}"))
}

/// Frames as they arrive, as a reader for a thread.
struct Frames {
    arriving: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl io::Read for Frames {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.arriving.blocking_recv() {
                Some(frame) => self.rest = frame,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(into.len());
        into[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
