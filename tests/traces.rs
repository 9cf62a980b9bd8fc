//! Traces with a collector implemented here: the received spans, and calls while it is unavailable.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Ebb, eventually, program};
use ebb_proto::cache_service_client::CacheServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::sync::{Arc, Mutex};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>, Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.1.lock().unwrap().extend(authorization);
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn serve(&self, listener: tokio::net::TcpListener) -> tokio::task::JoinHandle<()> {
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() })
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|span| span.name.clone()).collect()
    }
}

fn tracing_to(endpoint: &str, sample: &str) -> Ebb {
    let mut command = program();
    command.env("EBB_OTLP_ENDPOINT", endpoint).env("EBB_TRACE_SAMPLE", sample).args(common::SERVE);
    Ebb::spawn(command)
}

fn get(parent: Option<&str>, key: &'static str) -> Request<ebb_proto::GetRequest> {
    let mut request = Request::new(ebb_proto::GetRequest { key: key.into(), ..Default::default() });
    if let Some(parent) = parent {
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_callers_trace_goes_on_in_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = Collector::default();
    let ebb = tracing_to(&format!("http://{}", listener.local_addr().unwrap()), "0%");
    let _serving = collector.serve(listener).await;
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client.get(get(None, "not-sampled")).await.unwrap();
    client.get(get(Some(&parent.replace("-01", "-00")), "not-sampled-either")).await.unwrap();
    client.get(get(Some(parent), "k")).await.unwrap();
    client.get(get(Some(parent), "")).await.unwrap_err();
    eventually("the spans arrive", || async { collector.names().len() >= 2 }).await;
    let spans = collector.0.lock().unwrap().clone();
    assert_eq!(collector.names(), ["ebb.v1.CacheService/Get"; 2]);
    for span in &spans {
        assert_eq!((span.trace_id[0], span.parent_span_id[7], span.kind), (0x4b, 0xb7, 2));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
        let text = format!("{:?}", span.attributes);
        assert!(
            text.contains("rpc.grpc.status_code") && !text.contains("not-sampled"),
            "spans contain no keys: {text}"
        );
    }
    assert_ne!(spans[0].span_id, spans[1].span_id);
}

#[tokio::test]
async fn user_information_is_sent_as_basic_authentication() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = Collector::default();
    let ebb = tracing_to(&format!("http://user:pass@{}/?a=b", listener.local_addr().unwrap()), "100%");
    let _serving = collector.serve(listener).await;
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    client.get(get(None, "k")).await.unwrap();
    eventually("the span arrives", || async { !collector.names().is_empty() }).await;
    assert_eq!(*collector.1.lock().unwrap(), ["Basic dXNlcjpwYXNz"]);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_calls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ebb = tracing_to(&format!("http://{address}"), "100%");
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    for _ in 0..50 {
        client.get(get(None, "k")).await.unwrap();
    }
    eventually("what could not be sent is counted", || async { ebb.metric("ebb_spans_dropped_total ") >= 50 }).await;
    eventually("and complained about", || async { ebb.logged("the trace collector") > 0 }).await;
    let collector = Collector::default();
    let _serving = collector.serve(tokio::net::TcpListener::bind(address).await.unwrap()).await;
    eventually("once it is back, it gets what comes", || async {
        client.clone().get(get(None, "k")).await.unwrap();
        !collector.names().is_empty()
    })
    .await;
    assert_eq!(ebb.logged("the trace collector"), 1, "it was complained about once");
}

#[test]
fn an_endpoint_that_is_none_ends_the_start_with_a_sentence() {
    let output = program().env("EBB_OTLP_ENDPOINT", "localhost:4317").args(common::SERVE).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("otlpEndpoint: the value is not an http:// URL such as http://localhost:4317"), "{said}");
}
