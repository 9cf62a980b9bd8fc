//! Leases: one caller fills a key, the others wait or get a stale value.

use crate::common::{Ebb, eventually, metric};
use crate::{Client, connect, get, set};
use ebb_proto::delete_request::Mode;
use ebb_proto::get_response::Outcome;
use ebb_proto::invalidate_request::Group;
use ebb_proto::lease::State;
use ebb_proto::pipe_request::Operation;
use ebb_proto::set_request::Condition;
use ebb_proto::*;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;
use tonic::Code;

const TTL_MS: u64 = 60_000;

fn leased(key: &str, ttl_ms: u64, wait_ms: u64) -> GetRequest {
    GetRequest { lease: Some(LeaseRequest { ttl_ms, wait_ms }), ..get(key.to_owned()) }
}

fn fill(key: &str, value: &str, token: u64) -> SetRequest {
    SetRequest { condition: Some(Condition::LeaseToken(token)), ..set(key.to_owned(), value.to_owned()) }
}

/// Reads a key, and returns the outcome, the state of the lease and the token.
async fn read(client: &mut Client, request: GetRequest) -> (Outcome, State, u64) {
    let found = client.get(request).await.unwrap().into_inner();
    let lease = found.lease.unwrap_or_default();
    assert_eq!(lease.token != 0, lease.state() == State::Won, "{found:?}");
    assert!(lease.expires_in_ms <= TTL_MS, "{found:?}");
    (found.outcome(), lease.state(), lease.token)
}

async fn stored(client: &mut Client, request: SetRequest) -> set_response::Outcome {
    client.set(request).await.unwrap().into_inner().outcome()
}

/// Loads a key as an application does: returns the value, and whether this caller loaded it.
async fn load(client: &mut Client, http: &str, key: &str) -> (Vec<u8>, bool) {
    loop {
        let found = client.get(leased(key, TTL_MS, 20_000)).await.unwrap().into_inner();
        let lease = found.lease.unwrap_or_default();
        match (found.outcome(), lease.state()) {
            (Outcome::Hit, State::Unspecified) => return (found.value.to_vec(), false),
            (Outcome::Miss, State::Won) => {
                // The load takes so long that others wait for it.
                eventually("others wait", async || metric(http, "ebb_lease_waiters") > 0).await;
                assert_eq!(stored(client, fill(key, "loaded", lease.token)).await, set_response::Outcome::Stored);
                return (b"loaded".to_vec(), true);
            }
            // Its connection has no call left to wait with.
            (Outcome::Miss, State::HeldByOther) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_thousand_callers_of_a_cold_key_load_it_once() {
    let ebb = Ebb::start(&[]);
    // Ten calls at a time on each of a hundred connections, then all of them on one.
    for (key, connections) in [("spread", 100), ("crowded", 1)] {
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(connect(&ebb).await);
        }
        let callers: Vec<_> = (0..1_000)
            .map(|caller| {
                let (mut client, http) = (clients[caller % connections].clone(), ebb.http.clone());
                tokio::spawn(async move { load(&mut client, &http, key).await })
            })
            .collect();
        let mut loads = 0;
        for caller in callers {
            let (value, has_loaded) = caller.await.unwrap();
            assert_eq!(value, b"loaded");
            loads += usize::from(has_loaded);
        }
        assert_eq!(loads, 1, "{key}");
    }
    assert_eq!(ebb.metric("ebb_lease_fills_total"), 2);
    eventually("nobody waits, and no lease is left", async || {
        (ebb.metric("ebb_lease_waiters"), ebb.metric("ebb_leases")) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn the_lease_of_a_lost_holder_ends_and_one_other_caller_loads() {
    let ebb = Ebb::start(&[]);
    let mut holder = connect(&ebb).await;
    let began = Instant::now();
    assert_eq!(read(&mut holder, leased("k", 700, 0)).await.1, State::Won);
    drop(holder);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connect(&ebb).await);
    }
    let callers: Vec<_> = (0..200)
        .map(|caller| {
            let (mut client, http) = (clients[caller % 4].clone(), ebb.http.clone());
            tokio::spawn(async move { load(&mut client, &http, "k").await.1 })
        })
        .collect();
    let mut loads = 1;
    for caller in callers {
        loads += usize::from(caller.await.unwrap());
    }
    assert_eq!(loads, 2);
    assert!(began.elapsed() >= Duration::from_millis(700), "the lease is kept for its time");
}

#[tokio::test]
async fn a_caller_waits_for_its_time_and_not_beyond_its_deadline() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    read(&mut client, leased("k", TTL_MS, 0)).await;
    let began = Instant::now();
    assert_eq!(read(&mut client, leased("k", TTL_MS, 0)).await, (Outcome::Miss, State::HeldByOther, 0));
    assert_eq!(read(&mut client, leased("k", TTL_MS, 300)).await, (Outcome::Miss, State::HeldByOther, 0));
    assert!(began.elapsed() >= Duration::from_millis(300));
    // A wait as long as the deadline ends just before it.
    let mut request = tonic::Request::new(leased("k", TTL_MS, 3_000));
    request.set_timeout(Duration::from_secs(3));
    let answer = client.get(request).await.unwrap().into_inner();
    assert_eq!(answer.lease.unwrap().state(), State::HeldByOther);
    // A caller that leaves is no waiter any more.
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.get(leased("k", TTL_MS, 30_000)).await });
    eventually("it waits", async || ebb.metric("ebb_lease_waiters") == 1).await;
    waiting.abort();
    eventually("it has left", async || ebb.metric("ebb_lease_waiters") == 0).await;
}

