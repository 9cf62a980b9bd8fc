//! Requests and responses that stay in flight because clients do not read or finish them.

use super::*;

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
    // A stalled request keeps its quota for the write timeout; another request waits for quota as long.
    let large = SetRequest { key: "large".into(), value: vec![7; MIB as usize - 100].into(), ..Default::default() };
    eventually("a large value is stored", async || other.clone().set(large.clone()).await.is_ok()).await;
    for call in calls {
        let ended = code(call.response.await.unwrap()).await;
        assert!(matches!(ended, Some(Code::DeadlineExceeded | Code::ResourceExhausted)), "{ended:?}");
    }
    assert!(!raw.connection.is_finished(), "the connection lives");
    eventually("nothing is in flight", async || in_flight(&admin).await == 0).await;
}

#[tokio::test]
async fn unread_pipes_hold_few_bytes_and_the_largest_are_ended() {
    // With few calls per connection the windows are large, so that all connections together exceed the quota.
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
    // Unread bytes, and the messages of running calls.
    assert!(held > MIB / 4 && held < 8 * MIB, "{held}");
    assert!(ebb.rss_bytes() < 64 << 20, "it keeps to its limit: {} MiB", ebb.rss_bytes() >> 20);
    let mut ended = 0;
    for mut pipe in pipes {
        // Answers that fit the client's window were sent before the refusal.
        for _ in 0..5_000 {
            // A pipe that still waits for quota gets no answer.
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

// `tests/storm.sh` checks the memory of such calls against a limit.
#[tokio::test]
async fn answers_ten_thousand_concurrent_calls_in_a_small_limit() {
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
