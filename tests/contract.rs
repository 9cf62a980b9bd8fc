//! What the proto promises about limits, batches, versions and negative entries.

mod common;

use bytes::Bytes;
use common::{Ebb, program, until};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::get_response::{MissReason, Outcome};
use ebb_proto::set_request::Condition;
use ebb_proto::*;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

type Client = CacheServiceClient<Channel>;

const MAX_VERSION: u64 = (1 << 53) - 1;

async fn connect(ebb: &Ebb) -> Client {
    let client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.expect("the server accepts");
    client.max_decoding_message_size(8 << 20).max_encoding_message_size(8 << 20)
}

fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> SetRequest {
    SetRequest { key: key.into(), value: value.into(), ..SetRequest::default() }
}

fn get(key: impl Into<Bytes>) -> GetRequest {
    GetRequest { key: key.into(), ..GetRequest::default() }
}

fn in_namespace(number: usize) -> SetRequest {
    SetRequest { namespace: format!("n{number}"), ..set("k", "v") }
}

async fn limits(client: &mut Client) -> GetCapabilitiesResponse {
    client.get_capabilities(GetCapabilitiesRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn only_a_stored_entry_creates_a_namespace() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let max = 1_024;
    for number in 0..max + 10 {
        let namespace = format!("unknown{number}");
        let read = client.get(GetRequest { namespace: namespace.clone(), ..get("k") }).await.unwrap().into_inner();
        assert_eq!((read.outcome(), read.miss_reason()), (Outcome::Miss, MissReason::UnknownKey));
        match number % 7 {
            0 => {
                let request = BatchGetRequest { keys: vec!["k".into()], namespace, ..Default::default() };
                assert_eq!(client.batch_get(request).await.unwrap().into_inner().results.len(), 1);
            }
            1 => {
                let request = DeleteRequest { key: "k".into(), namespace, ..Default::default() };
                let deleted = client.delete(request).await.unwrap().into_inner();
                assert_eq!(deleted.outcome(), delete_response::Outcome::NotFound);
            }
            2 => {
                let request = TouchRequest { key: "k".into(), namespace, ttl_ms: 1 };
                assert!(!client.touch(request).await.unwrap().into_inner().found);
            }
            3 => {
                let mut scan = client.scan(ScanRequest { namespace, ..Default::default() }).await.unwrap().into_inner();
                assert!(scan.message().await.unwrap().is_none_or(|portion| portion.entries.is_empty()));
            }
            4 => {
                let group = Some(invalidate_request::Group::WholeNamespace(true));
                let request = InvalidateRequest { namespace, group, ..Default::default() };
                assert_eq!(client.invalidate(request).await.unwrap().into_inner().generation, 0);
            }
            5 => {
                let request = IncrementRequest { key: "k".into(), namespace, delta: 1, ..Default::default() };
                assert!(!client.increment(request).await.unwrap().into_inner().found);
            }
            _ => {
                for condition in [Condition::IfPresent(true), Condition::IfVersion(7)] {
                    let condition = Some(condition);
                    let request = SetRequest { namespace: namespace.clone(), condition, ..set("k", "v") };
                    assert_ne!(
                        client.set(request).await.unwrap().into_inner().outcome(),
                        set_response::Outcome::Stored
                    );
                }
                let request = AppendRequest { key: "k".into(), namespace, ..Default::default() };
                assert!(!client.append(request).await.unwrap().into_inner().found);
            }
        }
    }
    for number in 1..max {
        client.set(in_namespace(number)).await.expect("no number was taken by reading");
    }
}

#[tokio::test]
async fn the_number_of_an_empty_namespace_is_reused() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let max = 1_024;
    for number in 1..max {
        client.set(in_namespace(number)).await.unwrap();
    }
    let refused = client.set(in_namespace(max)).await.unwrap_err();
    assert_eq!(refused.message(), "`namespace` would be one too many: all 1024 namespaces hold entries");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "TOO_MANY_NAMESPACES");
    client.set(set("k", "v")).await.expect("namespaces that exist go on");
    let delete = DeleteRequest { key: "k".into(), namespace: "n7".into(), ..Default::default() };
    client.delete(delete).await.unwrap();
    client.set(in_namespace(max)).await.expect("n7 is empty");
    let read = |number: usize| GetRequest { namespace: format!("n{number}"), ..get("k") };
    assert_eq!(client.get(read(7)).await.unwrap().into_inner().outcome(), Outcome::Miss, "nothing of its successor");
    assert_eq!(client.get(read(max)).await.unwrap().into_inner().value, "v");
    assert_eq!(client.get(read(8)).await.unwrap().into_inner().value, "v");
    let all = Some(invalidate_request::Group::WholeNamespace(true));
    let request = InvalidateRequest { namespace: "n9".into(), group: all, ..Default::default() };
    client.invalidate(request).await.unwrap();
    common::eventually("the cleaner has swept what is void", async || {
        connect(&ebb).await.set(in_namespace(max + 1)).await.is_ok()
    })
    .await;
    assert_eq!(client.get(read(9)).await.unwrap().into_inner().outcome(), Outcome::Miss);
}

