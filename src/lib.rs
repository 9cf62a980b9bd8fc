//! Ebb: a cache sidecar that returns memory.
//!
//! ```text
//!  applications ──gRPC──► transport ──► service ──► ebb_engine::store ◄── cleaner ◄── governor ◄── ebb_config
//!                            └── page, metrics, history, doctor                        cgroup files, RSS, limit file
//! ```
//! This crate contains the sidecar and the command line. The engine, the wire contract, the configuration, the
//! listeners and the injector are separate crates.

// These macros panic if the pipe is closed or the disk is full; `ebb_terminal::output` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod cli;
mod config_map;
mod doctor;
pub mod governor;
mod history;
mod logging;
mod messages;
mod metrics;
mod page;
mod pod_events;
mod receipts;
mod regimes;
pub mod server;
pub mod service;
mod settings;
pub mod sources;
pub mod spans;
pub mod traffic;
pub mod transport;
pub mod wall_clock;
