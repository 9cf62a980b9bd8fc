//! Clients that cancel or disconnect.

use super::*;

#[tokio::test]
async fn a_client_that_cancels_all_calls_keeps_its_connection() {
    let ebb = start(&[], &[]);
    let mut raw = Raw::connect(&ebb).await;
    for _ in 0..20 {
        // One write, so that the server reads calls and their ends together.
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
async fn no_bytes_stay_in_flight_after_a_client_disconnects() {
    let (ebb, admin) = patient().await;
    for method in ["Set", "Pipe"] {
        let mut raw = Raw::connect(&ebb).await;
        let mut call = raw.call(method).await;
        call.body.send_data(framed(&set_request(MIB as usize)).slice(..5_000), false).unwrap();
        vanishes_with(&admin, raw).await;
    }
}
