//! Tries a pod in each labelled namespace: as a dry run, through every admission plugin, policy and webhook.
//!
//! ```text
//!  with a sidecar ──admitted──► fine, or without its sidecar
//!        └─refused─► without ──refused──► (a small pod instead of a copy) ──refused──► Ebb is not the reason
//!                       └─admitted─► rules (pure) ──► annotations ──tried──► a remedy that works
//! ```
//! The pod is a copy of one of the namespace's own, so that it has the resources, labels and accounts of its
//! applications; if there is none, or it is refused, a small pod with the resources that the rules ask for.

use super::gather::{call, may, paged};
use super::injection::{Injection, Treatment};
use super::pods::TRIED;
use super::rules::{Misfit, Rules};
use super::{Fact, Listed, MissingFact};
use crate::inject::{environment_problems, sidecar_of};
use futures::StreamExt as _;
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Namespaces tried at a time.
const AT_A_TIME: usize = 8;
/// Time for one namespace, and for all.
const EACH: Duration = Duration::from_secs(30);
const ALL: Duration = Duration::from_secs(120);
/// Scopes of quotas that count the pods of most applications.
const USUAL_SCOPES: [&str; 2] = ["NotBestEffort", "NotTerminating"];

/// What a labelled namespace does with a new pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The namespace.
    pub namespace: String,
    /// The result.
    pub outcome: Trial,
}

/// Result of the dry runs in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// A pod gets its sidecar. Holds the problems of the sidecar's environment.
    Injected(Vec<String>),
    /// A pod is admitted without a sidecar.
    Bare,
    /// A pod is admitted without a sidecar and refused with one.
    Refused {
        /// The API server's sentence.
        why: String,
        /// The contradictions with the namespace's rules.
        misfit: Misfit,
        /// Whether a pod with the annotations of `misfit` was admitted with a sidecar.
        is_cured: bool,
    },
    /// A pod is refused without a sidecar, too. Holds the API server's sentence.
    RefusedAnyway(String),
    /// No selector of the injectors fits a pod like those of the namespace.
    Unselected,
    /// The account may not create pods. Holds the contradictions with the namespace's rules, if there are any.
    NotPermitted(Option<Misfit>),
    /// The time was over.
    NotInTime,
}

/// Tries a pod in each labelled namespace. Calls `progress` with the number of tried namespaces and of all.
pub(super) async fn tried(
    client: &Client,
    injection: &Injection,
    applications: &BTreeMap<String, Value>,
    progress: &dyn Fn(usize, usize),
) -> Vec<Tried> {
    let names: BTreeSet<&str> = injection.labelled().map(|namespace| namespace.name.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    // What cannot be listed is missing from remedies only; the account's permissions are a finding of their own.
    let quotas = by_namespace(of(client, "/api/v1/resourcequotas", &names, is_usual).await);
    let ranges = by_namespace(of(client, "/api/v1/limitranges", &names, |_| true).await);
    let rules = |name: &str| Rules {
        quotas: quotas.get(name).cloned().unwrap_or_default(),
        ranges: ranges.get(name).cloned().unwrap_or_default(),
    };
    let may_everywhere = may(client, &json!({"verb": "create", "resource": "pods", "namespace": ""})).await;
    let deadline = Instant::now() + ALL;
    let one = async |name: &str| {
        let place = Place { client, injection, name, rules: rules(name), may_everywhere };
        let until = deadline.min(Instant::now() + EACH);
        let outcome = tokio::time::timeout_at(until, place.outcome(applications.get(name))).await;
        Tried { namespace: name.to_owned(), outcome: outcome.unwrap_or(Trial::NotInTime) }
    };
    let mut results = futures::stream::iter(names.iter().map(|name| one(name))).buffer_unordered(AT_A_TIME);
    let mut all = Vec::new();
    while let Some(tried) = results.next().await {
        all.push(tried);
        progress(all.len(), names.len());
    }
    all.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    all
}

/// The objects of these namespaces.
async fn of(client: &Client, path: &str, names: &BTreeSet<&str>, is_wanted: fn(&Value) -> bool) -> Listed {
    let is_here = |object: &Value| object["metadata"]["namespace"].as_str().is_some_and(|name| names.contains(name));
    paged(client, path, "", |object| (is_here(object) && is_wanted(object)).then(|| object.clone())).await
}

fn by_namespace(listed: Listed) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in listed.into_iter().flatten() {
        let name = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        all.entry(name).or_default().push(object);
    }
    all
}

/// Whether a quota counts the pods of most applications.
fn is_usual(quota: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let scopes = list(&quota["spec"]["scopes"]);
    let selected = list(&quota["spec"]["scopeSelector"]["matchExpressions"]);
    let is_usual = |scope: &Value| USUAL_SCOPES.iter().any(|usual| scope == usual);
    scopes.iter().all(is_usual) && selected.iter().all(|rule| is_usual(&rule["scopeName"]))
}

