//! Gathers facts from the API server. Each fact is a separate call, so that a refused one does not affect the others.

use super::injection::Injection;
use super::namespaces::tried;
use super::pods::{Found, pods};
use super::revisions::{self, Revisions};
use super::selection::Selection;
use super::{Certificate, Fact, Facts, Listed, MissingFact, Pod};
use crate::inject::{Namespace, REVISION, texts, workload_warnings};
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Objects per page.
const PAGE: usize = 500;
/// Default name of the ConfigMaps that sidecars follow.
const CONFIG_MAP: &str = "ebb-config";

/// Gathers all facts about the injector of a revision. Pods are created as dry runs only: one in `namespace`, and one in
/// each labelled namespace. Calls `progress` with the number of labelled namespaces that are done, and of all.
pub async fn gather(client: &Client, namespace: &str, revision: &str, progress: &dyn Fn(usize, usize)) -> Facts {
    let ours = "labelSelector=app.kubernetes.io%2Fpart-of%3Debb";
    let injecting = format!("{ours}%2Capp.kubernetes.io%2Fcomponent%3Dinjector");
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let get = async |path: &str| call(client, Request::get(path).body(Vec::new())).await;
    let list = async |path: &str, selector: &str| paged(client, path, selector, |item| Some(item.clone())).await;
    let injectors = list("/apis/apps/v1/deployments", &injecting).await;
    let templates = list("/api/v1/configmaps", &injecting).await;
    let webhooks = list(&format!("{admission}/mutatingwebhookconfigurations"), ours).await;
    let policies = list(&format!("{admission}/mutatingadmissionpolicies"), ours).await;
    let bindings = list(&format!("{admission}/mutatingadmissionpolicybindings"), ours).await;
    let trial = trial(client, namespace, revision).await;
    // Without namespaces, pods with their own label are still found.
    let spaces = paged(client, "/api/v1/namespaces", "", space).await.unwrap_or_default();
    let of_revision = |all: &Listed| revisions::of_revision(all, revision);
    let selection = Selection::of(&of_revision(&webhooks), &of_revision(&bindings));
    let injection = Injection::of(
        revision,
        &of_revision(&injectors),
        &of_revision(&templates),
        &of_revision(&policies),
        &trial,
        selection,
        spaces,
    );
    let Found { pods, applications } = pods(client, &injection).await;
    let facts = Facts {
        now: Timestamp::now().as_second(),
        version: get("/version").await,
        revisions: Revisions::of(revision, &webhooks, &policies, injection.namespaces(), &pods),
        certificates: certificates(client, &injectors).await,
        misplaced: misplaced(client).await,
        budgets: list("/apis/policy/v1/poddisruptionbudgets", "").await,
        config_maps: config_maps(client, &pods).await,
        pods,
        tried: match is_unreachable(&trial) {
            true => Vec::new(),
            false => tried(client, &injection, &applications, progress).await,
        },
        left_out: injection.left_out().map(|namespace| namespace.name.clone()).collect(),
        trial,
        webhooks,
        policies,
        injectors,
        templates,
        monitors: get("/apis/monitoring.coreos.com/v1").await,
        refused: refused(client, namespace).await,
    };
    facts.of_checked_revision()
}

/// Whether every pod is refused because Ebb's webhook cannot be called. Then a pod of each namespace would show no more.
fn is_unreachable(trial: &Fact) -> bool {
    let is_ours = |why: &str| why.contains("failed calling webhook") && why.contains("injector.ebb-cache.io");
    trial.as_ref().is_err_and(|why| is_ours(&why.to_string()))
}

/// A namespace with what matters to injectors.
fn space(namespace: &Value) -> Option<Namespace> {
    let meta = &namespace["metadata"];
    let mut annotations = texts(&meta["annotations"]);
    annotations.retain(|name, _| name.contains("ebb-cache.io/"));
    Some(Namespace { name: meta["name"].as_str()?.to_owned(), labels: texts(&meta["labels"]), annotations })
}

/// Reads a list page by page; `keep` selects and reduces the items.
pub(super) async fn paged<T>(
    client: &Client,
    path: &str,
    selector: &str,
    mut keep: impl FnMut(&Value) -> Option<T>,
) -> Listed<T> {
    let (mut kept, mut token) = (Vec::new(), String::new());
    loop {
        let page = Request::get(format!("{path}?limit={PAGE}&continue={token}&{selector}")).body(Vec::new());
        let page = call(client, page).await?;
        kept.extend(page["items"].as_array().into_iter().flatten().filter_map(&mut keep));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(kept),
        }
    }
}

pub(super) async fn call(client: &Client, request: Result<Request<Vec<u8>>, http::Error>) -> Fact {
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

/// The result of a dry run that creates a pod with the labels.
async fn trial(client: &Client, namespace: &str, revision: &str) -> Fact {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "ebb-check-", "labels": {"ebb-cache.io/inject": "enabled", REVISION: revision}},
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
        ("list", "", "resourcequotas", ""),
        ("list", "", "limitranges", ""),
        ("create", "", "pods", namespace),
        ("list", "apps", "deployments", ""),
        ("list", "apps", "statefulsets", ""),
        ("list", "apps", "daemonsets", ""),
        ("list", "batch", "cronjobs", ""),
        ("list", "policy", "poddisruptionbudgets", ""),
        ("list", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
        ("list", "admissionregistration.k8s.io", "mutatingadmissionpolicies", ""),
        ("list", "admissionregistration.k8s.io", "mutatingadmissionpolicybindings", ""),
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
pub(super) async fn may(client: &Client, attributes: &Value) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let request = request.header("content-type", "application/json").body(review.to_string().into_bytes());
    call(client, request).await.is_ok_and(|answer| answer["status"]["allowed"] == true)
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

#[cfg(test)]
mod tests {
    use super::super::fake::{injection_of, server};
    use super::*;

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
        let found = config_maps(&server, &pods(&server, &injection_of(&[])).await.pods).await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = found
            .iter()
            .map(|map| format!("{}/{}", text(&map["metadata"]["namespace"]), text(&map["metadata"]["name"])));
        let names: Vec<String> = names.collect();
        assert_eq!(names, ["bank/ebb-config", "till/ebb-config", "till/quick", "shop/tuned"]);
    }
}
