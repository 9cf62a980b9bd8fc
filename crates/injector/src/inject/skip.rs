//! Which pods are skipped, and why.

use super::Context;
use super::nodes::{VIRTUAL, WINDOWS};
use super::pod::{LEAST, SOCKET_VOLUME, all_containers, list, text};
use super::revision;
use super::template::Template;
use super::wish::Wishes;
use ebb_config::units::Quantity;
use ebb_manifest::pointer;
use serde_json::Value;
use std::collections::HashSet;

/// System namespaces.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Volumes of the sidecar.
pub(crate) const VOLUMES: [&str; 2] = ["ebb-config", SOCKET_VOLUME];

/// Maximum number of containers. The patch grows with each container, so a pod with more is skipped.
const MOST_CONTAINERS: usize = 500;

macro_rules! reasons {
    ($($variant:ident $label:literal $meaning:literal)+) => {
        /// Why a pod is skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum SkipReason {
            $(#[doc = $meaning] $variant,)+
        }

        impl SkipReason {
            /// Every reason, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable name, for metric labels and Events.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// Description for the reference page.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }
    };
}

reasons! {
    NoTemplate "no-template" "With the webhook: the injector has no valid template of the sidecar."
    Malformed "malformed" "The pod has no list of containers, a list instead of an object, or two containers of one name."
    TooLarge "too-large" "The pod has more than 500 containers; or, with the webhook, the fields that injection reads exceed 2 MiB."
    AlreadyInjected "already-injected" "The pod already has the sidecar."
    Disabled "disabled" "The label of the pod is `disabled`, or that of the namespace if the pod has none."
    NotLabelled "not-labelled" "Neither the pod nor its namespace has the label."
    OtherRevision "other-revision" "The label `ebb-cache.io/rev` of the pod, or else of its namespace, names another revision of the injector; without the label, the pod is one of the default revision."
    SystemNamespace "system-namespace" "The pod is in a system namespace, or in the injector's own."
    MirrorPod "mirror-pod" "The pod is the mirror of a static pod, which the kubelet runs from a file."
    HostNetwork "host-network" "The pod uses the host's network, where the ports of two caches would collide."
    Windows "windows" "The pod is for Windows nodes, by `spec.os`, `nodeSelector` or required node affinity (of a DaemonSet only the first two); there is no Windows image."
    VirtualKubelet "virtual-kubelet" "The pod is for nodes of a virtual kubelet (`type: virtual-kubelet`), by `nodeSelector` or required node affinity. A toleration alone skips no pod."
    NameConflict "name-conflict" "An application container is called `ebb`."
    VolumeConflict "volume-conflict" "A volume is called `ebb-config` or `ebb-socket`, also one of a StatefulSet's `volumeClaimTemplates`."
    PortConflict "port-conflict" "A container uses a TCP port that the sidecar needs."
    PodLimitTooSmall "pod-limit-too-small" "The memory limit of the pod (`spec.resources`), or of its declared container `ebb`, is below 16Mi."
}

/// The reason to skip the pod, if any, with the detail for messages.
pub(super) fn skip(
    pod: &Value,
    context: &Context<'_>,
    wishes: &Wishes,
    template: &Template,
) -> Option<(SkipReason, String)> {
    let found = |reason: SkipReason, detail: String| Some((reason, detail));
    let (meta, spec) = (&pod["metadata"], &pod["spec"]);
    if let Some(detail) = malformed(pod) {
        return found(SkipReason::Malformed, detail);
    }
    let containers = || all_containers(spec);
    let number = containers().count();
    if number > MOST_CONTAINERS {
        return found(SkipReason::TooLarge, format!("the pod has {number} containers (at most {MOST_CONTAINERS})"));
    }
    let mut names = HashSet::new();
    if let Some(name) =
        containers().filter_map(|container| container["name"].as_str()).find(|name| !names.insert(*name))
    {
        return found(SkipReason::Malformed, format!("two containers have the name {name:?}"));
    }
    let has_sidecar = containers().any(|container| container["name"] == "ebb");
    if has_sidecar && meta["labels"]["ebb-cache.io/injected"] == "true" {
        return found(SkipReason::AlreadyInjected, "the label ebb-cache.io/injected is true".to_owned());
    }
    let (own, inherited) =
        (meta["labels"]["ebb-cache.io/inject"].as_str(), context.namespace.labels.get("ebb-cache.io/inject"));
    match own.filter(|word| ["enabled", "disabled"].contains(word)).or(inherited.map(String::as_str)) {
        Some("disabled") => return found(SkipReason::Disabled, "ebb-cache.io/inject is disabled".to_owned()),
        Some("enabled") => {}
        _ if !context.needs_label => {}
        _ => return found(SkipReason::NotLabelled, "no label ebb-cache.io/inject: enabled".to_owned()),
    }
    if let Some(other) = revision::other(pod, context, template) {
        let detail = format!("the pod is one of the revision {other}, not {}", template.revision());
        return found(SkipReason::OtherRevision, detail);
    }
    let namespace = context.namespace.name.as_str();
    if SYSTEM_NAMESPACES.contains(&namespace) || context.own_namespace == Some(namespace) {
        return found(SkipReason::SystemNamespace, namespace.to_owned());
    }
    if !meta["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return found(SkipReason::MirrorPod, "the pod has the annotation kubernetes.io/config.mirror".to_owned());
    }
    if spec["hostNetwork"] == true {
        return found(SkipReason::HostNetwork, "spec.hostNetwork is true".to_owned());
    }
    let os = (spec["os"]["name"] == "windows").then_some("spec.os");
    if let Some(field) = os.or_else(|| WINDOWS.asked_by(spec)) {
        return found(SkipReason::Windows, format!("{field} asks for Windows nodes"));
    }
    if let Some(field) = VIRTUAL.asked_by(spec) {
        return found(SkipReason::VirtualKubelet, format!("{field} asks for nodes of a virtual kubelet"));
    }
    if list(&spec["containers"]).any(|container| container["name"] == "ebb") {
        return found(SkipReason::NameConflict, "spec.containers has a container ebb".to_owned());
    }
    let taken = list(&spec["volumes"]).filter_map(|volume| volume["name"].as_str()).find(|name| VOLUMES.contains(name));
    if let Some(name) = taken {
        return found(SkipReason::VolumeConflict, format!("the pod has a volume {name}"));
    }
    let ports = wishes.ports();
    for container in containers().filter(|container| container["name"] != "ebb") {
        for port in list(&container["ports"]).filter(|port| port["protocol"].is_null() || port["protocol"] == "TCP") {
            if let Some(number) = port["containerPort"].as_u64().filter(|number| ports.contains(number)) {
                return found(SkipReason::PortConflict, format!("container {} has port {number}", container["name"]));
            }
        }
    }
    let declared = list(&spec["initContainers"]).find(|container| container["name"] == "ebb");
    let limit = |of: &Value| text(&of["resources"]["limits"]["memory"]);
    let limits = [
        ("spec.resources.limits.memory", limit(spec)),
        ("resources.limits.memory of the container ebb", declared.and_then(limit)),
    ];
    for (what, limit) in limits {
        if let Some(limit) = limit.filter(|limit| Quantity::parse(limit) < Quantity::parse(LEAST)) {
            return found(SkipReason::PodLimitTooSmall, format!("{what} is {limit}"));
        }
    }
    None
}

/// Why a patch cannot be applied to the pod, if it cannot.
fn malformed(pod: &Value) -> Option<String> {
    let is = |path: &str, fits: fn(&Value) -> bool| {
        pointer::get(pod, path).is_none_or(|value| value.is_null() || fits(value))
    };
    if pod["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Some("spec.containers must be a list with at least one container".to_owned());
    }
    for path in ["/metadata", "/metadata/labels", "/metadata/annotations", "/spec/securityContext", "/spec/resources"] {
        if !is(path, Value::is_object) {
            return Some(format!("{path} must be an object"));
        }
    }
    for path in ["/spec/initContainers", "/spec/volumes", "/spec/securityContext/supplementalGroups"] {
        if !is(path, Value::is_array) {
            return Some(format!("{path} must be a list"));
        }
    }
    for container in all_containers(&pod["spec"]) {
        if !container.is_object() {
            return Some("each container must be an object".to_owned());
        }
        for field in ["env", "volumeMounts", "ports", "args"] {
            if !container[field].is_null() && !container[field].is_array() {
                return Some(format!("{field} of container {} must be a list", container["name"]));
            }
        }
    }
    None
}
