//! The sidecar's resources. They depend on the pod's.
//!
//! | the pod | limits | requests |
//! |---|---|---|
//! | has pod-level resources (`spec.resources`) | memory, within the pod's limit; CPU if all applications have one | zero for resources with a pod-level limit or request |
//! | is Guaranteed | CPU and memory | the same: it stays Guaranteed |
//! | any other | memory; CPU if asked for, or if all applications have one | CPU and memory |
//!
//! A missing request defaults to the limit, so no request must be written as zero. A quota or a LimitRange may demand a
//! CPU limit of each container. Then all applications have one, since a LimitRange's defaults come before any injection.
//! The sidecar gets the largest of them, at most one core. Ephemeral storage does not depend on the pod.

use super::pod::{all_containers, list, text};
use super::wish::Wishes;
use ebb_config::units::Quantity;
use serde_json::{Value, json};

/// CPU request if neither annotation nor template sets one.
const CPU: &str = "50m";
/// Largest CPU limit that follows from those of the applications; one core serves several hundred thousand reads a second.
const MOST_CPU: &str = "1";
/// Ephemeral storage.
pub(super) const STORAGE: &str = "ephemeral-storage";
/// Smallest and largest memory limit as a share of the applications' limits, in MiB.
const SHARED_MIB: (u64, u64) = (32, 8 << 10);
/// Largest amount that is counted for a container: the largest limit of a server.
const MOST_BYTES: u64 = 16 << 40;

pub(super) fn resources(pod: &Value, wishes: &Wishes) -> Value {
    let mut resources = cpu_and_memory(pod, wishes);
    for (part, wanted) in wishes.container["resources"].as_object().into_iter().flatten() {
        for (resource, amount) in wanted.as_object().into_iter().flatten() {
            if resource != "cpu" && resource != "memory" && resource != STORAGE {
                resources[part][resource] = amount.clone();
            }
        }
    }
    for (part, amount) in storage(wishes) {
        resources[part][STORAGE] = amount.into();
    }
    resources
}

/// Limit and request of ephemeral storage, which fit each other and the amount that the pod declares.
fn storage(wishes: &Wishes) -> impl Iterator<Item = (&'static str, String)> {
    let [declared_limit, declared_request] = &wishes.declared_storage;
    let wanted = |declared: &Option<String>, part: &str| {
        let of_template = || text(&wishes.container["resources"][part][STORAGE]);
        declared.clone().or_else(|| wishes.storage.clone()).or_else(of_template)
    };
    let (mut limit, mut request) = (wanted(declared_limit, "limits"), wanted(declared_request, "requests"));
    if limit.as_ref().zip(request.as_ref()).is_some_and(|(limit, request)| is_less(limit, request)) {
        match declared_request {
            Some(_) => limit.clone_from(&request),
            None => request.clone_from(&limit),
        }
    }
    [("limits", limit), ("requests", request)].into_iter().filter_map(|(part, amount)| Some((part, amount?)))
}

/// This percentage of the applications' memory limits, or of the pod's if no application has one.
pub(super) fn share_of_applications(spec: &Value, share: u64) -> Option<String> {
    let bytes = |of: &Value| {
        let limit = text(&of["resources"]["limits"]["memory"]);
        limit.and_then(|limit| Quantity::parse(&limit)).map_or(0, |limit| limit.whole().min(MOST_BYTES))
    };
    let applications = list(&spec["containers"]).map(bytes).sum();
    let total = if applications > 0 { applications } else { bytes(spec) };
    let (least, most) = SHARED_MIB;
    (total > 0).then(|| format!("{}Mi", ((total.saturating_mul(share) / 100) >> 20).clamp(least, most)))
}

/// The largest CPU limit of the applications, at most one core; `None` if one of them has none. Native sidecars are
/// applications, too.
fn cpu_limit_of_applications(spec: &Value) -> Option<String> {
    let sidecars = list(&spec["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let others = list(&spec["containers"]).chain(sidecars).filter(|container| container["name"] != "ebb");
    // Zero is no limit.
    let limit = |container: &Value| text(&container["resources"]["limits"]["cpu"]).filter(|limit| is_less("0", limit));
    let limits: Option<Vec<String>> = others.map(limit).collect();
    let largest =
        limits?.into_iter().reduce(|largest, limit| if is_less(&largest, &limit) { limit } else { largest })?;
    Some(if is_less(MOST_CPU, &largest) { MOST_CPU.to_owned() } else { largest })
}

/// The CPU request by annotation, declared container or template.
pub(super) fn cpu_request(wishes: &Wishes) -> String {
    let of_template = |part: &str| text(&wishes.container["resources"][part]["cpu"]);
    let wanted = wishes.cpu_request.clone().or_else(|| of_template("requests")).or_else(|| of_template("limits"));
    wanted.unwrap_or_else(|| CPU.to_owned())
}

fn cpu_and_memory(pod: &Value, wishes: &Wishes) -> Value {
    let spec = &pod["spec"];
    let (limits, requests) = (&wishes.container["resources"]["limits"], &wishes.container["resources"]["requests"]);
    let wanted = wishes.memory_limit.clone().unwrap_or_else(|| text(&limits["memory"]).unwrap_or_default());
    let total = text(&spec["resources"]["limits"]["memory"]);
    let memory = total.filter(|total| is_less(total, &wanted)).unwrap_or(wanted);
    let cpu = cpu_request(wishes);
    let covers =
        |resource: &str| ["limits", "requests"].iter().any(|part| !spec["resources"][part][resource].is_null());
    let (covers_cpu, covers_memory) = (covers("cpu"), covers("memory"));
    if !covers_cpu && !covers_memory && is_guaranteed(spec) {
        let cpu = wishes.cpu_limit.clone().filter(|limit| is_less(&cpu, limit)).unwrap_or(cpu);
        return json!({"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}});
    }
    let by_template = || text(&requests["memory"]).filter(|_| wishes.memory_limit.is_none());
    let request = wishes.memory_request.clone().or_else(by_template).filter(|request| is_less(request, &memory));
    let request = request.unwrap_or_else(|| memory.clone());
    let request = if covers_memory { "0".to_owned() } else { request };
    let asked = if covers_cpu { "0" } else { &cpu };
    let mut resources = json!({"limits": {"memory": memory}, "requests": {"cpu": asked, "memory": request}});
    let chosen = wishes.cpu_limit.clone().or_else(|| text(&limits["cpu"])).filter(|_| !covers_cpu);
    // The request of a declared container stays, and may be above the applications' limits.
    let may_follow = !covers_cpu || all_containers(spec).all(|container| container["name"] != "ebb");
    let followed = || cpu_limit_of_applications(spec).filter(|_| may_follow);
    if let Some(limit) = chosen.or_else(followed) {
        resources["limits"]["cpu"] = if !covers_cpu && is_less(&limit, &cpu) { cpu.into() } else { limit.into() };
    }
    resources
}

/// Whether every container has limits for CPU and memory above zero, with requests equal to them.
fn is_guaranteed(spec: &Value) -> bool {
    all_containers(spec).filter(|container| container["name"] != "ebb").all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = text(&container["resources"]["limits"][resource]);
            let request = text(&container["resources"]["requests"][resource]).or_else(|| limit.clone());
            let is_equal = |a: &str, b: &str| is_less("0", a) && Quantity::parse(a) == Quantity::parse(b);
            limit.zip(request).is_some_and(|(limit, request)| is_equal(&limit, &request))
        })
    })
}

pub(super) fn is_less(a: &str, b: &str) -> bool {
    Quantity::parse(a).zip(Quantity::parse(b)).is_some_and(|(a, b)| a < b)
}
