//! Traces by OTLP: a span for each sampled call.
//!
//! ```text
//!  call ends ── try_send ──► queue of 2,048 ──► task on the control runtime ── batches ──► collector
//!                  └─ full: dropped, counted              └─ refused, unavailable, late: dropped, counted
//! ```
//! A caller that sends a W3C `traceparent` decides whether its call is sampled; calls without one are sampled by a
//! share. Calls never wait for the collector: if it is unavailable, spans are dropped. If tracing is off, the cost is
//! one check of an `Option`.

use crate::wall_clock;
use anyhow::Context as _;
use ebb_config::SecretUrl;
use ebb_config::secret::Exposed;
use ebb_listener::RateLimit;
use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

/// Maximum number of queued spans.
const QUEUE: usize = 2_048;
/// Maximum number of spans per batch.
const BATCH: usize = 512;
/// Maximum time that a span waits for others.
const EVERY: Duration = Duration::from_secs(1);
/// Timeout for sending a batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum interval between warnings about the collector.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The sender of spans. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    queue: mpsc::Sender<Span>,
    sample_percent: AtomicU8,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Counters of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted by the collector.
    pub sent: u64,
    /// Dropped: the queue was full, or the collector did not accept them.
    pub dropped: u64,
}

/// A sampled call in progress.
#[derive(Debug)]
pub(crate) struct Sampled {
    context: Context,
    parent: Option<[u8; 8]>,
    name: String,
    began_nanos: u64,
}

/// The trace context of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

impl Context {
    /// Reads a `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`, more after it in later versions (W3C Trace Context, 3.2).
    fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex::<1>(version)?;
        if version == [0xff] || version == [0] && parts.next().is_some() {
            return None;
        }
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        let valid = trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// Bytes written as lowercase hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

impl Tracer {
    /// Sends to a collector, from a task on the caller's runtime. An empty endpoint disables tracing.
    ///
    /// # Errors
    /// If the endpoint is not an `http://` URI.
    pub fn start(endpoint: &SecretUrl, sample_percent: u8) -> anyhow::Result<Self> {
        if endpoint.is_empty() {
            return Ok(Self::default());
        }
        let exposed = endpoint.expose();
        let Exposed { uri, authorization } =
            exposed.context("otlpEndpoint: the value is not an http:// URL such as http://localhost:4317")?;
        let channel = Endpoint::from(uri).connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
        let (queue, spans) = mpsc::channel(QUEUE);
        let sample_percent = AtomicU8::new(sample_percent);
        let shared = Arc::new(Shared { queue, sample_percent, sent: AtomicU64::new(0), dropped: AtomicU64::new(0) });
        let collector = Collector { channel, authorization, endpoint: endpoint.to_string() };
        tokio::spawn(send(collector, spans, Arc::downgrade(&shared)));
        Ok(Self(Some(shared)))
    }

    /// Sets the sampled share of calls without a `traceparent`, in percent.
    pub fn set_sample_percent(&self, percent: u8) {
        if let Some(shared) = &self.0 {
            shared.sample_percent.store(percent, Ordering::Relaxed);
        }
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        self.0.as_ref().map_or_else(Counts::default, |shared| Counts {
            sent: shared.sent.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
        })
    }

    /// Starts a span; `None` if the call is not sampled.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Sampled> {
        let shared = self.0.as_ref()?;
        let caller = headers.get("traceparent").and_then(|header| Context::parse(header.to_str().ok()?));
        let sampled = caller.map_or_else(
            || fastrand::u8(..100) < shared.sample_percent.load(Ordering::Relaxed),
            |caller| caller.sampled,
        );
        let trace = caller.map_or_else(|| fastrand::u128(1..).to_be_bytes(), |caller| caller.trace);
        sampled.then(|| Sampled {
            context: Context { trace, span: fastrand::u64(1..).to_be_bytes(), sampled },
            parent: caller.map(|caller| caller.span),
            name: path.trim_start_matches('/').to_owned(),
            began_nanos: wall_clock::unix_nanos(),
        })
    }