#[tokio::test]
async fn a_caller_that_waits_does_not_delay_the_end_of_the_server() {
    let mut ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    read(&mut client, leased("k", TTL_MS, 0)).await;
    let keys = vec!["k".into()];
    let lease = Some(LeaseRequest { ttl_ms: TTL_MS, wait_ms: 60_000 });
    let (mut other, mut another) = (client.clone(), client.clone());
    let get = tokio::spawn(async move { other.get(leased("k", TTL_MS, 60_000)).await.unwrap_err().code() });
    let batch = BatchGetRequest { keys, lease, ..Default::default() };
    let batch = tokio::spawn(async move { another.batch_get(batch).await.unwrap_err().code() });
    eventually("both wait", async || ebb.metric("ebb_lease_waiters") == 2).await;
    let ended = tokio::task::spawn_blocking(move || ebb.terminate());
    assert_eq!((get.await.unwrap(), batch.await.unwrap()), (Code::Unavailable, Code::Unavailable));
    let (took, code) = ended.await.unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(code, Some(0));
}

/// Every call that changes a key, by its effect on a lease and on a caller that waits for it.
#[tokio::test]
async fn calls_that_change_a_key_end_its_lease() {
    let ebb = Ebb::start(&[]);
    let client = connect(&ebb).await;
    let delete = |mode: Mode, hold_off_ms| DeleteRequest {
        key: "k".into(),
        mode: mode.into(),
        hold_off_ms,
        ..Default::default()
    };
    let invalidate = |group, mark_stale| InvalidateRequest { namespace: String::new(), group: Some(group), mark_stale };
    let prefix = || Group::Prefix("k".into());
    let mut kept = Vec::new();
    for change in 0..13 {
        let mut client = client.clone();
        client.invalidate(invalidate(Group::WholeNamespace(true), false)).await.unwrap();
        let (_, state, token) = read(&mut client, leased("k", TTL_MS, 0)).await;
        assert_eq!(state, State::Won, "change {change}");
        let mut other = client.clone();
        let waiting = tokio::spawn(async move { read(&mut other, leased("k", TTL_MS, 30_000)).await });
        eventually("it waits", async || ebb.metric("ebb_lease_waiters") == 1).await;
        let name = match change {
            0 => client.set(set("k", "1")).await.map(|_| "Set"),
            1 => client.delete(delete(Mode::Unspecified, 0)).await.map(|_| "Delete"),
            2 => client.delete(delete(Mode::MarkStale, 0)).await.map(|_| "Delete MARK_STALE"),
            3 => client.delete(delete(Mode::Tombstone, 10)).await.map(|_| "Delete TOMBSTONE"),
            4 => client.invalidate(invalidate(prefix(), false)).await.map(|_| "Invalidate a prefix"),
            5 => client.invalidate(invalidate(prefix(), true)).await.map(|_| "Invalidate, marking stale"),
            6 => client.invalidate(invalidate(Group::WholeNamespace(true), false)).await.map(|_| "Invalidate all"),
            7 => {
                let request = IncrementRequest { key: "k".into(), delta: 1, initial: Some(0), ..Default::default() };
                client.increment(request).await.map(|_| "Increment")
            }
            8 => {
                let request = AppendRequest { key: "k".into(), value: "1".into(), create: true, ..Default::default() };
                client.append(request).await.map(|_| "Append")
            }
            9 => {
                let items = vec![set("k", "1")];
                client.batch_set(BatchSetRequest { items, ..Default::default() }).await.map(|_| "BatchSet")
            }
            10 => {
                let keys = vec!["k".into()];
                client.batch_delete(BatchDeleteRequest { keys, ..Default::default() }).await.map(|_| "BatchDelete")
            }
            11 => {
                client.touch(TouchRequest { key: "k".into(), ttl_ms: 9, ..Default::default() }).await.map(|_| "Touch")
            }
            _ => {
                let request = SetRequest { condition: Some(Condition::IfPresent(true)), ..set("k", "1") };
                client.set(request).await.map(|_| "Set if present")
            }
        };
        let name = name.unwrap();
        let outcome = stored(&mut client, fill("k", "2", token)).await;
        if outcome == set_response::Outcome::Stored {
            kept.push(name);
        } else {
            assert_eq!(outcome, set_response::Outcome::LeaseLost, "{name}");
        }
        // The waiting caller has the value, or the next lease.
        let (found, state, _) = waiting.await.unwrap();
        assert!(
            matches!((found, state), (Outcome::Hit, _) | (Outcome::Miss, State::Won)),
            "{name}: {found:?} {state:?}"
        );
    }
    assert_eq!(kept, ["Touch", "Set if present"]);
}

