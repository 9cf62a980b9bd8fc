//! Listeners: health, reflection, and requests that are not gRPC calls.

mod common;

use bytes::Bytes;
use common::{Ebb, eventually, program, until};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::health::health_check_response::ServingStatus;
use ebb_proto::health::health_client::HealthClient;
use ebb_proto::health::{HealthCheckRequest, HealthListRequest};
use ebb_proto::*;
use prost::Message;
use prost_types::FileDescriptorProto;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;

const CACHE: &str = "ebb.v1.CacheService";
const ADMIN: &str = "ebb.v1.AdminService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Both listeners, each with its own service and the other's.
fn listeners(ebb: &Ebb) -> [(&str, &'static str, &'static str); 2] {
    [(&ebb.data, CACHE, ADMIN), (&ebb.admin, ADMIN, CACHE)]
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_knows_the_services_of_its_listener_alone() {
    let ebb = Ebb::start(&[]);
    let mut wrong = Vec::new();
    for (address, own, other) in listeners(&ebb) {
        let mut health = HealthClient::new(channel(address).await);
        for service in ["", own] {
            let answer = health.check(named(service)).await.map(|answer| answer.into_inner().status());
            if !matches!(answer, Ok(ServingStatus::Serving)) {
                wrong.push(format!("{service:?} at {own}: {answer:?}"));
            }
        }
        for service in [other, HEALTH, "ebb.v1", "x"] {
            let answer = health.check(named(service)).await.map(|answer| answer.into_inner().status());
            if !answer.as_ref().is_err_and(|refused| refused.code() == Code::NotFound) {
                wrong.push(format!("{service:?} at {own}: {answer:?}"));
            }
        }
        let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
        let names: BTreeSet<_> = listed.keys().map(String::as_str).collect();
        let are_serving = listed.values().all(|one| one.status() == ServingStatus::Serving);
        if !are_serving || names != BTreeSet::from(["", own]) {
            wrong.push(format!("the list at {own}: {listed:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_stays_open() {
    let mut ebb = Ebb::start(&[]);
    let (mut watches, mut wrong) = (Vec::new(), Vec::new());
    for (address, own, other) in listeners(&ebb) {
        let mut health = HealthClient::new(channel(address).await);
        for (service, expected) in [
            (own, ServingStatus::Serving),
            ("", ServingStatus::Serving),
            (other, ServingStatus::ServiceUnknown),
            ("x", ServingStatus::ServiceUnknown),
        ] {
            let mut watch = health.watch(named(service)).await.unwrap().into_inner();
            let first = watch.message().await.unwrap().unwrap();
            if first.status() != expected {
                wrong.push(format!("{service:?} at {own}: {:?} instead of {expected:?}", first.status()));
            }
            watches.push((watch, expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ended = tokio::task::spawn_blocking(move || ebb.terminate());
    for (mut watch, first) in watches {
        // The watch was open until now; otherwise it would have ended with OK.
        if first == ServingStatus::Serving {
            let next = watch.message().await.unwrap().unwrap();
            assert_eq!(next.status(), ServingStatus::NotServing);
        }
        assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(ended.await.unwrap().1, Some(0));
}

/// A client of one version of reflection, with one stream per request.
macro_rules! reflection {
    ($name:ident, $version:ident) => {
        mod $name {
            use tonic::{Status, transport::Channel};
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            async fn ask(channel: &Channel, message: MessageRequest) -> Result<MessageResponse, Status> {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
                let asked = ServerReflectionClient::new(channel.clone())
                    .server_reflection_info(tokio_stream::iter([request]))
                    .await?;
                Ok(asked.into_inner().message().await?.unwrap().message_response.unwrap())
            }

            pub(super) async fn services(channel: &Channel) -> Vec<String> {
                match ask(channel, MessageRequest::ListServices(String::new())).await.unwrap() {
                    MessageResponse::ListServicesResponse(list) => {
                        list.service.into_iter().map(|one| one.name).collect()
                    }
                    other => panic!("{other:?}"),
                }
            }

            async fn files(channel: &Channel, message: MessageRequest) -> Option<Vec<Vec<u8>>> {
                match ask(channel, message).await {
                    Ok(MessageResponse::FileDescriptorResponse(files)) => Some(files.file_descriptor_proto),
                    _ => None,
                }
            }

            pub(super) async fn with_symbol(channel: &Channel, symbol: &str) -> Option<Vec<Vec<u8>>> {
                files(channel, MessageRequest::FileContainingSymbol(symbol.to_owned())).await
            }

            pub(super) async fn with_name(channel: &Channel, name: &str) -> Option<Vec<Vec<u8>>> {
                files(channel, MessageRequest::FileByFilename(name.to_owned())).await
            }
        }
    };
}

reflection!(v1, v1);
reflection!(v1alpha, v1alpha);

macro_rules! describes_its_listener {
    ($version:ident) => {
        let ebb = Ebb::start(&[]);
        let mut wrong = Vec::new();
        for (address, own, other) in listeners(&ebb) {
            let channel = channel(address).await;
            let services = $version::services(&channel).await;
            let expected = BTreeSet::from([own, HEALTH, REFLECTION[0], REFLECTION[1]]);
            let each_once = services.len() == expected.len();
            if !each_once || services.iter().map(String::as_str).collect::<BTreeSet<_>>() != expected {
                wrong.push(format!("the list at {own}: {services:?}"));
            }
            for service in expected {
                let files = $version::with_symbol(&channel, service).await.unwrap();
                let mut to_resolve = files.clone();
                let mut described = false;
                while let Some(file) = to_resolve.pop() {
                    let file = FileDescriptorProto::decode(&*file).unwrap();
                    described |= file.service.iter().any(|one| format!("{}.{}", file.package(), one.name()) == service);
                    for import in &file.dependency {
                        to_resolve.extend($version::with_name(&channel, import).await.expect(import));
                    }
                }
                if !described {
                    wrong.push(format!("{service} at {own} is not described"));
                }
            }
            for symbol in [other, &format!("{other}.Get"), "ebb.v1.Nothing"] {
                if $version::with_symbol(&channel, symbol).await.is_some() {
                    wrong.push(format!("{symbol} at {own} is described"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    };
}

#[tokio::test]
async fn reflection_v1_describes_what_its_listener_serves() {
    describes_its_listener!(v1);
}

#[tokio::test]
async fn reflection_v1alpha_describes_what_its_listener_serves() {
    describes_its_listener!(v1alpha);
}

/// The HTTP status of a request, its `grpc-status` and the headers of the answer.
async fn answer(
    address: &str,
    request: http::Request<()>,
    body: &'static [u8],
) -> (u16, Option<Code>, http::HeaderMap) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (calls, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = calls.ready().await.unwrap();
    let (response, mut stream) = calls.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        let _ = stream.send_data(Bytes::from_static(body), true); // the answer may come first
    }
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let status = head.headers.get("grpc-status").or(trailers.get("grpc-status"));
    let code = status.map(|status| Code::from_bytes(status.as_bytes()));
    drop(calls);
    connection.abort();
    (head.status.as_u16(), code, head.headers)
}

fn post(address: &str, path: &str, content_types: &[&str]) -> http::Request<()> {
    let request = http::Request::post(format!("http://{address}{path}")).header("te", "trailers");
    content_types.iter().fold(request, |request, value| request.header("content-type", *value)).body(()).unwrap()
}

fn rejected(ebb: &Ebb, kind: &str) -> u64 {
    ebb.metric(&format!("ebb_transport_rejections_total{{kind=\"{kind}\"}} "))
}

const REJECTED: &str = "rejected a client with the wrong protocol or port";

#[tokio::test]
async fn another_method_than_post_is_answered_with_405() {
    let ebb = Ebb::start(&[]);
    let (address, path) = (&ebb.data, "/ebb.v1.CacheService/Get");
    let (mut count, mut wrong) = (0, Vec::new());
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for content_types in [&[][..], &["application/grpc"]] {
            let mut request = post(address, path, content_types);
            *request.method_mut() = method.parse().unwrap();
            let (status, code, headers) = answer(address, request, b"").await;
            let allowed = headers.get("allow");
            if (status, code) != (405, Some(Code::Unimplemented)) || allowed.is_none_or(|allowed| allowed != "POST") {
                wrong.push(format!("{method} of {content_types:?}: {status}, {code:?}, allowed {allowed:?}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rejected(&ebb, "http_method"), count);
    until("one line of the log", || ebb.logged(REJECTED) == 1);
    assert!(ebb.lines(REJECTED)[0].contains("http_method"));
}

#[tokio::test]
async fn a_content_type_that_is_not_served_is_answered_with_415() {
    let ebb = Ebb::start(&[]);
    let kinds: [&[&str]; 6] = [
        &[],
        &["application/json"],
        &["application/grpc+json"],
        &["application/grpc-web"],
        &["text/plain"],
        &["application/grpc", "application/json"],
    ];
    let mut wrong = Vec::new();
    for (address, service) in [(&ebb.data, "/ebb.v1.CacheService/Get"), (&ebb.admin, "/ebb.v1.AdminService/GetStats")] {
        for content_types in kinds {
            let request = post(address, service, content_types);
            let (status, code, _) = answer(address, request, b"\0\0\0\0\x03\x0a\x01k").await;
            if (status, code) != (415, Some(Code::InvalidArgument)) {
                wrong.push(format!("{content_types:?} at {service}: {status}, {code:?}"));
            }
        }
    }
    assert_eq!(rejected(&ebb, "content_type"), 2 * kinds.len() as u64);
    for content_type in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
        let request = post(&ebb.data, "/ebb.v1.CacheService/Get", &[content_type]);
        let (status, code, _) = answer(&ebb.data, request, b"\0\0\0\0\x03\x0a\x01k").await;
        if (status, code) != (200, Some(Code::Ok)) {
            wrong.push(format!("{content_type}: {status}, {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_method_that_the_listener_lacks_is_unimplemented() {
    let ebb = Ebb::start(&[]);
    let (mut count, mut wrong) = (0, Vec::new());
    for (address, own, other) in listeners(&ebb) {
        let paths = [
            format!("/{own}/Nothing"),
            format!("/{other}/{}", if other == ADMIN { "GetStats" } else { "Get" }),
            "/".to_owned(),
            "/x".to_owned(),
            format!("/{own}"),
            format!("/{own}/"),
            "/grpc.health.v1.Health/Nothing".to_owned(),
        ];
        for path in paths {
            let (status, code, _) = answer(address, post(address, &path, &["application/grpc"]), b"\0\0\0\0\0").await;
            if (status, code) != (200, Some(Code::Unimplemented)) {
                wrong.push(format!("{path} at {own}: {status}, {code:?}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rejected(&ebb, "unknown_method"), count);
    let calls = || ebb.metric("ebb_requests_total{method=\"other\",code=\"unimplemented\"} ");
    // Only the Get at the admin listener has another method label.
    until("they count as calls", || calls() == count - 1);
}

#[tokio::test]
async fn other_protocols_are_refused_and_counted_by_kind() {
    let ebb = Ebb::start(&[]);
    let cases: [(&[u8], &[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nhost: ebb\r\n\r\n", b"HTTP/1.1 505 ", "http1"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[21, 3, 1, 0, 2, 2, 70], "tls"),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR ", "redis"),
        (b"\0\0\0\x04\0\0\0\0\0hello there, whoever", &[0, 0, 8, 7], "unknown_protocol"),
    ];
    let mut wrong = Vec::new();
    for (sent, expected, kind) in cases {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(&ebb.data).unwrap();
            stream.write_all(sent).unwrap();
            let mut answer = Vec::new();
            // A reset may follow the answer, because the server stops reading.
            let _ = stream.read_to_end(&mut answer);
            if !answer.starts_with(expected) {
                wrong.push(format!("{kind}: {}", answer.escape_ascii()));
            }
        }
        let count = rejected(&ebb, kind);
        if count != 3 {
            wrong.push(format!("{kind}: {count} rejections are counted"));
        }
        let lines = || ebb.lines(REJECTED).iter().filter(|line| line.contains(kind)).count();
        until(&format!("one line of the log names {kind}"), || lines() == 1);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn refused_items_of_a_batch_are_counted_by_reason() {
    let ebb = Ebb::start(&[]);
    let mut client = CacheServiceClient::new(channel(&ebb.data).await).max_decoding_message_size(8 << 20);
    let refused = |reason: &str| ebb.metric(&format!("ebb_refusals_total{{reason=\"{reason}\"}} "));
    let set = |key: String, value: usize| SetRequest {
        key: key.into(),
        value: vec![7; value].into(),
        ..SetRequest::default()
    };
    let items = vec![set("k".into(), 1), set(String::new(), 1), set("x".repeat(2_000), 1), set("big".into(), 2 << 20)];
    let results = client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap().into_inner().results;
    let refusals = results.iter().filter_map(|result| result.refusal.as_ref());
    let reasons: Vec<_> = refusals.map(|refusal| refusal.reason.clone()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    let counted = reasons.iter().map(|reason| (reason, refused(reason)));
    let expected = reasons.iter().map(|reason| {
        let same = reasons.iter().filter(|other| *other == reason).count() as u64;
        (reason, same)
    });
    assert_eq!(counted.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let before = refused(&reasons[0]);
    let keys = vec![Bytes::from_static(b"k"), Bytes::new()];
    client.batch_get(BatchGetRequest { keys: keys.clone(), ..Default::default() }).await.unwrap();
    client.batch_delete(BatchDeleteRequest { keys, ..Default::default() }).await.unwrap();
    assert_eq!(refused(&reasons[0]), before + 2);
    eventually("the calls themselves are OK", async || {
        let ok = |method: &str| ebb.metric(&format!("ebb_requests_total{{method=\"{method}\",code=\"ok\"}} "));
        ["batch_set", "batch_get", "batch_delete"].iter().all(|method| ok(method) == 1)
    })
    .await;
}

#[tokio::test]
async fn capabilities_return_every_limit_of_the_readme() {
    let mut command = program();
    command.args(common::SERVE).env("EBB_WRITE_TIMEOUT", "7s");
    let ebb = Ebb::spawn(command);
    let mut client = CacheServiceClient::new(channel(&ebb.data).await);
    let limits = client.get_capabilities(GetCapabilitiesRequest {}).await.unwrap().into_inner();
    assert_eq!((limits.max_key_bytes, limits.max_value_bytes, limits.max_batch_items), (1_024, 1 << 20, 1_000));
    assert_eq!((limits.max_namespaces, limits.max_namespace_bytes), (1_024, 128));
    assert_eq!((limits.max_connections, limits.max_calls_per_connection), (256, 100));
    assert_eq!((limits.max_header_bytes, limits.max_header_entries), (16 << 10, 128));
    assert_eq!((limits.max_version, limits.write_timeout_ms), ((1 << 53) - 1, 7_000));
    assert!(limits.max_in_flight_bytes_per_connection <= limits.max_in_flight_bytes);
}
