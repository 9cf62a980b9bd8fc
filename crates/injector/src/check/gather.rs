//! Gathers facts from the API server. Each fact is a separate call, so that a refused one does not affect the others.

use super::{Certificate, Fact, Facts, Listed, MissingFact, Pod};
use crate::inject::{Context, Namespace, SkipReason, Template, Verdict, inject, workload_warnings};
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Objects per page.
const PAGE: usize = 500;
/// Default name of the ConfigMaps that sidecars follow.
const CONFIG_MAP: &str = "ebb-config";

/// Gathers all facts. A pod in `namespace` is created as a dry run only.
pub async fn gather(client: &Client, namespace: &str) -> Facts {
    let ours = "labelSelector=app.kubernetes.io%2Fpart-of%3Debb";
    let injecting = format!("{ours}%2Capp.kubernetes.io%2Fcomponent%3Dinjector");
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let get = async |path: &str| call(client, Request::get(path).body(Vec::new())).await;
    let list = async |path: &str, selector: &str| paged(client, path, selector, |item| Some(item.clone())).await;
    let injectors = list("/apis/apps/v1/deployments", &injecting).await;
    let templates = list("/api/v1/configmaps", &injecting).await;
    let pods = pods(client, &Injection::of(&injectors, &templates)).await;
    Facts {
        now: Timestamp::now().as_second(),
        version: get("/version").await,
        webhooks: list(&format!("{admission}/mutatingwebhookconfigurations"), ours).await,
        policies: list(&format!("{admission}/mutatingadmissionpolicies"), ours).await,
        certificates: certificates(client, &injectors).await,
        injectors,
        templates,
        misplaced: misplaced(client).await,
        budgets: list("/apis/policy/v1/poddisruptionbudgets", "").await,
        config_maps: config_maps(client, &pods).await,
        pods,
        trial: trial(client, namespace).await,
        monitors: get("/apis/monitoring.coreos.com/v1").await,
        refused: refused(client, namespace).await,
    }
}

/// Reads a list page by page; `keep` selects and reduces the items.
async fn paged<T>(client: &Client, path: &str, selector: &str, keep: impl Fn(&Value) -> Option<T>) -> Listed<T> {
    let (mut kept, mut token) = (Vec::new(), String::new());
    loop {
        let page = Request::get(format!("{path}?limit={PAGE}&continue={token}&{selector}")).body(Vec::new());
        let page = call(client, page).await?;
        kept.extend(page["items"].as_array().into_iter().flatten().filter_map(&keep));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(kept),
        }
    }
}

async fn call(client: &Client, request: Result<Request<Vec<u8>>, http::Error>) -> Fact {
    let request = request.map_err(|error| MissingFact::Refused(error.to_string()))?;
    client.request::<Value>(request).await.map_err(|error| match error {
        kube::Error::Api(status) => MissingFact::Refused(status.message.clone()),
        error => MissingFact::Refused(error.to_string()),
    })
}

/// Warnings about workloads whose annotations or labels belong on their pod templates.
async fn misplaced(client: &Client) -> Listed<String> {
    let kinds = [
        ("/apis/apps/v1/deployments", "Deployment"),
        ("/apis/apps/v1/statefulsets", "StatefulSet"),
        ("/apis/apps/v1/daemonsets", "DaemonSet"),
        ("/apis/batch/v1/cronjobs", "CronJob"),
    ];
    let mut all = Vec::new();
    for (path, kind) in kinds {
        let warned = |item: &Value| {
            // Items of a list do not name their kind.
            let mut item = item.clone();
            item["kind"] = kind.into();
            let warnings = workload_warnings(&item);
            let name = |part: &str| item["metadata"][part].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (name("namespace"), name("name"));
            (!warnings.is_empty()).then(|| format!("{namespace}/{name}: {}", warnings.join("; ")))
        };
        all.extend(paged(client, path, "", warned).await?);
    }
    Ok(all)
}

/// The result of a dry run that creates a pod with the label.
async fn trial(client: &Client, namespace: &str) -> Fact {
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

/// Missing permissions of this account.
async fn refused(client: &Client, namespace: &str) -> Vec<String> {
    let needed = [
        ("list", "", "namespaces", ""),
        ("list", "", "pods", ""),
        ("list", "", "configmaps", ""),
        ("create", "", "pods", namespace),
        ("list", "apps", "deployments", ""),
        ("list", "apps", "statefulsets", ""),
        ("list", "apps", "daemonsets", ""),
        ("list", "batch", "cronjobs", ""),
        ("list", "policy", "poddisruptionbudgets", ""),
        ("list", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
        ("list", "admissionregistration.k8s.io", "mutatingadmissionpolicies", ""),
    ];
    let mut refused = Vec::new();
    for (verb, group, resource, namespace) in needed {
        let attributes = json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace});
        if !may(client, &attributes).await {
            refused.push(format!("{verb} {resource}"));
        }
    }
    refused
}

