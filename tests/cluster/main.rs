//! Ebb in a cluster: a real API server that kube-rs speaks to, and the chart by the Helm binaries that people have.
//!
//! ```text
//!  etcd ◄── kube-apiserver ◄── kube-rs: pods that are only tried, rights, Events, Leases
//!             │      ▲  ▲ └─── helm 3, helm 4, kubectl: what a user types
//!             │      │  └───── ebb check, ebb serve --config-map
//!             ▼      │
//!          ebb injector, found by an EndpointSlice: nobody here carries out Deployments and Services
//! ```
//! KUBEBUILDER_ASSETS names the folder with etcd and kube-apiserver (tests/cluster/build.sh prints it), and EBB_CHART_TOOLS
//! the one with Helm and kubectl (tests/chart.sh CACHE_DIR installs them into CACHE_DIR/chart). Without them each story is
//! skipped, and says so. There is no node: nothing here says what a kubelet does.
#![allow(unreachable_pub, reason = "nobody is outside of a test")]

#[path = "../common/mod.rs"]
mod common;

mod apiserver;
mod audit;
mod check;
mod config_map;
mod corpus;
mod docs;
mod given_certificate;
mod helm;
mod objects;
mod pod_events;
mod pods;
mod policy;
mod process;
mod rbac;
mod replica;
mod watchdog;
mod webhook;
