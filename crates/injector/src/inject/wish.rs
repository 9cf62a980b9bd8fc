//! Applies annotations to the sidecar. Annotations of the pod override those of its namespace.
//!
//! An invalid annotation never rejects the pod: the default applies, and a warning names the annotation, its value and
//! the allowed values.

use super::Context;
use super::annotations::{ANNOTATIONS, VALUE_BYTES};
use super::pod::{SOCKET_VOLUME, list};
use super::template::Template;
use super::values::{digits, host_and_port, is_socket, quantity};
use ebb_config::annotations::{PREFIX, SETTINGS};
use ebb_config::check_value;
use ebb_config::units::Span;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Maximum number of variables in `additional-env`; the API server limits the cost of a policy.
const MOST_VARIABLES: usize = 100;
/// Maximum number of warnings about one pod; an additional one says that more annotations are ignored.
const MOST_WARNINGS: usize = 20;

/// What an annotation that is ignored must be.
#[derive(Debug, thiserror::Error)]
enum IgnoredAnnotation {
    #[error("it must have at most {VALUE_BYTES} bytes")]
    TooLong,
    /// Not a value of the sidecar's setting.
    #[error("{0}")]
    Setting(serde_json::Error),
    #[error("there is no such annotation")]
    Unknown,
    /// Holds the allowed values.
    #[error("it must be {0}")]
    Value(String),
}

/// The sidecar for one pod, without its resources.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) container: Value,
    pub(super) volumes: Vec<Value>,
    pub(super) env: Vec<Value>,
    pub(super) mounts: Vec<Value>,
    pub(super) groups: Vec<Value>,
    pub(super) memory_limit: Option<String>,
    pub(super) memory_request: Option<String>,
    pub(super) cpu_limit: Option<String>,
    pub(super) cpu_request: Option<String>,
    pub(super) is_last: bool,
    pub(super) is_scraped: bool,
    pub(super) warnings: Vec<String>,
    pub(super) only: Option<Vec<String>>,
    pub(super) never: Vec<String>,
}

impl Wishes {
    pub(super) fn read(pod: &Value, context: &Context<'_>, template: &Template) -> Self {
        let mut wishes = Self {
            container: template.container.clone(),
            volumes: template.volumes.clone(),
            env: template.env.clone(),
            mounts: template.mounts.clone(),
            groups: template.groups.clone(),
            memory_limit: None,
            memory_request: None,
            cpu_limit: None,
            cpu_request: None,
            is_last: false,
            is_scraped: true,
            warnings: Vec::new(),
            only: None,
            never: Vec::new(),
        };
        let mut all = context.namespace.annotations.clone();
        if let Value::Object(own) = &pod["metadata"]["annotations"] {
            let texts = own.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            all.extend(texts);
        }
        let read = all.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
        // `additional-env` is applied last, so that it overrides variables set by other annotations.
        let (variables, others): (Vec<_>, Vec<_>) = read.partition(|(name, _)| *name == "additional-env");
        for (name, value) in others.into_iter().chain(variables) {
            if let Err(must) = wishes.take(name, value) {
                match wishes.warnings.len() {
                    MOST_WARNINGS => wishes.warnings.push("more annotations are ignored".to_owned()),
                    0..MOST_WARNINGS => {
                        let shown = if value.len() > VALUE_BYTES { String::new() } else { format!(" ({value:?})") };
                        wishes.warnings.push(format!("annotation {PREFIX}{name}{shown} is ignored: {must}"));
                    }
                    _ => {}
                }
            }
        }
        wishes.take_declared(pod);
        wishes
    }