#[tokio::test]
async fn one_caller_refreshes_a_stale_value_and_the_others_are_served() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    for negative in [false, true] {
        let value = if negative { "" } else { "old" };
        client.set(SetRequest { negative, ttl_ms: 60_000, ..set("k", value) }).await.unwrap();
        let fresh = read(&mut client, leased("k", TTL_MS, 30_000)).await;
        assert_eq!((fresh.1, fresh.2), (State::Unspecified, 0), "a fresh entry needs no lease");
        let stale = DeleteRequest { key: "k".into(), mode: Mode::MarkStale.into(), ..Default::default() };
        client.delete(stale).await.unwrap();
        let served = if negative { Outcome::Negative } else { Outcome::Stale };
        let (outcome, state, token) = read(&mut client, leased("k", TTL_MS, 30_000)).await;
        assert_eq!((outcome, state), (served, State::Won));
        assert_eq!(read(&mut client, leased("k", TTL_MS, 30_000)).await, (served, State::HeldByOther, 0), "at once");
        // A caller that wants no stale value waits.
        let mut other = client.clone();
        let fresh = GetRequest { max_stale_ms: Some(0), ..leased("k", TTL_MS, 30_000) };
        let waiting = tokio::spawn(async move { read(&mut other, fresh).await });
        eventually("it waits", async || ebb.metric("ebb_lease_waiters") == 1).await;
        assert_eq!(stored(&mut client, fill("k", "new", token)).await, set_response::Outcome::Stored);
        assert_eq!(waiting.await.unwrap(), (Outcome::Hit, State::Unspecified, 0));
    }
}

#[tokio::test]
async fn a_tombstone_holds_off_fills_until_its_end() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    // The key has no entry, and its namespace is new.
    let tombstone = |hold_off_ms| DeleteRequest {
        key: "k".into(),
        namespace: "n".into(),
        mode: Mode::Tombstone.into(),
        hold_off_ms,
        ..Default::default()
    };
    let of = |request: GetRequest| GetRequest { namespace: "n".into(), ..request };
    assert_eq!(read(&mut client, of(leased("k", TTL_MS, 0))).await.1, State::Won);
    let answer = client.delete(tombstone(1_500)).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), delete_response::Outcome::NotFound);
    assert_eq!(read(&mut client, of(leased("k", TTL_MS, 0))).await, (Outcome::Miss, State::HeldOff, 0));
    // A Set without a lease ends a wait, not the hold-off.
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { read(&mut other, of(leased("k", TTL_MS, 30_000))).await });
    eventually("it waits", async || ebb.metric("ebb_lease_waiters") == 1).await;
    client.set(SetRequest { namespace: "n".into(), ..set("k", "v") }).await.unwrap();
    assert_eq!(waiting.await.unwrap().0, Outcome::Hit);
    client.delete(tombstone(1)).await.unwrap();
    assert_eq!(read(&mut client, of(leased("k", TTL_MS, 0))).await.1, State::HeldOff, "it is not shortened");
    // A caller that waits gets the lease at its end.
    assert_eq!(read(&mut client, of(leased("k", TTL_MS, 30_000))).await.1, State::Won);
}