#[tokio::test]
async fn one_malformed_item_refuses_itself_alone() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let huge = limits(&mut client).await.max_value_bytes as usize + 1;
    let items = vec![
        set("a", "1"),
        set("", "no key"),
        set("k".repeat(1_025), "long key"),
        set("b", vec![b'v'; huge]),
        SetRequest { namespace: "other".into(), ..set("c", "v") },
        SetRequest { jitter_percent: 51, ..set("d", "v") },
        SetRequest { tags: vec!["t".into()], ..set("e", "v") },
        set("f", "2"),
    ];
    let results = client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap().into_inner().results;
    let reasons: Vec<_> =
        results.iter().map(|r| r.refusal.as_ref().map_or("", |refusal| refusal.reason.as_str())).collect();
    let expected = [
        "",
        "FIELD_LENGTH",
        "FIELD_LENGTH",
        "VALUE_TOO_LARGE",
        "CONFLICTING_FIELDS",
        "OUT_OF_RANGE",
        "NOT_SUPPORTED",
        "",
    ];
    assert_eq!(reasons, expected);
    for result in &results {
        match &result.refusal {
            None => assert!(result.outcome() == set_response::Outcome::Stored && result.version > 0),
            Some(refusal) => {
                assert_eq!((result.outcome(), result.version), (set_response::Outcome::Refused, 0));
                assert!(refusal.code > 0 && refusal.retry_after_ms == 0 && refusal.message.len() > 10, "{refusal:?}");
            }
        }
    }
    let keys: Vec<Bytes> = vec!["a".into(), "".into(), "f".into(), vec![b'k'; 1_025].into(), "missing".into()];
    let request = BatchGetRequest { keys: keys.clone(), ..Default::default() };
    let results = client.batch_get(request).await.unwrap().into_inner().results;
    let got: Vec<_> = results.iter().map(|r| (r.outcome(), std::str::from_utf8(&r.value).unwrap())).collect();
    let refused = (Outcome::Refused, "");
    assert_eq!(got, [(Outcome::Hit, "1"), refused, (Outcome::Hit, "2"), refused, (Outcome::Miss, "")]);
    assert_eq!(results[1].refusal.as_ref().unwrap().message, "`key` has 0 bytes; it must have 1 to 1024");
    let request = BatchDeleteRequest { keys, ..Default::default() };
    let results = client.batch_delete(request).await.unwrap().into_inner().results;
    use delete_response::Outcome::{Deleted, NotFound, Refused};
    let outcomes: Vec<_> = results.iter().map(DeleteResponse::outcome).collect();
    assert_eq!(outcomes, [Deleted, Refused, Deleted, Refused, NotFound]);
    let nothing = client.batch_set(BatchSetRequest::default()).await.unwrap().into_inner();
    assert_eq!(nothing.results, []);
}