    /// Ends the span of a call.
    pub(crate) fn end(&self, sampled: Sampled, code: Code) {
        let Some(shared) = &self.0 else { return };
        if shared.queue.try_send(sampled.into_span(code)).is_err() {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sampled {
    fn into_span(self, code: Code) -> Span {
        let Self { context, parent, name, began_nanos } = self;
        let (service, method) = name.split_once('/').unwrap_or((&name, ""));
        let attributes = vec![
            text("rpc.system", "grpc"),
            text("rpc.service", service),
            text("rpc.method", method),
            attribute("rpc.grpc.status_code", Value::IntValue(code as i64)),
        ];
        let failed = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        let status = if failed { StatusCode::Error } else { StatusCode::Unset };
        Span {
            trace_id: context.trace.to_vec(),
            span_id: context.span.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            name,
            kind: SpanKind::Server.into(),
            start_time_unix_nano: began_nanos,
            end_time_unix_nano: wall_clock::unix_nanos().max(began_nanos),
            attributes,
            status: Some(Status { code: status.into(), message: String::new() }),
            ..Span::default()
        }
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// Where spans are sent.
struct Collector {
    channel: Channel,
    authorization: Option<HeaderValue>,
    /// For the log, without credentials.
    endpoint: String,
}

/// Sends queued spans until all senders are dropped.
async fn send(collector: Collector, mut spans: mpsc::Receiver<Span>, shared: std::sync::Weak<Shared>) {
    let Collector { channel, authorization, endpoint } = collector;
    // Marked as sensitive again, so that HTTP/2 neither indexes nor prints it.
    let authorization = authorization.and_then(|value| AsciiMetadataValue::try_from(value.as_bytes()).ok());
    let authorization = authorization.map(|mut value| {
        value.set_sensitive(true);
        value
    });
    let mut client = TraceServiceClient::new(channel);
    let mut complaint = RateLimit::new(COMPLAINT);
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        // Wait briefly for more spans: a batch costs little more than one span.
        let deadline = tokio::time::Instant::now() + EVERY;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let more = spans.recv_many(&mut batch, room);
            if !matches!(tokio::time::timeout_at(deadline, more).await, Ok(1..)) {
                break; // it is time, or nobody can send any more
            }
        }
        let count = batch.len() as u64;
        let mut export = tonic::Request::new(request(std::mem::take(&mut batch)));
        if let Some(authorization) = &authorization {
            export.metadata_mut().insert("authorization", authorization.clone());
        }
        let answer = client.export(export).await;
        let Some(shared) = shared.upgrade() else { return };
        match answer {
            Ok(_) => shared.sent.fetch_add(count, Ordering::Relaxed),
            Err(status) => {
                if complaint.due().is_some() {
                    tracing::warn!(
                        endpoint,
                        why = status.message(),
                        "failed to send spans to the trace collector; dropped them"
                    );
                }
                shared.dropped.fetch_add(count, Ordering::Relaxed)
            }
        };
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let instance = std::env::var("HOSTNAME").unwrap_or_default();
    let attributes = vec![
        text("service.name", "ebb"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", &instance),
    ];
    let scope = InstrumentationScope { name: "ebb".to_owned(), ..InstrumentationScope::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let context = Context::parse(PARENT).unwrap();
        assert_eq!((context.trace[0], context.span[7], context.sampled), (0x4b, 0xb7, true));
        assert!(!Context::parse(&PARENT.replace("-01", "-00")).unwrap().sampled);
        let later = PARENT.replace("00-4b", "cc-4b") + "-more";
        assert!(Context::parse(&later).is_some(), "a later version may say more");
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let bad = [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT[..54],
            &(PARENT.to_owned() + "-more"),
            &PARENT.replace("00-4b", "ff-4b"),
            &zero_trace,
            &zero_span,
            "00-é-é-é",
        ];
        for bad in bad {
            assert_eq!(Context::parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_caller_decides_and_without_one_a_share_does() {
        assert!(Tracer::default().begin("/a/b", &HeaderMap::new()).is_none(), "off");
        let tracer = Tracer::start(&"http://127.0.0.1:1".into(), 0).unwrap();
        assert!(tracer.begin("/a/b", &HeaderMap::new()).is_none());
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", PARENT.parse().unwrap());
        let sampled = tracer.begin("/ebb.v1.CacheService/Get", &headers).unwrap();
        let span = sampled.into_span(Code::Internal);
        assert_eq!(
            (span.trace_id[0], span.parent_span_id[7], span.name.as_str()),
            (0x4b, 0xb7, "ebb.v1.CacheService/Get")
        );
        assert_eq!(span.status.unwrap().code, StatusCode::Error as i32);
        tracer.set_sample_percent(100);
        assert!(tracer.begin("/a/b", &HeaderMap::new()).is_some());
        headers.insert("traceparent", PARENT.replace("-01", "-00").parse().unwrap());
        assert!(tracer.begin("/a/b", &headers).is_none(), "the caller said no");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_refused() {
        let bad = ["localhost:4317", "https://collector:4317", "nonsense"];
        let found = bad.map(|bad| Tracer::start(&bad.into(), 1).map(drop).map_err(|error| error.to_string()));
        let refusal = "otlpEndpoint: the value is not an http:// URL such as http://localhost:4317";
        assert_eq!(found, bad.map(|_| Err(refusal.to_owned())));
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let tracer = Tracer::start(&"http://127.0.0.1:1".into(), 100).unwrap();
        for _ in 0..QUEUE + 10 {
            let sampled = tracer.begin("/a/b", &HeaderMap::new()).unwrap();
            tracer.end(sampled, Code::Ok);
        }
        assert_eq!(tracer.counts(), Counts { sent: 0, dropped: 10 }, "the task has not run yet");
    }
}
