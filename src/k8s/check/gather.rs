//! The calls. Each fact is asked for by itself, so that one that is refused leaves the others.

use super::{Facts, Pod, Said};
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

/// Objects of a page.
const PAGE: usize = 500;
/// The name of the ConfigMaps that sidecars follow, unless an annotation says otherwise.
const CONFIG_MAP: &str = "ebb-config";

/// Asks. The trial pod is only tried, in `namespace`.
pub(crate) async fn gather(client: &Client, namespace: &str) -> Facts {
    let ours = "labelSelector=app.kubernetes.io%2Fpart-of%3Debb";
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let get = async |path: String| call(client, Request::get(path).body(Vec::new())).await;
    let namespaces = get(format!("/api/v1/namespaces?limit={PAGE}")).await;
    Facts {
        now: Timestamp::now().as_second(),
        version: get("/version".to_owned()).await,
        webhooks: get(format!("{admission}/mutatingwebhookconfigurations?{ours}")).await,
        policies: get(format!("{admission}/mutatingadmissionpolicies?{ours}")).await,
        injectors: get(format!("/apis/apps/v1/deployments?{ours}%2Capp.kubernetes.io%2Fcomponent%3Dinjector")).await,
        pods: pods(client, &namespaces).await,
        config_maps: get(format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{CONFIG_MAP}&limit={PAGE}")).await,
        trial: trial(client, namespace).await,
        monitors: get("/apis/monitoring.coreos.com/v1".to_owned()).await,
        refused: refused(client, namespace).await,
    }
}

async fn call(client: &Client, request: Result<Request<Vec<u8>>, http::Error>) -> Said {
    let request = request.map_err(|error| error.to_string())?;
    client.request::<Value>(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    })
}

/// A pod that asks for a cache, created without being created.
async fn trial(client: &Client, namespace: &str) -> Said {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "ebb-check-", "labels": {"ebb-cache.io/inject": "enabled"}},
        "spec": {"containers": [{
            "name": "check", "image": "none",
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }]},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let request = Request::post(path).header("content-type", "application/json");
    call(client, request.body(pod.to_string().into_bytes())).await
}

/// What this account may not do.
async fn refused(client: &Client, namespace: &str) -> Vec<String> {
    let needed = [
        ("list", "", "namespaces", ""),
        ("list", "", "pods", ""),
        ("list", "", "configmaps", ""),
        ("create", "", "pods", namespace),
        ("list", "apps", "deployments", ""),
        ("list", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
        ("list", "admissionregistration.k8s.io", "mutatingadmissionpolicies", ""),
    ];
    let mut refused = Vec::new();
    for (verb, group, resource, namespace) in needed {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace}},
        });
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
        let request = request.header("content-type", "application/json").body(review.to_string().into_bytes());
        if call(client, request).await.is_ok_and(|answer| answer["status"]["allowed"] != true) {
            refused.push(format!("{verb} {resource}"));
        }
    }
    refused
}

/// All pods, page by page, reduced.
async fn pods(client: &Client, namespaces: &Said) -> Result<Vec<Pod>, String> {
    let asking: Vec<&str> = namespaces
        .as_ref()
        .ok()
        .and_then(|list| list["items"].as_array())
        .into_iter()
        .flatten()
        .filter(|namespace| namespace["metadata"]["labels"]["ebb-cache.io/inject"] == "enabled")
        .filter_map(|namespace| namespace["metadata"]["name"].as_str())
        .collect();
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = Request::get(format!("/api/v1/pods?limit={PAGE}&continue={token}")).body(Vec::new());
        let page = call(client, page).await?;
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        found.extend(items.iter().map(|pod| reduced(pod, &asking)).filter(|pod| pod.asks || pod.has_sidecar));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(found),
        }
    }
}

fn reduced(pod: &Value, asking: &[&str]) -> Pod {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = &meta["labels"]["ebb-cache.io/inject"];
    let named = |values: &Value| list(values).into_iter().find(|value| value["name"] == "ebb");
    let (sidecar, state) =
        (named(&spec["initContainers"]), named(&status["initContainerStatuses"]).unwrap_or_default());
    // A pod that the injector leaves alone for what it is has not been forgotten.
    let is_left_alone = spec["hostNetwork"] == true
        || spec["os"]["name"] == "windows"
        || spec["nodeSelector"]["kubernetes.io/os"] == "windows"
        || !meta["annotations"]["kubernetes.io/config.mirror"].is_null()
        || list(&spec["containers"]).iter().any(|container| container["name"] == "ebb");
    let resize = list(&status["conditions"]).into_iter().find(|condition| {
        let kind = condition["type"].as_str().unwrap_or_default();
        condition["status"] == "True"
            && (kind == "PodResizePending" || kind == "PodResizeInProgress" && condition["reason"] == "Error")
    });
    let applications = list(&spec["containers"]);
    let is_bound = |container: &Value| {
        let of = |part: &str, what: &str| container["resources"][part][what].clone();
        ["cpu", "memory"].iter().all(|what| !of("limits", what).is_null() && of("limits", what) == of("requests", what))
    };
    Pod {
        name: format!("{}/{}", text(&meta["namespace"]), text(&meta["name"])),
        asks: !is_left_alone
            && (word == "enabled"
                || word.is_null() && meta["namespace"].as_str().is_some_and(|namespace| asking.contains(&namespace))),
        declines: word == "disabled",
        has_sidecar: sidecar.is_some(),
        version: text(&meta["annotations"]["ebb-cache.io/version"]),
        restarts: state["restartCount"].as_u64().unwrap_or(0),
        was_oom_killed: ["lastState", "state"].iter().any(|which| state[*which]["terminated"]["reason"] == "OOMKilled"),
        has_limit: sidecar.as_ref().is_some_and(|sidecar| !sidecar["resources"]["limits"]["memory"].is_null()),
        pending_resize: resize.map(|condition| text(&condition["message"])),
        is_demoted: sidecar.is_some()
            && spec["resources"].is_null()
            && applications.iter().all(is_bound)
            && status["qosClass"] == "Burstable",
    }
}
