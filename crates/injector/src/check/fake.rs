//! An API server for tests.

use super::injection::Injection;
use super::selection::Selection;
use crate::inject::{Namespace, texts};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;

/// An API server with only these objects, one per page.
pub(super) fn server(objects: Value) -> Client {
    let answer = move |request: Request<Body>| {
        let asked = |key: &str| {
            let words = request.uri().query().into_iter().flat_map(|query| query.split('&'));
            words.filter_map(|word| word.strip_prefix(key)).next().unwrap_or_default().to_owned()
        };
        let name = asked("fieldSelector=metadata.name%3D");
        let all = objects[request.uri().path()].as_array().cloned().unwrap_or_default();
        let all: Vec<Value> =
            all.into_iter().filter(|item| name.is_empty() || item["metadata"]["name"] == *name).collect();
        let at = asked("continue=").parse().unwrap_or(0);
        let next = if at + 1 < all.len() { (at + 1).to_string() } else { String::new() };
        let page = json!({"metadata": {"continue": next}, "items": all.get(at).into_iter().collect::<Vec<_>>()});
        async move { Ok::<_, Infallible>(Response::new(Body::from(page.to_string().into_bytes()))) }
    };
    Client::new(tower::service_fn(answer), "default")
}

/// The default settings, and namespaces with these labels.
pub(super) fn injection_of(namespaces: &[(&str, &str)]) -> Injection {
    let namespace = |(name, word): &(&str, &str)| Namespace {
        name: (*name).to_owned(),
        labels: texts(&json!({"ebb-cache.io/inject": word})),
        ..Namespace::default()
    };
    let (none, trial) = (Ok(Vec::new()), Err(super::MissingFact::NotPermitted));
    let namespaces = namespaces.iter().map(namespace).collect();
    Injection::of("default", &none, &none, &none, &trial, Selection::default(), namespaces)
}
