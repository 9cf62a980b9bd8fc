//! Whether an installation is well: what the API server says, and what to make of it.
//!
//! ```text
//!  gather (calls, and a dry run) ──► Facts ──► judge (pure) ──► findings, each with a remedy
//! ```

mod gather;
mod judge;

pub use gather::gather;
pub use judge::judge;

pub use ebb_terminal::{Finding, Severity};
use serde_json::Value;

/// What an API server said: the object, or the sentence with which it refused.
pub type Said = Result<Value, String>;

/// The same of a list: all its items, of however many pages.
pub type Listed<T = Value> = Result<Vec<T>, String>;

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Seconds since 1970.
    pub now: i64,
    /// `/version`.
    pub version: Said,
    /// The MutatingWebhookConfigurations of Ebb.
    pub webhooks: Listed,
    /// The MutatingAdmissionPolicies of Ebb.
    pub policies: Listed,
    /// The Deployments of injectors.
    pub injectors: Listed,
    /// What they serve.
    pub certificates: Vec<Certificate>,
    /// The ConfigMaps of injectors: what they put into pods.
    pub templates: Listed,
    /// The PodDisruptionBudgets.
    pub budgets: Listed,
    /// Pods with a sidecar, and those of labelled namespaces, reduced to what is looked at.
    pub pods: Listed<Pod>,
    /// The ConfigMaps that sidecars follow, and those that they would.
    pub config_maps: Listed,
    /// A pod that asks for a cache, as the API server would store it.
    pub trial: Said,
    /// Whether PodMonitors are known.
    pub monitors: Said,
    /// What this account may not do, of what was needed.
    pub refused: Vec<String>,
}

/// The certificate that an injector serves, and the Secret that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Of the injector, its Service and its Secret.
    pub namespace: String,
    pub service: String,
    pub secret: String,
    /// `tls.crt` in base64, or why it cannot be read.
    pub chain: Result<String, String>,
}

/// What is looked at of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub asks: bool,
    pub declines: bool,
    pub has_sidecar: bool,
    /// The ConfigMaps that its sidecar follows, as namespace and name.
    pub follows: Vec<(String, String)>,
    pub version: String,
    pub restarts: u64,
    pub was_oom_killed: bool,
    pub has_limit: bool,
    pub pending_resize: Option<String>,
    pub is_demoted: bool,
}