#[tokio::test]
async fn values_that_no_longer_fit_are_refused_one_by_one() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    for i in 0..8 {
        client.set(set(format!("k{i}"), vec![i; 1 << 20])).await.unwrap();
    }
    let max = limits(&mut client).await.max_batch_bytes;
    let keys: Vec<Bytes> = (0..8).map(|i| format!("k{i}").into()).chain([Bytes::from("missing")]).collect();
    let results = client.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap().into_inner().results;
    let hits = results.iter().take_while(|result| result.outcome() == Outcome::Hit).count();
    assert_eq!(hits as u64, (max / (1 << 20)).min(8), "as many as fit into {max} bytes");
    for result in &results[hits..8] {
        assert_eq!(result.refusal.as_ref().unwrap().reason, "RESPONSE_FULL");
    }
    assert_eq!(results[8].outcome(), Outcome::Miss, "what takes no room is answered");
}

#[tokio::test]
async fn the_largest_value_that_is_told_can_be_stored_and_read() {
    for (limit, arguments) in [
        ("16Mi", &[][..]),
        ("17Mi", &[]),
        ("24Mi", &[]),
        ("64Mi", &["--set", "3584Ki"]),
        ("256Mi", &["--set", "3584Ki"]),
        ("256Mi", &[]),
    ] {
        let mut command = program();
        if let [_, max_value] = arguments {
            command.env("EBB_MAX_VALUE", max_value);
        }
        let ebb = Ebb::spawn({
            command.args(common::SERVE).args(["--max-memory", limit]);
            command
        });
        let mut client = connect(&ebb).await;
        let max = limits(&mut client).await.max_value_bytes as usize;
        assert!(max >= 512 << 10, "{max} bytes at {limit}");
        // More than fits, so that room is made for it: within a small limit what was stored may have to go at once.
        let mut hits = 0;
        for round in 0..30_u8 {
            let key = format!("{:>1024}", round % 7);
            client.set(set(key.clone(), vec![round; max])).await.unwrap_or_else(|e| panic!("{limit} {round}: {e}"));
            let read = client.get(get(key)).await.unwrap().into_inner();
            if read.outcome() == Outcome::Hit {
                assert!(read.value.len() == max && read.value[0] == round, "{limit}");
                hits += 1;
            }
        }
        assert!(hits >= 10, "{hits} of 30 at {limit}");
        let refused = client.set(set("k", vec![0; max + 1])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{limit}: {refused}");
        let append = |bytes: usize| AppendRequest {
            key: "a".into(),
            value: vec![0; bytes].into(),
            create: true,
            ..Default::default()
        };
        assert_eq!(client.append(append(max + 1)).await.unwrap_err().code(), Code::InvalidArgument, "{limit}");
        if limit == "256Mi" {
            client.append(append(max - 1)).await.unwrap();
            assert_eq!(client.append(append(2)).await.unwrap_err().code(), Code::InvalidArgument, "{limit}");
            assert_eq!(client.append(append(1)).await.unwrap().into_inner().size as usize, max);
        }
        let request =
            BatchSetRequest { items: vec![set("small", "v"), set("large", vec![0; max + 1])], ..Default::default() };
        let results = client.batch_set(request).await.unwrap().into_inner().results;
        assert_eq!(results[1].refusal.as_ref().unwrap().reason, "VALUE_TOO_LARGE", "{limit}");
    }
}

#[tokio::test]
async fn what_can_never_fit_is_not_to_be_retried() {
    let ebb = Ebb::start(&["--max-memory", "16Mi"]);
    let mut client = connect(&ebb).await;
    let sizes = [(1 << 20, "VALUE_TOO_LARGE"), (3 << 20, "VALUE_TOO_LARGE"), (5 << 20, "MESSAGE_TOO_LARGE")];
    for (bytes, reason) in sizes {
        let append =
            AppendRequest { key: "k".into(), value: vec![0; bytes].into(), create: true, ..Default::default() };
        let items = vec![set("k", vec![0; bytes])];
        let batch = client.batch_set(BatchSetRequest { items, ..Default::default() }).await;
        for refused in [
            client.set(set("k", vec![0; bytes])).await.unwrap_err(),
            client.append(append).await.unwrap_err(),
            match batch {
                Err(refused) => refused,
                Ok(results) => {
                    let refusal = results.into_inner().results.remove(0).refusal.expect("it cannot fit");
                    assert_eq!((refusal.reason.as_str(), refusal.retry_after_ms), (reason, 0));
                    continue;
                }
            },
        ] {
            assert_eq!(refused.code(), Code::InvalidArgument, "{bytes}: {refused}");
            assert_eq!(refused.get_details_error_info().unwrap().reason, reason, "{refused}");
            assert!(refused.get_details_retry_info().is_none(), "{refused}");
        }
    }
    let keys = vec![Bytes::from("k"); 1_001];
    let items = vec![set("k", "v"); 1_001];
    let delete = BatchDeleteRequest { keys: keys.clone(), ..Default::default() };
    for refused in [
        client.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap_err(),
        client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap_err(),
        client.batch_delete(delete).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.get_details_retry_info().is_none(), "{refused}");
    }
}

