//! The HTTP listener with clients that send too much, send too slowly, or do not read.

mod common;

use common::{Ebb, page, until};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// More clients than the listener's maximum.
const CROWD: usize = 80;

fn connect(ebb: &Ebb) -> TcpStream {
    let stream = TcpStream::connect(&ebb.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// Sends without reading until the server stops accepting data.
fn sending(ebb: &Ebb, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(ebb);
    let _ = stream.write_all(bytes); // the server may refuse in the middle
    stream
}

fn status(ebb: &Ebb, bytes: &[u8]) -> String {
    let mut line = String::new();
    let _ = BufReader::new(sending(ebb, bytes)).read_line(&mut line);
    line.trim_end().to_owned()
}

fn probes_are_answered(ebb: &Ebb) {
    let probes = ["/livez", "/readyz"];
    let found = probes.map(|path| (path, page(&ebb.http, path).map(|(status, _)| status)));
    assert_eq!(found, probes.map(|path| (path, Some(200))));
}

#[test]
fn probes_are_answered_beside_clients_that_read_nothing() {
    let ebb = Ebb::start(&[]);
    let asks = "GET /metrics HTTP/1.1\r\nHost: ebb\r\n\r\n".repeat(100);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(sending(&ebb, asks.as_bytes()));
        probes_are_answered(&ebb);
    }
    // New connections may exceed the cap for a moment.
    until("the crowd is closed down to the cap", || ebb.metric("ebb_http_connections ") <= 65);
    assert!(ebb.metric("ebb_http_closed_connections_total{reason=\"displaced\"} ") > 0);
    until("clients that read nothing are ended in time", || ebb.metric("ebb_http_connections ") == 1);
    assert!(ebb.metric("ebb_http_closed_connections_total{reason=\"stalled\"} ") > 0);
    assert_eq!(ebb.logged("closed a connection that kept others from being served"), 1, "one warning a minute");
    drop(crowd);
}

#[test]
fn probes_are_answered_beside_a_thousand_silent_connections() {
    let ebb = Ebb::start(&[]);
    let crowd: Vec<_> = (0..1_000).map(|_| connect(&ebb)).collect();
    probes_are_answered(&ebb);
    drop(crowd);
}

#[test]
fn unfinished_requests_are_bounded_and_given_back() {
    let ebb = Ebb::start(&[]);
    let before = ebb.rss_bytes();
    let header = format!("GET /livez HTTP/1.1\r\nHost: ebb\r\nX: {}", "x".repeat(400 << 10));
    let fields = format!("GET /livez HTTP/1.1\r\nHost: ebb\r\n{}", "a:\r\n".repeat(100 << 10));
    let body = "POST /livez HTTP/1.1\r\nHost: ebb\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        + &format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).repeat(6);
    let crowd: Vec<_> = [header, fields, body]
        .iter()
        .flat_map(|request| (0..64).map(|_| sending(&ebb, request.as_bytes())).collect::<Vec<_>>())
        .collect();
    probes_are_answered(&ebb);
    let grown = ebb.rss_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 76 MB of requests");
    drop(crowd);
    until("nothing but the connection that asks is charged", || ebb.metric("ebb_http_in_flight_bytes ") <= 100 << 10);
}

#[test]
fn oversized_requests_get_the_status_of_their_fault() {
    let ebb = Ebb::start(&[]);
    let with = |fields: &str| format!("GET /livez HTTP/1.1\r\nHost: ebb\r\n{fields}\r\n");
    let cookies = format!("Cookie: {}\r\n", "x".repeat(8 << 10));
    assert_eq!(status(&ebb, with(&cookies).as_bytes()), "HTTP/1.1 200 OK", "cookies of other ports of the host");
    let cases = [
        (format!("X: {}\r\n", "x".repeat(17 << 10)), "HTTP/1.1 431 Request Header Fields Too Large"),
        ("a: b\r\n".repeat(100), "HTTP/1.1 431 Request Header Fields Too Large"),
        ("Content-Length: 9\r\n".to_owned(), "HTTP/1.1 413 Payload Too Large"),
        ("Transfer-Encoding: chunked\r\n".to_owned(), "HTTP/1.1 413 Payload Too Large"),
        ("Content-Length: 0\r\n".to_owned(), "HTTP/1.1 200 OK"),
    ];
    let name = |fields: &str| fields.chars().take(20).collect::<String>();
    let found = cases.each_ref().map(|(fields, _)| (name(fields), status(&ebb, with(fields).as_bytes())));
    assert_eq!(found, cases.map(|(fields, expected)| (name(&fields), expected.to_owned())));
    let mut preface = connect(&ebb);
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let _ = preface.read(&mut [0; 64]).expect("the server closes");
    probes_are_answered(&ebb);
}

#[test]
fn the_live_page_consists_of_three_files_of_this_origin() {
    let ebb = Ebb::start(&[]);
    let files = [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")];
    let wrong: Vec<_> = files
        .into_iter()
        .filter_map(|(path, content_type)| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            sending(&ebb, request.as_bytes()).read_to_string(&mut answer).unwrap();
            let headers = answer.split("\r\n\r\n").next().unwrap();
            let expected = [
                "HTTP/1.1 200 OK".to_owned(),
                format!("content-type: {content_type}; charset=utf-8"),
                "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';".to_owned(),
                "x-content-type-options: nosniff".to_owned(),
            ];
            let is_missing = |line: &&String| !headers.contains(line.as_str());
            expected.iter().find(is_missing).map(|line| format!("{path}: {line:?} is not in {headers:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The answer to a request with these header fields.
fn answer(ebb: &Ebb, path: &str, fields: &str) -> String {
    let mut answer = String::new();
    let request = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    sending(ebb, request.as_bytes()).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_live_page_is_served_under_known_names_only() {
    let ebb = Ebb::start(&["--http-hosts", "ebb.example.com, cache.shop.svc"]);
    let own = format!("Host: {}\r\n", ebb.http);
    let status = |path: &str, fields: &str| answer(&ebb, path, fields).split(' ').nth(1).unwrap().to_owned();
    let mut wrong = Vec::new();
    for path in ["/", "/page.css", "/page.js"] {
        for fields in ["Host: localhost:7072\r\n", "Host: [::1]\r\n", "Host: EBB.example.com\r\n", &own] {
            wrong.extend(Some((path, fields)).filter(|_| status(path, fields) != "200"));
        }
    }
    for path in ["/", "/page.css", "/page.js", "/events"] {
        for fields in ["Host: evil.example:7072\r\n", "Host: 10.9.9.9\r\n", "", "Host: \u{1b}[2J\r\n"] {
            wrong.extend(Some((path, fields)).filter(|_| !["421", "400"].contains(&status(path, fields).as_str())));
        }
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        wrong.extend(Some((path, "Host: evil.example")).filter(|_| status(path, "Host: evil.example\r\n") != "200"));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    let refusal = answer(&ebb, "/events", "Host: evil.example\r\n");
    assert!(
        refusal.ends_with("host: \"evil.example\" is not a name of this server; add it to httpHosts\n"),
        "{refusal}"
    );
}

#[test]
fn no_response_is_stored_or_guessed() {
    let ebb = Ebb::start(&[]);
    let body = "Host: localhost\r\nContent-Length: 9\r\n";
    let requests = [("/", ""), ("/metrics", ""), ("/livez", ""), ("/none", ""), ("/page.js", ""), ("/", body)];
    let wrong: Vec<_> = requests
        .into_iter()
        .filter(|(path, fields)| {
            let answer = answer(&ebb, path, if fields.is_empty() { "Host: localhost\r\n" } else { fields });
            !answer.contains("x-content-type-options: nosniff\r\n") || !answer.contains("cache-control: no-store\r\n")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn one_peer_opens_eight_streams() {
    let ebb = Ebb::start(&[]);
    let open = || {
        let stream = sending(&ebb, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        (stream, line.trim_end().to_owned())
    };
    let mut streams: Vec<_> = (0..9).map(|_| open()).collect();
    let statuses: Vec<_> = streams.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(statuses[..8], ["HTTP/1.1 200 OK"; 8]);
    assert_eq!(statuses[8], "HTTP/1.1 503 Service Unavailable");
    streams.remove(0);
    until("a closed stream makes room", || open().1 == "HTTP/1.1 200 OK");
}

#[test]
fn the_live_page_streams_on_beside_a_crowd() {
    let ebb = Ebb::start(&[]);
    let mut viewer = connect(&ebb);
    viewer.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(viewer).lines().map(|line| line.expect("the stream goes on"));
    let mut events = |count| lines.by_ref().filter(|line| line == "event: now").take(count).count();
    assert_eq!(events(2), 2);
    let crowd: Vec<_> = (0..62).map(|_| connect(&ebb)).collect();
    assert_eq!(events(12), 12, "longer than the write timeout and the timeout of idle connections");
    probes_are_answered(&ebb);
    drop(crowd);
}
