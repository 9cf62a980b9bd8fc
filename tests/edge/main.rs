//! Edge cases of the service: exhausted resources, stalled clients and disconnects.

#[path = "../common/mod.rs"]
mod common;
mod disconnects;
mod limits;
mod quotas;
mod timeouts;

use bytes::{BufMut, Bytes, BytesMut};
use common::{ASKING_BYTES, CALL_BYTES, Ebb, SERVE, eventually, metric, program, until};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::*;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use prost::Message;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

type Client = CacheServiceClient<Channel>;

/// The start of an HTTP/2 connection: the preface and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const MIB: u64 = 1 << 20;

fn start(settings: &[(&str, &str)], arguments: &[&str]) -> Ebb {
    let mut command = program();
    command.args(SERVE).args(arguments).envs(settings.iter().copied());
    Ebb::spawn(command)
}

async fn connect(address: &str) -> Client {
    CacheServiceClient::connect(format!("http://{address}")).await.expect("the server accepts")
}

async fn get(client: &mut Client) -> Result<(), Status> {
    client.get(GetRequest { key: "k".into(), ..Default::default() }).await.map(drop)
}

async fn is_answered(client: &mut Client) -> bool {
    get(client).await.is_ok()
}

async fn set(client: &mut Client, key: &str, bytes: u64) {
    let value = vec![7; bytes as usize].into();
    client.set(SetRequest { key: key.to_owned().into(), value, ..Default::default() }).await.unwrap();
}

type Admin = admin_service_client::AdminServiceClient<Channel>;

async fn admin(ebb: &Ebb) -> Admin {
    Admin::connect(format!("http://{}", ebb.admin)).await.unwrap()
}

async fn memory(admin: &Admin) -> MemoryAccount {
    admin.clone().get_stats(GetStatsRequest {}).await.unwrap().into_inner().memory.unwrap()
}

/// Bytes in flight, except for the call that reads them.
async fn in_flight(admin: &Admin) -> u64 {
    memory(admin).await.in_flight_bytes.saturating_sub(*ASKING_BYTES.end())
}

/// Limits the server to this many additional descriptors.
fn leave_descriptors(ebb: &Ebb, more: u64) {
    let open = std::fs::read_dir(format!("/proc/{}/fd", ebb.child.id())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + more), ..getrlimit(Resource::Nofile) };
    prlimit(Some(Pid::from_child(&ebb.child)), Resource::Nofile, limit).unwrap();
}

const REFUSED: &str = "Too many open files";

/// More connections than the server has descriptors for.
fn storm(ebb: &Ebb) -> Vec<TcpStream> {
    let storm = (0..20).map(|_| TcpStream::connect(&ebb.data).unwrap()).collect();
    until("a connection cannot be accepted", || refused(ebb) > 0);
    storm
}

