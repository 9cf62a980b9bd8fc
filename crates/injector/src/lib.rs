//! Kubernetes: injects sidecars into pods, and checks an installation.
//!
//! ```text
//!  the chart's PodTemplate ──► inject (pure): pod as JSON ──► operations that only add, or the reason for none
//!                                 ▲
//!                       offline ──┤  manifests (ebb inject)
//!                       webhook ──┘  with its certificates (ebb injector)
//!
//!  check ──► findings about an installation        events ──► Events of Kubernetes, in the background
//! ```

pub mod check;
pub mod events;
pub mod inject;
pub mod offline;
mod selector;
mod shape;
pub mod webhook;
