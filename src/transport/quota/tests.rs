//! Quotas of bytes in flight, and the order of waiting messages.

use super::calls::{CALL_BYTES, FEWEST_STREAMS, QUEUED_CALL_BYTES};
use super::*;
use crate::service::Refusal;
use std::time::Duration;

fn in_flight(max: u64, max_per_connection: u64) -> (Arc<Ledger>, Arc<InFlight>) {
    let ledger = Arc::new(Ledger::new(1 << 30));
    (ledger.clone(), InFlight::new(ledger, move || max, max_per_connection, || {}))
}

fn connection(all: &Arc<InFlight>) -> Arc<Quota> {
    Quota::new(all.clone(), Traffic::default())
}

const MIB: u64 = 1 << 20;

#[test]
fn stalled_readers_leave_quota_for_others() {
    let (_, all) = in_flight(16 * MIB, 16 * MIB);
    let held: Vec<_> = (0..4)
        .map(|_| {
            let slow = connection(&all);
            let permits: Vec<_> = std::iter::from_fn(|| slow.try_reserve(64 << 10).ok()).collect();
            (slow.used(), permits)
        })
        .collect();
    let shares: Vec<_> = held.iter().map(|(used, _)| used * 100 / (12 * MIB)).collect();
    assert_eq!(shares, [66, 21, 7, 2], "percent of the quota of large messages");
    let writer = connection(&all);
    assert!(writer.try_reserve(64 << 10).is_ok(), "there is always free quota");
}

#[test]
fn large_messages_never_use_the_quota_of_small_ones() {
    let (_, all) = in_flight(4 * MIB, 8 * MIB);
    let large: Vec<_> = (0..100).filter_map(|_| connection(&all).try_reserve(MIB).ok()).collect();
    assert_eq!(large.len(), 3);
    let small: Vec<_> = (0..100).filter_map(|_| connection(&all).try_reserve(8 << 10).ok()).collect();
    assert_eq!(small.len(), 100, "a quarter is reserved for small messages");
}

#[test]
fn a_large_message_that_is_alone_may_have_any_size() {
    let (_, all) = in_flight(MIB, MIB);
    let quota = connection(&all);
    let only = quota.try_reserve(4 * MIB).unwrap();
    assert!(connection(&all).try_reserve(64 << 10).is_err());
    drop(only);
    assert!(connection(&all).try_reserve(64 << 10).is_ok());
    assert_eq!([100, 700_000, 2 * MIB].map(|len| quota.twice(len)), [200, 786_432, 2 * MIB]);
}

#[test]
fn a_reservation_takes_no_memory_until_it_is_charged() {
    let (ledger, all) = in_flight(16 * MIB, 16 * MIB);
    let quota = connection(&all);
    let before = ledger.in_flight();
    let mut permit = quota.try_reserve(3 * MIB).unwrap();
    assert_eq!((ledger.in_flight() - before, quota.used()), (0, 3 * MIB));
    permit.charge(100);
    assert_eq!(ledger.in_flight() - before, 100);
    drop(permit);
    assert_eq!((ledger.in_flight() - before, quota.used()), (0, 0));
    drop(quota);
    assert_eq!(ledger.total(), ledger.in_flight_kept(), "a connection is counted while it lives");
}

#[tokio::test]
async fn messages_that_wait_are_served_in_order() {
    let (_, all) = in_flight(4 * MIB, 8 * MIB);
    let quota = connection(&all);
    let first = quota.try_reserve(2 * MIB).unwrap();
    let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (quota, order) = (quota.clone(), order.clone());
        tasks.spawn(async move {
            let permit = quota.wait_for(2 * MIB, Duration::from_secs(60)).await.unwrap();
            order.send(number).unwrap();
            drop(permit);
        });
        tokio::task::yield_now().await;
    }
    assert!(served.try_recv().is_err(), "no message is served before there is room");
    drop(first);
    tasks.join_all().await;
    let order: Vec<_> = std::iter::from_fn(|| served.try_recv().ok()).collect();
    assert_eq!(order, (0..8).collect::<Vec<_>>());
    assert_eq!(quota.used(), 0);
}

