"""Every pod fits the Pod Security Standard "restricted", and the check detects each violation."""

import copy

import pytest

import pod_security
from helm import CI, pods

# One violation at a time: the path in a valid spec, and the new value; None removes the field.
FIRST = ("containers", 0)
CONTEXT = (*FIRST, "securityContext")
PLANTED = (
    (("hostNetwork",), True),
    (("hostPID",), True),
    (("hostIPC",), True),
    (("volumes",), [{"name": "node", "hostPath": {"path": "/"}}]),
    (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
    (("securityContext", "appArmorProfile"), {"type": "Unconfined"}),
    (("securityContext", "seLinuxOptions"), {"type": "spc_t"}),
    ((*CONTEXT, "seLinuxOptions"), {"user": "root"}),
    ((*CONTEXT, "privileged"), True),
    ((*CONTEXT, "allowPrivilegeEscalation"), None),
    ((*CONTEXT, "capabilities"), None),
    ((*CONTEXT, "capabilities", "add"), ["NET_ADMIN"]),
    ((*CONTEXT, "runAsNonRoot"), False),
    ((*CONTEXT, "runAsUser"), 0),
    ((*CONTEXT, "seccompProfile"), {"type": "Unconfined"}),
    ((*CONTEXT, "procMount"), "Unmasked"),
    ((*FIRST, "ports"), [{"containerPort": 1, "hostPort": 1}]),
    ((*FIRST, "livenessProbe"), {"httpGet": {"host": "example.com", "port": 80}}),
    ((*FIRST, "lifecycle"), {"preStop": {"tcpSocket": {"host": "example.com", "port": 80}}}),
)


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_pods_are_restricted(helm, path):
    # Only these values request the host's network; no other violation is allowed.
    weakened = [("Deployment ebb-injector", "hostNetwork is true")] if path.name.startswith("host-network") else []
    specs = pods(helm.objects("--values", path))
    assert [(label, problem) for label, spec in specs for problem in pod_security.problems(spec)] == weakened


def test_ci_has_each_kind_of_pod(helm):
    assert dict(pods(helm.ci("pss"))).keys() == {
        "Deployment ebb",
        "Deployment ebb-injector",
        "Pod ebb-test-check",
        "Pod ebb-test-injection",
        "Pod ebb-test-standalone",
        "PodTemplate ebb-sidecar",
    }


@pytest.mark.parametrize("where, value", PLANTED, ids=[".".join(map(str, where)) for where, _ in PLANTED])
def test_notices_a_planted_fault(helm, where, value):
    spec = copy.deepcopy(dict(pods(helm.ci("pss")))["Deployment ebb-injector"])
    assert pod_security.problems(spec) == []
    *parents, last = where
    at = spec
    for key in parents:
        at = at[key] if isinstance(at, list) else at.setdefault(key, {})
    if value is None:
        at.pop(last)
    else:
        at[last] = value
    assert pod_security.problems(spec) != []
