//! Checks an installation: gathers facts from the API server and judges them.
//!
//! ```text
//!  gather (calls, and dry runs) ──► Facts ──► judge (pure) ──► findings, each with a remedy
//! ```

#[cfg(test)]
mod fake;
mod gather;
mod injection;
mod judge;
mod namespaces;
mod pods;
mod policy;
mod revisions;
mod rules;
mod selection;

pub use gather::gather;
pub use injection::LeftAlone;
pub use judge::judge;
pub use namespaces::{Trial, Tried};
pub use revisions::Revisions;
pub use rules::Misfit;

pub use ebb_terminal::{Finding, Severity};
use serde_json::Value;

/// Why a fact is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingFact {
    /// The API server refused the call, or did not answer. Holds its message or that of the connection.
    #[error("{0}")]
    Refused(String),
    /// The account has no right to get the object, so no call was made.
    #[error("this account lacks permission to get it")]
    NotPermitted,
}

/// An object, or the error of the API server.
pub type Fact = Result<Value, MissingFact>;

/// All items of a list, or the error of the API server.
pub type Listed<T = Value> = Result<Vec<T>, MissingFact>;

/// Facts about a cluster, and about the injector of one revision.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Seconds since 1970.
    pub now: i64,
    /// `/version`.
    pub version: Fact,
    /// The revisions of injectors.
    pub revisions: Revisions,
    /// The MutatingWebhookConfigurations of Ebb.
    pub webhooks: Listed,
    /// The MutatingAdmissionPolicies of Ebb.
    pub policies: Listed,
    /// The Deployments of injectors.
    pub injectors: Listed,
    /// Their serving certificates.
    pub certificates: Vec<Certificate>,
    /// The ConfigMaps of injectors, with their templates.
    pub templates: Listed,
    /// Warnings about workloads whose annotations or labels have no effect.
    pub misplaced: Listed<String>,
    /// The PodDisruptionBudgets.
    pub budgets: Listed,
    /// Pods with a sidecar, and pods of labelled namespaces, with the checked fields only.
    pub pods: Listed<Pod>,
    /// The ConfigMaps that current sidecars follow, and those that new ones would.
    pub config_maps: Listed,
    /// The result of a dry run that creates a pod with the label.
    pub trial: Fact,
    /// The results of dry runs in labelled namespaces.
    pub tried: Vec<Tried>,
    /// Labelled namespaces in which no pod gets a sidecar.
    pub left_out: Vec<String>,
    /// Whether the cluster has PodMonitors.
    pub monitors: Fact,
    /// Missing permissions of this account.
    pub refused: Vec<String>,
}

/// The serving certificate of an injector, and its Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Namespace of the injector, its Service and its Secret.
    pub namespace: String,
    pub service: String,
    pub secret: String,
    /// `tls.crt` in base64, or why it cannot be read.
    pub chain: Result<String, MissingFact>,
}

/// The checked fields of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    /// Whether it would get a sidecar if it were created now, and has none.
    pub asks: bool,
    /// Why it asks for a sidecar and has none on purpose.
    pub left_alone: Option<LeftAlone>,
    pub has_sidecar: bool,
    /// The revision that it belongs to, by its label or that of its namespace.
    pub revision: String,
    /// Whether its own label names that revision.
    pub names_revision: bool,
    /// The revision that injected its sidecar, if an injector did.
    pub injected_as: Option<String>,
    /// Whether an annotation chooses the image of its sidecar.
    pub chooses_image: bool,
    /// The ConfigMaps that its sidecar follows, as namespace and name.
    pub follows: Vec<(String, String)>,
    pub version: String,
    pub restarts: u64,
    pub was_oom_killed: bool,
    pub has_limit: bool,
    pub pending_resize: Option<String>,
    pub is_demoted: bool,
}
