//! Kubernetes: how a sidecar gets into a pod, and whether an installation is well.
//!
//! ```text
//!  the chart's PodTemplate ──► inject (pure): pod as JSON ──► operations that only add, or the reason for none
//!                                 ▲
//!                    ebb inject ──┤  files, offline
//!                  ebb injector ──┘  a webhook, with its certificates
//!
//!  pod_events ──► Events on the pod itself, where its account may write them
//!  config_map ──► config: the configuration of a cache that is not a sidecar
//! ```

pub(crate) mod check;
pub(crate) mod config_map;
pub(crate) mod events;
pub mod inject;
pub(crate) mod injector;
pub(crate) mod pod_events;