/// Whether this account has a permission.
async fn may(client: &Client, attributes: &Value) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let request = request.header("content-type", "application/json").body(review.to_string().into_bytes());
    call(client, request).await.is_ok_and(|answer| answer["status"]["allowed"] == true)
}

/// The settings that decide which pods are skipped.
struct Injection {
    template: Template,
    own_namespace: Option<String>,
}

impl Injection {
    /// Reads the settings from the cluster, with the chart's defaults for missing ones.
    fn of(injectors: &Listed, templates: &Listed) -> Self {
        let texts = templates.iter().flatten().filter_map(|map| map["data"].as_object()).flat_map(|data| data.values());
        let template = texts.filter_map(|text| Template::parse(text.as_str()?).ok()).next();
        let own_namespace = injectors.iter().flatten().find_map(|injector| injector["metadata"]["namespace"].as_str());
        Self { template: template.unwrap_or_else(Template::built_in), own_namespace: own_namespace.map(str::to_owned) }
    }

    /// Whether the injector skips the pod, so that it does not lack a sidecar.
    fn leaves_alone(&self, pod: &Value) -> bool {
        let name = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let namespace = Namespace { name, ..Namespace::default() };
        let own_namespace = self.own_namespace.as_deref();
        let context = Context { namespace: &namespace, own_namespace, needs_label: false, by: "ebb check" };
        match inject(pod, &context, &self.template).verdict {
            Verdict::Inject(_) => false,
            Verdict::Skip(SkipReason::Disabled | SkipReason::AlreadyInjected | SkipReason::Malformed, _) => false,
            Verdict::Skip(..) => true,
        }
    }
}

/// All pods that request a sidecar or have one, with the checked fields only.
async fn pods(client: &Client, injection: &Injection) -> Listed<Pod> {
    let asks = |namespace: &Value| {
        let meta = &namespace["metadata"];
        (meta["labels"]["ebb-cache.io/inject"] == "enabled").then(|| meta["name"].as_str().map(str::to_owned))?
    };
    // Without namespaces, pods with their own label are still found.
    let asking = paged(client, "/api/v1/namespaces", "", asks).await.unwrap_or_default();
    let is_looked_at = |pod: &Pod| pod.asks || pod.has_sidecar;
    let looked_at =
        |pod: &Value| Some(reduced(pod, &asking, injection)).filter(|found| !has_ended(pod) && is_looked_at(found));
    paged(client, "/api/v1/pods", "", looked_at).await
}

/// The ConfigMaps that these pods follow, and those of the default name, which new pods would follow. Each name is a
/// separate call: a cluster has many ConfigMaps, and large ones.
async fn config_maps(client: &Client, pods: &Listed<Pod>) -> Listed {
    let followed: BTreeSet<(&str, &str)> =
        pods.iter().flatten().flat_map(|pod| &pod.follows).map(|(space, name)| (&**space, &**name)).collect();
    let names: BTreeSet<&str> = followed.iter().map(|(_, name)| *name).chain([CONFIG_MAP]).collect();
    // A pod may contain an invalid name, which no ConfigMap has.
    let is_name = |name: &&str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    let mut all = Vec::new();
    for name in names.into_iter().filter(is_name) {
        let is_looked_at = |found: &Value| {
            let space = found["metadata"]["namespace"].as_str().unwrap_or_default();
            (name == CONFIG_MAP || followed.contains(&(space, name))).then(|| found.clone())
        };
        let selector = format!("fieldSelector=metadata.name%3D{name}");
        all.extend(paged(client, "/api/v1/configmaps", &selector, is_looked_at).await?);
    }
    Ok(all)
}

/// The serving certificates of injectors. Each Secret is read by name, so that a right to read this one Secret is
/// enough, and only with that right, since audits may report each refused attempt.
async fn certificates(client: &Client, injectors: &Listed) -> Vec<Certificate> {
    let mut all = Vec::new();
    for injector in injectors.iter().flatten() {
        let Some((namespace, service, secret)) = serving(injector) else { continue };
        let get = json!({"verb": "get", "resource": "secrets", "namespace": namespace, "name": secret});
        let found = match may(client, &get).await {
            true => {
                let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
                call(client, Request::get(path).body(Vec::new())).await
            }
            false => Err(MissingFact::NotPermitted),
        };
        let chain = found.map(|secret| secret["data"]["tls.crt"].as_str().unwrap_or_default().to_owned());
        all.push(Certificate { namespace, service, secret, chain });
    }
    all
}