/// A labelled namespace.
struct Place<'a> {
    client: &'a Client,
    injection: &'a Injection,
    name: &'a str,
    rules: Rules,
    may_everywhere: bool,
}

impl Place<'_> {
    async fn outcome(&self, model: Option<&Value>) -> Trial {
        let small = self.small();
        let is_injected = |pod: &&Value| self.injection.treatment(pod) == Treatment::Injected;
        let pods: Vec<&Value> = model.into_iter().chain([&small]).filter(is_injected).collect();
        let Some(first) = pods.first() else { return Trial::Unselected };
        let create = json!({"verb": "create", "resource": "pods", "namespace": self.name});
        if !self.may_everywhere && !may(self.client, &create).await {
            return Trial::NotPermitted(self.misfit(first));
        }
        let mut anyway = String::new();
        for pod in pods {
            let refused = match self.create(pod).await {
                Ok(got) => {
                    let problems = sidecar_of(&got).map(environment_problems);
                    return problems.map_or(Trial::Bare, Trial::Injected);
                }
                Err(why) => sentence(&why),
            };
            match self.create(&without_sidecar(pod)).await {
                Ok(_) => return self.refused(pod, refused).await,
                Err(why) => anyway = sentence(&why),
            }
        }
        Trial::RefusedAnyway(anyway)
    }

    /// Finds annotations for a pod that is refused because of its sidecar, and tries them.
    async fn refused(&self, pod: &Value, why: String) -> Trial {
        let misfit = self.misfit(pod).unwrap_or_default();
        let mut cured = pod.clone();
        for (name, value) in &misfit.annotations {
            cured["metadata"]["annotations"][name] = json!(value);
        }
        let is_cured =
            !misfit.annotations.is_empty() && self.create(&cured).await.is_ok_and(|got| sidecar_of(&got).is_some());
        Trial::Refused { why, misfit, is_cured }
    }

    fn misfit(&self, pod: &Value) -> Option<Misfit> {
        self.rules.misfit(pod, &self.injection.resources(pod)?)
    }

    /// A small pod that fits the standard `restricted` and the rules of the namespace.
    fn small(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": TRIED, "namespace": self.name, "labels": {}, "annotations": {}},
            "spec": {"containers": [{
                "name": "check", "image": "none", "resources": self.rules.small(),
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }]},
        })
    }

    /// The pod as the API server would store it.
    async fn create(&self, pod: &Value) -> Fact {
        let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", self.name);
        let request = Request::post(path).header("content-type", "application/json");
        call(self.client, request.body(pod.to_string().into_bytes())).await
    }
}

/// The pod with injection off.
fn without_sidecar(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["labels"]["ebb-cache.io/inject"] = json!("disabled");
    pod
}

/// Maximum length of a sentence of the API server, in bytes.
const SENTENCE_BYTES: usize = 400;

