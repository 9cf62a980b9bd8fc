//! Generates the reference page from the tables.

use super::annotations::{ANNOTATIONS, Annotation};
use super::skip::SkipReason;
use ebb_config::annotations::{PREFIX, SETTINGS};
use std::fmt::Write as _;

const OPENING: &str = "\
# Injection

Printed from the code by `EBB_BLESS=1 cargo test --test inject`; do not edit.

The chart renders a PodTemplate with the sidecar. There are three ways to inject it: the webhook (`ebb injector`), the
API server (a MutatingAdmissionPolicy, Kubernetes 1.36 or newer), or `ebb inject` for files. All read the same
annotations and give the same pod. `ebb inject` keeps comments and format of a file. If a pod declares an init container `ebb`, injection adds the missing fields and
keeps the others.

To request a sidecar, set the label `ebb-cache.io/inject: enabled` on the pod or its namespace; `disabled` declines it.
The pod's label overrides the namespace's. The label `ebb-cache.io/rev` of the pod, or else of its namespace, chooses
the [revision](platforms.md#upgrade-by-revisions) of the injector. An injected pod has the label
`ebb-cache.io/injected: \"true\"`; `ebb-cache.io/version`, the tag of its image, or the first characters of its digest, cut
to the length of a label; and `ebb-cache.io/rev`, if a revision other than the default one injected it. It also has the
annotations `ebb-cache.io/injected-by`, `ebb-cache.io/version` and `ebb-cache.io/status`, which lists the additions as
JSON; and `ebb-cache.io/merged: \"true\"` if the pod declares the container. `ebb uninject` removes the listed additions
and nothing else.

## Changes to a pod

- The native sidecar `ebb`, first among the init containers: it is ready before the application starts and ends after
  it.
- The volumes `ebb-config` (a ConfigMap, the pod's annotations, the sidecar's memory limit and request) and
  `ebb-socket`.
- `EBB_ADDR`, the variables of `sidecar.appEnv` (a value of the chart) and a mount of the socket's directory in
  application containers, unless they define these themselves. Init containers and native sidecars get them if
  `app-containers` names them and they start after the sidecar.
- In the sidecar, the volume `ebb-config` also where the token of the pod's ServiceAccount would be, unless
  `sidecar.events` needs the token.
- The socket's group in `supplementalGroups` of the pod.
- The chart's `sidecar.imagePullSecrets`, if there are any.
- The annotation `kubectl.kubernetes.io/default-container` with the first application container, unless it is set.
- A Guaranteed pod stays Guaranteed, and a Burstable pod Burstable. A BestEffort pod becomes Burstable, since a cache
  needs a memory limit. If pod-level resources (`spec.resources`) include
  CPU, the sidecar requests no CPU, and the same for memory.
- If all application containers and native sidecars have a CPU limit, the sidecar gets the largest one, but at most one
  core, and at least its own request. Zero is no limit. The chart's value and the annotation `cpu-limit` override it,
  except in a pod with pod-level CPU. In a Guaranteed pod both are the request, or `cpu-limit` if that is larger.
- With a socket, the sidecar opens no data port, so an application may use 7070. The annotations `bind-address` and
  `grpc-port` open it; without `grpc-port` it is the chart's value `sidecar.ports.data`.

Nothing else changes, and nothing is removed.
";

/// `docs/injection.md`.
pub fn reference() -> String {
    let mut page = String::from(OPENING);
    page.push_str(
        "\n## Annotations read at injection\n\n\
         Annotations of the pod override those of its namespace. An invalid value is ignored, with a warning, and the\n\
         default applies. Webhook and `ebb inject` also guess what a misspelled name means. `ebb inject --set` refuses\n\
         an invalid value.\n\n\
         Annotations that the chart's value `injector.allowedAnnotations` does not allow are ignored, too: by default\n\
         `additional-env`, `image` and `unix-socket-path`, unless the namespace has the label\n\
         `ebb-cache.io/trusted: \"true\"` ([security](security.md)). `ebb inject` allows all.\n\n\
         - Ports are checked together: if two of the sidecar's ports would be equal, all annotations of ports are ignored.\n\
         - Names that no container of the pod has are ignored. If a pod's `app-containers` has no other names, it is\n\
         \x20 ignored as a whole.\n\
         - `memory-share` counts containers that have a memory limit. If none has one, it counts the limit of the pod\n\
         \x20 (`spec.resources`), and without that it is ignored. If `memory-limit` is set at the same place, `memory-share`\n\
         \x20 is ignored; if one is set on the pod and the other on the namespace, that of the pod applies.\n\
         - An init container that is named in `app-containers` and starts before the sidecar causes a warning. By default\n\
         \x20 the sidecar is the first; it is not with `position: last`, or where the pod declares it.\n\
         - In a pod with only a socket, `bind-address` counts as an annotation of ports.\n\
         - `additional-env` is ignored as a whole if the template sets a variable in it, or if a variable of Ebb in it is\n\
         \x20 no setting, is out of its range (docs/configuration.md), or sets an address or a file. Numbers have no leading\n\
         \x20 zeros, durations one unit (`30m`), and sizes the syntax of Kubernetes.\n\n\
         | annotation | value | meaning |\n|---|---|---|\n",
    );
    for Annotation { name, value, meaning, .. } in ANNOTATIONS {
        let _ = writeln!(page, "| `{PREFIX}{name}` | {} | {meaning} |", value.bound());
    }
    page.push_str(
        "\n## Annotations followed while the pod runs\n\n\
         `kubectl annotate pod` changes settings of one pod within about a minute. They override the ConfigMap.\n\
         A watermark that is set alone pulls the others along, so `memory-high: 80%` needs no other annotation.\n\n\
         | annotation | setting (docs/configuration.md) |\n|---|---|\n",
    );
    for (name, setting) in SETTINGS {
        let _ = writeln!(page, "| `{PREFIX}{name}` | `{setting}` |");
    }
    page.push_str("\n## Skipped pods\n\n| reason | meaning |\n|---|---|\n");
    for reason in SkipReason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.label(), reason.meaning());
    }
    page
}
