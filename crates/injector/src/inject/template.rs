//! The template of the sidecar: the PodTemplate that the chart renders (`ebb.sidecar`).
//!
//! It contains the sidecar and one application container with the additions for applications.

use super::allowed::Allowed;
use super::pod::list;
use super::ports::{self, OPENED_PORT};
use super::revision::{REVISION, is_revision, revision_of, version_of};
use ebb_config::{Problems, check_environment, yaml};
use serde_json::Value;
use std::collections::BTreeMap;

/// The sidecar and its additions to the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The container.
    pub(super) container: Value,
    /// Its volumes.
    pub(super) volumes: Vec<Value>,
    /// Environment variables of an application container.
    pub(super) env: Vec<Value>,
    /// Mounts of an application container.
    pub(super) mounts: Vec<Value>,
    /// Groups that may open the socket.
    pub(super) groups: Vec<Value>,
    /// Pull secrets of the pod.
    pub(super) pull_secrets: Vec<Value>,
    /// Data port of pods whose annotations open it without choosing one.
    pub(super) opened_port: u64,
    /// Ebb's version.
    pub(super) version: String,
    /// The revision of the injector that has it.
    revision: String,
    /// The annotations that change it.
    pub(super) allowed: Allowed,
}

/// Why a text contains no usable template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A document is not YAML.
    #[error("the template is {0}")]
    Yaml(#[from] yaml::Error),
    /// No document is a PodTemplate.
    #[error("the template contains no PodTemplate (apiVersion v1)")]
    NoPodTemplate,
    /// Not exactly one sidecar and one application.
    #[error(
        "the template has {sidecars} initContainers and {applications} containers; it must have one of each: the \
         sidecar and an application"
    )]
    Containers {
        /// Number of init containers.
        sidecars: usize,
        /// Number of containers.
        applications: usize,
    },
    /// The text is not an image.
    #[error("{0:?} is not an image; it must not be empty or have spaces, such as REGISTRY/ebb:0.1.0")]
    Image(String),
    /// The text is not the name of a revision.
    #[error("{0:?} is not a revision; it must be a DNS label: small letters, digits and -, at most 63 characters")]
    Revision(String),
    /// The annotation with the data port of pods that open it is no port.
    #[error("the template's annotation {OPENED_PORT} must be a port, 1024 to 65535")]
    OpenedPort,
    /// The sidecar would not start, or not use a setting. Holds all problems.
    #[error("the sidecar refuses its environment: {0}")]
    Environment(Problems),
    /// The sidecar lacks a field or has another value. Holds what it must have.
    #[error("the template's initContainer must have {0}")]
    Sidecar(&'static str),
}

/// The chart's template with default values.
const BUILT_IN: &str = include_str!("../../../../manifests/sidecar.yaml");

