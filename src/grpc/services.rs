//! What is served: the generated tower services, the hot path's without a router.

use super::{Limits, cache};
use crate::proto::cache_service_server::CacheServiceServer;
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tonic::service::Routes;
use tower_service::Service as _;

/// What is served on a listener.
#[derive(Clone, Debug)]
pub struct Services {
    /// The hot path, called without a router.
    pub(super) cache: Option<CacheServiceServer<cache::Service>>,
    /// Everything else.
    pub(super) rest: Routes,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send>>;

impl Services {
    /// The cache, if it is served here, and everything else.
    pub fn new(cache: Option<Arc<crate::cache::Cache>>, rest: Routes, limits: Limits) -> Self {
        let cache = cache.map(|cache| {
            CacheServiceServer::new(cache::Service::new(cache))
                .max_decoding_message_size(limits.message)
                .max_encoding_message_size(limits.message)
        });
        Self { cache, rest: rest.prepare() }
    }

    pub(super) fn call(&self, request: Request<tonic::body::Body>) -> Answer {
        match &self.cache {
            Some(cache) if request.uri().path().starts_with("/ebb.v1.CacheService/") => cache.clone().call(request),
            _ => {
                let answer = self.rest.clone().call(request);
                Box::pin(answer)
            }
        }
    }
}
