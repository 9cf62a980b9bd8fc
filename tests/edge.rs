//! The edges of the service: what runs out, what stalls, and what goes away without a word.

mod common;

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

/// What an HTTP/2 client says first: its preface, and SETTINGS that set nothing.
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

/// But for the call that asks.
async fn in_flight(admin: &Admin) -> u64 {
    memory(admin).await.in_flight_bytes.saturating_sub(*ASKING_BYTES.end())
}

/// Lets the server have so many descriptors more than it has now.
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

/// How often accepting was refused: the lines of the log, and those that they say were left out.
fn refused(ebb: &Ebb) -> usize {
    let left_out = |line: &String| -> usize {
        let (_, rest) = line.split_once("left_out=").expect("a line says how many were left out");
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    // Whatever else cannot be opened meanwhile has a line of its own.
    ebb.lines("failed to accept connection")
        .iter()
        .filter(|line| line.contains(REFUSED))
        .map(|line| 1 + left_out(line))
        .sum()
}

#[tokio::test]
async fn without_descriptors_clients_are_answered_and_with_new_ones_more_come_in() {
    let ebb = start(&[], &[]);
    let mut before = connect(&ebb.data).await;
    assert!(is_answered(&mut before).await);
    leave_descriptors(&ebb, 4);
    let storm = storm(&ebb);
    let (since, already) = (Instant::now(), refused(&ebb));
    eventually("accepting is tried again", async || {
        get(&mut before.clone()).await.expect("who is connected is answered");
        refused(&ebb) >= already + 5
    })
    .await;
    let tries = (refused(&ebb) - already) as u128;
    // Some twenty a second, told late on a busy machine; a loop that spins comes to thousands.
    let most = (since.elapsed().as_millis() / 50 + 2) * 10;
    assert!(tries <= most, "it does not spin: {tries} tries, at most {most}");
    drop(storm);
    assert!(is_answered(&mut connect(&ebb.data).await).await, "descriptors are free again");
    assert!(is_answered(&mut before).await);
}

#[tokio::test]
async fn without_descriptors_the_limit_that_was_read_last_holds() {
    let cgroup = Cgroup::new(&(64 * MIB).to_string());
    let ebb = start(&[("EBB_CGROUP_ROOT", &cgroup.root()), ("EBB_DEFAULT_MEMORY", "128Mi")], &[]);
    let admin = admin(&ebb).await;
    assert_eq!(memory(&admin).await.limit_bytes, 64 * MIB);
    leave_descriptors(&ebb, 4);
    let _storm = storm(&ebb);
    eventually("accepting is tried again", async || {
        assert_eq!(memory(&admin).await.limit_bytes, 64 * MIB);
        refused(&ebb) > 10
    })
    .await;
}

/// Waits until the server closes a connection; says how long that took.
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

#[tokio::test]
async fn a_connection_without_a_handshake_is_closed_in_time_and_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ebb.sock");
    let ebb = start(&[("EBB_HANDSHAKE_TIMEOUT", "1s")], &["--socket", socket.to_str().unwrap()]);
    let mut client = connect(&ebb.data).await;
    assert!(is_answered(&mut client).await);
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let unshaken = [saying(&ebb.data, b""), saying(&ebb.data, &HELLO[..30]), saying(&ebb.admin, b"")];
    closed(silent);
    for stream in unshaken {
        assert!(closed(stream) < Duration::from_secs(10));
    }
    assert!(is_answered(&mut client).await);
}

#[tokio::test]
async fn an_http_client_that_does_not_say_what_it_wants_is_closed_and_never_keeps_a_probe_out() {
    let ebb = start(&[], &[]);
    let crowd: Vec<_> = (0..100).map(|_| saying(&ebb.http, b"GET /readyz HTTP/1.1\r\n")).collect();
    let mut probe = saying(&ebb.http, b"GET /readyz HTTP/1.1\r\nhost: ebb\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ready\n"), "{answer}");
    for stream in crowd {
        closed(stream);
    }
}

#[tokio::test]
async fn a_connection_without_calls_is_closed_after_the_idle_timeout() {
    let ebb = start(&[("EBB_IDLE_TIMEOUT", "1s"), ("EBB_WRITE_TIMEOUT", "1s")], &[]);
    let mut client = connect(&ebb.data).await;
    let (operations, receiver) = tokio::sync::mpsc::channel(1);
    let pipe = client.pipe(tokio_stream::wrappers::ReceiverStream::new(receiver));
    operations.send(get_operation()).await.unwrap();
    let mut results = pipe.await.unwrap().into_inner();
    assert!(results.message().await.unwrap().is_some());

    let mute = saying(&ebb.data, HELLO);
    let pinging = Raw::connect(&ebb).await;
    eventually("pings alone do not keep it", async || pinging.connection.is_finished()).await;
    assert!(closed(mute) < Duration::from_secs(10), "nor does silence");
    operations.send(get_operation()).await.unwrap();
    assert!(results.message().await.unwrap().is_some(), "one with a call open stays");
}

