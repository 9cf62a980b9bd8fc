//! `grpc.health.v1`: whether the services of one listener are served.
//!
//! The statuses depend only on the [`Stage`] of the server: a service is SERVING until the server drains. Each listener
//! reports only its own services.

use super::drain::{Stage, reached};
use ebb_proto::health::health_check_response::ServingStatus;
use ebb_proto::health::health_server::{self, HealthServer};
use ebb_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use futures::stream::{self, Stream, StreamExt as _};
use std::future::{pending, ready};
use std::pin::Pin;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The health service of a listener.
#[derive(Clone, Debug)]
pub(super) struct Health {
    /// Full names; the empty one is the listener as a whole.
    services: [&'static str; 2],
    drain: watch::Receiver<Stage>,
}

impl Health {
    /// The health service of a listener that serves `service`.
    pub(super) fn of(service: &'static str, drain: watch::Receiver<Stage>) -> HealthServer<Self> {
        HealthServer::new(Self { services: ["", service], drain })
    }

    fn status(&self) -> ServingStatus {
        match *self.drain.borrow() {
            Stage::Serving => ServingStatus::Serving,
            Stage::Draining | Stage::Ending => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.get_ref().service.as_str();
        if !self.services.contains(&service) {
            let [all, own] = self.services;
            return Err(Status::not_found(format!("service: {service:?} is unknown ({all:?}, {own:?})")));
        }
        Ok(Response::new(response(self.status())))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = self.services.map(|service| (service.to_owned(), response(self.status())));
        Ok(Response::new(HealthListResponse { statuses: statuses.into() }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.services.contains(&request.get_ref().service.as_str());
        let now = if is_known { self.status() } else { ServingStatus::ServiceUnknown };
        let mut drain = self.drain.clone();
        // A server that drains never serves again, and an unknown service stays unknown.
        let change = async move {
            if now != ServingStatus::Serving {
                pending::<()>().await;
            }
            reached(&mut drain, Stage::Draining).await;
            ServingStatus::NotServing
        };
        let updates = stream::once(ready(now)).chain(stream::once(change)).chain(stream::pending());
        Ok(Response::new(Box::pin(updates.map(|status| Ok(response(status))))))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
