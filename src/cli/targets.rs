//! Pods and workloads as arguments, in the words of kubectl.

use kube::api::ApiResource;
use std::fmt;
use std::str::FromStr;
use strum::{IntoStaticStr, VariantArray};

/// Whether a text is a DNS subdomain (RFC 1123), as the names of objects are.
pub(super) fn is_object_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A kind of object that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Kind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
}

impl Kind {
    fn name(self) -> &'static str {
        self.into()
    }

    fn short(self) -> &'static str {
        match self {
            Self::Pod => "po",
            Self::Deployment => "deploy",
            Self::StatefulSet => "sts",
            Self::DaemonSet => "ds",
            Self::ReplicaSet => "rs",
            Self::Job => "job",
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        use k8s_openapi::api::{apps::v1 as apps, batch::v1::Job, core::v1::Pod};
        match self {
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Deployment => ApiResource::erase::<apps::Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<apps::StatefulSet>(&()),
            Self::DaemonSet => ApiResource::erase::<apps::DaemonSet>(&()),
            Self::ReplicaSet => ApiResource::erase::<apps::ReplicaSet>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
        }
    }
}

/// A pod, or a workload with pods, as kubectl names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Target {
    /// Whether it stands for any number of pods.
    pub(crate) fn is_workload(&self) -> bool {
        self.kind != Kind::Pod
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        // As `kubectl get --output name` prints it: with the group.
        let asked = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let asked = asked.strip_suffix('s').filter(|one| one.len() > 2).unwrap_or(&asked);
        let is_asked =
            |kind: &&Kind| asked == kind.name() || asked == kind.short() || format!("{asked}s") == kind.short();
        let Some(kind) = Kind::VARIANTS.iter().find(is_asked) else {
            let known: Vec<_> = Kind::VARIANTS.iter().map(|kind| kind.name()).collect();
            return Err(format!("{kind:?} is no kind of object with pods (one of {})", known.join(", ")));
        };
        if !is_object_name(name) {
            return Err(format!("{name:?} is no name of an object (lower-case letters, digits, - and ., at most 253)"));
        }
        Ok(Self { kind: *kind, name: name.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_as_kubectl_names_it() {
        let shown = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        for (text, expected) in [
            ("shop-0", "pod/shop-0"),
            ("po/shop-0", "pod/shop-0"),
            ("pods/shop-0", "pod/shop-0"),
            ("Pod/shop-0", "pod/shop-0"),
            ("deploy/shop", "deployment/shop"),
            ("deployments/shop", "deployment/shop"),
            ("sts/db", "statefulset/db"),
            ("statefulsets/db", "statefulset/db"),
            ("ds/logs", "daemonset/logs"),
            ("rs/shop-5d", "replicaset/shop-5d"),
            ("jobs/nightly", "job/nightly"),
            ("deployment.apps/shop", "deployment/shop"),
            ("job.batch/nightly", "job/nightly"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, problem) in [
            ("svc/shop", "\"svc\" is no kind of object with pods (one of pod, deployment, "),
            ("cronjob/nightly", "\"cronjob\" is no kind"),
            ("pod/", "\"\" is no name"),
            ("pod/a/b", "\"a/b\" is no name"),
            ("127.0.0.1:7071", "is no name of an object"),
            ("pod/..", "\"..\" is no name"),
            ("pod/a.-b", "\"a.-b\" is no name"),
        ] {
            assert!(shown(text).unwrap_err().contains(problem), "{text}: {:?}", shown(text));
        }
    }
}
