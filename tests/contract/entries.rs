//! Entries: versions, stale and negative entries, and memory that a request leaves behind.

use crate::common::{Ebb, until};
use crate::{connect, get, set};
use bytes::Bytes;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::get_response::Outcome;
use ebb_proto::set_request::Condition;
use ebb_proto::*;
use tonic::transport::Channel;

const MAX_VERSION: u64 = (1 << 53) - 1;

#[tokio::test]
async fn versions_are_exact_in_a_double_and_grow_over_restarts() {
    let mut last = 0;
    for _ in 0..2 {
        let ebb = Ebb::start(&[]);
        let mut client = connect(&ebb).await;
        let first = client.set(set("k", "v")).await.unwrap().into_inner().version;
        assert!(first > last && first <= MAX_VERSION, "{first} after {last}");
        for round in 0..50_u32 {
            let version = client.get(get("k")).await.unwrap().into_inner().version;
            let rounded = (version as f64) as u64;
            let condition = Some(Condition::IfVersion(rounded));
            let stored =
                client.set(SetRequest { condition, ..set("k", round.to_string()) }).await.unwrap().into_inner();
            assert_eq!(stored.outcome(), set_response::Outcome::Stored, "a client of doubles never gets CONFLICT");
            last = stored.version;
        }
        let counted = IncrementRequest { key: "n".into(), delta: 1, initial: Some(0), ..Default::default() };
        assert!(client.increment(counted).await.unwrap().into_inner().version <= MAX_VERSION);
    }
}

#[tokio::test]
async fn a_reader_can_ask_for_fresh_values_only() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    client.set(set("k", "v")).await.unwrap();
    let stale = DeleteRequest { key: "k".into(), mode: delete_request::Mode::MarkStale.into(), ..Default::default() };
    client.delete(stale).await.unwrap();
    let cases =
        [(None, Outcome::Stale), (Some(60_000), Outcome::Stale), (Some(0), Outcome::Miss), (None, Outcome::Stale)];
    let mut found = Vec::new();
    for (max_stale_ms, _) in cases {
        let read = client.get(GetRequest { max_stale_ms, ..get("k") }).await.unwrap().into_inner();
        let batch = BatchGetRequest { keys: vec!["k".into()], max_stale_ms, ..Default::default() };
        let batch = client.batch_get(batch).await.unwrap().into_inner();
        found.push((max_stale_ms, read.outcome(), batch.results[0].outcome()));
    }
    assert_eq!(found, cases.map(|(max_stale_ms, outcome)| (max_stale_ms, outcome, outcome)));
}

#[tokio::test]
async fn a_negative_entry_is_an_entry_without_a_value() {
    use set_response::Outcome::{Conflict, NotStored, Stored};
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let fresh = async || {
        let request = SetRequest { negative: true, ttl_ms: 40_000, ..set("k", "") };
        connect(&ebb).await.set(request).await.unwrap().into_inner().version
    };
    let on = |condition| SetRequest { condition: Some(condition), ..set("k", "v") };
    let version = fresh().await;
    let mut wrong = Vec::new();
    for (condition, outcome) in [
        (Condition::IfPresent(true), NotStored),
        (Condition::IfVersion(version + 1), Conflict),
        (Condition::IfVersion(0), Conflict),
        (Condition::IfVersion(version), Stored),
    ] {
        let answer = client.set(on(condition)).await.unwrap().into_inner();
        let tells_version = outcome == Stored || answer.version == version;
        if answer.outcome() != outcome || !tells_version {
            wrong.push(format!("{condition:?}: {answer:?} instead of {outcome:?} and version {version}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    fresh().await;
    assert_eq!(client.set(on(Condition::IfAbsent(true))).await.unwrap().into_inner().outcome(), Stored);

    fresh().await;
    let add = IncrementRequest { key: "k".into(), delta: 2, ..Default::default() };
    assert!(!client.increment(add.clone()).await.unwrap().into_inner().found);
    let append = AppendRequest { key: "k".into(), value: "x".into(), ..Default::default() };
    assert!(!client.append(append.clone()).await.unwrap().into_inner().found);
    assert_eq!(client.get(get("k")).await.unwrap().into_inner().outcome(), Outcome::Negative, "unchanged");
    let appended = client.append(AppendRequest { create: true, ttl_ms: 5_000, ..append }).await.unwrap().into_inner();
    assert_eq!((appended.found, appended.size), (true, 1));
    let read = client.get(get("k")).await.unwrap().into_inner();
    assert!(read.value == "x" && read.ttl_ms <= 5_000, "a new entry with its own time to live: {read:?}");
    fresh().await;
    let created = IncrementRequest { initial: Some(40), ttl_ms: 5_000, ..add };
    assert_eq!(client.increment(created).await.unwrap().into_inner().value, 42);
    assert!(client.get(get("k")).await.unwrap().into_inner().ttl_ms <= 5_000);
}

#[tokio::test]
async fn remembered_requests_keep_no_part_of_the_stream() {
    let ebb = Ebb::start(&["--max-memory", "128Mi"]);
    let endpoint = Channel::from_shared(format!("http://{}", ebb.data)).unwrap();
    let mut client = CacheServiceClient::new(endpoint.connect().await.unwrap());
    let value = Bytes::from(vec![7; 1 << 20]);
    let operations = (0..600_u64).map(move |id| {
        let operation = match id % 2 {
            0 => pipe_request::Operation::Set(set("large", value.clone())),
            _ => {
                let request_id = format!("request-{id}");
                let key = format!("counter-{id}").into();
                let add = IncrementRequest { key, delta: 1, initial: Some(0), request_id, ..Default::default() };
                pipe_request::Operation::Increment(add)
            }
        };
        PipeRequest { id, operation: Some(operation) }
    });
    let mut results = client.pipe(tokio_stream::iter(operations)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(response) = results.message().await.unwrap() {
        assert!(!matches!(response.result, Some(pipe_response::Result::Error(_))), "{response:?}");
        answered += 1;
    }
    assert_eq!(answered, 600);
    until("the stream's memory is given back", || ebb.rss_bytes() < 64 << 20);
}
