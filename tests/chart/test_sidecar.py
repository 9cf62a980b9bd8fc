"""The sidecar of the example pod."""

import pytest

from helm import only

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