#[tokio::test]
async fn capabilities_return_the_documented_limits() {
    let ebb = Ebb::start(&["--max-memory", "256Mi"]);
    let told = limits(&mut connect(&ebb).await).await;
    assert_eq!((told.max_key_bytes, told.max_value_bytes, told.max_batch_items), (1_024, 1 << 20, 1_000));
    assert_eq!((told.max_namespaces, told.max_namespace_bytes, told.max_request_id_bytes), (1_024, 128, 64));
    assert_eq!((told.max_tags, told.max_tag_bytes, told.max_jitter_percent), (16, 128, 50));
    assert_eq!((told.max_connections, told.max_calls_per_connection, told.max_header_bytes > 0), (256, 100, true));
    assert_eq!((told.max_in_flight_bytes, told.max_in_flight_bytes_per_connection), (16 << 20, 8 << 20));
    assert!(told.max_batch_bytes >= 4 << 20);
    let page = std::fs::read_to_string("docs/limits.md").unwrap();
    let section = page.split("## Limits").nth(1).unwrap().split("\n## ").next().unwrap();
    let section = section.split_whitespace().collect::<Vec<_>>().join(" ");
    for figure in ["1,024", "1 MiB", "3,584 KiB", "1,000", "256 connections", "100 calls", "8 MiB", "32 MiB", "1/16"] {
        assert!(section.contains(figure), "{figure}");
    }
}

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
    for (max_stale_ms, outcome) in
        [(None, Outcome::Stale), (Some(60_000), Outcome::Stale), (Some(0), Outcome::Miss), (None, Outcome::Stale)]
    {
        let read = client.get(GetRequest { max_stale_ms, ..get("k") }).await.unwrap().into_inner();
        assert_eq!(read.outcome(), outcome, "{max_stale_ms:?}");
        let batch = BatchGetRequest { keys: vec!["k".into()], max_stale_ms, ..Default::default() };
        let read = client.batch_get(batch).await.unwrap().into_inner();
        assert_eq!(read.results[0].outcome(), outcome, "{max_stale_ms:?}");
    }
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
    for (condition, outcome) in [
        (Condition::IfPresent(true), NotStored),
        (Condition::IfVersion(version + 1), Conflict),
        (Condition::IfVersion(0), Conflict),
        (Condition::IfVersion(version), Stored),
    ] {
        let answer = client.set(on(condition)).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), outcome, "{condition:?}");
        assert!(outcome == Stored || answer.version == version, "the entry's version is told");
    }
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

fn run(arguments: &[&str], input: &[u8]) -> serde_json::Value {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = program();
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&output.stdout)))
}