impl Template {
    /// The chart's template with default values.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("a test parses it")
    }

    /// The sidecar's image.
    pub fn image(&self) -> &str {
        self.container["image"].as_str().unwrap_or_default()
    }

    /// Replaces the sidecar's image.
    ///
    /// # Errors
    /// The text is empty or has spaces.
    pub fn set_image(&mut self, image: &str) -> Result<(), TemplateError> {
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(TemplateError::Image(image.to_owned()));
        }
        if image != self.image() {
            self.version = version_of(image);
            self.container["image"] = image.into();
        }
        Ok(())
    }

    /// The revision of the injector that has this template.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The template for pods of this revision.
    ///
    /// # Errors
    /// The text is not the name of a revision.
    pub fn of_revision(self, revision: &str) -> Result<Self, TemplateError> {
        match is_revision(revision) {
            true => Ok(Self { revision: revision.to_owned(), ..self }),
            false => Err(TemplateError::Revision(revision.to_owned())),
        }
    }

    /// The template with these annotations; without a call, all are allowed.
    #[must_use]
    pub fn changed_by(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    /// The template with this data port for pods whose annotations open it; `None` leaves it.
    #[must_use]
    pub fn opening(self, port: Option<u64>) -> Self {
        let opened_port = port.filter(|port| (1024..=65535).contains(port)).unwrap_or(self.opened_port);
        Self { opened_port, ..self }
    }

    /// Names of the environment variables for application containers.
    pub fn variables(&self) -> Vec<String> {
        self.env.iter().filter_map(|variable| variable["name"].as_str().map(str::to_owned)).collect()
    }

    /// The template that gives what this pod got: its sidecar, with what annotations of the pod and its namespace have
    /// changed; `None` if the pod has no sidecar.
    pub fn of_injected(pod: &Value) -> Option<Self> {
        let container = sidecar_of(pod)?;
        if container["resources"]["limits"]["memory"].is_null() || !container["env"].is_array() {
            return None;
        }
        Some(Self { container: container.clone(), ..Self::built_in() })
    }

    /// Finds and parses the PodTemplate in a YAML text.
    ///
    /// # Errors
    /// The missing or invalid field.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut documents: Vec<Value> = yaml::manifests(text)?;
        documents.retain(|value| value["kind"] == "PodTemplate" && value["apiVersion"] == "v1");
        let object = documents.pop().ok_or(TemplateError::NoPodTemplate)?;
        let spec = &object["template"]["spec"];
        let list = |at: &Value| at.as_array().cloned().unwrap_or_default();
        let (sidecars, applications) = (list(&spec["initContainers"]), list(&spec["containers"]));
        let ([container], [application]) = (sidecars.as_slice(), applications.as_slice()) else {
            let (sidecars, applications) = (sidecars.len(), applications.len());
            return Err(TemplateError::Containers { sidecars, applications });
        };
        if container["name"] != "ebb" || container["image"].as_str().is_none_or(str::is_empty) {
            return Err(TemplateError::Sidecar("the name ebb and an image"));
        }
        if container["resources"]["limits"]["memory"].is_null() {
            return Err(TemplateError::Sidecar("resources.limits.memory"));
        }
        // Annotations change these fields, so they must exist.
        let shapes = [
            ("env, a list", "/env", Value::is_array as fn(&Value) -> bool),
            ("ports, a list with the port of probes", "/ports/0", Value::is_object),
            ("securityContext, an object", "/securityContext", Value::is_object),
            ("startupProbe, an object", "/startupProbe", Value::is_object),
        ];
        if let Some((key, ..)) = shapes.iter().find(|(_, at, fits)| !container.pointer(at).is_some_and(fits)) {
            return Err(TemplateError::Sidecar(key));
        }
        let problems = check_environment(&variables_of(container)).err();
        if let Some(problems) = problems {
            return Err(TemplateError::Environment(problems));
        }
        let annotations = &object["template"]["metadata"]["annotations"];
        let version = &annotations["ebb-cache.io/version"];
        let opened_port = ports::opened_port(&annotations[OPENED_PORT]).ok_or(TemplateError::OpenedPort)?;
        let label = &object["template"]["metadata"]["labels"][REVISION];
        let revision = revision_of(if label.is_null() { None } else { Some(label.as_str().unwrap_or("?")) });
        if !is_revision(revision) {
            return Err(TemplateError::Revision(revision.to_owned()));
        }
        Ok(Self {
            container: container.clone(),
            volumes: list(&spec["volumes"]),
            env: list(&application["env"]),
            mounts: list(&application["volumeMounts"]),
            groups: list(&spec["securityContext"]["supplementalGroups"]),
            pull_secrets: list(&spec["imagePullSecrets"]),
            opened_port,
            version: version.as_str().unwrap_or("unknown").to_owned(),
            revision: revision.to_owned(),
            allowed: Allowed::default(),
        })
    }
}

/// The sidecar of an injected pod.
pub fn sidecar_of(pod: &Value) -> Option<&Value> {
    list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb")
}

/// The problems of the sidecar's environment in this container, by the checks of its start.
pub fn environment_problems(container: &Value) -> Vec<String> {
    check_environment(&variables_of(container)).err().map_or_else(Vec::new, |problems| problems.0)
}

