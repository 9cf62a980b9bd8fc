//! Clients that stall.

use super::*;

#[tokio::test]
async fn closes_connections_without_a_handshake_and_keeps_others() {
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
async fn closes_silent_http_clients_and_answers_probes() {
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