#[tokio::test]
async fn json_output_keeps_bytes_and_numbers_exact() {
    let ebb = Ebb::start(&[]);
    let json = ["--output", "json", "--addr", &ebb.data];
    let stored = run(&[&["set", "k", "-"][..], &json].concat(), b"\xff\x00\xfe");
    let version: u64 = stored["version"].as_str().expect("a 64-bit number is a string").parse().unwrap();
    let read = run(&[&["get", "k"][..], &json].concat(), b"");
    assert_eq!((&read["value_base64"], read.get("value")), (&"/wD+".into(), None));
    assert_eq!((&read["version"], &read["size"]), (&version.to_string().into(), &"3".into()));
    run(&[&["set", "k", "-"][..], &json].concat(), "caf\u{e9}".as_bytes());
    let read = run(&[&["get", "k"][..], &json].concat(), b"");
    assert_eq!((&read["value"], read.get("value_base64")), (&"caf\u{e9}".into(), None));
    let mut client = connect(&ebb).await;
    client.delete(DeleteRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    client.set(set(&b"\x80key"[..], &b"\xffvalue"[..])).await.unwrap();
    let row = run(&[&["scan", "--values"][..], &json].concat(), b"");
    assert_eq!((&row["key_base64"], &row["value_base64"]), (&"gGtleQ==".into(), &"/3ZhbHVl".into()));
    let stats = run(&["stats", "--output", "json", "--admin-addr", &ebb.admin], b"");
    assert_eq!((&stats["entries"], stats["memory"]["limit_bytes"].is_string()), (&"1".into(), true));
}

#[tokio::test]
async fn evenly_read_keys_are_not_hot() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let hot = ["keys", "--hot", "--output", "json", "--clear", "--admin-addr", &ebb.admin];
    let keys = |round: usize| (0..1_000).map(move |i| Bytes::from(format!("key-{}", round % 20 * 1_000 + i)));
    for round in 0..1_000 {
        let request = BatchGetRequest { keys: keys(round).collect(), ..Default::default() };
        client.batch_get(request).await.unwrap();
    }
    let even = run(&hot, b"");
    assert!(even["sampled"].as_str().unwrap().parse::<u64>().unwrap() > 2_000, "{even}");
    assert_eq!(even["keys"], serde_json::json!([]), "20,000 keys read equally");
    let output = program().args(["keys", "--hot", "--admin-addr", &ebb.admin]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("nothing is hot: no key stands out in a sample of "), "{said}");
    for round in 0..400 {
        let request = BatchGetRequest {
            keys: keys(round).take(700).chain(vec!["hot".into(); 300]).collect(),
            ..Default::default()
        };
        client.batch_get(request).await.unwrap();
    }
    let found = run(&hot, b"");
    assert_eq!((found["keys"].as_array().unwrap().len(), &found["keys"][0]["key"]), (1, &"hot".into()), "{found}");
    let share = found["keys"][0]["read_share_percent"].as_f64().unwrap();
    assert!((4.0..=11.0).contains(&share), "120,000 of 1,400,000 reads, and certainly no more: {share}");
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

fn doctor(ebb: &Ebb) -> String {
    let output = program().args(["doctor", "--admin-addr", &ebb.admin]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_limit_beyond_the_machine_is_named() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")).unwrap();
    let machine = kib.trim().parse::<u64>().unwrap() << 10;
    let files = tempfile::tempdir().unwrap();
    for (name, text) in [("memory.max", (machine + 4096).to_string()), ("memory.stat", "anon 1\n".to_owned())] {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    std::fs::create_dir(files.path().join("memory")).unwrap();
    for (name, text) in [("limit_in_bytes", (machine + 4096).to_string()), ("stat", "rss 1\n".to_owned())] {
        std::fs::write(files.path().join(format!("memory/memory.{name}")), text).unwrap();
    }
    for (root, arguments, named) in [
        ("/does/not/exist", &["--max-memory", "1Ti"][..], "max_memory"),
        (files.path().to_str().unwrap(), &[], "cgroup memory."),
    ] {
        let mut command = program();
        command.env("EBB_CGROUP_ROOT", root).args(common::SERVE).args(arguments);
        let ebb = Ebb::spawn(command);
        until("a warning is logged", || ebb.logged("memory limit exceeds the machine's memory") == 1);
        assert_eq!(ebb.metric("ebb_memory_limit_bytes "), machine, "{named}");
        assert_eq!(ebb.metric("ebb_memory_limit_source{source=\"machine memory\"} "), 1, "{named}");
        let found = doctor(&ebb);
        assert!(found.contains("limit_beyond_machine") && found.contains(named), "{found}");
        assert!(!found.contains("no_memory_limit"), "{found}");
    }
}
