//! Shutdown with open calls.

use super::common::{Ebb, SERVE, eventually, page, program, until};
use bytes::Bytes;
use ebb_proto::admin_service_client::AdminServiceClient;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::{GetRequest, PipeRequest, PipeResponse, WatchStatsRequest, pipe_request::Operation};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

fn ask_to_stop(ebb: &Ebb) -> Instant {
    kill_process(Pid::from_child(&ebb.child), Signal::TERM).unwrap();
    Instant::now()
}

/// Waits until it has exited with 0; returns the duration.
async fn ended(ebb: &mut Ebb, since: Instant) -> Duration {
    loop {
        if let Some(status) = ebb.child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return since.elapsed();
        }
        tokio::time::timeout(Duration::from_millis(2), std::future::pending::<()>()).await.ok();
    }
}

fn get(id: u64) -> PipeRequest {
    PipeRequest { id, operation: Some(Operation::Get(GetRequest { key: "k".into(), ..GetRequest::default() })) }
}

/// A pipe, and the sender of its operations.
async fn pipe(ebb: &Ebb) -> (tokio::sync::mpsc::Sender<PipeRequest>, Streaming<PipeResponse>) {
    let (send, operations) = tokio::sync::mpsc::channel(16);
    let operations = tokio_stream::wrappers::ReceiverStream::new(operations);
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    send.send(get(1)).await.unwrap();
    let mut results = client.pipe(operations).await.unwrap().into_inner();
    assert_eq!(results.message().await.unwrap().unwrap().id, 1);
    (send, results)
}

#[tokio::test]
async fn a_stop_without_open_calls_takes_milliseconds() {
    let mut ebb = Ebb::start(&[]);
    // An idle client, a client that sends nothing, and one that speaks HTTP/2 and answers nothing.
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    client.get(GetRequest { key: "k".into(), ..GetRequest::default() }).await.unwrap();
    let _silent = TcpStream::connect(&ebb.data).unwrap();
    let mut unresponsive = TcpStream::connect(&ebb.data).unwrap();
    unresponsive.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let _to_admin = TcpStream::connect(&ebb.admin).unwrap();
    let _to_http = TcpStream::connect(&ebb.http).unwrap();
    until("they are accepted", || ebb.metric("ebb_open_connections ") >= 2);
    let since = ask_to_stop(&ebb);
    let took = ended(&mut ebb, since).await;
    assert!(took < Duration::from_millis(600), "{took:?}");
}

#[tokio::test]
async fn calls_that_wait_end_at_once_with_unavailable() {
    let mut command = program();
    command.args(SERVE).env("EBB_DRAIN_TIMEOUT", "20s");
    let mut ebb = Ebb::spawn(command);
    let (_send, mut results) = pipe(&ebb).await;
    let mut admin = AdminServiceClient::connect(format!("http://{}", ebb.admin)).await.unwrap();
    let mut stats = admin.watch_stats(WatchStatsRequest { interval_ms: 5_000 }).await.unwrap().into_inner();
    stats.message().await.unwrap().unwrap();
    let channel =
        tonic::transport::Endpoint::try_from(format!("http://{}", ebb.data)).unwrap().connect().await.unwrap();
    let mut health = ebb_proto::health::health_client::HealthClient::new(channel);
    let asked = ebb_proto::health::HealthCheckRequest::default();
    let mut health = health.watch(asked).await.unwrap().into_inner();
    assert_eq!(health.message().await.unwrap().unwrap().status, 1, "SERVING");
    let since = ask_to_stop(&ebb);
    assert_eq!(health.message().await.unwrap().unwrap().status, 2, "NOT_SERVING");
    assert_eq!(health.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(results.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(stats.message().await.unwrap_err().code(), Code::Unavailable);
    let took = ended(&mut ebb, since).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn calls_that_work_go_on_and_end_before_the_timeout() {
    let mut ebb = Ebb::start(&[]); // 1.5 s
    let (send, mut results) = pipe(&ebb).await;
    // A request that never ends.
    let stream = tokio::net::TcpStream::connect(&ebb.data).await.unwrap();
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/ebb.v1.CacheService/Set", ebb.data))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (response, mut body) = h2.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(&[0, 0, 0, 1, 0, 1, 2, 3]), false).unwrap();
    eventually("both are open", || async { ebb.metric("ebb_open_calls ") == 2 }).await;

    let feed = tokio::spawn(async move {
        let mut id = 2;
        while send.send(get(id)).await.is_ok() {
            id += 1;
        }
    });
    let since = ask_to_stop(&ebb);
    // Meanwhile the server answers probes and scrapes, and the governor runs.
    let (http, data) = (ebb.http.clone(), ebb.data.clone());
    let watcher = std::thread::spawn(move || {
        until("it is not ready", || page(&http, "/readyz").is_some_and(|(status, _)| status == 503));
        let seconds = || {
            let (_, text) = page(&http, "/metrics").unwrap();
            let held = text.lines().filter_map(|line| line.strip_prefix("ebb_regime_seconds_total{"));
            held.filter_map(|line| line.split(' ').nth(1)?.parse::<f64>().ok()).sum::<f64>()
        };
        let before = seconds();
        until("the governor reads on", || seconds() > before);
        assert!(TcpStream::connect(&data).is_err(), "nobody new");
    });
    let mut last = 1;
    let status = loop {
        match results.message().await {
            Ok(Some(result)) => {
                assert_eq!(result.id, last + 1, "every operation that arrived is answered");
                last = result.id;
            }
            Ok(None) => panic!("it ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let response = response.await.unwrap();
    assert!(since.elapsed() > Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(response.headers()["grpc-status"], "14");
    let took = ended(&mut ebb, since).await;
    assert!(took < Duration::from_millis(2_200), "{took:?}");
    watcher.join().unwrap();
    feed.abort();
    connection.abort();
}

#[tokio::test]
async fn a_scan_that_is_read_slowly_is_no_watch() {
    let mut ebb = Ebb::start(&[]);
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    for n in 0..2_000_u32 {
        let set =
            ebb_proto::SetRequest { key: n.to_string().into(), value: vec![7; 1_000].into(), ..Default::default() };
        client.set(set).await.unwrap();
    }
    let scan = ebb_proto::ScanRequest { with_values: true, ..Default::default() };
    let mut scan = client.scan(scan).await.unwrap().into_inner();
    let mut entries = scan.message().await.unwrap().unwrap().entries.len();
    let since = ask_to_stop(&ebb);
    until("it drains", || ebb.logged("stopping") == 1);
    while let Some(portion) = scan.next().await {
        entries += portion.unwrap().entries.len();
    }
    assert_eq!(entries, 2_000);
    drop(client);
    ended(&mut ebb, since).await;
}