#[tokio::test]
async fn a_batch_takes_the_leases_of_what_it_misses() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    client.set(set("hit", "v")).await.unwrap();
    let held = read(&mut client, leased("held", TTL_MS, 0)).await.2;
    let batch = |keys: &[&str], wait_ms| BatchGetRequest {
        keys: keys.iter().map(|key| (*key).to_owned().into()).collect(),
        lease: Some(LeaseRequest { ttl_ms: TTL_MS, wait_ms }),
        ..Default::default()
    };
    let states = |results: &[GetResponse]| -> Vec<_> {
        results.iter().map(|found| (found.outcome(), found.lease.unwrap_or_default().state())).collect()
    };
    // It does not wait, because it holds leases for which others may wait.
    let results =
        client.batch_get(batch(&["hit", "held", "a", "b", "a", ""], 30_000)).await.unwrap().into_inner().results;
    let won = (Outcome::Miss, State::Won);
    let other = (Outcome::Miss, State::HeldByOther);
    let none = State::Unspecified;
    assert_eq!(states(&results), [(Outcome::Hit, none), other, won, won, won, (Outcome::Refused, none)]);
    let token = |at: usize| results[at].lease.unwrap().token;
    assert_eq!(token(2), token(4), "the same key has one lease");
    assert_eq!(stored(&mut client, fill("b", "v", token(2))).await, set_response::Outcome::LeaseLost, "another key");
    let items = vec![fill("a", "v", token(2)), fill("b", "v", token(3))];
    let filled = client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap().into_inner();
    assert!(filled.results.iter().all(|result| result.outcome() == set_response::Outcome::Stored));
    // A batch that wins no lease waits for those of others.
    let mut another = client.clone();
    let waiting = tokio::spawn(async move { another.batch_get(batch(&["held", "a"], 30_000)).await });
    eventually("it waits", async || ebb.metric("ebb_lease_waiters") == 1).await;
    stored(&mut client, fill("held", "v", held)).await;
    let results = waiting.await.unwrap().unwrap().into_inner().results;
    assert_eq!(states(&results), [(Outcome::Hit, none); 2]);
}

#[tokio::test]
async fn a_pipe_goes_on_while_some_of_its_reads_wait() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let operation = |id, operation| PipeRequest { id, operation: Some(operation) };
    let (send, operations) = tokio::sync::mpsc::channel(16);
    let operations = tokio_stream::wrappers::ReceiverStream::new(operations);
    let mut results = client.pipe(operations).await.unwrap().into_inner();
    let mut next = async || {
        let result = results.next().await.unwrap().unwrap();
        let state = match &result.result {
            Some(pipe_response::Result::Get(found)) => found.lease.unwrap_or_default().state(),
            _ => State::Unspecified,
        };
        (result.id, state, result)
    };
    send.send(operation(1, Operation::Get(leased("k", TTL_MS, 0)))).await.unwrap();
    let (id, state, result) = next().await;
    let Some(pipe_response::Result::Get(found)) = result.result else { panic!("a Get returns a Get") };
    assert_eq!((id, state), (1, State::Won));
    for id in 2..5 {
        send.send(operation(id, Operation::Get(leased("k", TTL_MS, 30_000)))).await.unwrap();
    }
    send.send(operation(5, Operation::Get(leased("k", 0, 0)))).await.unwrap();
    let (id, _, refused) = next().await;
    let Some(pipe_response::Result::Error(refused)) = refused.result else { panic!("{refused:?}") };
    assert_eq!((id, refused.message), (5, "lease.ttl_ms: 0 is out of range (1 to 3600000)".to_owned()));
    send.send(operation(6, Operation::Set(fill("k", "v", found.lease.unwrap().token)))).await.unwrap();
    drop(send); // the pipe ends when all results have been sent
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(next().await.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, [2, 3, 4, 6]);
    assert!(results.next().await.is_none());
}

