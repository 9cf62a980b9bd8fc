//! The wire contract `ebb.v1` in Rust: the code generated from `proto/`, and code shared by clients and servers.
//!
//! The files of `proto/` document every generated message and service.

#![warn(missing_docs)]

pub mod client;
pub mod codec;
pub mod json;

pub use generated::*;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/, which documents every message"
)]
mod generated {
    tonic::include_proto!("ebb.v1");
}

/// Descriptors of [`cache_service_server`], for reflection.
pub const CACHE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cache.bin"));
/// Descriptors of [`admin_service_server`].
pub const ADMIN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.bin"));

/// The health checking protocol of gRPC.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/grpc/health/v1/health.proto"
)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");

    /// Descriptors of [`health_server`].
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/health.bin"));
}