    /// Resources of a declared container override annotations, since they stay in the pod.
    fn take_declared(&mut self, pod: &Value) {
        let Some(declared) = list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb") else {
            return;
        };
        let said = |part: &str, resource: &str| declared["resources"][part][resource].as_str().and_then(quantity);
        for (wish, part, resource) in [
            (&mut self.memory_limit, "limits", "memory"),
            (&mut self.memory_request, "requests", "memory"),
            (&mut self.cpu_limit, "limits", "cpu"),
            (&mut self.cpu_request, "requests", "cpu"),
        ] {
            *wish = said(part, resource).or_else(|| wish.take());
        }
    }

    /// Applies one annotation.
    fn take(&mut self, name: &str, value: &str) -> Result<(), IgnoredAnnotation> {
        if value.len() > VALUE_BYTES {
            return Err(IgnoredAnnotation::TooLong);
        }
        if let Some((_, setting)) = SETTINGS.iter().find(|(live, _)| *live == name) {
            return check_value(setting, value).map_err(IgnoredAnnotation::Setting); // the running sidecar reads it
        }
        let Some(annotation) = ANNOTATIONS.iter().find(|known| known.name == name) else {
            return Err(IgnoredAnnotation::Unknown);
        };
        (annotation.set)(self, value).ok_or_else(|| IgnoredAnnotation::Value(annotation.value.bound().replace('`', "")))
    }

    /// The TCP ports that the sidecar listens on.
    pub(super) fn ports(&self) -> Vec<u64> {
        let listening = list(&self.container["env"]).filter(|variable| {
            variable["name"].as_str().is_some_and(|name| name.starts_with("EBB_") && name.ends_with("LISTEN"))
        });
        listening.filter_map(|variable| variable["value"].as_str()?.rsplit_once(':')?.1.parse().ok()).collect()
    }

    /// Whether an application container gets the environment variables and mounts.
    pub(super) fn wants(&self, container: &Value) -> bool {
        let Some(name) = container["name"].as_str() else { return false };
        let is_in = |names: &[String]| names.iter().any(|wanted| wanted == name);
        self.only.as_deref().is_none_or(is_in) && !is_in(&self.never)
    }

    pub(super) fn set_env(&mut self, name: &str, value: String) {
        let variables = self.container["env"].as_array_mut().expect("the template's container has an environment");
        match variables.iter_mut().find(|variable| variable["name"] == name) {
            // As a whole: a variable with both `value` and `valueFrom` makes the pod invalid.
            Some(variable) => *variable = json!({"name": name, "value": value}),
            None => variables.push(json!({"name": name, "value": value})),
        }
    }

    pub(super) fn add_env(&mut self, text: &str) -> Option<()> {
        let pairs: Option<Vec<_>> = text.split(',').map(|pair| pair.trim().split_once('=')).collect();
        let pairs = pairs?;
        let is_variable = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if pairs.len() > MOST_VARIABLES || !pairs.iter().all(|(name, _)| is_variable(name)) {
            return None;
        }
        pairs.into_iter().for_each(|(name, value)| self.set_env(name, value.to_owned()));
        Some(())
    }

    /// Changes an address variable of the sidecar and of applications, if it is set and `moved` returns a new value.
    fn move_address(&mut self, name: &str, moved: impl Fn(&str) -> Option<String>) {
        let own = self.container["env"].as_array_mut().expect("the template's container has an environment");
        for variable in own.iter_mut().chain(&mut self.env).filter(|variable| variable["name"] == name) {
            if let Some(address) = variable["value"].as_str().and_then(&moved) {
                variable["value"] = address.into();
            }
        }
    }

    /// Sets the port in the addresses of these variables; Unix sockets are unchanged.
    pub(super) fn set_port(&mut self, text: &str, variables: &[&str]) -> Option<()> {
        let port = digits(text).filter(|port| (1024..=65535).contains(port))?;
        for name in variables {
            self.move_address(name, |address| Some(format!("{}:{port}", host_and_port(address)?.0)));
        }
        if variables.contains(&"EBB_HTTP_LISTEN") {
            self.container["ports"][0]["containerPort"] = port.into();
        }
        Some(())
    }

    /// Sets the listen address. For an unspecified address, applications connect to loopback.
    pub(super) fn set_bind_address(&mut self, address: IpAddr) {
        let near = match address {
            IpAddr::V4(every) if every.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(every) if every.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
            one => one,
        };
        for (name, address) in [("EBB_LISTEN", address), ("EBB_ADDR", near)] {
            self.move_address(name, |there| {
                let port = host_and_port(there)?.1.parse().ok()?;
                Some(SocketAddr::new(address, port).to_string())
            });
        }
    }

    /// Sets the socket's path and moves the volume's mounts to its directory.
    pub(super) fn set_socket(&mut self, path: &str) -> Option<()> {
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let fits = parts.len() >= 3 && path.len() <= 100 && parts.into_iter().all(is_part);
        let is_free = !path.starts_with("/etc/ebb/");
        let (folder, _) = path.rsplit_once('/').filter(|_| fits && is_free && !self.mounts.is_empty())?;
        self.move_address("EBB_SOCKET", |_| Some(path.to_owned()));
        self.move_address("EBB_ADDR", |address| is_socket(address).then(|| format!("unix:{path}")));
        let own = self.container["volumeMounts"].as_array_mut().into_iter().flatten();
        for mount in own.chain(&mut self.mounts).filter(|mount| mount["name"] == SOCKET_VOLUME) {
            mount["mountPath"] = folder.into();
        }
        Some(())
    }

    pub(super) fn set_config_map(&mut self, name: &str) {
        for volume in &mut self.volumes {
            // By pointer, since indexing would insert the key into volumes of other kinds, which makes the pod invalid.
            let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
            for source in sources.into_iter().flatten().filter(|source| source["configMap"].is_object()) {
                source["configMap"]["name"] = name.into();
            }
        }
    }

    pub(super) fn set_readiness(&mut self, wanted: bool) {
        let container = self.container.as_object_mut().expect("a container is an object");
        match wanted {
            true => drop(
                container
                    .entry("readinessProbe")
                    .or_insert_with(|| json!({"httpGet": {"path": "/readyz", "port": "ebb-http"}, "periodSeconds": 5})),
            ),
            false => drop(container.remove("readinessProbe")),
        }
    }

    pub(super) fn set_group(&mut self, id: u64) {
        self.container["securityContext"]["runAsGroup"] = id.into();
        if !self.groups.is_empty() {
            self.groups = vec![id.into()];
        }
    }

    pub(super) fn set_startup_timeout(&mut self, timeout: Span) {
        let probe = &mut self.container["startupProbe"];
        let period = probe["periodSeconds"].as_u64().unwrap_or(10).max(1);
        probe["failureThreshold"] = timeout.0.div_ceil(period * 1000).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Namespace;

    /// Reads a pod with one annotation.
    fn read(name: &str, value: &str) -> Wishes {
        let namespace = Namespace::default();
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let pod = json!({"metadata": {"annotations": {format!("{PREFIX}{name}"): value}}});
        Wishes::read(&pod, &context, &Template::built_in())
    }

    #[test]
    fn startup_timeout_takes_every_length_of_time() {
        let timeout = |text: &str| {
            let wishes = read("startup-timeout", text);
            (wishes.container["startupProbe"]["failureThreshold"].as_u64(), wishes.warnings)
        };
        let cases = [
            ("90", 90),
            ("90s", 90),
            ("1m30s", 90),
            ("2m", 120),
            ("1.5m", 90),
            (" 1m 30s ", 90),
            ("+1h", 3600),
            ("1s", 1),
            ("1001ms", 2),
            ("0.01d", 864),
        ];
        let found = cases.map(|(text, _)| (text, timeout(text)));
        assert_eq!(found, cases.map(|(text, failures)| (text, (Some(failures), Vec::new()))));
        let refused =
            ["", "0", "0s", "999ms", "-5s", "3601", "3601s", "1h1ms", "1d", "90x", "s", "99999999999999999999"];
        let sentence = "it must be 1s to 1h; a number without a unit is in seconds";
        let wrong: Vec<_> = refused
            .map(|text| (text, timeout(text)))
            .into_iter()
            .filter(|(_, (failures, warnings))| {
                *failures != Some(60) || !warnings.first().is_some_and(|warning| warning.ends_with(sentence))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn additional_variable_replaces_one_from_a_secret() {
        let mut template = Template::built_in();
        let secret = json!({"name": "OTLP_TOKEN", "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "token"}}});
        template.container["env"].as_array_mut().unwrap().push(secret.clone());
        let namespace = Namespace::default();
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let variable = |pod: &Value| {
            let container = Wishes::read(pod, &context, &template).container;
            list(&container["env"]).find(|variable| variable["name"] == "OTLP_TOKEN").cloned()
        };
        assert_eq!(variable(&json!({})), Some(secret));
        let pod = json!({"metadata": {"annotations": {format!("{PREFIX}additional-env"): "OTLP_TOKEN=none"}}});
        assert_eq!(variable(&pod), Some(json!({"name": "OTLP_TOKEN", "value": "none"})));
    }

    #[test]
    fn annotation_that_is_too_long_is_named_without_its_value() {
        let warnings = [4096, 4097].map(|bytes| (bytes, read("image", &"x".repeat(bytes)).warnings.len()));
        assert_eq!(warnings, [(4096, 0), (4097, 1)]);
        let said = &read("image", &"x".repeat(4097)).warnings[0];
        assert_eq!(said, "annotation config.ebb-cache.io/image is ignored: it must have at most 4096 bytes");
    }

    #[test]
    fn memory_annotations_take_every_form_of_a_size() {
        let cases = [
            ("64Mi", "64Mi"),
            ("64MiB", "64Mi"),
            ("64MB", "64M"),
            ("0.5Gi", "0.5Gi"),
            ("129e6", "129e6"),
            ("128974848000m", "128974848000m"),
            (" 1 GiB", "1Gi"),
        ];
        let expected = cases.map(|(text, quantity)| (text, Some(quantity.to_owned())));
        assert_eq!(cases.map(|(text, _)| (text, read("memory-limit", text).memory_limit)), expected);
        assert_eq!(cases.map(|(text, _)| (text, read("memory-request", text).memory_request)), expected);
        let refused = ["16MB", "1e7", "64mi", "-64Mi", "0", "lots", ""];
        let found = refused.map(|text| {
            let wishes = read("memory-limit", text);
            (text, wishes.memory_limit, wishes.warnings.len())
        });
        assert_eq!(found, refused.map(|text| (text, None, 1)));
    }
}
