//! gRPC: listeners, connections, services.
//!
//! ```text
//!  data-plane thread 1..n   (a current-thread runtime each)        control thread (another one)
//!  ┌ accept ─► connection ─► Dispatch ─┬─► CacheService ─► cache   ┌ admin listener ─► AdminService ─► cleaner, memory
//!  └ TCP, Unix socket                  └─► health, reflection      └ HTTP: /livez /readyz /metrics
//! ```
//! A connection and all its streams stay on one thread: tokio's default pool costs 1.9 times the CPU for a call.
//! The services are the generated tower services, called without a router on the hot path.

mod admin;
mod cache;
mod call;
mod chunks;
mod connection;
mod connections;
mod deadline;
mod drain;
mod guard;
mod health;
mod http2;
mod listener;
mod measure;
mod messages;
mod mismatch;
mod pipe;
mod prefetch;
mod quota;
mod request;
mod response;
mod serve;
mod services;
pub mod status;
mod unread;

pub use admin::Admin;
pub use connections::Connections;
pub use drain::Stage;
pub use listener::{Address, Listener};
pub use quota::InFlight;
pub use serve::{Plane, Running};
pub use services::Services;

use std::time::Duration;

/// Entries of metadata that a call may have.
pub const MAX_METADATA_ENTRIES: usize = 128;

/// What a listener and its connections may use. Units are bytes where a name does not say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; at the cap the longest idle one is closed.
    pub connections: usize,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Flow-control window of one call, at most.
    pub stream_window: u32,
    /// How long a client may take to say that it speaks HTTP/2.
    pub handshake_timeout: Duration,
    /// How long a connection may do nothing.
    pub idle_timeout: Duration,
    /// How long bytes in flight may stand still.
    pub write_timeout: Duration,
    /// Headers of one call.
    pub header_list: u32,
    /// The largest message in either direction.
    pub message: usize,
}
