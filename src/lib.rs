//! Ebb: a cache that runs beside an application and gives memory back.
//!
//! ```text
//!  applications ──gRPC──► grpc ──► cache ──► store ◄── cleaner ◄── memory (governor) ◄── config
//!                           └── http, metrics                        cgroup files, RSS, limit file
//! ```
//! The engine (`store`, `cleaner`, `clock`, `sync`) knows nothing of gRPC, tokio, Kubernetes, files or configuration,
//! and builds alone with `--no-default-features`.

pub mod cleaner;
pub mod clock;
pub mod store;
pub mod sync;

/// The wire contract `ebb.v1`, generated from `proto/`.
#[cfg(feature = "server")]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from proto/, which documents every message")]
pub mod proto {
    tonic::include_proto!("ebb.v1");

    /// The descriptors of `proto/`, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ebb.v1.bin"));
}
