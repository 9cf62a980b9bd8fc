//! Code that Ebb's listeners share: bounded connections, and HTTP with probes and metrics.
//!
//! ```text
//!  HTTP of the sidecar and of the injector ──► http ──┐
//!  webhook of the injector (TLS, HTTP/2) ─────────────┴──► Connections (bounds), Progress (stalled clients), Acceptor, RateLimit (log)
//! ```

mod accept;
mod bind;
mod connections;
pub mod http;
mod progress;
mod rate_limit;

pub use accept::Acceptor;
pub use bind::bind;
pub use connections::{Account, Bounds, Charge, Closed, Connection, Connections, Counts, Unaccounted};
pub use progress::{Progress, Watched};
pub use rate_limit::RateLimit;
