//! Requests that are not calls of a listener, refused before they cost a task.
//!
//! | request | HTTP status | gRPC status |
//! |---|---|---|
//! | a method other than POST | 405, with `allow` | UNIMPLEMENTED |
//! | no gRPC content type, several of them, or one of another encoding than protobuf | 415, with `accept` | INVALID_ARGUMENT |
//! | a path that is not a method of this listener | 200 | UNIMPLEMENTED |
//!
//! An HTTP client that does not speak gRPC would treat a 200 as success (gRPC over HTTP/2, "Content-Type").

use super::measure::SHAPES;
use super::services::Services;
use crate::traffic::{self, Rejection};
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::Status;

/// The content types that are served; either may have parameters.
const CONTENT_TYPES: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// Why a request is not a call of a listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The HTTP method is not POST.
    HttpMethod(Method),
    /// The content type, as the client gave it.
    ContentType(String),
    /// The path names no method of this listener.
    UnknownMethod(String),
}

impl Mismatch {
    /// Why `request` is not a call of `services`; `None` if it is one.
    pub(super) fn of<B>(request: &Request<B>, services: &Services) -> Option<Self> {
        if request.method() != Method::POST {
            return Some(Self::HttpMethod(request.method().clone()));
        }
        if !is_protobuf(request.headers()) {
            let given = request.headers().get_all(CONTENT_TYPE).iter().map(|value| value.as_bytes().escape_ascii());
            return Some(Self::ContentType(given.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")));
        }
        let path = request.uri().path();
        // The methods of the hot path are found without hashing.
        let is_method = || traffic::Method::of(path) != traffic::Method::Other || SHAPES.request(path).is_some();
        let is_known = services.has_service_of(path) && is_method();
        (!is_known).then(|| Self::UnknownMethod(path.to_owned()))
    }

    /// The counter for it.
    pub(super) fn rejection(&self) -> Rejection {
        match self {
            Self::HttpMethod(_) => Rejection::HttpMethod,
            Self::ContentType(_) => Rejection::ContentType,
            Self::UnknownMethod(_) => Rejection::UnknownMethod,
        }
    }

    /// The answer: headers only, which cost nothing while the client does not read.
    pub(super) fn response(&self) -> Response<()> {
        let [plain, named] = CONTENT_TYPES;
        let (code, status, header) = match self {
            Self::HttpMethod(method) => (
                StatusCode::METHOD_NOT_ALLOWED,
                Status::unimplemented(format!(":method: {method} is not served (POST)")),
                Some((ALLOW, "POST")),
            ),
            Self::ContentType(given) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Status::invalid_argument(format!("content-type: \"{given}\" is not served ({plain}, {named})")),
                Some((ACCEPT, plain)),
            ),
            Self::UnknownMethod(path) => (
                StatusCode::OK,
                Status::unimplemented(format!(
                    ":path: {path:?} is not a method of this listener (reflection lists them)"
                )),
                None,
            ),
        };
        let mut response = status.into_http();
        *response.status_mut() = code;
        response.headers_mut().extend(header.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}

/// Whether the content type is gRPC with protobuf messages.
fn is_protobuf(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    CONTENT_TYPES.iter().any(|served| kind.eq_ignore_ascii_case(served.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protobuf_content_types_are_served() {
        let cases: [(&[&str], bool); 15] = [
            (&["application/grpc"], true),
            (&["application/grpc+proto"], true),
            (&["Application/gRPC"], true),
            (&["application/grpc;charset=utf-8"], true),
            (&["application/grpc+proto ; a=b"], true),
            (&[], false),
            (&[""], false),
            (&["application/json"], false),
            (&["application/grpc+json"], false),
            (&["application/grpc-web"], false),
            (&["application/grpc-web+proto"], false),
            (&["application/grpcx"], false),
            (&["text/application/grpc"], false),
            (&["application/grpc, application/json"], false),
            (&["application/grpc", "application/json"], false),
        ];
        let found = cases.map(|(values, _)| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            (values, is_protobuf(&headers))
        });
        assert_eq!(found, cases);
    }
}
