//! Kubernetes: how a sidecar gets into a pod, and whether an installation is well.
//!
//! ```text
//!  the chart's PodTemplate ──► inject (pure): pod as JSON ──► operations that only add, or the reason for none
//!                                 ▲
//!                    ebb inject ──┤  files, offline
//!                  ebb injector ──┘  webhook, with its certificates
//!
//!  check ──► findings about an installation        events ──► Events of Kubernetes, off the path of everything else
//! ```

pub mod check;
pub mod events;
pub mod inject;
pub mod webhook;