#[tokio::test]
async fn a_connection_waiting_for_its_own_quota_blocks_no_other() {
    let (_, all) = in_flight(16 * MIB, 8 * MIB);
    let (slow, honest) = (connection(&all), connection(&all));
    let held: Vec<_> = std::iter::from_fn(|| slow.try_reserve(2 * MIB).ok()).collect();
    let waiting = tokio::spawn(slow.clone().wait_for(2 * MIB, Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let mut others = Vec::new();
    for _ in 0..20 {
        // With the bytes of the others, the slow message would not fit into the total either.
        others.push(connection(&all).try_reserve(MIB / 2));
        let permit = honest.clone().wait_for(MIB / 2, Duration::from_secs(60)).await.unwrap();
        drop(permit);
        others.truncate(2);
    }
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_message_times_out() {
    let (_, all) = in_flight(4 * MIB, 8 * MIB);
    let quota = connection(&all);
    let first = quota.try_reserve(2 * MIB).unwrap();
    let refused = quota.clone().wait_for(2 * MIB, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(refused, Refusal::InFlight { .. }), "{refused}");
    drop(first);
    assert!(quota.try_reserve(2 * MIB).is_ok(), "a message that gave up does not block others");
}

#[test]
fn every_connection_may_run_a_call() {
    let (_, all) = in_flight(MIB, MIB);
    let crowd: Vec<_> = (0..300).map(|_| connection(&all)).collect();
    let running: Vec<_> = crowd.iter().map(|quota| quota.try_run(0).expect("its first")).collect();
    assert!(crowd.iter().all(|quota| quota.try_run(0).is_none()), "no second call while all are busy");
    drop(running);
    let alone: Vec<_> = std::iter::from_fn(|| crowd[0].try_run(0)).collect();
    assert!(alone.len() as u64 * CALL_BYTES > MIB / 4, "a single connection may run many calls");
}

#[test]
fn the_longest_queue_drops_a_call_for_others() {
    let (_, all) = in_flight(MIB, MIB);
    let (greedy, honest) = (connection(&all), connection(&all));
    let mut queue: Vec<_> = std::iter::from_fn(|| greedy.try_queue(0)).collect();
    assert!(queue.len() as u64 * QUEUED_CALL_BYTES <= 2 * MIB);
    let own: Vec<_> = (0..10).map(|_| honest.try_queue(0).expect("its place")).collect();
    let mut given_up = 0;
    while let Some(last) = queue.pop() {
        if !greedy.take_excess(last.bytes()) {
            break;
        }
        given_up += 1;
    }
    assert_eq!(given_up, own.len());
    assert!(greedy.try_queue(8 * MIB).is_none());
}

#[test]
fn the_calls_of_all_connections_fit_the_queue() {
    let (_, all) = in_flight(4 * MIB, MIB);
    let mut open = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(all.streams(100));
        open.push(connection(&all));
    }
    assert_eq!((streams[0], streams[20], streams[299]), (100, 100, 8));
    assert_eq!((all.streams(1_000), all.streams(4)), (FEWEST_STREAMS, 4));
    let (_, small) = in_flight(MIB, MIB);
    assert_eq!(small.streams(100), 32);
}

#[test]
fn a_client_alone_may_fill_the_windows_of_all_its_calls() {
    let cases = [
        (256 * MIB, 128 << 10, (100, 128 << 10)),
        (32 * MIB, 128 << 10, (100, 80 << 10)),
        (16 * MIB, 128 << 10, (100, 64 << 10)),
        (4 * MIB, 128 << 10, (100, 32 << 10)),
        (2 * MIB, 128 << 10, (64, 16 << 10)),
        (MIB / 4, 128 << 10, (8, 16 << 10)),
        (16 * MIB, 4 << 10, (100, 4 << 10)),
    ];
    let found = cases.map(|(max, most, _)| {
        let (_, all) = in_flight(max, max);
        let streams = all.streams(100);
        let window = all.window(streams, most);
        let may_fill = max < MIB || connection(&all).may_hold(u64::from(streams) * u64::from(window)).is_ok();
        (max, most, (streams, window), may_fill)
    });
    assert_eq!(found, cases.map(|(max, most, expected)| (max, most, expected, true)));
}

#[test]
fn holders_of_unread_requests_leave_quota_for_others() {
    let (_, all) = in_flight(9 * MIB, 9 * MIB);
    let (first, second) = (connection(&all), connection(&all));
    assert!(first.may_hold(8 * MIB).is_ok() && first.may_hold(8 * MIB + 1).is_err());
    let held = first.hold(8 * MIB);
    assert!(first.may_hold(1).is_err());
    assert!(second.may_hold(MIB / 2).is_ok() && second.may_hold(MIB).is_err());
    drop(held);
    assert!(second.may_hold(8 * MIB).is_ok());
}

#[test]
fn only_a_connection_that_fills_the_queue_yields() {
    let (_, all) = in_flight(4 * MIB, MIB);
    let (greedy, honest) = (connection(&all), connection(&all));
    let _own: Vec<_> = (0..8).map(|_| honest.try_queue(0).expect("its place")).collect();
    let queue: Vec<_> = std::iter::from_fn(|| greedy.try_queue(0)).collect();
    assert_eq!((greedy.is_crowded(), honest.is_crowded()), (true, false));
    drop(queue);
    assert!(!greedy.is_crowded());
}

#[test]
fn unfinished_header_blocks_leave_quota_for_others() {
    let (ledger, all) = in_flight(16 * MIB, 16 * MIB);
    let mut crowd: Vec<_> = (0..250).map(|_| HeaderBlock::new(connection(&all))).collect();
    let held = crowd.iter_mut().filter_map(|block| block.resize(200 << 10).then_some(())).count();
    assert!((15..40).contains(&held), "{held} blocks of 200 KiB");
    assert!(ledger.in_flight() <= 8 * MIB, "{} bytes", ledger.in_flight());
    let mut usual = HeaderBlock::new(connection(&all));
    assert!(usual.resize(48 << 10), "a normal block still fits");
    assert!(usual.resize(600), "a short block costs nothing");
    crowd.retain(|block| block.bytes() > 0);
    assert!(crowd[0].resize(190 << 10), "a block that shrinks is never refused");
    crowd.clear();
    assert_eq!(ledger.in_flight(), 0);
    assert!(usual.resize(500 << 10), "the longest block fits without a crowd");
}

#[test]
fn parked_calls_do_not_run_and_leave_one_call_to_their_connection() {
    let (ledger, all) = in_flight(16 * MIB, 16 * MIB);
    let quota = connection(&all);
    quota.set_streams(4);
    let calls: Vec<_> = (0..4)
        .map(|_| CallQuota::new(quota.clone(), Duration::ZERO, None, quota.try_run(0).expect("the quota is free")))
        .collect();
    let running = |all: &InFlight| (all.running.load(Ordering::Relaxed), all.parked.load(Ordering::Relaxed));
    assert_eq!(running(&all), (4 * CALL_BYTES, 0));
    let parked: Vec<_> = calls.iter().filter_map(|call| call.park(0)).collect();
    assert_eq!((parked.len(), running(&all)), (3, (CALL_BYTES, 3 * CALL_BYTES)));
    assert_eq!(ledger.in_flight(), 4 * CALL_BYTES, "a parked call keeps its memory");
    drop(parked);
    assert_eq!(running(&all), (4 * CALL_BYTES, 0));
    assert!(calls[3].park(0).is_some());
    // What a parked call keeps, and waiting operations of a pipe, are charged, and take nothing from unread requests.
    let kept = calls[3].park(1_000);
    let operations: Vec<_> = (0..100).filter_map(|_| calls[0].park_operation(3_000)).collect();
    assert_eq!((operations.len(), ledger.in_flight()), (100, 4 * CALL_BYTES + 301_000));
    assert_eq!(all.held.load(Ordering::Relaxed), 0);
    drop((kept, operations));
    drop(calls);
    assert_eq!((running(&all), ledger.in_flight()), ((0, 0), 0));
    // All connections together park as many as may run.
    let crowd: Vec<_> = (0..2_000).map(|_| connection(&all)).collect();
    let calls =
        crowd.iter().map(|quota| CallQuota::new(quota.clone(), Duration::ZERO, None, quota.try_run(0).unwrap()));
    let calls: Vec<_> = calls.collect();
    let parked: Vec<_> = calls.iter().filter_map(|call| call.park(0)).collect();
    assert_eq!(parked.len() as u64, 8 * MIB / CALL_BYTES);
}
