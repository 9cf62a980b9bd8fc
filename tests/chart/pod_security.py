"""Checks a pod's spec against the Pod Security Standard "restricted" for Linux, as of Kubernetes 1.37."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def problems(spec):
    """Violations of the standard, as messages; empty if the pod complies."""
    own, said = spec.get("securityContext", {}), []
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            said.append(f"{field} is true")
    for volume in spec.get("volumes", []):
        if strange := volume.keys() - VOLUMES - {"name"}:
            said.append(f"volume {volume['name']} is a {min(strange)}")
    for sysctl in own.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            said.append(f"sysctl {sysctl['name']}")
    said += profiles(own, "the pod")
    for container in spec.get("initContainers", []) + spec.get("containers", []):
        said += [f"{container['name']}: {problem}" for problem in of_container(container, own)]
    return said


def of_container(container, pod):
    context, said = container.get("securityContext", {}), profiles(container.get("securityContext", {}), "it")
    inherited = lambda field: context.get(field, pod.get(field))
    capabilities = context.get("capabilities", {})
    facts = {
        "it is privileged": context.get("privileged"),
        "it may gain privileges": context.get("allowPrivilegeEscalation") is not False,
        "it keeps capabilities": "ALL" not in capabilities.get("drop", []),
        "it adds capabilities": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
        "it may run as root": inherited("runAsNonRoot") is not True,
        "it runs as root": inherited("runAsUser") == 0,
        "it has no seccomp profile": (inherited("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"),
        "it sees all of /proc": context.get("procMount", "Default") != "Default",
        "it has a port of the node": any(port.get("hostPort") for port in container.get("ports", [])),
        "a probe or hook names a host": any(named_hosts(container)),
    }
    return said + [fact for fact, holds in facts.items() if holds]


def profiles(context, who):
    """Violations in AppArmor and SELinux options, which pods and containers share."""
    selinux = context.get("seLinuxOptions", {})
    facts = {
        "AppArmor": context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"),
        "SELinux": selinux.get("type") not in SELINUX or selinux.get("user") or selinux.get("role"),
    }
    return [f"{who} weakens {system}" for system, holds in facts.items() if holds]


def named_hosts(container):
    hooks = container.get("lifecycle", {}).values()
    probes = [container.get(f"{name}Probe", {}) for name in ("liveness", "readiness", "startup")]
    return [call.get(way, {}).get("host") for call in [*hooks, *probes] for way in ("httpGet", "tcpSocket")]