/// More reads of a pipe wait than may; the fill that follows them is read nevertheless, and others are not disturbed.
#[tokio::test]
async fn a_pipe_full_of_waiting_reads_takes_the_fill() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut client = connect(&ebb).await;
    let token = read(&mut client, leased("k", TTL_MS, 0)).await.2;
    let get = |id| PipeRequest { id, operation: Some(Operation::Get(leased("k", TTL_MS, 60_000))) };
    let (send, operations) = tokio::sync::mpsc::channel(2_000);
    let operations = tokio_stream::wrappers::ReceiverStream::new(operations);
    let mut results = client.pipe(operations).await.unwrap().into_inner();
    for id in 0..1_500 {
        send.send(get(id)).await.unwrap();
    }
    eventually("some wait", async || ebb.metric("ebb_lease_waiters") > 300).await;
    // Large messages of other connections pass.
    let mut other = connect(&ebb).await;
    for large in 0..4 {
        other.set(set(format!("large {large}"), vec![7; 900_000])).await.unwrap();
    }
    let fill = Operation::Set(fill("k", "v", token));
    send.send(PipeRequest { id: 9_999, operation: Some(fill) }).await.unwrap();
    drop(send);
    let (mut hits, mut held) = (0, 0);
    while let Some(result) = results.next().await {
        match result.unwrap().result.unwrap() {
            pipe_response::Result::Get(found) if found.outcome() == Outcome::Hit => hits += 1,
            pipe_response::Result::Get(found) => {
                assert_eq!(found.lease.unwrap().state(), State::HeldByOther);
                held += 1;
            }
            pipe_response::Result::Set(filled) => assert_eq!(filled.outcome(), set_response::Outcome::Stored),
            other => panic!("{other:?}"),
        }
    }
    assert!(hits > 300 && hits + held == 1_500, "{hits} hits, {held} answered at once");
    eventually("nothing is in flight", async || ebb.metric("ebb_in_flight_bytes") < 1 << 20).await;
}

/// Leases neither prevent tombstones nor keep namespaces.
#[tokio::test]
async fn readers_with_leases_do_not_hinder_writers() {
    let ebb = Ebb::start(&["--max-memory", "32Mi"]);
    let mut client = connect(&ebb).await;
    client.set(set("k", "old")).await.unwrap();
    let lease = Some(LeaseRequest { ttl_ms: 3_600_000, wait_ms: 0 });
    for part in 0..9 {
        let keys = (0..1_000).map(|i| format!("{part}-{i}").into()).collect();
        client.batch_get(BatchGetRequest { keys, lease, ..Default::default() }).await.unwrap();
    }
    assert_eq!(read(&mut client, leased("another", 1, 0)).await.1, State::Exhausted);
    let mode = Mode::Tombstone.into();
    let tombstone = DeleteRequest { key: "k".into(), mode, hold_off_ms: 60_000, ..Default::default() };
    client.delete(tombstone).await.unwrap();
    assert_eq!(client.get(get("k")).await.unwrap().into_inner().outcome(), Outcome::Miss);

    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let bound = client.get_capabilities(GetCapabilitiesRequest {}).await.unwrap().into_inner().max_namespaces;
    for n in 0..bound + 100 {
        let request = GetRequest { namespace: format!("n{n}"), lease, ..get("k") };
        assert_eq!(client.get(request).await.unwrap().into_inner().lease.unwrap().state(), State::Won, "{n}");
    }
    client.set(SetRequest { namespace: "new".into(), ..set("k", "v") }).await.unwrap();
    // The lease of a namespace that had to make room has ended.
    let first = GetRequest { namespace: "n0".into(), lease, ..get("k") };
    assert_eq!(client.get(first).await.unwrap().into_inner().lease.unwrap().state(), State::Won);
}

