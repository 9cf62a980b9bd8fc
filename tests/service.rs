//! The service with a stock client: every outcome and every refusal.

mod common;

use common::{ASKING_BYTES, Ebb, eventually};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::get_response::{MissReason, Outcome};
use ebb_proto::set_request::Condition;
use ebb_proto::*;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

type Client = CacheServiceClient<Channel>;

const MAX_TTL_MS: u64 = (1 << 53) - 1;

async fn connect(ebb: &Ebb) -> Client {
    let client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.expect("the server accepts");
    client.max_decoding_message_size(8 << 20).max_encoding_message_size(8 << 20)
}

fn set(key: &str, value: &str) -> SetRequest {
    SetRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..SetRequest::default() }
}

fn get(key: &str) -> GetRequest {
    GetRequest { key: key.to_owned().into(), ..GetRequest::default() }
}

async fn outcome(client: &mut Client, request: GetRequest) -> (Outcome, GetResponse) {
    let response = client.get(request).await.unwrap().into_inner();
    (response.outcome(), response)
}

#[tokio::test]
async fn a_value_is_set_read_touched_appended_and_deleted() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let (miss, response) = outcome(&mut client, get("k")).await;
    assert_eq!((miss, response.miss_reason()), (Outcome::Miss, MissReason::UnknownKey));

    let first = client.set(SetRequest { flags: 7, ttl_ms: 60_000, ..set("k", "v") }).await.unwrap().into_inner();
    assert_eq!(first.outcome(), set_response::Outcome::Stored);
    let (hit, response) = outcome(&mut client, get("k")).await;
    assert_eq!((hit, &response.value[..], response.flags), (Outcome::Hit, &b"v"[..], 7));
    assert!((1..=60_000).contains(&response.ttl_ms) && response.version == first.version);
    let (unchanged, response) =
        outcome(&mut client, GetRequest { if_version_differs: Some(first.version), ..get("k") }).await;
    assert_eq!((unchanged, response.value.len()), (Outcome::Unchanged, 0));

    let touched = client.touch(TouchRequest { key: "k".into(), ttl_ms: 0, ..TouchRequest::default() });
    assert_eq!(touched.await.unwrap().into_inner(), TouchResponse { found: true, version: first.version });
    assert_eq!(outcome(&mut client, get("k")).await.1.ttl_ms, 0, "for ever");
    let (_, response) = outcome(&mut client, GetRequest { touch_ttl_ms: Some(5_000), ..get("k") }).await;
    assert!((1..=5_000).contains(&response.ttl_ms));

    let append = AppendRequest { key: "k".into(), value: "+more".into(), ..AppendRequest::default() };
    let appended = client.append(append.clone()).await.unwrap().into_inner();
    assert_eq!((appended.found, appended.size), (true, 6));
    let absent = AppendRequest { key: "absent".into(), ..append };
    assert!(!client.append(absent.clone()).await.unwrap().into_inner().found);
    assert!(client.append(AppendRequest { create: true, ..absent }).await.unwrap().into_inner().found);

    let wrong = DeleteRequest { key: "k".into(), if_version: Some(1), ..DeleteRequest::default() };
    let conflict = client.delete(wrong.clone()).await.unwrap().into_inner();
    assert_eq!((conflict.outcome(), conflict.version), (delete_response::Outcome::Conflict, appended.version));
    let right = DeleteRequest { if_version: Some(appended.version), ..wrong };
    let deleted = client.delete(right.clone()).await.unwrap().into_inner();
    assert_eq!(deleted.outcome(), delete_response::Outcome::Deleted);
    let again = client.delete(right).await.unwrap().into_inner();
    assert_eq!(again.outcome(), delete_response::Outcome::NotFound);
}

