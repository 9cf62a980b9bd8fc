//! The reference page, printed from the tables.

use super::annotations::{ANNOTATIONS, Annotation};
use super::skip::SkipReason;
use ebb_config::annotations::{PREFIX, SETTINGS};
use std::fmt::Write as _;

const OPENING: &str = "\
# Injection

Printed from the code by `EBB_BLESS=1 cargo test --test inject`; do not edit.

The sidecar is described once, by the PodTemplate that the chart renders, and put into pods in one of three ways: by the
webhook (`ebb injector`), by the API server itself (a MutatingAdmissionPolicy, Kubernetes 1.36 and newer), or in files by
`ebb inject`. All read the same annotations and give the same pod. A container `ebb` that a pod declares among its init
containers is completed: what it says itself stays.

A pod asks for a cache by the label `ebb-cache.io/inject: enabled`, or is in a namespace with that label; the pod's own
word wins, and `disabled` declines. What was injected has the label `ebb-cache.io/injected: \"true\"` and the annotations
`ebb-cache.io/injected-by`, `ebb-cache.io/version` and `ebb-cache.io/status`: what of the pod is Ebb's, as JSON.

## What a pod gets

- The native sidecar `ebb`, first among the init containers: it is ready before the application starts and ends after it.
- The volumes `ebb-config` (a ConfigMap, the pod's annotations, its own limit and request) and `ebb-socket`.
- In application containers `EBB_ADDR` and the socket's directory, unless they say something else about them themselves.
- Its quality-of-service class stays. A pod with a total of its own (`spec.resources`) is asked for nothing on top.

Nothing else is changed, and nothing is removed.
";

/// `docs/injection.md`.
pub fn reference() -> String {
    let mut page = String::from(OPENING);
    page.push_str(
        "\n## Annotations read at injection\n\n\
         The pod's, or else its namespace's. One that makes no sense is ignored, with a warning that names it.\n\n\
         | annotation | value | meaning |\n|---|---|---|\n",
    );
    for Annotation { name, value, meaning, .. } in ANNOTATIONS {
        let _ = writeln!(page, "| `{PREFIX}{name}` | {} | {meaning} |", value.bound());
    }
    page.push_str(
        "\n## Annotations followed while the pod runs\n\n\
         `kubectl annotate pod` tunes one pod, within about a minute. They win over the ConfigMap.\n\n\
         | annotation | setting (docs/configuration.md) |\n|---|---|\n",
    );
    for (name, setting) in SETTINGS {
        let _ = writeln!(page, "| `{PREFIX}{name}` | `{setting}` |");
    }
    page.push_str("\n## Pods that are left alone\n\n| reason | meaning |\n|---|---|\n");
    for reason in SkipReason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.label(), reason.meaning());
    }
    page
}
