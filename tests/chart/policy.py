"""The policy in a real API server: what it adds to a pod, which pods it leaves alone, and that once is enough."""

import json
import pathlib
import socket
import subprocess
import tempfile
import time

import yaml

CONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Cluster:
    """An API server without nodes."""

    def __init__(self, assets, tools, folder):
        self.tools, self.folder = tools, folder
        etcd, peer, port, token = free_port(), free_port(), free_port(), "an-operator-of-this-test"
        subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f"{token},operator,operator,system:masters\n")
        (folder / "kubeconfig").write_text(CONFIG.format(port=port, token=token))
        client, member = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self.processes, self.port, self.token = [], port, token
        self.start(
            [assets / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync"]
            + ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", member]
            + ["--initial-advertise-peer-urls", member, "--initial-cluster", f"default={member}"]
        )
        self.server = (
            [assets / "kube-apiserver", "--etcd-servers", client, "--cert-dir", folder / "certs"]
            + ["--secure-port", str(port), "--bind-address", "127.0.0.1", "--service-cluster-ip-range", "10.0.0.0/24"]
            + ["--service-account-issuer", "https://kubernetes.default.svc"]
            + ["--service-account-key-file", folder / "sa.key", "--service-account-signing-key-file", folder / "sa.key"]
            + ["--authorization-mode", "RBAC", "--token-auth-file", folder / "tokens.csv"]
            + ["--disable-admission-plugins", "ServiceAccount"]
            # Webhooks are called at the addresses of their EndpointSlices: nobody here carries out Services.
            + ["--enable-aggregator-routing"]
        )
        self.start(self.server)
        self.until("the API server is ready", lambda: self.kubectl("get", "--raw", "/readyz")[1] == "ok")

    def start(self, command):
        log = (self.folder / f"{command[0].name}.log").open("w")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def until(self, what, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {what}")
            time.sleep(0.1)

    def run(self, program, *arguments, text=None):
        environment = {"KUBECONFIG": str(self.folder / "kubeconfig"), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        command = [self.tools / program, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def kubectl(self, *arguments, text=None):
        return self.run("helm4/kubectl", *arguments, text=text)

    def admit(self, pod, namespace="shop"):
        """The pod as the API server would store it, or why not."""
        code, out, why = self.kubectl(
            "create",
            "--dry-run=server",
            "--output=json",
            "--namespace",
            namespace,
            "--filename=-",
            text=json.dumps(pod),
        )
        return json.loads(out) if code == 0 else why


def pod(*, labels=None, annotations=None, containers=None, **spec):
    containers = containers or [{"name": "app", "image": "app"}]
    metadata = {"name": "p", "labels": labels or {}, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def app(name="app", **more):
    return {"name": name, "image": name, **more}


def both(cpu, memory):
    return {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}


def sidecar(pod):
    found = [container for container in pod["spec"].get("initContainers", []) if container["name"] == "ebb"]
    return found[0] if found else None


def injected(pod):
    """Nothing, or what is wrong with a pod that should have a sidecar."""
    if isinstance(pod, str):
        return pod
    if pod["spec"].get("initContainers", [{}])[0].get("name") != "ebb":
        return "ebb is not the first init container"
    if pod["metadata"]["labels"].get("ebb-cache.io/injected") != "true":
        return "the label is missing"
    if [volume["name"] for volume in pod["spec"]["volumes"]][-2:] != ["ebb-config", "ebb-socket"]:
        return "the volumes are missing"
    if 65532 not in pod["spec"]["securityContext"]["supplementalGroups"]:
        return "the socket's group is missing"


def wired(pod, *names):
    """Whether exactly these containers were told about the cache, once."""
    for container in pod["spec"]["containers"]:
        told = [variable for variable in container.get("env", []) if variable["name"] == "EBB_ADDR"]
        mounts = [mount for mount in container.get("volumeMounts", []) if mount["mountPath"] == "/run/ebb"]
        expected = int(container["name"] in names)
        if (len(told), len(mounts)) != (expected, expected):
            return f"{container['name']} has {len(told)} EBB_ADDR and {len(mounts)} mounts"


ENABLED, DISABLED = {"ebb-cache.io/inject": "enabled"}, {"ebb-cache.io/inject": "disabled"}


def check_pods(cluster, check):
    def one(name, given, *facts, namespace="shop"):
        got = cluster.admit(given, namespace)
        problems = [injected(got)]
        if not problems[0]:
            problems = [fact(got) for fact in facts]
        check(f"policy: {name}", *problems)

    def alone(name, given, namespace="shop"):
        got = cluster.admit(given, namespace)
        check(f"policy: {name}", got if isinstance(got, str) else sidecar(got) and "it was injected")

    def resources(**expected):
        return lambda got: sidecar(got)["resources"] != expected and sidecar(got)["resources"]

    def qos(expected):
        return lambda got: got["status"]["qosClass"] != expected and got["status"]["qosClass"]

    plain = {"limits": {"memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "256Mi"}}
    one("a pod with nothing", pod(), lambda got: wired(got, "app"), resources(**plain))
    one("a pod without labels and annotations", {**pod(), "metadata": {"name": "p"}}, lambda got: wired(got, "app"))
    full = pod(
        containers=[
            app("a", env=[{"name": "A", "value": "$(EBB_ADDR)"}], volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            app("b"),
        ],
        initContainers=[app("first"), app("second", restartPolicy="Always")],
        volumes=[{"name": "v", "emptyDir": {}}],
        securityContext={"fsGroup": 1000, "supplementalGroups": [7]},
    )
    one(
        "a pod with everything keeps it",
        full,
        lambda got: wired(got, "a", "b"),
        lambda got: [c["name"] for c in got["spec"]["initContainers"]] != ["ebb", "first", "second"] and "order",
        lambda got: [v["name"] for v in got["spec"]["containers"][0]["env"]] != ["EBB_ADDR", "A"]
        and "a variable that uses EBB_ADDR must follow it",
        lambda got: got["spec"]["securityContext"] != {"fsGroup": 1000, "supplementalGroups": [7, 65532]}
        and got["spec"]["securityContext"],
        lambda got: got["spec"]["volumes"][0] != {"name": "v", "emptyDir": {}} and got["spec"]["volumes"],
    )
    again = cluster.admit(pod())
    for key in ("uid", "creationTimestamp", "generation"):
        again["metadata"].pop(key, None)
    second = cluster.admit({**again, "status": None})
    check(
        "policy: a second round adds nothing",
        second if isinstance(second, str) else second["spec"] != again["spec"] and second["spec"],
    )
    mine = app(env=[{"name": "EBB_ADDR", "value": "mine"}], volumeMounts=[{"name": "v", "mountPath": "/run/ebb"}])
    one(
        "a container's own EBB_ADDR and /run/ebb stay",
        pod(containers=[mine], volumes=[{"name": "v", "emptyDir": {}}]),
        lambda got: wired(got, "app"),
    )
    one(
        "a Guaranteed pod stays Guaranteed",
        pod(containers=[app(resources=both("1", "64Mi"))]),
        qos("Guaranteed"),
        resources(**both("50m", "256Mi")),
    )
    one(
        "a Burstable pod stays so",
        pod(containers=[app(resources={"requests": {"cpu": "1"}})]),
        qos("Burstable"),
        resources(**plain),
    )
    zero = {"cpu": "0", "memory": "0"}
    one(
        "a pod's own total is kept",
        pod(containers=[app(resources=both("1", "1Gi"))], resources=both("1", "1Gi")),
        qos("Guaranteed"),
        resources(limits={"memory": "256Mi"}, requests=zero),
    )
    one(
        "a limit is not above the pod's",
        pod(resources=both("1", "100Mi")),
        resources(limits={"memory": "100Mi"}, requests=zero),
    )
    sized = {"config.ebb-cache.io/memory-limit": "1Gi", "config.ebb-cache.io/cpu-request": "200m"}
    one(
        "annotations size the sidecar",
        pod(annotations=sized),
        resources(limits={"memory": "1Gi"}, requests={"cpu": "200m", "memory": "1Gi"}),
    )
    one(
        "annotations size it in a Guaranteed pod",
        pod(annotations=sized, containers=[app(resources=both("1", "64Mi"))]),
        qos("Guaranteed"),
        resources(**both("200m", "1Gi")),
    )
    wrong = {
        "config.ebb-cache.io/memory-limit": "lots",
        "config.ebb-cache.io/cpu-request": "-1",
        "config.ebb-cache.io/config-map": "No Name",
    }
    config_map = (
        lambda name: lambda got: got["spec"]["volumes"][0]["projected"]["sources"][1]["configMap"]["name"] != name
        and "another ConfigMap"
    )
    one("wrong annotations leave the defaults", pod(annotations=wrong), resources(**plain), config_map("ebb-config"))
    one(
        "an annotation names the ConfigMap",
        pod(annotations={"config.ebb-cache.io/config-map": "orders"}),
        config_map("orders"),
    )
    two = [app("a"), app("b"), app("c")]
    one(
        "an annotation names the applications",
        pod(annotations={"config.ebb-cache.io/app-containers": "a, c"}, containers=two),
        lambda got: wired(got, "a", "c"),
    )
    one(
        "an annotation names no application",
        pod(annotations={"config.ebb-cache.io/app-containers": ""}, containers=two),
        lambda got: wired(got),
    )
    one("a pod asks in a namespace that does not", pod(labels=ENABLED), namespace="plain")
    one("a pod asks in a namespace that does", pod(labels=ENABLED), lambda got: wired(got, "app"))
    one("a pod's label that means nothing does not count", pod(labels={"ebb-cache.io/inject": "perhaps"}))
    alone("a pod that declines", pod(labels=DISABLED))
    alone("a namespace that does not ask", pod(), namespace="plain")
    alone("a pod that asks in kube-system", pod(labels=ENABLED), namespace="kube-system")
    alone("a pod that asks in the release's namespace", pod(labels=ENABLED), namespace="ebb-system")
    alone("a pod of the host's network", pod(hostNetwork=True))
    alone("a pod for Windows", pod(os={"name": "windows"}))
    alone("a pod for nodes with Windows", pod(nodeSelector={"kubernetes.io/os": "windows"}))
    alone("a pod for a virtual kubelet", pod(nodeSelector={"type": "virtual-kubelet"}))
    alone("a mirror pod", pod(annotations={"kubernetes.io/config.mirror": "x"}, nodeName="n"))
    alone("a pod with a container ebb", pod(containers=[app("ebb")]))
    alone("a pod with a volume ebb-config", pod(volumes=[{"name": "ebb-config", "emptyDir": {}}]))
    alone("a pod that needs the port 7070", pod(containers=[app(ports=[{"containerPort": 7070}])]))
    one("a pod that needs UDP port 7070", pod(containers=[app(ports=[{"containerPort": 7070, "protocol": "UDP"}])]))
    code, _, why = cluster.kubectl("label", "namespace", "shop", "pod-security.kubernetes.io/enforce=restricted")
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    one(
        "restricted pod security lets the sidecar in",
        pod(containers=[app(securityContext=restricted)]),
        lambda got: wired(got, "app"),
    )


READ_BY_THE_POLICY = {"memory-limit", "cpu-request", "config-map", "app-containers"}


def check_corpus(cluster, check):
    """The policy gives the pods of tests/inject what `ebb inject` gives them, wherever it reads what they ask for."""
    compared, problems = 0, []
    for path in sorted(pathlib.Path("tests/inject/pods").glob("*.yaml")):
        expected, text = path.read_text().split("\n", 1)
        given = yaml.safe_load(text)
        asked = {key.removeprefix("config.ebb-cache.io/") for key in given.get("metadata", {}).get("annotations") or {}}
        asked = {name for name in asked if "/" not in name}
        strange = text.startswith("# namespace") or path.stem in ("declares-ebb", "unknown-fields")
        if strange or asked - READ_BY_THE_POLICY or expected.endswith(("malformed", "too-small")):
            continue
        given.setdefault("metadata", {})["name"] = "p"
        got = cluster.admit(given)
        if isinstance(got, dict) and expected == "# injected":
            ours = yaml.safe_load((path.parents[1] / "injected" / path.name).read_text())
            ours["metadata"]["name"] = "p"
            ours = cluster.admit(ours)
            for one in (got, ours):
                if isinstance(one, dict):
                    for field in ("uid", "creationTimestamp", "managedFields"):
                        one["metadata"].pop(field, None)
                    one["metadata"]["annotations"].pop("ebb-cache.io/injected-by")
            if got != ours:
                problems.append(f"{path.stem}: {json.dumps(got)} instead of {json.dumps(ours)}")
        elif isinstance(got, str) or sidecar(got) and path.stem != "container-called-ebb":
            problems.append(f"{path.stem}: {got}")
        compared += 1
    check(f"policy: {compared} pods of tests/inject get what ebb inject gives them", *problems)


def in_force(cluster):
    """Policies reach the admission chain a moment after they are stored."""
    return lambda: not injected(cluster.admit(pod(labels=ENABLED), "plain"))


def run(assets, tools, check):
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(assets, tools, pathlib.Path(folder))
        try:
            for namespace in ("shop", "plain"):
                cluster.kubectl("create", "namespace", namespace)
            cluster.kubectl("label", "namespace", "shop", "ebb-cache.io/inject=enabled")
            install = ("--namespace", "ebb-system", "--create-namespace", "--set", "injector.mode=policy,standalone.enabled=true")
            code, _, why = cluster.run("helm4/helm", "install", "ebb", "charts/ebb", *install)
            check("policy: the chart installs", code and why)
            cluster.until("the policy is in force", in_force(cluster))
            check_corpus(cluster, check)
            check_pods(cluster, check)
            hooks = cluster.run("helm4/helm", "get", "hooks", "ebb", "--namespace", "ebb-system")[1]
            test = hooks.split("test-injection.yaml")[-1].split("\n---")[0]
            got = cluster.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", text="#" + test)
            check("policy: the test pod is injected in the release's namespace", got[2] or injected(json.loads(got[1])))
            code, _, why = cluster.run("helm4/helm", "install", "other", "charts/ebb", "--namespace", "plain", "--set", "injector.mode=policy")
            said = "The MutatingAdmissionPolicy ebb.ebb-system.ebb-cache.io of release ebb injects in this cluster already" in why
            check("policy: a second release is refused with the name of the first", not (code and said) and why)
            code, _, why = cluster.run(
                "helm4/helm",
                "upgrade",
                "ebb",
                "charts/ebb",
                "--namespace",
                "ebb-system",
                "--values",
                "charts/ebb/ci/tcp-values.yaml",
                "--set",
                "injector.mode=policy",
            )
            check("policy: an upgrade", code and why)
            told = lambda got: got["spec"]["containers"][0].get("env", [{}])[0].get("value")
            cluster.until(
                "the upgraded policy is in force",
                lambda: told(cluster.admit(pod(labels=ENABLED), "plain")) == "127.0.0.1:17070",
            )
            asked = {"config.ebb-cache.io/memory-limit": "100Mi", "config.ebb-cache.io/cpu-request": "2"}
            for annotations, memory, cpu in (
                ({}, ("128Mi", "1Gi"), ("100m", "1")),
                (asked, ("100Mi",) * 2, ("2", "2")),
            ):
                got = sidecar(cluster.admit(pod(labels=ENABLED, annotations=annotations), "plain"))["resources"]
                expected = {
                    "requests": {"cpu": cpu[0], "memory": memory[0]},
                    "limits": {"cpu": cpu[1], "memory": memory[1]},
                }
                check(f"policy: requests below limits, annotations {annotations}", got != expected and got)
            code, _, why = cluster.run("helm4/helm", "uninstall", "ebb", "--namespace", "ebb-system")
            kinds = "mutatingadmissionpolicies,mutatingadmissionpolicybindings,deployments,services,configmaps,secrets"
            kinds += ",poddisruptionbudgets,networkpolicies"
            left = cluster.kubectl(
                "get", kinds, "--all-namespaces", "--selector", "app.kubernetes.io/part-of=ebb", "--output=name"
            )
            check("policy: an uninstallation leaves nothing", code and why, left[1])
            for words in (
                ("install", "ebb", "charts/ebb", *install),
                ("uninstall", "ebb", "--namespace", "ebb-system"),
            ):
                code, _, why = cluster.run("helm3/helm", *words)
                check(f"policy: {words[0]} with Helm 3", code and why)
            manifests = cluster.kubectl("apply", "--filename", "manifests/policy.yaml", "--filename", "manifests/standalone.yaml")
            check("policy: manifests/ apply without Helm", manifests[0] and manifests[2])
            cluster.until("the policy of manifests/ is in force", in_force(cluster))
        finally:
            cluster.stop()