/// Number of failed accepts: the log lines, and the suppressed ones that they report.
fn refused(ebb: &Ebb) -> usize {
    let suppressed = |line: &String| -> usize {
        let (_, rest) = line.split_once("suppressed=").expect("a line contains the number of suppressed ones");
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    // Other files that cannot be opened meanwhile have their own lines.
    ebb.lines("failed to accept connection")
        .iter()
        .filter(|line| line.contains(REFUSED))
        .map(|line| 1 + suppressed(line))
        .sum()
}

/// Waits until the server closes a connection; returns the duration.
fn closed(mut stream: impl Read) -> Duration {
    let since = Instant::now();
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    since.elapsed()
}

fn saying(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn get_operation() -> PipeRequest {
    let get = GetRequest { key: "k".into(), ..Default::default() };
    PipeRequest { id: 1, operation: Some(pipe_request::Operation::Get(get)) }
}

/// A client with hand-written frames and keepalive pings.
struct Raw {
    calls: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<()>,
}

struct Call {
    response: h2::client::ResponseFuture,
    body: SendStream<Bytes>,
}

impl Raw {
    async fn connect(ebb: &Ebb) -> Self {
        let stream = tokio::net::TcpStream::connect(&ebb.data).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // Closing the socket resets the connection.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        let (calls, mut connection) = h2::client::handshake(stream).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let both = async { drop(tokio::join!(connection, ping(pings))) };
        Self { calls, connection: tokio::spawn(both) }
    }

    async fn call(&mut self, method: &str) -> Call {
        let request = http::Request::post(format!("http://ebb/ebb.v1.CacheService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        self.calls = self.calls.clone().ready().await.unwrap();
        let (response, body) = self.calls.send_request(request.body(()).unwrap(), false).unwrap();
        Call { response, body }
    }

    /// Disconnects abruptly.
    async fn vanish(self) {
        self.connection.abort();
        let _ = self.connection.await;
    }
}

/// Pings ten times a second until the connection ends.
async fn ping(mut pings: h2::PingPong) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while pings.ping(h2::Ping::opaque()).await.is_ok() {
        ticks.tick().await;
    }
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn set_request(bytes: usize) -> SetRequest {
    SetRequest { key: "slow".into(), value: vec![7; bytes].into(), ..Default::default() }
}

async fn code(mut answer: http::Response<RecvStream>) -> Option<Code> {
    while let Some(Ok(data)) = answer.body_mut().data().await {
        let _ = answer.body_mut().flow_control().release_capacity(data.len());
    }
    let trailers = answer.body_mut().trailers().await.ok()?.unwrap_or_default();
    let status = answer.headers().get("grpc-status").or(trailers.get("grpc-status"))?;
    Some(Code::from_bytes(status.as_bytes()))
}

fn pipe_set(id: u64, bytes: usize) -> PipeRequest {
    let set = SetRequest { key: format!("{}", id % 100).into(), value: vec![7; bytes].into(), ..SetRequest::default() };
    PipeRequest { id, operation: Some(pipe_request::Operation::Set(set)) }
}

/// A server without stall detection, with 16 values of 1 MiB.
async fn patient() -> (Ebb, Admin) {
    let ebb = start(&[("EBB_WRITE_TIMEOUT", "1h")], &["--max-memory", "256Mi"]);
    let mut client = connect(&ebb.data).await;
    for i in 0..16 {
        set(&mut client, &format!("k{i}"), MIB).await;
    }
    let admin = admin(&ebb).await;
    eventually("nothing is in flight", async || in_flight(&admin).await == 0).await;
    (ebb, admin)
}

async fn vanishes_with(admin: &Admin, raw: Raw) {
    eventually("bytes are in flight", async || in_flight(admin).await > 32 << 10).await;
    raw.vanish().await;
    eventually("nothing is in flight", async || in_flight(admin).await == 0).await;
}

/// Memory files of both cgroup versions, with this limit.
struct Cgroup(tempfile::TempDir);

impl Cgroup {
    fn new(limit: &str) -> Self {
        let cgroup = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(cgroup.0.path().join("memory")).unwrap();
        for (name, text) in [("memory.max", limit), ("memory.stat", "anon 1\nrss 1\n")] {
            std::fs::write(cgroup.0.path().join(name), text).unwrap();
        }
        for (name, text) in [("limit_in_bytes", limit), ("stat", "rss 1\n")] {
            std::fs::write(cgroup.0.path().join(format!("memory/memory.{name}")), text).unwrap();
        }
        cgroup
    }

    /// Memory files that exist but cannot be read by any user.
    fn unreadable() -> Self {
        let cgroup = Self(tempfile::tempdir().unwrap());
        for name in ["memory.max", "memory.stat", "memory/memory.limit_in_bytes", "memory/memory.stat"] {
            std::fs::create_dir_all(cgroup.0.path().join(name)).unwrap();
        }
        cgroup
    }

    fn root(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }
}

async fn limit(ebb: &Ebb) -> (u64, String) {
    let memory = memory(&admin(ebb).await).await;
    (memory.limit_bytes / MIB, memory.limit_source)
}
