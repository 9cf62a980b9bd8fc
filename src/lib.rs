//! Ebb: a cache that runs beside an application and gives memory back.
//!
//! ```text
//!  applications ──gRPC──► grpc ──► cache ──► store ◄── cleaner ◄── memory (governor) ◄── config
//!                           └── http, metrics                        cgroup files, RSS, limit file
//! ```
//! The engine (`store`, `cleaner`, `clock`, `sync`) knows nothing of gRPC, tokio, Kubernetes, files or configuration,
//! and builds alone with `--no-default-features`.

// They panic when the reader has gone or the disk is full; `cli::output` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

#[cfg(feature = "server")]
pub mod cache;
pub mod cleaner;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
mod doctor;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
mod history;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
pub mod k8s;
#[cfg(feature = "server")]
mod logging;
pub mod memory;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod page;
#[cfg(feature = "server")]
mod receipts;
#[cfg(feature = "server")]
mod regimes;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod sources;
#[cfg(feature = "server")]
pub mod spans;
pub mod store;
pub mod sync;
#[cfg(feature = "server")]
pub mod traffic;
#[cfg(feature = "server")]
mod tuning;
#[cfg(feature = "server")]
pub mod units;
#[cfg(feature = "server")]
pub mod wall_clock;

#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings: the variable that it reads before its first allocation, a C string. Freed request memory goes back
/// to the operating system after one second, by a thread of its own, so that a burst of calls is not mistaken for drift.
/// 10 s after 10,000 calls in flight 4 MB are left of it; with the allocator's own 10 s and no thread, 92 MB (`ebb bench
/// serve`). Until then any freed extent may serve a smaller request, however much smaller: by default one of some megabytes
/// serves none of the 32 KiB in which requests arrive, and each large request takes fresh pages beside the freed ones.
/// Huge pages are off here, too: the allocator maps memory before `main` can turn them off for the process.
/// Here, and not in the build's environment, the settings hold wherever the program is built.
#[cfg(feature = "server")]
#[used]
#[allow(unsafe_code, reason = "the name is jemalloc's own, and the type is its `const char *`")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 108] =
    b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2,lg_extent_max_active_fit:40,thp:never\0";

/// The wire contract `ebb.v1`, generated from `proto/`.
#[cfg(feature = "server")]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from proto/, which documents every message")]
pub mod proto {
    tonic::include_proto!("ebb.v1");

    /// Descriptors of [`cache_service_server`], for reflection.
    pub const CACHE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cache.bin"));
    /// Descriptors of [`admin_service_server`].
    pub const ADMIN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.bin"));

    /// The health checking protocol of gRPC.
    pub mod health {
        tonic::include_proto!("grpc.health.v1");

        /// Descriptors of [`health_server`].
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/health.bin"));
    }
}
