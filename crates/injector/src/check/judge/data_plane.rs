//! Checks that pods have their sidecars, and the state of the sidecars.

use super::control_plane::version_of_new_pods;
use super::{Facts, Finding, LeftAlone, Pod, Severity, bad, named, ok};
use std::collections::BTreeMap;

const CATEGORY: &str = "data-plane";

pub(super) fn data_plane(facts: &Facts, all: &mut Vec<Finding>) {
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
            &|pod| pod.asks && !pod.has_sidecar,
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
        (
            "have a sidecar of another revision than their labels choose",
            Severity::Warning,
            "Recreate them with kubectl rollout restart.",
            &|pod| pod.injected_as.as_ref().is_some_and(|revision| *revision != pod.revision),
        ),
        (&other, Severity::Warning, "Recreate them with kubectl rollout restart.", &|pod| {
            let is_of_another = pod.injected_as.as_ref().is_some_and(|revision| *revision != pod.revision);
            let is_old = pod.has_sidecar && !pod.version.is_empty() && pod.version != installed;
            is_old && !is_of_another && !pod.chooses_image
        }),
    ];
    left_alone(pods, all);
    let mut well = true;
    for (what, severity, remedy, applies) in rules {
        let names: Vec<&str> = pods.iter().filter(|pod| applies(pod)).map(|pod| pod.name.as_str()).collect();
        if !names.is_empty() {
            well = false;
            bad(all, CATEGORY, *severity, format!("pods that {what}: {}", named(&names)), remedy);
        }
    }
    if well {
        let sidecars = pods.iter().filter(|pod| pod.has_sidecar).count();
        ok(all, CATEGORY, format!("sidecars without problems: {sidecars}"));
    }
}

/// One finding for each reason, with an example: a cluster may have thousands of such pods.
fn left_alone(pods: &[Pod], all: &mut Vec<Finding>) {
    let mut by_reason: BTreeMap<&str, (usize, &Pod, &LeftAlone)> = BTreeMap::new();
    for pod in pods {
        let Some(why) = &pod.left_alone else { continue };
        by_reason.entry(why.reason).or_insert((0, pod, why)).0 += 1;
    }
    for (reason, (number, pod, why)) in by_reason {
        let found = format!(
            "pods that ask for a cache and are left alone on purpose, {reason}: {number}, such as {} ({})",
            pod.name, why.detail
        );
        bad(all, CATEGORY, Severity::Info, found, why.meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{troubles, well};
    use super::*;

    #[test]
    fn pods_left_alone_are_counted_by_reason() {
        let left = |name: &str, reason, detail: &str| Pod {
            name: name.to_owned(),
            left_alone: Some(LeftAlone { reason, meaning: "It means this.", detail: detail.to_owned() }),
            ..Pod::default()
        };
        let pods = (0..3000).map(|n| left(&format!("shop/a-{n}"), "host-network", "spec.hostNetwork is true"));
        let all = pods.chain([left("shop/w", "windows", "spec.os is windows")]).collect();
        let found = troubles(&Facts { pods: Ok(all), ..well() });
        let words = "pods that ask for a cache and are left alone on purpose";
        let expected = [
            format!("{words}, host-network: 3000, such as shop/a-0 (spec.hostNetwork is true)"),
            format!("{words}, windows: 1, such as shop/w (spec.os is windows)"),
        ];
        let found: Vec<_> = found.into_iter().map(|(_, severity, found)| (severity, found)).collect();
        assert_eq!(found, expected.map(|found| (Severity::Info, found)));
    }
}
