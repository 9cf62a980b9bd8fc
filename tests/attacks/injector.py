"""Attacks on the webhook at the chart's memory limit: small reviews are answered with a sidecar meanwhile, `/readyz`
says ready, and the kernel kills nothing."""

import base64
import http.client
import json
import multiprocessing
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cgroup
import wire

# `injector.resources.limits.memory` of charts/ebb/values.yaml.
LIMIT_MIB = 64
MANY = 48_000

TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE
TLS2 = ssl.create_default_context()
TLS2.check_hostname, TLS2.verify_mode = False, ssl.CERT_NONE
TLS2.set_alpn_protocols(["h2"])


def review(pod):
    return json.dumps({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "shop", "dryRun": True, "object": pod,
        },
    }).encode()


def pod(container=None, **more):
    spec = {"containers": [{"name": "app", "image": "app", **(container or {})}], **more.pop("spec", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", **more.pop("metadata", {})}, "spec": spec}


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"x": value}
    return value


SMALL = review(pod())
NAMES = {f"k{number}": "v" for number in range(MANY)}
OURS = {f"config.ebb-cache.io/a{number}": "v" for number in range(MANY)}
PODS = {
    "48,000 variables": pod({"env": [{"name": "A"}] * MANY}),
    "48,000 ports": pod({"ports": [{"containerPort": 1}] * MANY}),
    "48,000 mounts": pod({"volumeMounts": [{"mountPath": "/a"}] * MANY}),
    "48,000 labels": pod(metadata={"labels": NAMES}),
    "48,000 annotations": pod(metadata={"annotations": NAMES}),
    "48,000 annotations of Ebb": pod(metadata={"annotations": OURS}),
    "48,000 owners": pod(metadata={"ownerReferences": [{"controller": True, "name": "a"}] * MANY}),
    "48,000 volumes": pod(spec={"volumes": [{"name": "v"}] * MANY}),
    "48,000 containers": pod(spec={"containers": [{"name": "a"}] * MANY}),
    "48,000 init containers": pod(spec={"initContainers": [{"name": "a"}] * MANY}),
    "a declared container ebb with 48,000 variables":
        pod(spec={"initContainers": [{"name": "ebb", "image": "e", "env": [{"name": "A"}] * MANY}]}),
    "deep nesting": pod(spec={"affinity": nested(100), "tolerations": [nested(100)] * 3_000}),
    "a variable of 2.9 MiB": pod({"env": [{"name": "A", "value": "x" * (2_900 << 10)}]}),
    "names of 2.9 MiB": pod({"name": "x" * (2_900 << 10), "ports": [{"containerPort": 7072}]}),
    "an annotation of 2.9 MiB":
        pod(metadata={"annotations": {"config.ebb-cache.io/additional-env": "A=1," * (700 << 10)}}),
}


def post(address, body, timeout=15):
    """The response of an AdmissionReview; None if the status is not 200."""
    host, port = address.rsplit(":", 1)
    # Reviews are limited by address, and the attacks come from another one.
    source = ("127.0.0.2", 0)
    connection = http.client.HTTPSConnection(host, int(port), timeout=timeout, source_address=source, context=TLS)
    try:
        connection.request("POST", "/inject", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return json.loads(text)["response"] if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def is_injected(response):
    if response is None or not response.get("patch"):
        return False
    return any(step["path"].startswith("/spec/initContainers") for step in json.loads(base64.b64decode(response["patch"])))


def dial2(program, settings=()):
    """An HTTP/2 connection over TLS."""
    raw = wire.dial(program.address["webhook"])
    return wire.Client(TLS2.wrap_socket(raw, server_hostname="ebb"), settings)


def quietly(action, *arguments):
    try:
        return action(*arguments)
    except OSError:
        return None


def of_pods(program, held):
    """Every kind of large pod, one after another."""
    for name, large in PODS.items():
        response = post(program.address["webhook"], review(large))
        if response is None or not response["allowed"]:
            held.append(f"{name}: {response}")


def at_once(name, number):
    def posts(address, body):
        threads = [threading.Thread(target=post, args=(address, body)) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def attack(program, held):
        # In a process of its own, since threads of this one would delay the small reviews themselves.
        process = multiprocessing.Process(target=posts, args=(program.address["webhook"], review(PODS[name])))
        process.start()
        process.join()
    return attack


def unfinished(program, held):
    """Reviews of 3 MiB that never end, on every stream of many connections."""
    for _ in range(32):
        client = quietly(dial2, program)
        if client is None:
            continue
        held.append(client)
        for _ in range(32):
            stream = quietly(client.open, wire.head("/inject", scheme="https"))
            if stream is not None:
                quietly(client.stream.sendall, wire.frame(wire.DATA, 0, stream, b"{" + b" " * 8_000))


def unread(program, held):
    """Unread answers: their window is 0."""
    body = review(pod(spec={"containers": [{"name": f"a{number}"} for number in range(400)]}))
    for _ in range(32):
        client = quietly(dial2, program, [(4, 0)])
        if client is None:
            continue
        held.append(client)
        for _ in range(16):
            quietly(lambda: client.send(client.open(wire.head("/inject", scheme="https")), body))


def headers(program, held):
    """Many open calls with header fields that HPACK compresses well."""
    for _ in range(64):
        client = quietly(dial2, program)
        if client is None:
            continue
        held.append(client)
        # One entry of the dynamic table, and references to it.
        block = wire.head("/inject", scheme="https") + b"\x40" + wire.literal("a", "b")[1:]
        block += b"\xbe" * 180
        for _ in range(64):
            quietly(client.open, block)


def pinging(program, held):
    """128 HTTP/2 connections without calls, which answer pings."""
    def stay(client):
        try:
            while True:
                client.read_frame()
        except OSError:
            pass
    for _ in range(128):
        client = quietly(dial2, program)
        if client is not None:
            client.stream.settimeout(60)
            held.append(client)
            threading.Thread(target=stay, args=(client,), daemon=True).start()


def silent(program, held):
    """1,000 connections that send nothing."""
    held.extend(wire.dial(program.address["webhook"]) for _ in range(1_000))


def half_shaken(program, held):
    """Connections that stop within the TLS handshake."""
    for _ in range(128):
        held.append(wire.dial(program.address["webhook"]))
        quietly(held[-1].sendall, b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + b"\0" * 16_000)


def burst(program, held):
    """400 reviews at once from an API server, which calls over HTTP/1.1 and keeps its connections idle for longer than
    any timeout of a call."""
    host, port = program.address["webhook"].rsplit(":", 1)
    source = ("127.0.0.3", 0)
    kept = [http.client.HTTPSConnection(host, int(port), timeout=30, source_address=source, context=TLS)
            for _ in range(400)]
    for action in ("connects", "first review", "second review"):
        if action == "second review":
            time.sleep(12)
        for connection in kept:
            try:
                if action == "connects":
                    connection.connect()
                    continue
                connection.request("POST", "/inject", SMALL, {"Content-Type": "application/json"})
                if not is_injected(json.loads(connection.getresponse().read())["response"]):
                    held.append(f"{action}: without a sidecar")
            except (OSError, http.client.HTTPException, ValueError) as error:
                held.append(f"{action}: {error!r}")
    for connection in kept:
        connection.close()


ATTACKS = {
    "400 reviews at once on connections of their own": burst,
    "large pods of every kind": of_pods,
    "100 pods with 48,000 variables at once": at_once("48,000 variables", 100),
    "100 pods of 2.9 MiB at once": at_once("a variable of 2.9 MiB", 100),
    "reviews without end": unfinished,
    "answers that are not read": unread,
    "calls with many header fields": headers,
    "128 connections that answer pings": pinging,
    "1,000 connections that send nothing": silent,
    "TLS handshakes without end": half_shaken,
}


def injector(group, folder):
    """`ebb injector` with a certificate in files, and without an API server."""
    certificate, key, config = folder / "tls.crt", folder / "tls.key", folder / "kubeconfig"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=ebb-injector.ebb-system.svc", "-addext", "subjectAltName=DNS:ebb-injector.ebb-system.svc",
         "-keyout", key, "-out", certificate],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "none"}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    }))
    return cgroup.Program(group, [
        "injector", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--no-events", "--template",
        "manifests/sidecar.yaml", "--tls-cert", str(certificate), "--tls-key", str(key),
    ], {"KUBECONFIG": str(config)})


