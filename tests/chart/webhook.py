"""The webhook before a real API server: what it adds, its certificates while they change, and trouble of every kind."""

import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml

from policy import CONFIG, DISABLED, ENABLED, Cluster, app, injected, pod, sidecar, wired

NAMESPACE, INJECTOR, CONFIGURATION = "ebb-system", "ebb-injector", "ebb.ebb-system.ebb-cache.io"


def own_address():
    """An address of this machine that an EndpointSlice may hold: loopback may not stand there. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        return asking.getsockname()[0]


class Replica:
    """`ebb injector` as the Deployment runs it, with its service account's own token."""

    def __init__(self, cluster, program, name):
        folder = cluster.folder
        token = cluster.kubectl("create", "token", INJECTOR, "--namespace", NAMESPACE, "--duration", "1h")
        (folder / "injector.kubeconfig").write_text(CONFIG.format(port=cluster.port, token=token[1].strip()))
        deployment = json.loads(cluster.kubectl("get", "deployment", INJECTOR, "-n", NAMESPACE, "-o", "json")[1])
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        ours = {
            "listen": f"{own_address()}:0",
            "http-listen": "127.0.0.1:0",
            "template": folder / "sidecar.yaml",
            "leaf": "12s",
            "authority": "36s",
            "settle": "2s",
            "look": "100ms",
            "drain-delay": "500ms",
        }
        kept = [word for word in arguments[1:] if word[2:].split("=")[0] not in ours]
        command = [program, "injector", *kept, *(f"--{key}={value}" for key, value in ours.items())]
        environment = {"KUBECONFIG": str(folder / "injector.kubeconfig"), "EBB_INJECTOR_IDENTITY": name, "PATH": ""}
        self.log = folder / f"{name}.log"
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True
        )
        line = self.process.stdout.readline()
        found = re.match(r"listening webhook=(\S+):(\d+) http=(\S+)", line)
        if not found:
            raise RuntimeError(f"no addresses in {line!r}: {self.log.read_text()}")
        self.address, self.port, self.http = found[1], int(found[2]), found[3]

    def page(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.page("/metrics")[1], re.M)
        return float(found[1]) if found else 0.0

    def rss_mib(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) / 256

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def route(cluster, *replicas):
    """What the controllers of a whole cluster would write: where the Service leads to."""
    labels = {"kubernetes.io/service-name": INJECTOR}
    for at, replica in enumerate(replicas):
        piece = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{INJECTOR}-{at}", "namespace": NAMESPACE, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "webhook", "port": replica.port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [replica.address], "conditions": {"ready": True}}],
        }
        code, _, why = cluster.kubectl("apply", "--filename=-", text=json.dumps(piece))
        if code:
            raise RuntimeError(why)


def unroute(cluster, at):
    cluster.kubectl("delete", "endpointslice", f"{INJECTOR}-{at}", "--namespace", NAMESPACE)


def bundle(cluster):
    found = json.loads(cluster.kubectl("get", "mutatingwebhookconfiguration", CONFIGURATION, "-o", "json")[1])
    return {webhook["clientConfig"].get("caBundle", "") for webhook in found["webhooks"]}


def check_corpus(cluster, check):
    """Every pod of tests/inject gets what `ebb inject` gives it, but for what needs another namespace."""
    compared, problems = 0, []
    for path in sorted(pathlib.Path("tests/inject/pods").glob("*.yaml")):
        expected, text = path.read_text().split("\n", 1)
        # The API server has filled in defaults of a declared container before the webhook sees it.
        strange = text.startswith("# namespace") or path.stem in ("declares-ebb", "unknown-fields")
        if strange or not expected.startswith("# injected"):
            continue
        given = yaml.safe_load(text)
        given.setdefault("metadata", {})["name"] = "p"
        got = cluster.admit(given)
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
        compared += 1
    check(f"webhook: {compared} pods of tests/inject get what ebb inject gives them", *problems)


