//! The sidecar's resources. They depend on the pod's.
//!
//! | the pod | limits | requests |
//! |---|---|---|
//! | has pod-level resources (`spec.resources`) | memory, within the pod's limit | zero for resources with a pod-level limit or request |
//! | is Guaranteed | CPU and memory | the same: it stays Guaranteed |
//! | any other | memory, CPU if requested | CPU and memory |
//!
//! A missing request defaults to the limit, so no request must be written as zero. Other resources of the template, such as
//! ephemeral storage, do not depend on the pod.

use super::pod::{all_containers, text};
use super::wish::Wishes;
use ebb_config::units::Quantity;
use serde_json::{Value, json};

/// CPU request if neither annotation nor template sets one.
const CPU: &str = "50m";

pub(super) fn resources(pod: &Value, wishes: &Wishes) -> Value {
    let mut resources = cpu_and_memory(pod, wishes);
    for (part, wanted) in wishes.container["resources"].as_object().into_iter().flatten() {
        for (resource, amount) in wanted.as_object().into_iter().flatten() {
            if resource != "cpu" && resource != "memory" {
                resources[part][resource] = amount.clone();
            }
        }
    }
    resources
}

fn cpu_and_memory(pod: &Value, wishes: &Wishes) -> Value {
    let spec = &pod["spec"];
    let (limits, requests) = (&wishes.container["resources"]["limits"], &wishes.container["resources"]["requests"]);
    let wanted = wishes.memory_limit.clone().unwrap_or_else(|| text(&limits["memory"]).unwrap_or_default());
    let total = text(&spec["resources"]["limits"]["memory"]);
    let memory = total.filter(|total| is_less(total, &wanted)).unwrap_or(wanted);
    let cpu = wishes.cpu_request.clone().or_else(|| text(&requests["cpu"])).or_else(|| text(&limits["cpu"]));
    let cpu = cpu.unwrap_or_else(|| CPU.to_owned());
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
    if let Some(limit) = wishes.cpu_limit.clone().or_else(|| text(&limits["cpu"])).filter(|_| !covers_cpu) {
        resources["limits"]["cpu"] = if is_less(&limit, &cpu) { cpu.into() } else { limit.into() };
    }
    resources
}

/// Whether every container has limits for CPU and memory, with requests equal to them.
fn is_guaranteed(spec: &Value) -> bool {
    all_containers(spec).filter(|container| container["name"] != "ebb").all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = text(&container["resources"]["limits"][resource]);
            let request = text(&container["resources"]["requests"][resource]).or_else(|| limit.clone());
            limit.zip(request).is_some_and(|(a, b)| Quantity::parse(&a) == Quantity::parse(&b))
        })
    })
}

fn is_less(a: &str, b: &str) -> bool {
    Quantity::parse(a).zip(Quantity::parse(b)).is_some_and(|(a, b)| a < b)
}
