//! The edge of the server, met by clients that do not behave: too many, too slow, silent, gone.

mod common;

use common::{Ebb, SERVE, eventually, program};
use ebb::proto::admin_service_client::AdminServiceClient;
use ebb::proto::cache_service_client::CacheServiceClient;
use ebb::proto::{GetRequest, GetStatsRequest, MemoryAccount, ScanRequest, SetRequest};
use http::Request;
use prost::Message as _;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn server(settings: &[(&str, &str)]) -> Ebb {
    let mut command = program();
    command.args(SERVE).envs(settings.iter().copied());
    Ebb::spawn(command)
}

async fn client(ebb: &Ebb) -> CacheServiceClient<Channel> {
    CacheServiceClient::connect(format!("http://{}", ebb.data)).await.expect("the server accepts")
}

fn set(key: &str, bytes: usize) -> SetRequest {
    SetRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..SetRequest::default() }
}

async fn answers(client: &mut CacheServiceClient<Channel>) -> bool {
    client.get(GetRequest { key: "k".into(), ..GetRequest::default() }).await.is_ok()
}

async fn memory(ebb: &Ebb) -> MemoryAccount {
    let mut admin = AdminServiceClient::connect(format!("http://{}", ebb.admin)).await.unwrap();
    admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().memory.unwrap()
}

/// A connection on which HTTP/2 is spoken by hand; the other half ends when the server closes it.
async fn by_hand(ebb: &Ebb) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(&ebb.data).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    (requests.ready().await.unwrap(), tokio::spawn(async move { drop(connection.await) }))
}

fn call(method: &str) -> Request<()> {
    let request = Request::post(format!("http://ebb/ebb.v1.CacheService/{method}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// A message behind its prefix, which announces `len`.
fn framed(len: usize, message: &[u8]) -> bytes::Bytes {
    [&[0][..], &(len as u32).to_be_bytes(), message].concat().into()
}

#[tokio::test]
async fn a_server_out_of_file_descriptors_serves_whom_it_has_and_accepts_again_later() {
    let mut command = Command::new("sh");
    let ebb = program().get_program().to_owned();
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(ebb).args(SERVE);
    let ebb = Ebb::spawn(command);
    let mut first = client(&ebb).await;
    first.set(set("k", 10)).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(&ebb.data).await.unwrap()); // the kernel's queue takes what the server does not
    }
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", ebb.child.id())).unwrap().count();
    eventually("the descriptors are used up", async || descriptors() >= 64).await;
    for _ in 0..100 {
        assert!(answers(&mut first).await);
    }
    drop(crowd);
    assert!(answers(&mut client(&ebb).await).await);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_after_the_handshake_timeout() {
    let ebb = server(&[("EBB_HANDSHAKE_TIMEOUT", "1s")]);
    let mut silent = TcpStream::connect(&ebb.data).await.unwrap();
    let mut half = TcpStream::connect(&ebb.data).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut spoken = client(&ebb).await;
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        let _ = ended.expect("the server ends it"); // politely or by a reset
    }
    assert!(answers(&mut spoken).await, "a client that speaks stays");
}

#[tokio::test]
async fn a_connection_that_does_nothing_is_closed_after_the_idle_timeout() {
    let ebb = server(&[("EBB_IDLE_TIMEOUT", "1s")]);
    let (_requests, ended) = by_hand(&ebb).await;
    tokio::time::timeout(PATIENCE, ended).await.expect("the server ends it").unwrap();
}

#[tokio::test]
async fn a_connection_beyond_the_cap_waits_until_another_ends() {
    let ebb = server(&[("EBB_CONNECTIONS", "2")]);
    let (mut one, mut two) = (client(&ebb).await, client(&ebb).await);
    assert!(answers(&mut one).await && answers(&mut two).await);
    let data = ebb.data.clone();
    let third = tokio::spawn(async move {
        let mut client = CacheServiceClient::connect(format!("http://{data}")).await.unwrap();
        answers(&mut client).await
    });
    for _ in 0..200 {
        assert!(answers(&mut one).await && answers(&mut two).await);
    }
    assert!(!third.is_finished(), "it waits");
    drop(two);
    assert!(tokio::time::timeout(PATIENCE, third).await.expect("its turn comes").unwrap());
}

#[tokio::test]
async fn a_request_that_stalls_is_ended_and_what_it_held_comes_back() {
    let ebb = server(&[("EBB_WRITE_TIMEOUT", "1s")]);
    let (mut requests, ended) = by_hand(&ebb).await;
    let (_response, mut body) = requests.send_request(call("Set"), false).unwrap();
    body.send_data(framed(1 << 20, b"only the beginning"), false).unwrap();
    eventually("the announced length is in the account", async || memory(&ebb).await.in_flight_bytes >= 1 << 20).await;
    tokio::time::timeout(PATIENCE, ended).await.expect("the server ends it").unwrap();
    eventually("nothing is in flight", async || memory(&ebb).await.in_flight_bytes == 0).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_stream_leaves_nothing_in_flight() {
    let ebb = server(&[]);
    let mut writer = client(&ebb).await;
    for i in 0..16 {
        writer.set(set(&format!("{i}"), 512 << 10)).await.unwrap();
    }
    let (mut requests, connection) = by_hand(&ebb).await;
    let (_response, mut body) = requests.send_request(call("Scan"), false).unwrap();
    let scan = ScanRequest { with_values: true, ..ScanRequest::default() }.encode_to_vec();
    body.send_data(framed(scan.len(), &scan), true).unwrap();
    eventually("values are on their way", async || memory(&ebb).await.in_flight_bytes > 0).await;
    connection.abort(); // unread bytes are in the socket: the kernel resets the connection
    assert!(connection.await.unwrap_err().is_cancelled());
    eventually("nothing is in flight", async || memory(&ebb).await.in_flight_bytes == 0).await;
    assert!(answers(&mut writer).await);
}

#[tokio::test]
async fn without_a_cgroup_the_default_or_what_was_asked_for_is_obeyed() {
    let nothing = tempfile::tempdir().unwrap();
    let root = nothing.path().to_str().unwrap();
    let memory_of = async |settings: &[(&str, &str)]| {
        let memory = memory(&server(settings)).await;
        (memory.limit_bytes, memory.limit_source)
    };
    assert_eq!(memory_of(&[("EBB_CGROUP_ROOT", root)]).await, (256 << 20, "default_memory".to_owned()));
    let asked = [("EBB_CGROUP_ROOT", root), ("EBB_MAX_MEMORY", "100Mi")];
    assert_eq!(memory_of(&asked).await, (100 << 20, "max_memory".to_owned()));
}