fn get_operation() -> PipeRequest {
    let get = GetRequest { key: "k".into(), ..Default::default() };
    PipeRequest { id: 1, operation: Some(pipe_request::Operation::Get(get)) }
}

#[tokio::test]
async fn one_connection_more_than_the_cap_waits_until_another_is_closed() {
    let ebb = start(&[("EBB_CONNECTIONS", "2")], &["--cores", "2"]);
    let (mut first, mut second) = (connect(&ebb.data).await, connect(&ebb.data).await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    let mut third = connect(&ebb.data).await;
    let waiting = tokio::spawn(async move { is_answered(&mut third).await });
    for _ in 0..200 {
        assert!(is_answered(&mut first).await && is_answered(&mut second).await, "those before it work on");
    }
    assert!(!waiting.is_finished(), "it waits");
    drop(first);
    assert!(waiting.await.unwrap(), "it is let in");
    assert!(is_answered(&mut second).await);
}

#[tokio::test]
async fn every_listener_is_served_whatever_the_cap() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ebb.sock");
    let ebb = start(&[("EBB_CONNECTIONS", "1")], &["--socket", socket.to_str().unwrap(), "--cores", "2"]);
    let unix = format!("unix:{}", socket.display());
    for address in [&unix, &unix, &ebb.data, &ebb.data] {
        let set = program().args(["set", "k", "v", "--addr", address]).status().unwrap();
        assert!(set.success(), "{address}");
    }
}

/// A client whose frames the test sends itself, and that asks all the time whether the server is there.
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
        // Closing it resets it.
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

    /// Goes away without a word.
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

#[tokio::test]
async fn large_requests_that_stall_take_no_memory_and_are_ended() {
    let ebb = start(&[("EBB_WRITE_TIMEOUT", "2s")], &["--max-memory", "64Mi"]);
    let (admin, mut other) = (admin(&ebb).await, connect(&ebb.data).await);
    let mut raw = Raw::connect(&ebb).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = raw.call("Set").await;
        call.body.send_data(framed(&set_request(MIB as usize)).slice(..100), false).unwrap();
        calls.push(call);
    }
    eventually("they are open", async || in_flight(&admin).await >= 20 * CALL_BYTES).await;
    let held = in_flight(&admin).await;
    assert!(held < MIB, "100 bytes of each have arrived, not 1 MiB: {held}");
    for i in 0..200 {
        set(&mut other, &format!("{i}"), 4 << 10).await;
    }
    set(&mut other, "large", MIB - 100).await;
    for call in calls {
        let ended = code(call.response.await.unwrap()).await;
        assert!(matches!(ended, Some(Code::DeadlineExceeded | Code::ResourceExhausted)), "{ended:?}");
    }
    assert!(!raw.connection.is_finished(), "the connection lives");
    eventually("nothing is in flight", async || in_flight(&admin).await == 0).await;
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_answered() {
    let ebb = start(&[("EBB_WRITE_TIMEOUT", "1s")], &[]);
    let admin = admin(&ebb).await;
    let mut raw = Raw::connect(&ebb).await;
    let mut call = raw.call("Set").await;
    let message = framed(&set_request(2_000));
    for at in 0..message.len() {
        call.body.send_data(message.slice(at..=at), at + 1 == message.len()).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(code(call.response.await.unwrap()).await, Some(Code::Ok));
    eventually("nothing is in flight", async || in_flight(&admin).await == 0).await;
}

fn pipe_set(id: u64, bytes: usize) -> PipeRequest {
    let set = SetRequest { key: format!("{}", id % 100).into(), value: vec![7; bytes].into(), ..SetRequest::default() };
    PipeRequest { id, operation: Some(pipe_request::Operation::Set(set)) }
}

#[tokio::test]
async fn pipes_that_are_written_and_never_read_hold_little_and_the_largest_are_ended() {
    // With few calls on each connection their windows are large, so that all connections together send too much.
    let environment = [("EBB_WRITE_TIMEOUT", "1h"), ("EBB_STREAM_WINDOW", "1Mi"), ("EBB_STREAMS", "2")];
    let ebb = start(&environment, &["--max-memory", "64Mi"]);
    let (admin, mut other) = (admin(&ebb).await, connect(&ebb.data).await);
    let mut pipes = Vec::new();
    for _ in 0..16 {
        let channel = Channel::from_shared(format!("http://{}", ebb.data)).unwrap();
        let channel = channel.initial_stream_window_size(65_535).connect().await.unwrap();
        for _ in 0..2 {
            let endless = tokio_stream::iter((0..).map(|id| pipe_set(id, 4 << 10)));
            pipes.push(CacheServiceClient::new(channel.clone()).pipe(endless).await.unwrap().into_inner());
        }
    }
    let refusals = || metric(&ebb.http, "ebb_refusals_total{reason=\"TOO_MUCH_IN_FLIGHT\"} ");
    eventually("some are ended", async || refusals() > 0).await;
    assert!(is_answered(&mut other).await, "others are served");
    let held = in_flight(&admin).await;
    // What is unread, and the messages of the calls that run.
    assert!(held > MIB / 4 && held < 8 * MIB, "{held}");
    assert!(ebb.rss_bytes() < 64 << 20, "it keeps to its limit: {} MiB", ebb.rss_bytes() >> 20);
    let mut ended = 0;
    for mut pipe in pipes {
        // What fits the client's window was answered before.
        for _ in 0..5_000 {
            // One that waits for room behind the others gets no answer.
            let Ok(answer) = tokio::time::timeout(Duration::from_secs(1), pipe.message()).await else { break };
            if let Err(status) = answer {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                ended += 1;
                break;
            }
        }
    }
    assert!(ended > 0);
}

// What they take is held against a limit by `tests/storm.sh`.
#[tokio::test]
async fn ten_thousand_calls_at_once_are_all_answered_within_a_small_limit() {
    let ebb = start(&[("EBB_STREAMS", "1000")], &["--max-memory", "64Mi"]);
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(connect(&ebb.data).await);
    }
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..10_000 {
        let mut client = clients[i % clients.len()].clone();
        calls.spawn(async move { client.get(GetRequest { key: "k".into(), ..Default::default() }).await });
    }
    for answer in calls.join_all().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_gives_up_all_its_calls_at_once_keeps_its_connection() {
    let ebb = start(&[], &[]);
    let mut raw = Raw::connect(&ebb).await;
    for _ in 0..20 {
        // Written in one go: the server reads calls and their ends together.
        raw.calls = raw.calls.clone().ready().await.unwrap();
        for _ in 0..90 {
            let request = http::Request::post("http://ebb/ebb.v1.CacheService/Set")
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let (_, mut body) = raw.calls.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(&[0]), false).unwrap();
            body.send_reset(h2::Reason::CANCEL);
        }
        let mut call = raw.call("Set").await;
        call.body.send_data(framed(&set_request(10)), true).unwrap();
        assert_eq!(code(call.response.await.unwrap()).await, Some(Code::Ok));
    }
}

