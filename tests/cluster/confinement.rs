//! The injector's account may patch its webhook configuration; a policy leaves it the two fields that it publishes.

use crate::apiserver::Cluster;
use crate::helm::{Helm, NAMESPACE};
use crate::rbac::account;
use crate::replica::{CONFIGURATION, INJECTOR};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Patches the configuration as a dry run; returns why it is refused.
async fn refusal(client: &Client, operations: &Value) -> Option<String> {
    let patch: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    match configurations.patch(CONFIGURATION, &params, &Patch::<()>::Json(patch)).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => panic!("{operations}: {error}"),
    }
}

#[tokio::test]
async fn the_injector_changes_the_ca_bundle_and_the_path_alone() {
    let Some(cluster) = Cluster::start().await else { return };
    Helm::Four.install(&cluster, "injector.mode=webhook");
    let operator = &cluster.client;
    let injector = &cluster.client_as(&account(NAMESPACE, INJECTOR));
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJXakNDQVFDZ0F3SUJBZ0lCQVRBS0JnZ3Foa2pPUFFRREFqQU1NUW93Q0FZRFZRUUREQUZoCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
    let allowed = [
        add("/webhooks/0/clientConfig/caBundle", json!(bundle)),
        add("/webhooks/1/clientConfig/service/path", json!("/inject/other")),
    ];
    let elsewhere = json!({"name": "mine", "namespace": "shop", "port": 443});
    let forbidden = [
        ("rules", add("/webhooks/0/rules/0/resources", json!(["*"]))),
        ("rules of operations", add("/webhooks/0/rules/0/operations", json!(["*"]))),
        (
            "another rule",
            add(
                "/webhooks/0/rules/-",
                json!({
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"], "scope": "*",
                }),
            ),
        ),
        ("the namespace selector", add("/webhooks/0/namespaceSelector", json!({}))),
        ("the object selector", add("/webhooks/1/objectSelector", json!({}))),
        ("match conditions", add("/webhooks/0/matchConditions", json!([]))),
        ("no match conditions", json!([{"op": "remove", "path": "/webhooks/0/matchConditions"}])),
        (
            "a URL",
            json!([
                {"op": "remove", "path": "/webhooks/0/clientConfig/service"},
                {"op": "add", "path": "/webhooks/0/clientConfig/url", "value": "https://attacker.example/"},
            ]),
        ),
        ("the service", add("/webhooks/0/clientConfig/service", elsewhere)),
        ("the name of the service", add("/webhooks/0/clientConfig/service/name", json!("mine"))),
        ("the port", add("/webhooks/0/clientConfig/service/port", json!(8443))),
        ("the failure policy", add("/webhooks/0/failurePolicy", json!("Fail"))),
        ("the match policy", add("/webhooks/0/matchPolicy", json!("Exact"))),
        ("the timeout", add("/webhooks/0/timeoutSeconds", json!(30))),
        ("reinvocation", add("/webhooks/0/reinvocationPolicy", json!("Never"))),
        ("side effects", add("/webhooks/0/sideEffects", json!("None"))),
        ("the name of a webhook", add("/webhooks/0/name", json!("mine.ebb-cache.io"))),
        ("one webhook less", json!([{"op": "remove", "path": "/webhooks/1"}])),
        ("none at all", json!([{"op": "remove", "path": "/webhooks"}])),
        (
            "one more",
            json!([{"op": "copy", "from": "/webhooks/0", "path": "/webhooks/-"},
            {"op": "add", "path": "/webhooks/6/name", "value": "mine.ebb-cache.io"}]),
        ),
        ("another order", json!([{"op": "move", "from": "/webhooks/0", "path": "/webhooks/1"}])),
        ("a label", add("/metadata/labels/mine", json!("x"))),
        ("an annotation", add("/metadata/annotations", json!({"cert-manager.io/inject-ca-from": "shop/mine"}))),
        ("a finalizer", add("/metadata/finalizers", json!(["mine.example/stays"]))),
        (
            "an owner",
            add(
                "/metadata/ownerReferences",
                json!([
                    {"apiVersion": "v1", "kind": "Namespace", "name": "shop", "uid": "1"},
                ]),
            ),
        ),
    ];
    let (_, first) = &forbidden[0];
    cluster.until("the policy is active", async || refusal(injector, first).await.is_some()).await;
    let mut wrong = Vec::new();
    for operations in &allowed {
        if let Some(why) = refusal(injector, operations).await {
            wrong.push(format!("{operations} is refused: {why}"));
        }
    }
    for (what, operations) in &forbidden {
        // The policy refuses it, not a validation of the API server: anybody else may do it.
        if let Some(why) = refusal(operator, operations).await {
            wrong.push(format!("{what} is refused to an operator: {why}"));
        }
        match refusal(injector, operations).await {
            Some(why) if why.contains("the injector may change") => {}
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    more_rights_do_not_help(&cluster, injector).await;
}

/// The policy holds even if another role gives the account every right on webhook configurations and policies.
async fn more_rights_do_not_help(cluster: &Cluster, injector: &Client) {
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let mut role = roles.get(CONFIGURATION).await.unwrap();
    role.rules.as_mut().unwrap().push(PolicyRule {
        api_groups: Some(vec!["admissionregistration.k8s.io".to_owned()]),
        resources: Some(vec!["mutatingwebhookconfigurations".to_owned()]),
        verbs: vec!["create".to_owned(), "delete".to_owned(), "update".to_owned()],
        ..PolicyRule::default()
    });
    roles.replace(CONFIGURATION, &PostParams::default(), &role).await.unwrap();
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(injector.clone());
    let only_tried = PostParams { dry_run: true, ..PostParams::default() };
    let mut other: MutatingWebhookConfiguration = configurations.get(CONFIGURATION).await.unwrap();
    other.metadata = kube::api::ObjectMeta { name: Some("mine".to_owned()), ..kube::api::ObjectMeta::default() };
    let sentence = "the injector may update its own MutatingWebhookConfiguration only";
    let is_refused = async || {
        let created = configurations.create(&only_tried, &other).await;
        matches!(created, Err(kube::Error::Api(status)) if status.message.contains(sentence))
    };
    cluster.until("a new configuration is refused by the policy", is_refused).await;
    let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let deleted = configurations.delete(CONFIGURATION, &params).await;
    assert!(matches!(deleted, Err(kube::Error::Api(status)) if status.message.contains(sentence)));
}
