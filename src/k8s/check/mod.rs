//! Whether an installation is well: what the API server says, and what to make of it.
//!
//! ```text
//!  gather (calls, and a dry run) ──► Facts ──► judge (pure) ──► findings, each with a remedy
//! ```

mod gather;
mod judge;

pub(crate) use gather::gather;
pub(crate) use judge::judge;

use serde::Serialize;
use serde_json::Value;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could; or it could not be looked at.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What it belongs to.
    pub(crate) category: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What was found, in a sentence.
    pub(crate) found: String,
    /// What to do about it; empty if it is well.
    pub(crate) remedy: String,
}

/// What an API server said: the object, or the sentence with which it refused.
pub(crate) type Said = Result<Value, String>;

/// The same of a list: all its items, of however many pages.
pub(crate) type Listed<T = Value> = Result<Vec<T>, String>;

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// `/version`.
    pub(crate) version: Said,
    /// The MutatingWebhookConfigurations of Ebb.
    pub(crate) webhooks: Listed,
    /// The MutatingAdmissionPolicies of Ebb.
    pub(crate) policies: Listed,
    /// The Deployments of injectors.
    pub(crate) injectors: Listed,
    /// What they serve.
    pub(crate) certificates: Vec<Certificate>,
    /// The ConfigMaps of injectors: what they put into pods.
    pub(crate) templates: Listed,
    /// The PodDisruptionBudgets.
    pub(crate) budgets: Listed,
    /// Pods with a sidecar, and those of labelled namespaces, reduced to what is looked at.
    pub(crate) pods: Listed<Pod>,
    /// The ConfigMaps that sidecars follow, and those that they would.
    pub(crate) config_maps: Listed,
    /// A pod that asks for a cache, as the API server would store it.
    pub(crate) trial: Said,
    /// Whether PodMonitors are known.
    pub(crate) monitors: Said,
    /// What this account may not do, of what was needed.
    pub(crate) refused: Vec<String>,
}

/// The certificate that an injector serves, and the Secret that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Of the injector, its Service and its Secret.
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) secret: String,
    /// `tls.crt` in base64, or why it cannot be read.
    pub(crate) chain: Result<String, String>,
}

/// What is looked at of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) asks: bool,
    pub(crate) declines: bool,
    pub(crate) has_sidecar: bool,
    /// The ConfigMaps that its sidecar follows, as namespace and name.
    pub(crate) follows: Vec<(String, String)>,
    pub(crate) version: String,
    pub(crate) restarts: u64,
    pub(crate) was_oom_killed: bool,
    pub(crate) has_limit: bool,
    pub(crate) pending_resize: Option<String>,
    pub(crate) is_demoted: bool,
}
