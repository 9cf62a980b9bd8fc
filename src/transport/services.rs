//! The services of a listener: the generated tower services, the hot path's without a router, and pipes without tonic.
//!
//! | listener | its own service | others |
//! |---|---|---|
//! | data | `ebb.v1.CacheService` | health, reflection v1 and v1alpha |
//! | admin | `ebb.v1.AdminService` | the same, for this listener only |

use super::admin::Admin;
use super::drain::Stage;
use super::health::Health;
use super::quota::CallQuota;
use super::request::RequestBody;
use super::{Limits, cache, pipe};
use ebb_proto as proto;
use ebb_proto::admin_service_server::{self, AdminServiceServer};
use ebb_proto::cache_service_server::{self, CacheServiceServer};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::service::Routes;
use tower_service::Service as _;

/// The services of a listener.
#[derive(Clone, Debug)]
pub struct Services {
    /// The hot path, called without a router.
    pub(super) cache: Option<CacheServiceServer<cache::Service>>,
    pipes: Option<Arc<crate::service::Cache>>,
    /// Everything else.
    pub(super) rest: Routes,
    /// Full names of the services, the busiest first.
    names: [&'static str; 4],
}

/// The future of a service's response.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send>>;

impl Services {
    /// The services of a data listener. Their health follows `drain`.
    pub fn data(cache: Arc<crate::service::Cache>, limits: Limits, drain: watch::Receiver<Stage>) -> Self {
        let pipes = Some(cache.clone());
        let cache = CacheServiceServer::new(cache::Service::new(cache))
            .max_decoding_message_size(limits.message)
            .max_encoding_message_size(limits.message);
        let rest = standard(cache_service_server::SERVICE_NAME, proto::CACHE_DESCRIPTORS, drain);
        Self { cache: Some(cache), pipes, rest: rest.prepare(), names: names(cache_service_server::SERVICE_NAME) }
    }

    /// The services of an admin listener. Their health follows `drain`.
    pub fn admin(admin: Admin, drain: watch::Receiver<Stage>) -> Self {
        let standard = standard(admin_service_server::SERVICE_NAME, proto::ADMIN_DESCRIPTORS, drain);
        let rest = standard.add_service(AdminServiceServer::new(admin)).prepare();
        Self { cache: None, pipes: None, rest, names: names(admin_service_server::SERVICE_NAME) }
    }

    /// Whether `path` names a method of one of these services.
    pub(super) fn has_service_of(&self, path: &str) -> bool {
        let service = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')).map(|(service, _)| service);
        service.is_some_and(|service| self.names.contains(&service))
    }

    /// Answers a request; `quota` belongs to its call.
    pub(super) fn call(&self, request: Request<RequestBody>, quota: Arc<CallQuota>) -> Answer {
        let path = request.uri().path();
        if let (Some(cache), pipe::PATH) = (&self.pipes, path) {
            return Box::pin(ready(Ok(pipe::answer(cache.clone(), request, quota))));
        }
        let is_of_cache = path.starts_with("/ebb.v1.CacheService/");
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(quota);
        match &self.cache {
            Some(cache) if is_of_cache => cache.clone().call(request),
            _ => {
                let answer = self.rest.clone().call(request);
                Box::pin(answer)
            }
        }
    }
}

/// The services of a listener that serves `service`.
fn names(service: &'static str) -> [&'static str; 4] {
    [
        service,
        proto::health::health_server::SERVICE_NAME,
        tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
        tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME,
    ]
}

/// Health and reflection of a listener that serves `service`.
fn standard(service: &'static str, descriptors: &'static [u8], drain: watch::Receiver<Stage>) -> Routes {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false) // each version would describe only itself
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(proto::health::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    Routes::new(Health::of(service, drain))
        .add_service(described().build_v1().expect("the built-in descriptors are complete"))
        .add_service(described().build_v1alpha().expect("the built-in descriptors are complete"))
}
