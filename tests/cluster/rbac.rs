//! Rights: the API server grants the accounts of a release exactly the rights of its roles, over all resources.

use crate::apiserver::Cluster;
use crate::helm::{Helm, NAMESPACE};
use crate::objects::list;
use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// Calls in flight.
const AT_A_TIME: usize = 16;

/// A request. An empty namespace means all namespaces, an empty name any name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub group: String,
    /// The resource, with a subresource if any.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
}

impl Right {
    /// Whether this right covers a request.
    pub fn covers(&self, asked: &Self) -> bool {
        let fits = |ours: &str, theirs: &str| ours.is_empty() || ours == theirs;
        (&self.group, &self.resource, &self.verb) == (&asked.group, &asked.resource, &asked.verb)
            && fits(&self.namespace, &asked.namespace)
            && fits(&self.name, &asked.name)
    }
}

/// The user name of a service account.
pub fn account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// All rights of an account by the bindings among these objects.
pub fn rights_of(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for binding in objects.iter().filter(|object| !object["roleRef"].is_null()) {
        if !list(&binding["subjects"]).any(|subject| subject["name"] == account) {
            continue;
        }
        let (kind, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
        let role = objects.iter().find(|object| object["kind"] == *kind && object["metadata"]["name"] == *name);
        let rules = serde_json::from_value(role.expect("a role that is bound is there")["rules"].clone()).unwrap();
        // A ClusterRoleBinding has no namespace.
        let namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
        rights.extend(expanded(rules, namespace));
    }
    assert!(!rights.is_empty(), "{account} may do nothing");
    rights
}

/// All single requests that the rules allow.
fn expanded(rules: Vec<PolicyRule>, namespace: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        let names = rule.resource_names.filter(|names| !names.is_empty()).unwrap_or_else(|| vec![String::new()]);
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in &names {
                    for verb in &rule.verbs {
                        let all = [group, resource, verb];
                        assert!(!all.iter().any(|word| word.contains('*')), "a right without bounds: {all:?}");
                        let [group, resource, verb] = all.map(Clone::clone);
                        rights.insert(Right {
                            group,
                            resource,
                            namespace: namespace.to_owned(),
                            name: name.clone(),
                            verb,
                        });
                    }
                }
            }
        }
    }
    rights
}

/// The authorizer's answer.
async fn may(client: &Client, right: &Right) -> bool {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource.as_str(), None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.clone()),
        resource: Some(resource.to_owned()),
        subresource,
        namespace: Some(right.namespace.clone()),
        name: Some(right.name.clone()),
        verb: Some(right.verb.clone()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

/// All possible requests: each verb on each resource of the API server, in the named namespaces and in all, without a
/// name, with an unknown name, and with the names in the rights.
async fn everything(cluster: &Cluster, rights: &BTreeSet<Right>, namespaces: &[&str]) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for served in cluster.served().await {
        let about = rights.iter().filter(|right| (&right.group, &right.resource) == (&served.group, &served.resource));
        let names: BTreeSet<&str> = about.map(|right| right.name.as_str()).chain(["", "another"]).collect();
        let places = if served.is_namespaced { namespaces } else { &[] };
        for namespace in places.iter().chain(&[""]) {
            for name in &names {
                for verb in VERBS {
                    let [group, resource] = [&served.group, &served.resource].map(Clone::clone);
                    let [namespace, name, verb] = [namespace, *name, verb].map(str::to_owned);
                    all.insert(Right { group, resource, namespace, name, verb });
                }
            }
        }
    }
    all
}

