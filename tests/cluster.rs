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

mod common;

#[path = "cluster/apiserver.rs"]
mod apiserver;
#[path = "cluster/audit.rs"]
mod audit;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/config_map.rs"]
mod config_map;
#[path = "cluster/corpus.rs"]
mod corpus;
#[path = "cluster/docs.rs"]
mod docs;
#[path = "cluster/given_certificate.rs"]
mod given_certificate;
#[path = "cluster/helm.rs"]
mod helm;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/pod_events.rs"]
mod pod_events;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/policy.rs"]
mod policy;
#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/rbac.rs"]
mod rbac;
#[path = "cluster/replica.rs"]
mod replica;
#[path = "cluster/watchdog.rs"]
mod watchdog;
#[path = "cluster/webhook.rs"]
mod webhook;