def readyz(program):
    host, port = program.address["http"].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main():
    if cgroup.parent() is None:
        print("skipped: no memory cgroup can be made here (not root, or no controller)")
        return
    verdict = cgroup.Verdict()
    for name, attack in ATTACKS.items():
        with tempfile.TemporaryDirectory() as folder, cgroup.Cgroup(LIMIT_MIB) as group, \
                injector(group, Path(folder)) as program:
            deadline = time.monotonic() + 20
            while not readyz(program) and time.monotonic() < deadline:
                time.sleep(0.05)
            held, took = [], []
            attacker = threading.Thread(target=attack, args=(program, held))
            attacker.start()
            while attacker.is_alive() or len(took) < 10:
                since = time.monotonic()
                injected = is_injected(post(program.address["webhook"], SMALL, 5))
                took.append(time.monotonic() - since if injected else None)
            attacker.join()
            answered = [seconds for seconds in took if seconds is not None]
            complaints = [text for text in held if isinstance(text, str)]
            verdict.judge(
                f"{name} ({len(took)} small reviews, the slowest {max(answered, default=0) * 1000:.0f} ms)", program,
                **{"every small review injected": len(answered) == len(took),
                   "within 1 s": max(answered, default=0) < 1, "ready": readyz(program),
                   f"{len(complaints)} complaints {complaints[:3]}": not complaints})
            for client in held:
                if not isinstance(client, str):
                    getattr(client, "stream", client).close()
    verdict.end()


if __name__ == "__main__":
    sys.exit(main())
