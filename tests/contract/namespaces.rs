//! Creation of namespaces, and reuse of their numbers.

use crate::common::{self, Ebb};
use crate::{connect, get, set};
use ebb_proto::get_response::{MissReason, Outcome};
use ebb_proto::set_request::Condition;
use ebb_proto::*;
use tonic_types::StatusExt;

fn in_namespace(number: usize) -> SetRequest {
    SetRequest { namespace: format!("n{number}"), ..set("k", "v") }
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
    assert_eq!(refused.message(), "namespace: cannot create another; all 1024 namespaces hold entries");
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