/// Rights that the API server grants to every account of this namespace, such as access reviews for itself.
async fn everybodys(cluster: &Cluster, namespace: &str) -> BTreeSet<Right> {
    let groups = ["system:authenticated", "system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let own = ListParams::default().labels("kubernetes.io/bootstrapping=rbac-defaults");
    let mut rights = BTreeSet::new();
    for binding in bindings.list(&own).await.unwrap() {
        if binding.subjects.iter().flatten().any(|subject| groups.contains(&subject.name.as_str())) {
            let role = roles.get(&binding.role_ref.name).await.unwrap();
            rights.extend(expanded(role.rules.unwrap_or_default(), ""));
        }
    }
    assert!(!rights.is_empty(), "every account may ask what it may");
    rights
}

/// Checks that the authorizer grants an account exactly these rights, over all possible requests.
async fn has_exactly(cluster: &Cluster, user: &str, rights: &BTreeSet<Right>, namespaces: &[&str]) {
    let anybody = everybodys(cluster, NAMESPACE).await;
    let all = everything(cluster, rights, namespaces).await;
    assert!(rights.iter().all(|right| all.contains(right)), "each right is asked for: {rights:?}");
    let client = cluster.client_as(user);
    let answers = futures::stream::iter(&all).map(async |asked| (asked, may(&client, asked).await));
    let answers: Vec<(&Right, bool)> = answers.buffer_unordered(AT_A_TIME).collect().await;
    let is_meant = |asked: &Right| rights.iter().chain(&anybody).any(|right| right.covers(asked));
    let wrong: Vec<_> = answers.iter().filter(|(asked, allowed)| is_meant(asked) != *allowed).collect();
    assert!(wrong.is_empty(), "{user}: {wrong:?}");
    let granted = answers.iter().filter(|(_, allowed)| *allowed).count();
    println!("{user}: {} questions, {granted} of them granted, as its {} rights say", answers.len(), rights.len());
}

/// `VERB GROUP/RESOURCE NAMESPACE NAME`, `-` for none.
fn right(words: &str) -> Right {
    let words: Vec<&str> = words.split(' ').collect();
    let [verb, resource, namespace, name] = words.as_slice() else { panic!("{words:?}") };
    let (group, resource) = resource.split_once(':').unwrap_or(("", resource));
    let text = |word: &str| word.trim_matches('-').to_owned();
    Right {
        group: text(group),
        resource: text(resource),
        namespace: text(namespace),
        name: text(name),
        verb: text(verb),
    }
}

async fn expect(client: &Client, allowed: bool, questions: &[&str]) {
    let mut wrong = Vec::new();
    for question in questions {
        if may(client, &right(question)).await != allowed {
            wrong.push(question);
        }
    }
    assert!(wrong.is_empty(), "not allowed: {allowed}, but {wrong:?}");
}

#[tokio::test]
async fn accounts_may_do_what_their_roles_say_and_nothing_else() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, "injector.mode=webhook,tests.check=true");
    let namespaces = [NAMESPACE, "shop", "default"];

    let rights = rights_of(&Helm::Four.get(&cluster, "manifest"), "ebb-injector");
    let user = account(NAMESPACE, "ebb-injector");
    has_exactly(&cluster, &user, &rights, &namespaces).await;
    // Independent of the chart: rights that the injector needs, and rights that it must not have.
    let client = cluster.client_as(&user);
    let work = [
        "list namespaces - -",
        "watch namespaces - -",
        "create events.k8s.io:events shop -",
        "get secrets ebb-system ebb-injector-tls",
        "update secrets ebb-system ebb-injector-tls",
        "update coordination.k8s.io:leases ebb-system ebb-injector",
        "patch admissionregistration.k8s.io:mutatingwebhookconfigurations - ebb.ebb-system.ebb-cache.io",
    ];
    expect(&client, true, &work).await;
    let others_business = [
        "get secrets ebb-system another",
        "list secrets ebb-system -",
        "get secrets shop ebb-injector-tls",
        "create secrets ebb-system -",
        "delete secrets ebb-system ebb-injector-tls",
        "patch admissionregistration.k8s.io:mutatingwebhookconfigurations - another",
        "list admissionregistration.k8s.io:mutatingwebhookconfigurations - -",
        "update admissionregistration.k8s.io:mutatingwebhookconfigurations - ebb.ebb-system.ebb-cache.io",
        "get coordination.k8s.io:leases ebb-system another",
        "update namespaces - shop",
        "get pods shop -",
        "create pods shop -",
        "list configmaps ebb-system -",
        "impersonate users - -",
        "bind rbac.authorization.k8s.io:clusterroles - -",
        "escalate rbac.authorization.k8s.io:clusterroles - -",
    ];
    expect(&client, false, &others_business).await;

    let hooks = Helm::Four.get(&cluster, "hooks");
    for object in hooks.iter().filter(|object| object["kind"] != "Pod") {
        cluster.create(object).await;
    }
    let rights = rights_of(&hooks, "ebb-test-check");
    let user = account(NAMESPACE, "ebb-test-check");
    has_exactly(&cluster, &user, &rights, &namespaces).await;
    let others_business = ["list secrets - -", "create pods shop -", "delete pods default -", "get configmaps shop x"];
    expect(&cluster.client_as(&user), false, &others_business).await;
}

#[test]
fn a_right_is_found_wherever_it_is_written() {
    let objects = [
        json!({
            "kind": "Role", "metadata": {"name": "r", "namespace": "n"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["get", "list"]}],
        }),
        json!({
            "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "n"},
            "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"name": "me"}],
        }),
    ];
    let rights = rights_of(&objects, "me");
    assert_eq!(rights.len(), 4, "{rights:?}");
    let has = |asked: &str| rights.iter().any(|own| own.covers(&right(asked)));
    assert!(has("get secrets n a") && has("list secrets n b"));
    assert!(!has("get secrets n c") && !has("get secrets - a") && !has("get secrets n -") && !has("watch secrets n a"));
}