/// The API server's sentence without the name of the pod.
fn sentence(why: &MissingFact) -> String {
    let why = why.to_string();
    let starts = [format!("pods \"{TRIED}\" is forbidden: "), format!("Pod \"{TRIED}\" is invalid: ")];
    let rest = starts.iter().find_map(|start| why.strip_prefix(start.as_str())).unwrap_or(&why);
    match rest.len() > SENTENCE_BYTES {
        true => format!("{}…", &rest[..rest.floor_char_boundary(SENTENCE_BYTES)]),
        false => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::injection_of;
    use super::*;
    use crate::inject::{Context, Namespace, Template, Verdict, inject};
    use http::Response;
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use std::cell::RefCell;
    use std::convert::Infallible;

    /// An API server that injects, and refuses the pods that break `rule`; `allowed` names the namespaces in which this
    /// account may create pods.
    fn server(lists: Value, allowed: &'static [&'static str], rule: fn(&Value) -> Option<&'static str>) -> Client {
        let answer = move |request: Request<Body>| {
            let lists = lists.clone();
            async move {
                let (path, is_new) = (request.uri().path().to_owned(), request.method() == "POST");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (mut status, mut answer) = (200, json!({"metadata": {}, "items": lists[&path]}));
                if path.ends_with("selfsubjectaccessreviews") {
                    let asked: Value = serde_json::from_slice(&body).unwrap();
                    let namespace = asked["spec"]["resourceAttributes"]["namespace"].as_str().unwrap();
                    answer = json!({"status": {"allowed": allowed.contains(&namespace)}});
                } else if is_new {
                    answer = injected(serde_json::from_slice(&body).unwrap());
                    if let Some(why) = rule(&answer) {
                        let message = format!("pods \"ebb-check\" is forbidden: {why}");
                        (status, answer) = (403, json!({"kind": "Status", "code": 403, "message": message}));
                    }
                }
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn injected(mut pod: Value) -> Value {
        let namespace = Namespace::default();
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        if let Verdict::Inject(operations) = inject(&pod, &context, &Template::built_in()).verdict {
            let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
            json_patch::patch(&mut pod, &patch).unwrap();
        }
        pod
    }

    fn memory(pod: &Value) -> Option<u64> {
        let text = sidecar_of(pod)?["resources"]["limits"]["memory"].as_str()?.to_owned();
        text.parse::<ebb_config::units::ByteSize>().ok().map(|size| size.0)
    }

    fn at_most_64(pod: &Value) -> Option<&'static str> {
        memory(pod).is_some_and(|memory| memory > 64 << 20).then_some("maximum memory usage per Container is 64Mi")
    }

    fn ranges() -> Value {
        let range = json!({
            "metadata": {"namespace": "small", "name": "r"},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]},
        });
        json!({"/api/v1/limitranges": [range]})
    }

    async fn outcomes(client: &Client, names: &[&str], applications: &BTreeMap<String, Value>) -> Vec<Trial> {
        let labelled: Vec<_> = names.iter().map(|name| (*name, "enabled")).collect();
        let steps = RefCell::new(Vec::new());
        let injection = injection_of(&labelled);
        let progress = |done: usize, all: usize| steps.borrow_mut().push((done, all));
        let found = tried(client, &injection, applications, &progress).await;
        assert_eq!(steps.into_inner(), (1..=names.len()).map(|done| (done, names.len())).collect::<Vec<_>>());
        found.into_iter().map(|tried| tried.outcome).collect()
    }

    #[tokio::test]
    async fn a_refusal_because_of_the_sidecar_comes_with_a_cure_that_was_tried() {
        let client = server(ranges(), &[""], at_most_64);
        let found = outcomes(&client, &["small", "wide"], &BTreeMap::new()).await;
        let [Trial::Refused { why, misfit, is_cured: true }, second] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(why, "maximum memory usage per Container is 64Mi");
        assert_eq!(misfit.annotations, [("config.ebb-cache.io/memory-limit".to_owned(), "64Mi".to_owned())].into());
        // Without the LimitRange the reason for the refusal is unknown.
        assert!(matches!(second, Trial::Refused { misfit, is_cured: false, .. } if *misfit == Misfit::default()));
    }

    #[tokio::test]
    async fn a_namespace_that_refuses_every_pod_is_not_blamed_on_ebb() {
        let client = server(json!({}), &[""], |_| Some("no pods here"));
        assert_eq!(
            outcomes(&client, &["shop"], &BTreeMap::new()).await,
            [Trial::RefusedAnyway("no pods here".to_owned())]
        );
        let fine = server(json!({}), &[""], |_| None);
        assert_eq!(outcomes(&fine, &["shop"], &BTreeMap::new()).await, [Trial::Injected(Vec::new())]);
    }

    #[tokio::test]
    async fn a_small_pod_is_tried_where_a_copy_is_refused_anyway() {
        let is_large = |pod: &Value| (pod["spec"]["containers"][0]["name"] == "large").then_some("exceeded quota");
        let large = json!({
            "metadata": {"namespace": "shop", "labels": {}, "annotations": {}}, "spec": {"containers": [{"name": "large"}]},
        });
        let applications = BTreeMap::from([("shop".to_owned(), large)]);
        let found = outcomes(&server(json!({}), &[""], is_large), &["shop"], &applications).await;
        assert_eq!(found, [Trial::Injected(Vec::new())]);
    }

    #[tokio::test]
    async fn without_the_right_nothing_is_tried_and_rules_are_read() {
        let client = server(ranges(), &["wide"], at_most_64);
        let found = outcomes(&client, &["other", "small", "wide"], &BTreeMap::new()).await;
        let [Trial::NotPermitted(None), Trial::NotPermitted(Some(misfit)), Trial::Refused { .. }] = found.as_slice()
        else {
            panic!("{found:?}")
        };
        assert_eq!(misfit.annotations.len(), 1);
    }

    #[test]
    fn the_servers_sentence_is_shortened() {
        let refused = |text: String| sentence(&MissingFact::Refused(text));
        assert_eq!(refused("pods \"ebb-check\" is forbidden: no".to_owned()), "no");
        assert_eq!(refused("another".to_owned()), "another");
        assert_eq!(refused("ä".repeat(1000)).len(), SENTENCE_BYTES + "…".len());
    }

    #[test]
    fn quotas_of_other_pods_do_not_count() {
        let quota = |spec: Value| is_usual(&json!({"spec": spec}));
        let by_class = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["x"]}]});
        let found = [
            quota(json!({"hard": {}})),
            quota(json!({"scopes": ["NotTerminating"]})),
            quota(json!({"scopes": ["BestEffort"]})),
            quota(json!({"scopeSelector": by_class})),
        ];
        assert_eq!(found, [true, true, false, false]);
    }
}
