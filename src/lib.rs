//! Ebb: a cache that runs beside an application and gives memory back.
//!
//! ```text
//!  applications ──gRPC──► grpc ──► cache ──► store ◄── cleaner ◄── memory (governor) ◄── config
//!                           └── http, metrics                        cgroup files, RSS, limit file
//! ```
//! The engine (`store`, `cleaner`) is the crate `ebb-engine`, which knows nothing of gRPC, tokio, Kubernetes, files or
//! configuration.

// They panic when the reader has gone or the disk is full; `cli::output` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod cache;
pub mod cli;
mod config_map;
mod doctor;
pub mod grpc;
mod history;
mod logging;
pub mod memory;
mod metrics;
mod page;
mod pod_events;
mod receipts;
mod regimes;
pub mod server;
pub mod sources;
pub mod spans;
pub mod traffic;
mod tuning;
pub mod wall_clock;
