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
mod dispatch;
mod drain;
mod guard;
mod health;
mod http2;
mod listener;
mod measure;
mod messages;
mod mismatch;
mod outgoing;
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

/// Maximum entries of a call's metadata.
pub const MAX_METADATA_ENTRIES: usize = 128;

/// Limits of a listener and its connections, in bytes unless stated otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum connections; at the cap the longest-idle one is closed.
    pub connections: usize,
    /// Maximum concurrent calls on one connection.
    pub streams: u32,
    /// Maximum flow-control window of one call.
    pub stream_window: u32,
    /// Timeout for the HTTP/2 handshake.
    pub handshake_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// How long bytes in flight may make no progress.
    pub write_timeout: Duration,
    /// Maximum header list of one call.
    pub header_list: u32,
    /// Maximum length of a message in either direction.
    pub message: usize,
}