#[tokio::test]
async fn bad_requests_for_leases_name_field_and_bound() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let deadline = |request| {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(2));
        request
    };
    let plain = tonic::Request::new;
    let batch = BatchGetRequest {
        keys: vec!["k".into()],
        lease: Some(LeaseRequest { ttl_ms: 0, wait_ms: 0 }),
        ..Default::default()
    };
    let tombstone = |hold_off_ms| DeleteRequest {
        key: "k".into(),
        mode: Mode::Tombstone.into(),
        hold_off_ms,
        ..Default::default()
    };
    let cases = [
        (client.get(plain(leased("k", 0, 0))).await.map(drop), "lease.ttl_ms: 0 is out of range (1 to 3600000)"),
        (
            client.get(plain(leased("k", 3_600_001, 0))).await.map(drop),
            "lease.ttl_ms: 3600001 is out of range (1 to 3600000)",
        ),
        (
            client.get(plain(leased("k", 1, u64::MAX))).await.map(drop),
            "lease.wait_ms: 18446744073709551615 is out of range (0 to 3600000)",
        ),
        (client.get(deadline(leased("k", 1, 9_000))).await.map(drop), "lease.wait_ms: 9000 is out of range (0 to "),
        (client.get(plain(leased("", 1, 0))).await.map(drop), "key: length 0 is out of range"),
        (client.batch_get(batch).await.map(drop), "lease.ttl_ms: 0 is out of range"),
        (client.set(fill("k", "v", 0)).await.map(drop), "lease_token: 0 is out of range (1 to 9007199254740991)"),
        (client.set(fill("k", "v", u64::MAX)).await.map(drop), "lease_token: 18446744073709551615 is out of range"),
        (client.delete(tombstone(0)).await.map(drop), "hold_off_ms: 0 is out of range (1 to 3600000)"),
        (client.delete(tombstone(3_600_001)).await.map(drop), "hold_off_ms: 3600001 is out of range"),
        (
            client.delete(DeleteRequest { mode: 0, ..tombstone(1) }).await.map(drop),
            "hold_off_ms: cannot be set together with a mode other than TOMBSTONE",
        ),
        (
            client.set(SetRequest { soft_ttl_ms: 11, ttl_ms: 10, ..set("k", "v") }).await.map(drop),
            "soft_ttl_ms: 11 is out of range (0 to 10)",
        ),
        (
            client.set(SetRequest { ttl_ms: u64::MAX, ..set("k", "v") }).await.map(drop),
            "ttl_ms: 18446744073709551615 is out of range (0 to 9007199254740991)",
        ),
        (
            client.set(SetRequest { soft_ttl_ms: u64::MAX, ..set("k", "v") }).await.map(drop),
            "soft_ttl_ms: 18446744073709551615 is out of range",
        ),
        (
            client.touch(TouchRequest { key: "k".into(), ttl_ms: u64::MAX, ..Default::default() }).await.map(drop),
            "ttl_ms: 18446744073709551615 is out of range",
        ),
        (
            client.get(GetRequest { touch_ttl_ms: Some(u64::MAX), ..get("k") }).await.map(drop),
            "touch_ttl_ms: 18446744073709551615 is out of range",
        ),
    ];
    for (answer, message) in cases {
        let status = answer.expect_err(message);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with(message), "{:?} instead of {message:?}", status.message());
    }
    // None of them has taken a lease, and an unknown token is no error.
    assert_eq!(stored(&mut client, fill("k", "v", 1 << 40)).await, set_response::Outcome::LeaseLost);
    assert_eq!(ebb.metric("ebb_leases"), 0);
}

#[tokio::test]
async fn a_token_from_before_a_restart_is_lost() {
    let mut last = 0;
    for _ in 0..2 {
        let ebb = Ebb::start(&[]);
        let mut client = connect(&ebb).await;
        let (_, state, token) = read(&mut client, leased("k", TTL_MS, 0)).await;
        assert_eq!(state, State::Won);
        assert!(token > last && token < 1 << 53, "{token} after {last}");
        if last != 0 {
            assert_eq!(stored(&mut client, fill("k", "v", last)).await, set_response::Outcome::LeaseLost);
        }
        last = token;
    }
}

#[tokio::test]
async fn leases_are_bounded_and_a_read_beyond_them_is_answered() {
    let ebb = Ebb::start(&["--max-memory", "32Mi"]);
    let mut client = connect(&ebb).await;
    let bound = client.get_capabilities(GetCapabilitiesRequest {}).await.unwrap().into_inner().max_leases;
    let mut exhausted = 0;
    for first in (0..bound + 1_000).step_by(1_000) {
        let keys = (first..first + 1_000).map(|i| format!("{i:0200}").into()).collect();
        let lease = Some(LeaseRequest { ttl_ms: 1_500, wait_ms: 0 });
        let results =
            client.batch_get(BatchGetRequest { keys, lease, ..Default::default() }).await.unwrap().into_inner().results;
        let states = results.iter().map(|found| (found.outcome(), found.lease.unwrap().state()));
        exhausted += states.filter(|found| *found == (Outcome::Miss, State::Exhausted)).count();
    }
    assert!(exhausted > 0);
    // Without any request, the leases end and their memory returns.
    eventually("all leases have ended", async || ebb.metric("ebb_leases") == 0).await;
}