def post(cluster, given, path="/api/v1/namespaces/shop/pods?dryRun=All"):
    """A call without a process of its own; the answer, or why there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"https://127.0.0.1:{cluster.port}{path}", json.dumps(given).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError as error:
        return str(error)


def load(replica, per_second=200, connections=4, seconds=5):
    """How long reviews take from outside, at a steady rate over connections that stay: milliseconds, sorted."""
    request = {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "shop", "object": pod()}
    review = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    begin, took = time.perf_counter(), []

    def client(number):
        server = http.client.HTTPSConnection(replica.address, replica.port, context=context)
        for turn in range(per_second * seconds // connections):
            due = begin + (turn * connections + number) / per_second
            time.sleep(max(0.0, due - time.perf_counter()))
            start = time.perf_counter()
            server.request("POST", "/inject", review)
            server.getresponse().read()
            took.append((time.perf_counter() - start) * 1000)

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(client, range(connections)))
    return sorted(took)


def check_rbac(cluster, check):
    account = f"system:serviceaccount:{NAMESPACE}:{INJECTOR}"
    may = lambda *words: cluster.kubectl("auth", "can-i", *words, f"--as={account}")[1].strip()
    allowed = (
        ("list", "namespaces"),
        ("watch", "namespaces"),
        ("create", "events.events.k8s.io", "-n", "shop"),
        ("get", f"secrets/{INJECTOR}-tls", "-n", NAMESPACE),
        ("update", f"secrets/{INJECTOR}-tls", "-n", NAMESPACE),
        ("update", f"leases.coordination.k8s.io/{INJECTOR}", "-n", NAMESPACE),
        ("patch", f"mutatingwebhookconfigurations/{CONFIGURATION}"),
    )
    refused = (
        ("get", "secrets/another", "-n", NAMESPACE),
        ("list", "secrets", "-n", NAMESPACE),
        ("get", f"secrets/{INJECTOR}-tls", "-n", "shop"),
        ("create", "secrets", "-n", NAMESPACE),
        ("delete", f"secrets/{INJECTOR}-tls", "-n", NAMESPACE),
        ("patch", "mutatingwebhookconfigurations/another"),
        ("list", "mutatingwebhookconfigurations"),
        ("update", f"mutatingwebhookconfigurations/{CONFIGURATION}"),
        ("get", "leases.coordination.k8s.io/another", "-n", NAMESPACE),
        ("update", "namespaces/shop"),
        ("get", "pods", "-n", "shop"),
        ("create", "pods", "-n", "shop"),
        ("list", "configmaps", "-n", NAMESPACE),
    )
    check(
        "webhook: its account may do what it must, and nothing else",
        *[f"not allowed: {words}" for words in allowed if may(*words) != "yes"],
        *[f"allowed: {words}" for words in refused if may(*words) != "no"],
    )


def check_config_map(cluster, program, check):
    """`ebb serve --config-map`: followed at once, the last good stays, and whoever may not read it is told."""

    def put(text):
        given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tuning"}, "data": {"ebb.yaml": text}}
        cluster.kubectl("apply", "-n", "plain", "--filename=-", text=json.dumps(given))

    listen = [f"--{name}=127.0.0.1:0" for name in ("listen", "admin-listen", "http-listen")]
    command = [program, "serve", "--config-map=plain/tuning", *listen]
    environment = {"KUBECONFIG": str(cluster.folder / "kubeconfig"), "PATH": ""}
    absent = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    said = "ConfigMap plain/tuning: " in absent.stderr and "not found" in absent.stderr
    check("serve: a ConfigMap that is not there is named", (absent.returncode, said) != (64, True) and absent.stderr)
    put("maxMemory: 100Mi\n")
    stranger = {**environment, "KUBECONFIG": str(cluster.folder / "injector.kubeconfig")}
    refused = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=30)
    check("serve: an account that may not read it is told", "get, list and watch" not in refused.stderr and refused.stderr)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as ebb:
        try:
            http = re.search(r"http=(\S+)", ebb.stdout.readline())[1]

            def metric(name):
                with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as page:
                    return float(re.search(rf"^{name} (\S+)$", page.read().decode(), re.M)[1])

            cluster.until("the ConfigMap is in force", lambda: metric("ebb_memory_limit_bytes") == 100 << 20)
            put("maxMemory: 50Mi\n")
            cluster.until("it is followed", lambda: metric("ebb_memory_limit_bytes") == 50 << 20)
            put("maxMemory: fifty\n")
            cluster.until("a bad one is a problem", lambda: metric("ebb_config_good") == 0)
            cluster.kubectl("delete", "configmap", "tuning", "-n", "plain")
            check("serve: the last good stays", metric("ebb_memory_limit_bytes") != 50 << 20)
            put("maxMemory: 40Mi\n")
            cluster.until("it is back", lambda: metric("ebb_memory_limit_bytes") == 40 << 20)
        finally:
            ebb.kill()


def check_in_cluster(cluster, program, check):
    """`ebb check` with the account that `helm test` gives it, and nothing else."""
    show = ("--show-only", "templates/tests/test-check.yaml", "--set", "injector.mode=webhook,tests.check=true")
    text = cluster.run("helm4/helm", "template", "ebb", "charts/ebb", "--namespace", NAMESPACE, *show)[1]
    rights = [document for document in yaml.safe_load_all(text) if document and document["kind"] != "Pod"]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": rights})
    code, _, why = cluster.kubectl("create", "--filename=-", text=listed)
    check("check: the rights of helm test can be given", code and why)
    account = "ebb-test-check"
    token = cluster.kubectl("create", "token", account, "--namespace", NAMESPACE)[1].strip()
    (cluster.folder / "check.kubeconfig").write_text(CONFIG.format(port=cluster.port, token=token))
    by_admin, by_test = findings(cluster, program, "kubeconfig"), findings(cluster, program, "check.kubeconfig")
    check("check: with the rights of helm test it sees as much", by_admin != by_test and (by_admin, by_test))
    may = lambda *words: cluster.kubectl("auth", "can-i", *words, f"--as=system:serviceaccount:{NAMESPACE}:{account}")[1].strip()
    for words in (("list", "secrets"), ("create", "pods", "-n", "shop"), ("delete", "pods", "-n", "default")):
        check(f"check: helm test may not {' '.join(words)}", may(*words) != "no")
    cluster.kubectl("delete", "--filename=-", text=listed)


def findings(cluster, program, account="kubeconfig"):
    """What `ebb check` finds: its exit code, and everything that is not well."""
    environment = {"KUBECONFIG": str(cluster.folder / account), "PATH": ""}
    command = [program, "check", "--namespace", "default", "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode not in (0, 1) or not done.stdout:
        return done.returncode, {"": done.stderr}
    return done.returncode, {f["category"]: f["found"] for f in json.loads(done.stdout) if f["severity"] != "ok"}


def check_findings(cluster, program, check):
    """What is planted is found. No controller runs here, so the Deployment has no replica that is ready, and the
    authorities of this test live for seconds."""
    code, found = findings(cluster, program)
    planted = {"control-plane": "0 of 2 replicas", "webhook": "ends in 0 hours"}
    missing = [words for category, words in planted.items() if words not in found.get(category, "")]
    check("check: nothing is found but that", found.keys() ^ planted.keys(), missing and found)
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ebb-config"}, "data": {"ebb.yaml": "tick: 1"}}
    cluster.kubectl("apply", "-n", "shop", "--filename=-", text=json.dumps(bad))
    bare = {**pod(labels=DISABLED), "metadata": {"name": "forgotten", "labels": DISABLED}}
    cluster.kubectl("create", "-n", "shop", "--filename=-", text=json.dumps(bare))
    cluster.kubectl("label", "pod", "forgotten", "-n", "shop", "--overwrite", "ebb-cache.io/inject=enabled")
    code, found = findings(cluster, program)
    planted = {"config": "the ConfigMap shop/ebb-config", "data-plane": "have none: shop/forgotten"}
    missing = [words for category, words in planted.items() if words not in found.get(category, "")]
    check("check: a wrong ConfigMap and a pod without its cache are found", code != 1 and code, missing and found)
    cluster.kubectl("delete", "pod", "forgotten", "-n", "shop", "--now")
    cluster.kubectl("delete", "configmap", "ebb-config", "-n", "shop")


def run(assets, tools, program, check):
    try:
        own_address()
    except OSError as error:
        return print(f"skip   the webhook before a real API server: no address but loopback: {error}")
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(assets, tools, pathlib.Path(folder))
        replicas = []
        try:
            for namespace in ("shop", "plain"):
                cluster.kubectl("create", "namespace", namespace)
            cluster.kubectl("label", "namespace", "shop", "ebb-cache.io/inject=enabled")
            values = ("--set", "injector.mode=webhook,injector.failurePolicy=Fail")
            install = ("--namespace", NAMESPACE, "--create-namespace", *values)
            code, _, why = cluster.run("helm4/helm", "install", "ebb", "charts/ebb", *install)
            check("webhook: the chart installs", code and why)
            got = cluster.admit(pod())
            said = isinstance(got, str) and "namespaces.injector.ebb-cache.io" in got
            check("webhook: with Fail and nobody there, a pod is refused and the webhook named", not said and got)
            template = json.loads(cluster.kubectl("get", "configmap", INJECTOR, "-n", NAMESPACE, "-o", "json")[1])
            (cluster.folder / "sidecar.yaml").write_text(template["data"]["sidecar.yaml"])

            replicas.append(Replica(cluster, program, "one"))
            one = replicas[0]
            cluster.until("the injector has a certificate", lambda: one.page("/readyz")[0] == 200)
            route(cluster, one)
            cluster.until("pods are injected", lambda: not injected(cluster.admit(pod())))
            print(f"       idle, the injector has {one.rss_mib():.1f} MiB resident")
            took = load(one)
            said = f"{took[len(took) // 2]:.2f} ms in the median, {took[len(took) * 99 // 100]:.2f} ms at p99"
            print(f"       {len(took)} reviews at 200 a second: {said}, {one.rss_mib():.1f} MiB resident")
            check("webhook: an application is told", wired(cluster.admit(pod()), "app"))
            check_corpus(cluster, check)
            for name, given, namespace in (
                ("a pod that declines", pod(labels=DISABLED), "shop"),
                ("a namespace that does not ask", pod(), "plain"),
                ("a pod that asks in the release's namespace", pod(labels=ENABLED), NAMESPACE),
                ("a pod of the host's network", pod(hostNetwork=True), "shop"),
            ):
                got = cluster.admit(given, namespace)
                check(f"webhook: {name}", got if isinstance(got, str) else sidecar(got) and "it was injected")
            got = cluster.admit(pod(labels=ENABLED), "plain")
            check("webhook: a pod asks in a namespace that does not", injected(got))
            cluster.kubectl("annotate", "namespace", "shop", "config.ebb-cache.io/memory-limit=64Mi")
            limit = lambda: sidecar(cluster.admit(pod()))["resources"]["limits"]["memory"]
            cluster.until("a namespace's annotation is inherited", lambda: limit() == "64Mi")
            cluster.kubectl("annotate", "namespace", "shop", "config.ebb-cache.io/memory-limit-")
            cluster.until("and no longer", lambda: limit() == "256Mi")
            wrong = pod(annotations={"config.ebb-cache.io/uid": "root"})
            _, _, said = cluster.kubectl(
                "create", "--dry-run=server", "-n", "shop", "--filename=-", text=json.dumps(wrong)
            )
            sentence = 'Warning: annotation config.ebb-cache.io/uid ("root") is ignored: it must be 1 to 2147483647'
            check("webhook: a wrong annotation is a warning to who creates the pod", sentence not in said and said)

            events = lambda: cluster.kubectl("get", "events", "-n", "shop", "-o", "json")[1]
            owned = lambda **spec: {
                **pod(**spec),
                "metadata": {
                    "generateName": "p-",
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": True}
                    ],
                },
            }
            check("webhook: a dry run is told to nobody", json.loads(events())["items"] and events())
            post(cluster, owned(), "/api/v1/namespaces/shop/pods")
            post(cluster, owned(hostNetwork=True), "/api/v1/namespaces/shop/pods")
            told = lambda: {(e["reason"], e["involvedObject"]["name"]) for e in json.loads(events())["items"]}
            expected = {("Injected", "web"), ("InjectionSkipped", "web")}
            cluster.until("the owner has Events", lambda: told() == expected)

            with concurrent.futures.ThreadPoolExecutor(50) as pool:
                got = list(pool.map(lambda _: injected(post(cluster, pod())), range(200)))
            check("webhook: 200 pods at once", *{why for why in got if why})
            big = pod(containers=[app(env=[{"name": "BIG", "value": "x" * (2800 << 10)}])])
            got = post(cluster, big)
            check("webhook: a pod of 2.8 MiB", injected(got) if isinstance(got, dict) else got[:300])

            # Authorities live 36 s here and leaves 12 s, and a pod is refused if ever the two do not fit.
            seen, refused, end = set(), [], time.monotonic() + 120
            while len(seen) < 5 and time.monotonic() < end:
                for _ in range(10):
                    got = post(cluster, pod())
                    if isinstance(got, str) or injected(got):
                        refused.append(got if isinstance(got, str) else injected(got))
                seen |= bundle(cluster)
            check("webhook: authorities change and no pod is refused", len(seen) < 5 and f"{len(seen)} seen", *refused)

            replicas.append(Replica(cluster, program, "two"))
            two = replicas[1]
            cluster.until("a second replica serves", lambda: two.page("/readyz")[0] == 200)
            check("webhook: one of two leads", one.metric("ebb_injector_leader") + two.metric("ebb_injector_leader") != 1)
            route(cluster, one, two)
            one.process.kill()
            unroute(cluster, 0)
            cluster.until("the other takes the Lease", lambda: two.metric("ebb_injector_leader") == 1)
            cluster.until("and pods are injected", lambda: not injected(cluster.admit(pod())))

            api = cluster.processes.pop()
            api.kill()
            api.wait()
            cluster.start(cluster.server)
            cluster.until("the API server is back", lambda: cluster.kubectl("get", "--raw", "/readyz")[1] == "ok")
            cluster.until("and pods are injected", lambda: not injected(cluster.admit(pod())))
            cluster.until("and the replica leads again", lambda: two.metric("ebb_injector_leader") == 1)

            broken = "kubectl.kubernetes.io/x"
            (cluster.folder / "sidecar.yaml").write_text(f"not: a template # {broken}\n")
            cluster.until("a bad template is noticed", lambda: two.metric("ebb_injector_template_good") == 0)
            check("webhook: the last good template stays", injected(cluster.admit(pod())))
            check_rbac(cluster, check)
            check_config_map(cluster, program, check)
            check_findings(cluster, program, check)
            check_in_cluster(cluster, program, check)
            code = two.stop()
            found = findings(cluster, program)[1]
            check("check: a webhook that cannot be reached is found", "webhook" not in found.get("injection", "") and found)
            check("webhook: it ends well", code and two.log.read_text()[-500:])
            holder = cluster.kubectl("get", "lease", INJECTOR, "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")
            check("webhook: and gives the Lease back", holder[1])

            code, _, why = cluster.run("helm4/helm", "upgrade", "ebb", "charts/ebb", "--namespace", NAMESPACE, *values)
            check("webhook: an upgrade leaves the authorities alone", code and why, "" in bundle(cluster))
            code, _, why = cluster.run("helm4/helm", "uninstall", "ebb", "--namespace", NAMESPACE)
            kinds = "mutatingwebhookconfigurations,deployments,services,configmaps,secrets,serviceaccounts,leases"
            kinds += ",clusterroles,clusterrolebindings,roles,rolebindings,poddisruptionbudgets"
            left = cluster.kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/part-of=ebb", "--output=name")
            check("webhook: an uninstallation leaves nothing", code and why, left[1])
        except (TimeoutError, RuntimeError) as error:
            logs = [replica.log.read_text()[-1500:] for replica in replicas]
            check("webhook: all of it", f"{error}", *logs)
        finally:
            for replica in replicas:
                replica.process.kill()
                replica.process.wait()
            cluster.stop()
