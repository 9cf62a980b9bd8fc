//! Ebb in a cluster: a real API server, called by kube-rs, and the chart, installed by Helm.
//!
//! ```text
//!  etcd ◄── kube-apiserver ◄── kube-rs: dry runs of pods, rights, Events, Leases
//!             │      ▲  ▲ └─── helm 3, helm 4, kubectl: commands of a user
//!             │      │  └───── ebb check, ebb serve --config-map
//!             ▼      │
//!          ebb injector, found by an EndpointSlice: there are no controllers for Deployments and Services
//! ```
//! KUBEBUILDER_ASSETS names the folder with etcd and kube-apiserver (tests/cluster/build.sh prints it), and
//! EBB_CHART_TOOLS the one with Helm and kubectl (tests/chart.sh CACHE_DIR installs them into CACHE_DIR/chart). Without
//! them each scenario is skipped, with a message. There is no node and no kubelet.
#![allow(unreachable_pub, reason = "nobody is outside of a test")]

#[path = "../common/mod.rs"]
mod common;

mod apiserver;
mod audit;
mod check;
mod client_ca;
mod config_map;
mod confinement;
mod corpus;
mod docs;
mod given_certificate;
mod helm;
mod objects;
mod pod_events;
mod pods;
mod policy;
mod process;
mod quota;
mod rbac;
mod replica;
mod revisions;
mod rules;
mod token;
mod watchdog;
mod webhook;
