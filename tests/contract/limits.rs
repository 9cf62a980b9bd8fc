//! Limits of values and batches: refusals of single items and of whole batches.

use crate::common::{self, Ebb, program};
use crate::{Client, connect, get, set};
use bytes::Bytes;
use ebb_proto::get_response::Outcome;
use ebb_proto::*;
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn limits(client: &mut Client) -> GetCapabilitiesResponse {
    client.get_capabilities(GetCapabilitiesRequest {}).await.unwrap().into_inner()
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
    assert_eq!(results[1].refusal.as_ref().unwrap().message, "key: length 0 is out of range (1 to 1024 bytes)");
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
    let rest = results[hits..8].iter().map(|result| result.refusal.as_ref().map(|refusal| refusal.reason.as_str()));
    assert_eq!(rest.collect::<Vec<_>>(), vec![Some("RESPONSE_FULL"); 8 - hits]);
    assert_eq!(results[8].outcome(), Outcome::Miss, "a miss needs no room");
}

#[tokio::test]
async fn the_largest_value_that_is_told_can_be_stored_and_read() {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
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
        check(max >= 512 << 10, format!("{limit}: the largest value has {max} bytes"));
        // Store more than fits, so that values are evicted; with a small limit, a stored value may be evicted at once.
        let mut hits = 0;
        for round in 0..30_u8 {
            let key = format!("{:>1024}", round % 7);
            client.set(set(key.clone(), vec![round; max])).await.unwrap_or_else(|e| panic!("{limit} {round}: {e}"));
            let read = client.get(get(key)).await.unwrap().into_inner();
            if read.outcome() == Outcome::Hit {
                let is_whole = read.value.len() == max && read.value[0] == round;
                check(is_whole, format!("{limit}: another value of {} bytes is read", read.value.len()));
                hits += 1;
            }
        }
        check(hits >= 10, format!("{limit}: {hits} of 30 are hits"));
        let is_invalid = |status: &Status| status.code() == Code::InvalidArgument;
        let found = client.set(set("k", vec![0; max + 1])).await.map(drop);
        check(found.as_ref().is_err_and(is_invalid), format!("{limit}: set beyond the maximum: {found:?}"));
        let append = |bytes: usize| AppendRequest {
            key: "a".into(),
            value: vec![0; bytes].into(),
            create: true,
            ..Default::default()
        };
        let found = client.append(append(max + 1)).await.map(drop);
        check(found.as_ref().is_err_and(is_invalid), format!("{limit}: append beyond the maximum: {found:?}"));
        if limit == "256Mi" {
            client.append(append(max - 1)).await.unwrap();
            let found = client.append(append(2)).await.map(drop);
            check(found.as_ref().is_err_and(is_invalid), format!("{limit}: append across the maximum: {found:?}"));
            let size = client.append(append(1)).await.map(|answer| answer.into_inner().size as usize);
            check(size.as_ref().is_ok_and(|size| *size == max), format!("{limit}: append up to {max}: {size:?}"));
        }
        let request =
            BatchSetRequest { items: vec![set("small", "v"), set("large", vec![0; max + 1])], ..Default::default() };
        let results = client.batch_set(request).await.unwrap().into_inner().results;
        let is_refused = results[1].refusal.as_ref().is_some_and(|refusal| refusal.reason == "VALUE_TOO_LARGE");
        check(is_refused, format!("{limit}: an item of a batch: {:?}", results[1]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_can_never_fit_is_not_to_be_retried() {
    let ebb = Ebb::start(&["--max-memory", "16Mi"]);
    let mut client = connect(&ebb).await;
    let sizes = [(1 << 20, "VALUE_TOO_LARGE"), (3 << 20, "VALUE_TOO_LARGE"), (5 << 20, "MESSAGE_TOO_LARGE")];
    let mut wrong = Vec::new();
    for (bytes, reason) in sizes {
        let append =
            AppendRequest { key: "k".into(), value: vec![0; bytes].into(), create: true, ..Default::default() };
        let items = vec![set("k", vec![0; bytes])];
        let batch = client.batch_set(BatchSetRequest { items, ..Default::default() }).await;
        let mut calls = vec![
            ("set", client.set(set("k", vec![0; bytes])).await.map(drop)),
            ("append", client.append(append).await.map(drop)),
        ];
        match batch {
            Err(refused) => calls.push(("batch", Err(refused))),
            Ok(results) => {
                let refusal = results.into_inner().results.remove(0).refusal.expect("it cannot fit");
                if (refusal.reason.as_str(), refusal.retry_after_ms) != (reason, 0) {
                    wrong.push(format!("batch item of {bytes} bytes: {refusal:?} instead of {reason}"));
                }
            }
        }
        let is_final = |refused: &Status| {
            let has_reason = refused.get_details_error_info().is_some_and(|info| info.reason == reason);
            refused.code() == Code::InvalidArgument && has_reason && refused.get_details_retry_info().is_none()
        };
        for (call, found) in calls {
            if !found.as_ref().is_err_and(is_final) {
                wrong.push(format!("{call} of {bytes} bytes: {found:?} instead of {reason}"));
            }
        }
    }
    let keys = vec![Bytes::from("k"); 1_001];
    let items = vec![set("k", "v"); 1_001];
    let delete = BatchDeleteRequest { keys: keys.clone(), ..Default::default() };
    let is_final =
        |refused: &Status| refused.code() == Code::InvalidArgument && refused.get_details_retry_info().is_none();
    for (call, found) in [
        ("batch_get", client.batch_get(BatchGetRequest { keys, ..Default::default() }).await.map(drop)),
        ("batch_set", client.batch_set(BatchSetRequest { items, ..Default::default() }).await.map(drop)),
        ("batch_delete", client.batch_delete(delete).await.map(drop)),
    ] {
        if !found.as_ref().is_err_and(is_final) {
            wrong.push(format!("{call} of 1,001 items: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    let figures = ["1,024", "1 MiB", "3,584 KiB", "1,000", "256 connections", "100 calls", "8 MiB", "32 MiB", "1/16"];
    let missing: Vec<_> = figures.into_iter().filter(|figure| !section.contains(figure)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {section}");
}