#[tokio::test]
async fn conditions_staleness_and_negative_entries_fit_the_contract() {
    use set_response::Outcome as Stored;
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let mut attempt = async |request: SetRequest| client.set(request).await.unwrap().into_inner();
    let on = |condition| SetRequest { condition: Some(condition), ..set("k", "v") };
    assert_eq!(attempt(on(Condition::IfPresent(true))).await.outcome(), Stored::NotStored);
    let stored = attempt(on(Condition::IfAbsent(true))).await;
    assert_eq!(stored.outcome(), Stored::Stored);
    assert_eq!(attempt(on(Condition::IfAbsent(true))).await.outcome(), Stored::NotStored);
    let conflict = attempt(on(Condition::IfVersion(stored.version + 1))).await;
    assert_eq!((conflict.outcome(), conflict.version), (Stored::Conflict, stored.version));
    assert_eq!(attempt(on(Condition::IfVersion(stored.version))).await.outcome(), Stored::Stored);
    let kept = attempt(SetRequest { ttl_ms: 40_000, ..set("kept", "1") }).await;
    assert!(attempt(SetRequest { keep_ttl: true, ..set("kept", "2") }).await.version > kept.version);
    attempt(SetRequest { negative: true, ..set("none", "") }).await;
    attempt(SetRequest { soft_ttl_ms: 1, ..set("soft", "old") }).await;
    attempt(SetRequest { ttl_ms: 1, ..set("gone", "x") }).await;

    assert!(outcome(&mut client, get("kept")).await.1.ttl_ms > 30_000);
    assert_eq!(outcome(&mut client, get("none")).await.0, Outcome::Negative);
    let shared = std::sync::Arc::new(tokio::sync::Mutex::new(client.clone()));
    eventually("the value is stale", || async {
        let stale = outcome(&mut *shared.lock().await, GetRequest { max_stale_ms: Some(60_000), ..get("soft") }).await;
        stale.0 == Outcome::Stale && stale.1.value == "old"
    })
    .await;
    eventually("too stale is a miss", || async {
        outcome(&mut *shared.lock().await, GetRequest { max_stale_ms: Some(1), ..get("soft") }).await.0 == Outcome::Miss
    })
    .await;
    eventually("expired is a miss and says so", || async {
        let gone = outcome(&mut *shared.lock().await, get("gone")).await;
        (gone.0, gone.1.miss_reason()) == (Outcome::Miss, MissReason::Expired)
    })
    .await;
    let stale = DeleteRequest { key: "k".into(), mode: delete_request::Mode::MarkStale.into(), ..Default::default() };
    client.delete(stale).await.unwrap();
    assert_eq!(outcome(&mut client, get("k")).await.0, Outcome::Stale);
}

#[tokio::test]
async fn invalidation_voids_what_was_stored_before_and_nothing_after() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    for i in 0..500 {
        client.set(set(&format!("a/{i}"), "v")).await.unwrap();
        client.set(SetRequest { namespace: "other".into(), ..set(&format!("a/{i}"), "v") }).await.unwrap();
    }
    let group = Some(invalidate_request::Group::Prefix("a/".into()));
    let first = client.invalidate(InvalidateRequest { group, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(first.generation, 1);
    let (miss, response) = outcome(&mut client, get("a/1")).await;
    assert_eq!((miss, response.miss_reason()), (Outcome::Miss, MissReason::Invalidated));
    client.set(set("a/1", "new")).await.unwrap();
    let elsewhere = GetRequest { namespace: "other".into(), ..get("a/1") };
    assert_eq!(outcome(&mut client, elsewhere.clone()).await.0, Outcome::Hit);
    let scan = |namespace: &str| ScanRequest { namespace: namespace.into(), ..ScanRequest::default() };
    assert_eq!(scanned(&mut client, scan("")).await, ["a/1"]);
    assert_eq!(scanned(&mut client, scan("other")).await.len(), 500);
    let group = Some(invalidate_request::Group::WholeNamespace(true));
    let all = InvalidateRequest { namespace: "other".into(), group, ..Default::default() };
    client.invalidate(all).await.unwrap();
    assert_eq!(outcome(&mut client, elsewhere).await.0, Outcome::Miss);
    assert_eq!(outcome(&mut client, get("a/1")).await.0, Outcome::Hit, "stored after");
}

async fn scanned(client: &mut Client, request: ScanRequest) -> Vec<String> {
    let mut keys = Vec::new();
    let mut portions = client.scan(request).await.unwrap().into_inner();
    while let Some(portion) = portions.message().await.unwrap() {
        keys.extend(portion.entries.into_iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()));
    }
    keys.sort();
    keys
}

