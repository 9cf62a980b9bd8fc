"""A user's selectors are added to those that exclude system namespaces and the injector's own."""

import pytest

from helm import of_kind

EXCLUDED = ["kube-system", "kube-public", "kube-node-lease", "ebb-system"]
OURS = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": EXCLUDED}
THEIRS = {"key": "environment", "operator": "NotIn", "values": ["test", "build"]}
BATCH = {"key": "batch", "operator": "DoesNotExist"}


@pytest.mark.parametrize("name", ["selectors", "selectors-policy"])
def test_selectors_add_to_ours(helm, name):
    documents = helm.ci(name)
    places = [webhook for document in documents for webhook in document.get("webhooks", [])]
    bindings = of_kind(documents, "MutatingAdmissionPolicyBinding")
    bindings = [binding for binding in bindings if not binding["metadata"]["name"].startswith("test.")]
    places += [binding["spec"]["matchResources"] for binding in bindings]
    assert len(places) == {"selectors": 6, "selectors-policy": 2}[name]
    for place in places:
        expressions = place["namespaceSelector"]["matchExpressions"]
        assert [one for one in expressions if one["key"] != "ebb-cache.io/rev"] == [OURS, THEIRS]
        assert BATCH in place["objectSelector"]["matchExpressions"]