/// The variables of the container. A variable from a field of the pod gets a placeholder. Variables from a ConfigMap or a
/// Secret, and variables that refer to others, are left out, since their values are known only in the pod.
fn variables_of(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let value = |variable: &Value| match &variable["valueFrom"]["fieldRef"] {
        Value::Object(_) => Some("x".to_owned()),
        _ => text(&variable["value"]).filter(|value| !value.contains("$(")),
    };
    // An empty variable counts as not set, and the last of two with one name counts.
    let all: BTreeMap<String, String> =
        variables.filter_map(|variable| Some((text(&variable["name"])?, value(variable)?))).collect();
    all.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_own_is_whole() {
        let template = Template::built_in();
        assert_eq!(template.version, env!("CARGO_PKG_VERSION"));
        assert_eq!((template.volumes.len(), template.env.len(), template.mounts.len()), (2, 1, 1));
        assert_eq!(template.groups, [65532]);
    }

    #[test]
    fn the_data_port_of_pods_that_open_it_is_a_port() {
        let with = |port: &str| {
            let version = "annotations:\n      ebb-cache.io/version:";
            assert!(BUILT_IN.contains(version));
            let port = format!("annotations:\n      ebb-cache.io/data-port: {port}\n      ebb-cache.io/version:");
            Template::parse(&BUILT_IN.replace(version, &port)).map(|template| template.opened_port)
        };
        assert_eq!(with("\"17070\"").unwrap(), 17070);
        assert_eq!(Template::built_in().opened_port, 7070);
        for bad in ["17070", "\"1023\"", "\"65536\"", "x"] {
            assert_eq!(with(bad).unwrap_err().to_string(), TemplateError::OpenedPort.to_string());
        }
    }

    #[test]
    fn a_sidecar_that_would_not_start_is_refused_with_all_problems() {
        let with = |from: &str, to: &str| {
            assert!(BUILT_IN.contains(from));
            Template::parse(&BUILT_IN.replace(from, to)).map(drop).map_err(|error| error.to_string())
        };
        let log = "- name: EBB_LOG_FORMAT";
        let more = |variables: &str| with(log, &format!("{variables}\n          {log}"));
        assert_eq!(
            more("- {name: EBB_TICK, value: 5ms}\n          - {name: EBB_CORES, value: \"0\"}"),
            Err("the sidecar refuses its environment: cores: 0 is out of range (1 to 64); tick: 5 is out of range (10 to \
                 2000 ms)"
                .to_owned())
        );
        assert!(with("[::]:7072", "[::]:7071").unwrap_err().contains("collides"));
        assert_eq!(more("- {name: EBB_CORES, value: \"\"}"), Ok(()), "an empty variable is not set");
        let field = "valueFrom: {fieldRef: {fieldPath: metadata.name}}";
        let pod = ["NAME", "NAMESPACE", "UID"].map(|part| format!("- {{name: EBB_POD_{part}, {field}}}"));
        let events = format!("- {{name: EBB_POD_EVENTS, value: \"true\"}}\n          {}", pod.join("\n          "));
        assert_eq!(more(&events), Ok(()));
        let from_map = "- {name: EBB_LOG_LEVEL, valueFrom: {configMapKeyRef: {name: c, key: k}}}";
        let referring = "- {name: EBB_OTLP_ENDPOINT, value: \"http://$(NODE_IP):4317\"}";
        assert_eq!([from_map, referring].map(more), [Ok(()), Ok(())], "these are known only in the pod");
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |text: &str| Template::parse(text).unwrap_err().to_string();
        assert!(said("a: [").contains("not YAML"));
        assert!(said("kind: Pod\n").contains("no PodTemplate"));
        let with = |spec: &str| said(&format!("apiVersion: v1\nkind: PodTemplate\ntemplate: {{spec: {spec}}}\n"));
        assert!(with("{}").contains("0 initContainers and 0 containers"));
        assert!(with("{containers: [{}], initContainers: [{name: x}]}").contains("the name ebb and an image"));
        assert!(
            with("{containers: [{}], initContainers: [{name: ebb, image: e}]}").contains("resources.limits.memory")
        );
        let lacking = |more: &str| {
            with(&format!(
                "{{containers: [{{}}], initContainers: [{{name: ebb, image: e, resources: {{limits: {{memory: 1Gi}}}}{more}}}]}}"
            ))
        };
        assert!(lacking("").contains("must have env, a list"));
        assert!(lacking(", env: []").contains("must have ports"));
        assert!(lacking(", env: [], ports: [{}], securityContext: x").contains("must have securityContext, an object"));
    }
}
