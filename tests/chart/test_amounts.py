"""The chart accepts every form of amount that Kubernetes and Ebb accept."""

import json

import pytest

from helm import HELMS, VERSIONS, objects, of_kind, only

MEMORY = ("0.5Gi", "129e6", "1.29E8", "128974848000m", ".5Gi", "+64Mi", "1.5Gi", "1Ti", "1e9", "0.001Ti", "2E", "16777216")
LENGTHS = ("90s", "1m30s", "1.5h", "2h", "1h 30m", "90000ms")

majors = pytest.mark.parametrize("major", HELMS)


@pytest.fixture
def render(helm, major, tmp_path):
    """Renders the chart with values, as text for --set or as the content of a values file."""

    def render(given):
        if isinstance(given, str):
            return helm.template(major, VERSIONS[-1], "--set", given)
        path = tmp_path / "values.yaml"
        path.write_text(json.dumps(given))
        return helm.template_anew(major, VERSIONS[-1], "--values", path)

    return render


@pytest.fixture
def rendered(render):
    def rendered(given):
        result = render(given)
        assert result.code == 0, result.why
        return objects(result.text)

    return rendered


def sidecar_memory(documents):
    container = only(documents, "PodTemplate")["template"]["spec"]["initContainers"][0]
    return container["resources"]["limits"]["memory"]


@majors
@pytest.mark.parametrize("size", MEMORY)
def test_takes_a_memory_limit_as_it_is_written(rendered, size):
    documents = rendered(f"sidecar.resources.limits.memory={size},sidecar.resources.requests=null,injector.mode=none,sidecar.example=true")
    assert str(sidecar_memory(documents)) == size


@majors
@pytest.mark.parametrize("mode", ["webhook", "policy"])
@pytest.mark.parametrize("size", MEMORY)
def test_takes_memory_of_sidecar_and_standalone_cache(rendered, mode, size):
    assert rendered(
        f"injector.mode={mode},sidecar.resources.requests.memory={size},sidecar.resources.limits.memory={size},"
        f"standalone.resources.requests.memory={size},standalone.resources.limits.memory={size}"
    )


# A request and a limit, and whether the request is more.
PAIRS = {
    "memory": (
        ("128974848", "128974848", False), ("128974848000m", "128974848", False), ("128974849", "128974848", True),
        ("1Gi", "1024Mi", False), ("1025Mi", "1Gi", True), ("1G", "1Gi", False), ("1Gi", "1G", True),
        ("1e9", "1G", False), ("1.5Gi", "1536Mi", False), ("1537Mi", "1.5Gi", True), ("1e9", "999999999", True),
    ),
    "cpu": (
        ("500m", "0.5", False), ("501m", "0.5", True), ("1.5", "1500m", False), ("2", "1500m", True),
        ("15e-1", "1.5", False), ("250000u", ".25", False), ("1000", "1k", False), ("0.1", "100000000n", False),
    ),
    "ephemeral-storage": (("1Gi", "1024Mi", False), ("2Gi", "1024Mi", True), ("1.5G", "1500M", False), ("1E", "1e18", False)),
}


@majors
@pytest.mark.parametrize("where", ["injector", "sidecar", "standalone"])
@pytest.mark.parametrize("name, request_, limit, is_more", [(name, *pair) for name, pairs in PAIRS.items() for pair in pairs])
def test_a_request_is_at_most_its_limit(render, where, name, request_, limit, is_more):
    resources = {"requests": {"memory": None, name: request_}, "limits": {"memory": "1Ti", name: limit}}
    result = render({where: {"resources": resources}, "standalone": {"enabled": True}} if where != "standalone" else {
        where: {"resources": resources, "enabled": True},
    })
    sentence = f"{where}.resources.requests.{name}: {request_} is more than {where}.resources.limits.{name} ({limit})."
    assert (sentence in result.why) is (result.code != 0) is is_more, result.why


@majors
def test_a_request_as_a_number_is_compared(render):
    result = render({"sidecar": {"resources": {"requests": {"memory": 300e6}, "limits": {"memory": 256e6}}}})
    assert "sidecar.resources.requests.memory: 300000000 is more than sidecar.resources.limits.memory (256000000)." in result.why


@majors
@pytest.mark.parametrize("number", [129e6, 67108864, 1e9])
def test_takes_memory_as_a_number(rendered, number):
    # Helm reads the numbers of a values file as floats.
    sidecar = {"example": True, "resources": {"requests": None, "limits": {"memory": number}}}
    assert float(sidecar_memory(rendered({"injector": {"mode": "none"}, "sidecar": sidecar}))) == float(number)


@majors
@pytest.mark.parametrize("argument", ["certificate-lifetime", "watchdog-interval"])
@pytest.mark.parametrize("length", LENGTHS)
def test_takes_a_length_of_time_as_it_is_written(rendered, argument, length):
    documents = rendered(
        f"injector.tls.certificateLifetime={length},injector.watchdog.enabled=true,injector.watchdog.interval={length}"
    )
    arguments = of_kind(documents, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--{argument}={length}" in arguments


@majors
@pytest.mark.parametrize("given", [
    "monitoring.sidecars.enabled=true,monitoring.sidecars.interval=1m30s",
    "injector.tls.source=cert-manager,injector.tls.certificate.duration=2160h0m0s",
    "sidecar.resources.limits.cpu=15e-1,sidecar.resources.requests.cpu=.25",
    "sidecar.resources.requests.cpu=250000u",
    "injector.strategy.rollingUpdate.maxSurge=0",
    "injector.strategy.rollingUpdate.maxUnavailable=0%",
])
def test_takes_amounts_of_kubernetes(rendered, given):
    assert rendered(given)


WATERMARKS = (80, 80.0, "80.0%", "+80", "080 %")


@majors
@pytest.mark.parametrize("low", WATERMARKS)
def test_takes_a_low_watermark_below_the_high_one(render, low):
    result = render({"sidecar": {"config": {"watermarks": {"low": low, "high": "94%"}}}})
    assert result.code == 0, result.why


@majors
@pytest.mark.parametrize("high", WATERMARKS)
def test_refuses_a_high_watermark_below_the_low_one(render, high):
    result = render({"sidecar": {"config": {"watermarks": {"low": "95%", "high": high}}}})
    assert result.code != 0
    assert ": 95% must be below" in result.why
