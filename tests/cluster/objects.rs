//! Objects of any kind, as JSON.

use crate::apiserver::Cluster;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams, TypeMeta};
use kube::{Api, Client};
use serde_json::Value;

/// The objects of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    ebb_config::yaml::manifests(yaml).unwrap()
}

/// The elements of a list; empty if the value is not a list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let types: TypeMeta = serde_json::from_value(object.clone()).unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Creates an object, or does a dry run.
pub async fn create(client: &Client, object: &Value, params: &PostParams) -> Result<Value, String> {
    let body: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    match api(client, object).create(params, &body).await {
        Ok(created) => Ok(serde_json::to_value(created).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => Err(error.to_string()),
    }
}

impl Cluster {
    pub async fn create(&self, object: &Value) {
        let created = create(&self.client, object, &PostParams::default()).await;
        assert!(created.is_ok(), "{} {}: {created:?}", object["kind"], object["metadata"]["name"]);
    }

    pub async fn delete(&self, object: &Value) {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        api(&self.client, object).delete(object["metadata"]["name"].as_str().unwrap(), &params).await.unwrap();
    }

    /// All resources and subresources of the API server, by group and name: whether they are namespaced, and the path
    /// of those that can be listed.
    pub async fn served(&self) -> Vec<Served> {
        let core = self.client.list_core_api_versions_aggregated().await.unwrap();
        let others = self.client.list_api_groups_aggregated().await.unwrap();
        let mut served = Vec::new();
        for group in core.items.into_iter().chain(others.items) {
            let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
            for version in group.versions {
                let at = version.version.unwrap();
                for resource in version.resources {
                    let resource_name = resource.resource.unwrap();
                    let is_namespaced = resource.scope.as_deref() == Some("Namespaced");
                    let can = resource.verbs.iter().any(|verb| verb == "list");
                    let path = match name.as_str() {
                        "" => format!("/api/{at}/{resource_name}"),
                        group => format!("/apis/{group}/{at}/{resource_name}"),
                    };
                    for subresource in resource.subresources {
                        let resource = format!("{resource_name}/{}", subresource.subresource.unwrap());
                        served.push(Served { group: name.clone(), resource, is_namespaced, list: None });
                    }
                    let list = can.then_some(path);
                    served.push(Served { group: name.clone(), resource: resource_name, is_namespaced, list });
                }
            }
        }
        assert!(served.len() > 100, "{served:?}");
        served
    }

    /// Objects of any kind that belong to Ebb: by the label, by the namespace of the release, or by a name.
    pub async fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        for served in self.served().await {
            // Events expire, and Helm does not delete the namespace that it created.
            let Some(path) = served.list.filter(|_| !["events", "namespaces"].contains(&&*served.resource)) else {
                continue;
            };
            let asked = http::Request::get(&path).body(Vec::new()).unwrap();
            let found: Value = self.client.request(asked).await.unwrap_or_else(|error| panic!("{path}: {error}"));
            for object in list(&found["items"]) {
                let metadata = &object["metadata"];
                let is_ours = metadata["labels"]["app.kubernetes.io/part-of"] == "ebb"
                    || metadata["namespace"] == "ebb-system"
                    || metadata["name"].as_str().is_some_and(|name| name.starts_with("ebb"));
                if is_ours {
                    left.push(format!("{path} {}/{}", metadata["namespace"], metadata["name"]));
                }
            }
        }
        left
    }
}

/// A resource of the API server.
#[derive(Debug)]
pub struct Served {
    pub group: String,
    pub resource: String,
    pub is_namespaced: bool,
    pub list: Option<String>,
}