/// A server whose watch does not help, with 16 values of 1 MiB.
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

#[tokio::test]
async fn a_client_that_vanishes_in_a_scan_leaves_nothing_in_flight() {
    let (ebb, admin) = patient().await;
    for _ in 0..5 {
        let mut raw = Raw::connect(&ebb).await;
        let mut scan = raw.call("Scan").await;
        let request = ScanRequest { with_values: true, ..Default::default() };
        scan.body.send_data(framed(&request), true).unwrap();
        let _unread = scan.response.await.unwrap();
        vanishes_with(&admin, raw).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_pipe_leaves_nothing_in_flight() {
    let (ebb, admin) = patient().await;
    for _ in 0..5 {
        let mut raw = Raw::connect(&ebb).await;
        let mut pipe = raw.call("Pipe").await;
        for i in 0..16 {
            let get = GetRequest { key: format!("k{i}").into(), ..Default::default() };
            let operation = PipeRequest { id: i, operation: Some(pipe_request::Operation::Get(get)) };
            pipe.body.send_data(framed(&operation), false).unwrap();
        }
        let _unread = pipe.response.await.unwrap();
        vanishes_with(&admin, raw).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_sends_leaves_nothing_in_flight() {
    let (ebb, admin) = patient().await;
    for method in ["Set", "Pipe"] {
        let mut raw = Raw::connect(&ebb).await;
        let mut call = raw.call(method).await;
        call.body.send_data(framed(&set_request(MIB as usize)).slice(..5_000), false).unwrap();
        vanishes_with(&admin, raw).await;
    }
}

/// Memory files as both versions of cgroups have them, with this limit.
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

    /// Files that are there and cannot be read, whoever asks.
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

#[tokio::test]
async fn without_a_cgroup_that_can_be_read_the_default_holds_with_a_warning() {
    let (unreadable, nonsense) = (Cgroup::unreadable(), Cgroup::new("lots"));
    for root in ["/does/not/exist", "/dev/null", &unreadable.root(), &nonsense.root()] {
        let settings = [("EBB_CGROUP_ROOT", root), ("EBB_DEFAULT_MEMORY", "48Mi")];
        let ebb = start(&settings, &[]);
        assert_eq!(limit(&ebb).await, (48, "default_memory".to_owned()), "{root}");
        until("it warns", || ebb.logged("no memory limit was found") == 1);
        assert!(is_answered(&mut connect(&ebb.data).await).await);
        let ebb = start(&settings, &["--max-memory", "32Mi"]);
        assert_eq!(limit(&ebb).await, (32, "max_memory".to_owned()), "{root}");
        until("it says which limit it obeys", || ebb.logged("max_memory") == 1);
        assert_eq!(ebb.logged("no memory limit was found"), 0, "{root}");
    }
}