/// Namespace, Service and Secret of an injector. The Secret is an argument if the injector fills it; otherwise it is
/// mounted.
fn serving(injector: &Value) -> Option<(String, String, String)> {
    let spec = &injector["spec"]["template"]["spec"];
    let named = |values: &Value, name: &str| values.as_array()?.iter().find(|value| value["name"] == name).cloned();
    let container = named(&spec["containers"], "injector")?;
    let argument = |key: &str| {
        let words = container["args"].as_array()?.iter().filter_map(Value::as_str);
        words.filter_map(|word| word.strip_prefix(key)).next().map(str::to_owned)
    };
    let mounted = || named(&spec["volumes"], "tls")?["secret"]["secretName"].as_str().map(str::to_owned);
    let namespace = injector["metadata"]["namespace"].as_str()?.to_owned();
    Some((namespace, argument("--service=")?, argument("--secret=").or_else(mounted)?))
}

/// Whether the pod has succeeded or failed.
fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn reduced(pod: &Value, asking: &[String], injection: &Injection) -> Pod {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = &meta["labels"]["ebb-cache.io/inject"];
    let named = |values: &Value| list(values).into_iter().find(|value| value["name"] == "ebb");
    let (sidecar, state) =
        (named(&spec["initContainers"]), named(&status["initContainerStatuses"]).unwrap_or_default());
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
    let volume = list(&spec["volumes"]).into_iter().find(|volume| volume["name"] == "ebb-config");
    let sources = volume.filter(|_| sidecar.is_some()).map(|volume| list(&volume["projected"]["sources"]));
    let follow = |source: &Value| Some((text(&meta["namespace"]), source["configMap"]["name"].as_str()?.to_owned()));
    Pod {
        name: format!("{}/{}", text(&meta["namespace"]), text(&meta["name"])),
        asks: (word == "enabled"
            || word.is_null()
                && meta["namespace"].as_str().is_some_and(|namespace| asking.iter().any(|one| one == namespace)))
            && (sidecar.is_some() || !injection.leaves_alone(pod)),
        declines: word == "disabled",
        has_sidecar: sidecar.is_some(),
        follows: sources.iter().flatten().filter_map(follow).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use kube::client::Body;
    use std::convert::Infallible;

    /// An API server with only these objects, one per page.
    fn server(objects: Value) -> Client {
        let answer = move |request: Request<Body>| {
            let asked = |key: &str| {
                let words = request.uri().query().into_iter().flat_map(|query| query.split('&'));
                words.filter_map(|word| word.strip_prefix(key)).next().unwrap_or_default().to_owned()
            };
            let name = asked("fieldSelector=metadata.name%3D");
            let all = objects[request.uri().path()].as_array().cloned().unwrap_or_default();
            let all: Vec<Value> =
                all.into_iter().filter(|item| name.is_empty() || item["metadata"]["name"] == *name).collect();
            let at = asked("continue=").parse().unwrap_or(0);
            let next = if at + 1 < all.len() { (at + 1).to_string() } else { String::new() };
            let page = json!({"metadata": {"continue": next}, "items": all.get(at).into_iter().collect::<Vec<_>>()});
            async move { Ok::<_, Infallible>(Response::new(Body::from(page.to_string().into_bytes()))) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn by_default() -> Injection {
        Injection::of(&Ok(Vec::new()), &Ok(Vec::new()))
    }

    /// Injector, policy and check use the same reasons for skipping a pod.
    #[tokio::test]
    async fn skipped_pods_of_the_corpus_are_not_reported() {
        let (mut left_alone, mut asking, mut wrong) = (0, 0, Vec::new());
        for entry in std::fs::read_dir("../../tests/inject/pods").unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let expected = text.lines().next().unwrap();
            let mut pod: Value = ebb_config::yaml::manifests(&text).unwrap().remove(0);
            if expected.ends_with("malformed") || text.contains("# namespace: ") {
                continue;
            }
            pod["metadata"]["namespace"] = json!("shop");
            json_patch::merge(&mut pod, &json!({"metadata": {"labels": {"ebb-cache.io/inject": "enabled"}}}));
            let found = super::pods(&server(json!({"/api/v1/pods": [pod]})), &by_default()).await.unwrap();
            let is_reported = found.iter().any(|pod| pod.asks && !pod.declines && !pod.has_sidecar);
            let has_one = pod["spec"]["initContainers"].to_string().contains(r#""name":"ebb""#);
            // A pod that declines by its label asks here, since its label was replaced.
            let is_left_alone = expected.starts_with("# skipped") && !expected.ends_with("disabled");
            if is_reported != (!is_left_alone && !has_one) {
                wrong.push(format!("reported: {is_reported}, has a sidecar: {has_one}\n{text}"));
            }
            left_alone += usize::from(is_left_alone);
            asking += usize::from(is_reported);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(left_alone > 8 && asking > 20, "{left_alone} left alone, {asking} ask");
    }

    fn namespace(name: &str, inject: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"ebb-cache.io/inject": inject}}})
    }

    fn following(namespace: &str, config_map: &str) -> Value {
        let volume = json!({"name": "ebb-config", "projected": {"sources": [
            {"downwardAPI": {}}, {"configMap": {"name": config_map}},
        ]}});
        json!({
            "metadata": {"namespace": namespace, "name": "p"},
            "spec": {"initContainers": [{"name": "ebb"}], "volumes": [volume]},
        })
    }

    #[tokio::test]
    async fn pods_that_have_ended_or_are_about_to_are_nobodys_trouble() {
        let pod = |name: &str, change: Value| {
            let mut pod = json!({
                "metadata": {"namespace": "shop", "name": name, "labels": {"ebb-cache.io/inject": "enabled"}},
                "status": {"phase": "Running"},
            });
            json_patch::merge(&mut pod, &change);
            pod
        };
        let pods = [
            pod("runs", json!({})),
            pod("done", json!({"status": {"phase": "Succeeded"}})),
            pod("failed", json!({"status": {"phase": "Failed"}})),
            pod("goes", json!({"metadata": {"deletionTimestamp": "2026-11-25T00:00:00Z"}})),
        ];
        let client = server(json!({"/api/v1/pods": pods}));
        let names: Vec<_> =
            super::pods(&client, &by_default()).await.unwrap().into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["shop/runs"]);
    }

    #[tokio::test]
    async fn finds_pods_of_labelled_namespaces_on_any_page() {
        let pod = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "p"}});
        let server = server(json!({
            "/api/v1/namespaces": [namespace("plain", "disabled"), namespace("shop", "enabled"), namespace("till", "enabled")],
            "/api/v1/pods": [pod("plain"), pod("shop"), pod("till")],
        }));
        let names: Vec<String> = pods(&server, &by_default()).await.unwrap().into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["shop/p", "till/p"]);
    }

    #[tokio::test]
    async fn finds_the_secret_that_the_injector_fills_or_mounts() {
        let injector = |args: &[&str], volumes: Value| {
            let containers = json!([{"name": "another", "args": ["--secret=x"]}, {"name": "injector", "args": args}]);
            let spec = json!({"containers": containers, "volumes": volumes});
            json!({"metadata": {"namespace": "sys"}, "spec": {"template": {"spec": spec}}})
        };
        let of = |secret: &str| Some(("sys".to_owned(), "i".to_owned(), secret.to_owned()));
        assert_eq!(serving(&injector(&["--service=i", "--secret=own"], json!([]))), of("own"));
        let mounted = json!([{"name": "template"}, {"name": "tls", "secret": {"secretName": "given"}}]);
        let given = injector(&["--service=i"], mounted);
        assert_eq!(serving(&given), of("given"));
        assert_eq!(serving(&injector(&["--service=i"], json!([]))), None);

        let refused = certificates(&server(json!({})), &Ok(vec![given])).await;
        assert_eq!(refused[0].chain, Err(MissingFact::NotPermitted));
    }

    #[tokio::test]
    async fn reads_followed_config_maps_and_those_of_the_default_name() {
        let map = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
        let server = server(json!({
            "/api/v1/pods": [following("shop", "tuned"), following("till", "quick"), following("till", "no & name")],
            "/api/v1/configmaps": [
                map("bank", "ebb-config"), map("bank", "tuned"), map("shop", "another"), map("shop", "tuned"),
                map("till", "ebb-config"), map("till", "quick"),
            ],
        }));
        let found = config_maps(&server, &pods(&server, &by_default()).await).await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = found
            .iter()
            .map(|map| format!("{}/{}", text(&map["metadata"]["namespace"]), text(&map["metadata"]["name"])));
        let names: Vec<String> = names.collect();
        assert_eq!(names, ["bank/ebb-config", "till/ebb-config", "till/quick", "shop/tuned"]);
    }
}