#[tokio::test]
async fn a_scan_can_be_cut_off_and_taken_up_again() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let items: Vec<_> = (0..900).map(|i| set(&format!("k{i:04}"), "value")).collect();
    client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    let (mut seen, mut page_token) = (std::collections::BTreeSet::new(), bytes::Bytes::new());
    loop {
        let request = ScanRequest { limit: 100, with_values: true, page_token, ..ScanRequest::default() };
        let mut portions = client.scan(request).await.unwrap().into_inner();
        page_token = bytes::Bytes::new();
        while let Some(portion) = portions.message().await.unwrap() {
            assert!(portion.entries.iter().all(|entry| entry.value == "value" && entry.size == 5));
            seen.extend(portion.entries.into_iter().map(|entry| entry.key));
            page_token = portion.next_page_token;
        }
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 900);
    let wrong = ScanRequest { page_token: "nonsense".into(), ..ScanRequest::default() };
    assert_eq!(client.scan(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn batches_answer_in_order_and_a_long_one_is_refused() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let items = vec![set("a", "1"), set("b", "2")];
    client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    let keys: Vec<bytes::Bytes> = vec!["b".into(), "missing".into(), "a".into()];
    let got = client.batch_get(BatchGetRequest { keys: keys.clone(), ..Default::default() }).await.unwrap();
    let values: Vec<_> = got.into_inner().results.into_iter().map(|result| (result.outcome(), result.value)).collect();
    let expected = [(Outcome::Hit, "2"), (Outcome::Miss, ""), (Outcome::Hit, "1")];
    assert!(values.iter().zip(expected).all(|(a, b)| a.0 == b.0 && a.1 == b.1), "{values:?}");
    let deleted = client.batch_delete(BatchDeleteRequest { keys, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(deleted.results.iter().filter(|r| r.outcome() == delete_response::Outcome::Deleted).count(), 2);

    let too_many = BatchGetRequest { keys: vec!["k".into(); 1_001], ..Default::default() };
    assert_eq!(client.batch_get(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    let too_many = BatchSetRequest { items: vec![set("good", "v"); 1_001], ..Default::default() };
    assert_eq!(client.batch_set(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(outcome(&mut client, get("good")).await.0, Outcome::Miss, "nothing of a refused batch is stored");
}

#[tokio::test]
async fn counters_add_saturate_and_answer_a_repeated_request_the_same() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let add = |delta| IncrementRequest { key: "n".into(), delta, ..IncrementRequest::default() };
    assert!(!client.increment(add(1)).await.unwrap().into_inner().found);
    let created = IncrementRequest { initial: Some(40), ..add(2) };
    assert_eq!(client.increment(created).await.unwrap().into_inner().value, 42);
    let once = IncrementRequest { request_id: "r1".into(), ..add(8) };
    let first = client.increment(once.clone()).await.unwrap().into_inner();
    assert_eq!((first.value, client.increment(once).await.unwrap().into_inner()), (50, first));
    assert_eq!(client.increment(add(i64::MAX)).await.unwrap().into_inner().value, i64::MAX);
    assert_eq!(client.increment(add(i64::MIN)).await.unwrap().into_inner().value, -1);
    client.set(set("n", "text")).await.unwrap();
    let refused = client.increment(add(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let long = IncrementRequest { request_id: "x".repeat(65), ..add(1) };
    assert_eq!(client.increment(long).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn contended_counters_and_compare_and_set_are_exact() {
    let ebb = Ebb::start(&["--cores", "2"]);
    let mut tasks = tokio::task::JoinSet::new();
    connect(&ebb).await.set(set("cas", "0")).await.unwrap();
    for _ in 0..4 {
        let mut client = connect(&ebb).await;
        tasks.spawn(async move {
            for _ in 0..250 {
                let add = IncrementRequest { key: "n".into(), delta: 1, initial: Some(0), ..Default::default() };
                client.increment(add).await.unwrap();
                loop {
                    let now = client.get(get("cas")).await.unwrap().into_inner();
                    let next = std::str::from_utf8(&now.value).unwrap().parse::<u64>().unwrap() + 1;
                    let condition = Some(Condition::IfVersion(now.version));
                    let request = SetRequest { condition, ..set("cas", &next.to_string()) };
                    if client.set(request).await.unwrap().into_inner().outcome() == set_response::Outcome::Stored {
                        break;
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let mut client = connect(&ebb).await;
    let (n, cas) = (outcome(&mut client, get("n")).await.1, outcome(&mut client, get("cas")).await.1);
    assert_eq!([("n", &*n.value), ("cas", &*cas.value)], [("n", &b"1000"[..]), ("cas", &b"1000"[..])]);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_the_bound() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let long = "k".repeat(1_025);
    let huge = "v".repeat((1 << 20) + 1);
    let tags = |n: usize, len: usize| vec!["t".repeat(len); n];
    let invalid = [
        (set("", "v"), "key: length 0 is out of range (1 to 1024 bytes)"),
        (set(&long, "v"), "key: length 1025 is out of range (1 to 1024 bytes)"),
        (set("k", &huge), "value: 1048577 bytes are too many (at most 1048576)"),
        (SetRequest { tags: tags(17, 1), ..set("k", "v") }, "tags: 17 items are too many (at most 16)"),
        (SetRequest { tags: tags(1, 129), ..set("k", "v") }, "tags: length 129 is out of range (1 to 128 bytes)"),
        (SetRequest { jitter_percent: 51, ..set("k", "v") }, "jitter_percent: 51 is out of range (0 to 50)"),
        (SetRequest { negative: true, ..set("k", "v") }, "value: cannot be set together with negative"),
        (SetRequest { keep_ttl: true, ttl_ms: 1, ..set("k", "v") }, "ttl_ms: cannot be set together with keep_ttl"),
        (
            SetRequest { namespace: "n".repeat(129), ..set("k", "v") },
            "namespace: length 129 is out of range (0 to 128 bytes)",
        ),
    ];
    let mut wrong = Vec::new();
    for (request, sentence) in invalid {
        let found = client.set(request).await;
        let is_refused = found.as_ref().is_err_and(|status| {
            let has_domain = status.get_details_error_info().is_some_and(|info| info.domain == "ebb-cache.io");
            (status.code(), status.message()) == (Code::InvalidArgument, sentence) && has_domain
        });
        if !is_refused {
            wrong.push(format!("{found:?} instead of {sentence}"));
        }
    }
    let tagged = client.set(SetRequest { tags: tags(1, 3), ..set("k", "v") }).await;
    if !tagged.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
        wrong.push(format!("tags: {tagged:?} instead of {:?}", Code::Unimplemented));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mode = DeleteRequest { key: "k".into(), mode: 99, ..DeleteRequest::default() };
    assert_eq!(client.delete(mode).await.unwrap_err().message(), "mode: 99 is not a known value");
    let nothing = InvalidateRequest::default();
    assert_eq!(client.invalidate(nothing).await.unwrap_err().message(), "group: must be set");
    let longest = SetRequest { ttl_ms: MAX_TTL_MS, soft_ttl_ms: MAX_TTL_MS, jitter_percent: 50, ..set("k", "v") };
    client.set(longest).await.unwrap();
    assert_eq!(outcome(&mut client, get("k")).await.0, Outcome::Hit, "the longest time to live");
    let append = AppendRequest { key: "k".into(), value: huge.into(), ..AppendRequest::default() };
    assert_eq!(client.append(append).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(outcome(&mut client, get("k")).await.1.value, "v", "the refused call changed nothing");
}

#[tokio::test]
async fn thirty_thousand_small_operations_pass_through_one_pipe() {
    let ebb = Ebb::start(&[]);
    let endpoint = Channel::from_shared(format!("http://{}", ebb.data)).unwrap();
    let channel = endpoint.initial_connection_window_size(16 << 20).connect().await.unwrap();
    let mut client = CacheServiceClient::new(channel);
    const OPERATIONS: u64 = 30_000;
    let operations = (0..OPERATIONS).map(|id| {
        let operation = match id % 3 {
            0 => pipe_request::Operation::Set(set(&format!("{}", id / 3), "v")),
            1 => pipe_request::Operation::Get(get(&format!("{}", id / 3))),
            _ => pipe_request::Operation::Get(get("")),
        };
        PipeRequest { id, operation: Some(operation) }
    });
    let mut results = client.pipe(tokio_stream::iter(operations)).await.unwrap().into_inner();
    let (mut answered, mut refused) = (0, 0);
    while let Some(response) = results.message().await.expect("the connection survives") {
        assert_eq!(response.window > 0, answered == 0, "announced once");
        match response.result.unwrap() {
            pipe_response::Result::Get(get) => assert_eq!(get.outcome(), Outcome::Hit, "{}", response.id),
            pipe_response::Result::Set(set) => assert_eq!(set.outcome(), set_response::Outcome::Stored),
            pipe_response::Result::Error(error) => {
                refused += 1;
                assert_eq!((error.code, response.id % 3), (Code::InvalidArgument as i32, 2), "ends its operation only");
            }
            other => panic!("{other:?}"),
        }
        answered += 1;
    }
    assert_eq!((answered, refused), (OPERATIONS, OPERATIONS / 3));
}

#[tokio::test]
async fn an_honest_burst_of_ten_thousand_calls_at_once_succeeds() {
    let ebb = Ebb::start(&[]);
    let client = connect(&ebb).await;
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..10_000 {
        let mut client = client.clone();
        calls.spawn(async move { client.set(set(&format!("{i}"), "v")).await.map(|_| ()) });
    }
    let failed = calls.join_all().await.into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn large_messages_wait_for_quota_at_every_limit() {
    let mut wrong = Vec::new();
    for limit in ["64Mi", "128Mi", "256Mi"] {
        let ebb = Ebb::start(&["--max-memory", limit]);
        let client = connect(&ebb).await;
        for bytes in [20_000, 33_000, 60_000, 250_000, 1_000_000] {
            let value = "x".repeat(bytes);
            let (mut sets, mut gets) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
            for i in 0..100 {
                let (mut client, request) = (client.clone(), set(&format!("{i}"), &value));
                sets.spawn(async move { client.set(request).await.map(|_| ()) });
            }
            let refused = sets.join_all().await.into_iter().filter_map(Result::err).collect::<Vec<_>>();
            if let Some(first) = refused.first() {
                wrong.push(format!("{} sets of {bytes} bytes at {limit}: {first}", refused.len()));
            }
            for i in 0..100 {
                let mut client = client.clone();
                gets.spawn(async move { client.get(get(&format!("{i}"))).await.map(|_| ()) });
            }
            let refused = gets.join_all().await.into_iter().filter_map(Result::err).collect::<Vec<_>>();
            if let Some(first) = refused.first() {
                wrong.push(format!("{} gets of {bytes} bytes at {limit}: {first}", refused.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_slow_reader_pins_its_share_and_what_it_held_comes_back() {
    let ebb = Ebb::start(&["--max-memory", "256Mi"]);
    let mut client = connect(&ebb).await;
    let value = "x".repeat(1 << 20);
    client.set(set("big", &value)).await.unwrap();
    let before = ebb.rss_bytes();
    let slow = Channel::from_shared(format!("http://{}", ebb.data)).unwrap();
    let slow = CacheServiceClient::new(slow.initial_stream_window_size(65_535).connect().await.unwrap());
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut slow = slow.clone();
        let scan = ScanRequest { with_values: true, ..ScanRequest::default() };
        held.push(slow.scan(scan).await); // the stream is not read
    }
    let in_flight = async || stats(&ebb).await.memory.unwrap().in_flight_bytes;
    assert!(in_flight().await <= 10 << 20, "{}", in_flight().await);
    assert!(ebb.rss_bytes() < before + (40 << 20), "{} MiB", ebb.rss_bytes() >> 20);
    assert_eq!(outcome(&mut client, get("big")).await.0, Outcome::Hit, "others are served");
    drop(held);
    drop(slow);
    eventually("nothing is in flight", async || ASKING_BYTES.contains(&in_flight().await)).await;
}

async fn stats(ebb: &Ebb) -> GetStatsResponse {
    let address = format!("http://{}", ebb.admin);
    let mut admin = admin_service_client::AdminServiceClient::connect(address).await.unwrap();
    admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn calls_that_are_cancelled_leave_nothing_in_flight() {
    let ebb = Ebb::start(&[]);
    let client = connect(&ebb).await;
    let value = "x".repeat(1 << 20);
    for round in 0..50 {
        let mut client = client.clone();
        let request = set(&format!("k{round}"), &value);
        let _ = tokio::time::timeout(Duration::from_micros(200 * round), client.set(request)).await;
    }
    drop(client);
    let in_flight = async || stats(&ebb).await.memory.unwrap().in_flight_bytes;
    eventually("nothing is in flight", async || ASKING_BYTES.contains(&in_flight().await)).await;
}

#[tokio::test]
async fn the_operator_sees_compacts_and_releases_memory() {
    use admin_service_client::AdminServiceClient;
    let ebb = Ebb::start(&["--max-memory", "128Mi"]);
    let mut client = connect(&ebb).await;
    for chunk in 0..40 {
        let items = (0..1_000).map(|i| set(&format!("{chunk}-{i}"), &"v".repeat(200))).collect();
        client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    }
    let mut admin = AdminServiceClient::connect(format!("http://{}", ebb.admin)).await.unwrap();
    let now = stats(&ebb).await;
    let memory = now.memory.as_ref().unwrap();
    assert!(memory.used_bytes > 1 << 20, "it has been read, however young the server is: {memory:?}");
    assert_eq!((now.entries, memory.limit_bytes, memory.limit_source.as_str()), (40_000, 128 << 20, "max_memory"));
    let mut updates = admin.compact(CompactRequest::default()).await.unwrap().into_inner();
    let mut receipt = None;
    while let Some(update) = updates.message().await.unwrap() {
        assert!(receipt.is_none(), "the receipt is the end");
        if let Some(compact_response::Update::Receipt(last)) = update.update {
            receipt = Some(last);
        }
    }
    assert_eq!(receipt.unwrap().reason, "requested");
    let target = ebb.rss_bytes() - (4 << 20);
    let release = ReleaseMemoryRequest { target_bytes: target, timeout_ms: 20_000 };
    let released = admin.release_memory(release).await.unwrap().into_inner();
    assert!(released.reached, "{released:?}");
    let receipts = async |admin: &mut AdminServiceClient<_>| {
        admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().receipts.len()
    };
    let before = receipts(&mut admin).await;
    let beyond = ReleaseMemoryRequest { target_bytes: 1, timeout_ms: 1_000 };
    assert!(!admin.release_memory(beyond).await.unwrap().into_inner().reached);
    let runs = receipts(&mut admin).await - before;
    assert!(runs <= 2, "an unreachable target does not cause repeated runs: {runs} runs");
    assert!(stats(&ebb).await.entries < 40_000, "live items had to go for it");
    let mut watched = admin.watch_stats(WatchStatsRequest { interval_ms: 100 }).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().unwrap().stats.is_some());
    let too_often = admin.watch_stats(WatchStatsRequest { interval_ms: 1 }).await.unwrap_err();
    assert_eq!(too_often.code(), Code::InvalidArgument);
    assert!(admin.diagnose(DiagnoseRequest {}).await.is_ok());
}
