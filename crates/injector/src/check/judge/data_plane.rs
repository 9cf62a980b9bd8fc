//! Checks that pods have their sidecars, and the state of the sidecars.

use super::control_plane::version_of_new_pods;
use super::{Facts, Finding, Pod, Severity, bad, ok};

pub(super) fn data_plane(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "data-plane";
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => {
            let found = format!("cannot list pods: {why}");
            return bad(all, CATEGORY, Severity::Warning, found, "Use an account that may list them.");
        }
    };
    // If the version of new pods is unknown, it is assumed to be this program's.
    let installed = version_of_new_pods(facts).unwrap_or(env!("CARGO_PKG_VERSION"));
    let other = format!("run another version of Ebb than new pods ({installed})");
    type Rule<'a> = (&'a str, Severity, &'a str, &'a dyn Fn(&Pod) -> bool);
    let rules: &[Rule<'_>] = &[
        (
            "ask for a cache and have none",
            Severity::Error,
            "They were created while no injector was running. Recreate them with kubectl rollout restart.",
            &|pod| pod.asks && !pod.declines && !pod.has_sidecar,
        ),
        (
            "have an OOM-killed sidecar",
            Severity::Error,
            "Raise its limit with the annotation memory-limit, and report it: Ebb should stay below any limit.",
            &|pod| pod.was_oom_killed,
        ),
        (
            "have a restarted sidecar",
            Severity::Warning,
            "Read the log of the previous run: kubectl logs POD -c ebb --previous.",
            &|pod| pod.restarts > 0 && !pod.was_oom_killed,
        ),
        (
            "have a sidecar without a memory limit",
            Severity::Error,
            "Set resources.limits.memory. Without it, the cache uses a default of 256Mi.",
            &|pod| pod.has_sidecar && !pod.has_limit,
        ),
        (
            "lost the QoS class Guaranteed because of their sidecar",
            Severity::Warning,
            "Give the sidecar a CPU limit, or recreate the pods so that the injector does.",
            &|pod| pod.is_demoted,
        ),
        (
            "wait for a resize",
            Severity::Warning,
            "Ebb shrinks below a lower limit. If the resize stays pending, the node has no room: run kubectl describe on the pod.",
            &|pod| pod.pending_resize.is_some(),
        ),
        (&other, Severity::Warning, "Recreate them with kubectl rollout restart.", &|pod| {
            pod.has_sidecar && !pod.version.is_empty() && pod.version != installed
        }),
    ];
    let mut well = true;
    for (what, severity, remedy, applies) in rules {
        let names: Vec<&str> = pods.iter().filter(|pod| applies(pod)).map(|pod| pod.name.as_str()).collect();
        if !names.is_empty() {
            well = false;
            let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
            bad(all, CATEGORY, *severity, format!("pods that {what}: {shown}{more}"), remedy);
        }
    }
    if well {
        let sidecars = pods.iter().filter(|pod| pod.has_sidecar).count();
        ok(all, CATEGORY, format!("sidecars without problems: {sidecars}"));
    }
}
