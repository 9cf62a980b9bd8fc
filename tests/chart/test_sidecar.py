"""The sidecar of the example pod."""

import os
import pathlib
import subprocess

import pytest
import yaml

from helm import only

PROGRAM = pathlib.Path(os.environ.get("EBB_PROGRAM", "target/debug/ebb"))
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def pod(helm):
    return only(helm.ci("none"), "PodTemplate")["template"]["spec"]


@pytest.fixture(scope="module")
def sidecar(pod):
    return pod["initContainers"][0]


def test_is_the_first_init_container_and_restarts_always(sidecar):
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("ebb", "Always")


def test_has_a_startup_probe_each_second(sidecar):
    probe = sidecar["startupProbe"]
    assert (probe["periodSeconds"], probe["httpGet"]["path"]) == (1, "/readyz")


def test_has_no_pre_stop_hook_and_no_readiness_probe(sidecar):
    assert not {"lifecycle", "readinessProbe"} & sidecar.keys()


def test_requests_as_much_memory_as_its_limit(sidecar):
    resources = sidecar["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_has_no_cpu_limit(sidecar):
    assert "cpu" not in sidecar["resources"]["limits"]


def test_is_resized_in_place(sidecar):
    assert [policy["restartPolicy"] for policy in sidecar["resizePolicy"]] == ["NotRequired"] * 2


def test_mounts_its_configuration_and_the_socket(sidecar):
    mounts = [(mount["name"], mount["mountPath"]) for mount in sidecar["volumeMounts"]]
    assert mounts == [("ebb-config", "/etc/ebb"), ("ebb-config", TOKEN), ("ebb-socket", "/run/ebb")]


def test_shares_the_socket_with_the_application(pod):
    application = pod["containers"][0]
    assert application["volumeMounts"][0]["mountPath"] == "/run/ebb"
    assert application["env"] == [{"name": "EBB_ADDR", "value": "unix:/run/ebb/ebb.sock"}]


def test_has_no_token_unless_it_writes_events(helm, sidecar):
    there = [mount for mount in sidecar["volumeMounts"] if mount["mountPath"] == TOKEN]
    assert there == [{"name": "ebb-config", "mountPath": TOKEN, "readOnly": True}]
    documents = helm.objects("--set", "injector.mode=none,sidecar.example=true,sidecar.events=true")
    writes = only(documents, "PodTemplate")["template"]["spec"]["initContainers"][0]
    assert TOKEN not in [mount["mountPath"] for mount in writes["volumeMounts"]]


# Values, and the listen address of the data port.
LISTENS = (
    ("", "off"),
    ("sidecar.ports.data=17070", "off"),
    ("sidecar.bindAddress=0.0.0.0,sidecar.ports.data=17070", "0.0.0.0:17070"),
    ("sidecar.address=tcp", "127.0.0.1:7070"),
)


@pytest.mark.parametrize(("values", "expected"), LISTENS)
def test_opens_the_data_port_only_if_applications_or_values_need_it(helm, values, expected):
    documents = helm.objects("--set", f"injector.mode=none,sidecar.example=true,{values}".rstrip(","))
    container = only(documents, "PodTemplate")["template"]["spec"]["initContainers"][0]
    listen = [variable["value"] for variable in container["env"] if variable["name"] == "EBB_LISTEN"]
    assert listen == [expected]


# The data port of a pod with these annotations, of a chart with `sidecar.ports.data: 17070`.
OPENED = (
    ({}, "off"),
    ({"bind-address": "0.0.0.0"}, "0.0.0.0:17070"),
    ({"bind-address": "::"}, "[::]:17070"),
    ({"grpc-port": "9070"}, "127.0.0.1:9070"),
    ({"bind-address": "0.0.0.0", "grpc-port": "9070"}, "0.0.0.0:9070"),
    # Ports that collide are those of the chart, and the pod has only its socket.
    ({"bind-address": "0.0.0.0", "http-port": "17070"}, "off"),
    ({"http-port": "17070"}, "off"),
)


@pytest.mark.parametrize(("annotations", "expected"), OPENED)
def test_an_annotation_opens_the_data_port_of_the_chart(helm, tmp_path, annotations, expected):
    documents = helm.objects("--set", "injector.mode=none,sidecar.example=true,sidecar.ports.data=17070")
    template, pod = tmp_path / "template.yaml", tmp_path / "pod.yaml"
    template.write_text(yaml.safe_dump(only(documents, "PodTemplate")))
    metadata = {"name": "p", "annotations": {f"config.ebb-cache.io/{name}": value for name, value in annotations.items()}}
    spec = {"containers": [{"name": "app", "image": "a/app", "ports": [{"containerPort": 7070}]}]}
    pod.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
    command = [PROGRAM, "inject", "-f", pod, "--template", template, "--image", "r/ebb:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    injected = yaml.safe_load(done.stdout)["spec"]["initContainers"][0]
    listen = [variable["value"] for variable in injected["env"] if variable["name"] == "EBB_LISTEN"]
    assert listen == [expected], done.stderr
