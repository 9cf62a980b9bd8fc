//! What a pod wishes for by annotations, the namespace's standing in for those the pod does not have.
//!
//! A wish that makes no sense never blocks the pod: the default holds, and a warning names the annotation, its value and
//! what it must be.

use super::Context;
use super::quantity::Quantity;
use super::skip::{LEAST, list};
use super::template::Template;
use crate::config::annotations::{KNOBS, PREFIX, check};
use serde_json::{Value, json};

/// An annotation that is read when the sidecar is put into the pod: its name, what it must be, what it does.
pub(super) const ANNOTATIONS: &[(&str, &str, &str)] = &[
    ("additional-env", "`NAME=value`, several separated by commas", "More environment variables of the sidecar."),
    ("admin-port", PORT, "Port for operators, on loopback."),
    ("app-containers", NAMES, "The containers that get `EBB_ADDR` and the socket; all if it is not there."),
    ("config-map", "the name of a ConfigMap", "The ConfigMap whose `ebb.yaml` is followed."),
    ("cpu-limit", QUANTITY, "The sidecar's CPU limit."),
    ("cpu-request", QUANTITY, "The sidecar's CPU request."),
    ("data-port", PORT, "Port for applications, on loopback."),
    ("gid", ID, "Group of the process, and of the socket."),
    ("http-port", PORT, "Port of probes and metrics."),
    ("image", "an image, without spaces", "The sidecar's image."),
    ("image-pull-policy", "`Always`, `IfNotPresent` or `Never`", "When the image is pulled."),
    ("log-format", "`text` or `json`", "How log lines look."),
    (
        "memory-limit",
        "a quantity of at least `16Mi`",
        "The sidecar's memory limit, and its request if `memory-request` is not there.",
    ),
    ("memory-request", QUANTITY, "The sidecar's memory request; at most its limit."),
    (
        "position",
        "`first` or `last`",
        "Where among the init containers the sidecar stands; `last` starts it after them.",
    ),
    ("readiness-gate", "`true` or `false`", "Whether the pod is unready while the cache is."),
    ("skip-containers", NAMES, "The containers that do not get `EBB_ADDR` and the socket."),
    ("startup-timeout", "1 to 3600, in seconds", "How long the sidecar may take to start."),
    ("uid", ID, "User of the process."),
];
const PORT: &str = "1024 to 65535";
const NAMES: &str = "names of containers, separated by commas";
const QUANTITY: &str = "a quantity above 0, such as `100Mi` or `250m`";
const ID: &str = "1 to 2147483647";

/// The sidecar as this pod gets it, but for its resources.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) container: Value,
    pub(super) volumes: Vec<Value>,
    pub(super) env: Vec<Value>,
    pub(super) groups: Vec<Value>,
    pub(super) memory_limit: Option<String>,
    pub(super) memory_request: Option<String>,
    pub(super) cpu_limit: Option<String>,
    pub(super) cpu_request: Option<String>,
    pub(super) is_last: bool,
    pub(super) warnings: Vec<String>,
    only: Option<Vec<String>>,
    never: Vec<String>,
}

impl Wishes {
    pub(super) fn read(pod: &Value, context: &Context<'_>, template: &Template) -> Self {
        let mut wishes = Self {
            container: template.container.clone(),
            volumes: template.volumes.clone(),
            env: template.env.clone(),
            groups: template.groups.clone(),
            memory_limit: None,
            memory_request: None,
            cpu_limit: None,
            cpu_request: None,
            is_last: false,
            warnings: Vec::new(),
            only: None,
            never: Vec::new(),
        };
        let mut all = context.namespace.annotations.clone();
        if let Value::Object(own) = &pod["metadata"]["annotations"] {
            let texts = own.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            all.extend(texts);
        }
        for (name, value) in all.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))) {
            if let Err(must) = wishes.take(name, value) {
                wishes.warnings.push(format!("annotation {PREFIX}{name} ({value:?}) is ignored: {must}"));
            }
        }
        wishes.take_declared(pod);
        wishes
    }

    /// What a container that the pod declares says of its resources wins over annotations: it will stand there.
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

    /// Takes one wish in.
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some((_, knob)) = KNOBS.iter().find(|(live, _)| *live == name) {
            return check(knob, value); // the sidecar itself reads it, while it runs
        }
        let Some((_, must, _)) = ANNOTATIONS.iter().find(|(known, ..)| *known == name) else {
            return Err("there is no such annotation".to_owned());
        };
        let fits = match name {
            "additional-env" => self.add_env(value),
            "admin-port" => self.set_port(value, &["EBB_ADMIN_LISTEN", "EBB_ADMIN_ADDR"]),
            "data-port" => self.set_port(value, &["EBB_LISTEN", "EBB_ADDR"]),
            "http-port" => self.set_port(value, &["EBB_HTTP_LISTEN"]),
            "app-containers" => Some(names(value)).map(|names| self.only = Some(names)),
            "skip-containers" => Some(names(value)).map(|names| self.never = names),
            "config-map" => is_name(value).then(|| self.set_config_map(value)),
            "cpu-limit" => quantity(value).map(|value| self.cpu_limit = Some(value)),
            "cpu-request" => quantity(value).map(|value| self.cpu_request = Some(value)),
            "memory-limit" => enough(value).map(|value| self.memory_limit = Some(value)),
            "memory-request" => quantity(value).map(|value| self.memory_request = Some(value)),
            "gid" => id(value).map(|id| {
                self.container["securityContext"]["runAsGroup"] = id.into();
                if !self.groups.is_empty() {
                    self.groups = vec![id.into()];
                }
            }),
            "uid" => id(value).map(|id| self.container["securityContext"]["runAsUser"] = id.into()),
            "image" => (!value.is_empty() && !value.contains(char::is_whitespace))
                .then(|| self.container["image"] = value.into()),
            "image-pull-policy" => ["Always", "IfNotPresent", "Never"]
                .contains(&value)
                .then(|| self.container["imagePullPolicy"] = value.into()),
            "log-format" => ["text", "json"].contains(&value).then(|| self.set_env("EBB_LOG_FORMAT", value.to_owned())),
            "position" => ["first", "last"].contains(&value).then(|| self.is_last = value == "last"),
            "readiness-gate" => ["true", "false"].contains(&value).then(|| self.set_readiness(value == "true")),
            "startup-timeout" => {
                value.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).map(|seconds: u64| {
                    let probe = &mut self.container["startupProbe"];
                    let period = probe["periodSeconds"].as_u64().unwrap_or(10).max(1);
                    probe["failureThreshold"] = seconds.div_ceil(period).into();
                })
            }
            _ => unreachable!("{name} is in the table"),
        };
        fits.ok_or_else(|| format!("it must be {}", must.replace('`', "")))
    }

    /// The TCP ports that the sidecar listens on.
    pub(super) fn ports(&self) -> Vec<u64> {
        let listening = list(&self.container["env"]).filter(|variable| {
            variable["name"].as_str().is_some_and(|name| name.starts_with("EBB_") && name.ends_with("LISTEN"))
        });
        listening.filter_map(|variable| variable["value"].as_str()?.rsplit_once(':')?.1.parse().ok()).collect()
    }

    /// Whether an application container is told where the cache is.
    pub(super) fn wants(&self, container: &Value) -> bool {
        let Some(name) = container["name"].as_str() else { return false };
        let is_in = |names: &[String]| names.iter().any(|wanted| wanted == name);
        self.only.as_deref().is_none_or(is_in) && !is_in(&self.never)
    }

    fn set_env(&mut self, name: &str, value: String) {
        let variables = self.container["env"].as_array_mut().expect("the template's container has an environment");
        match variables.iter_mut().find(|variable| variable["name"] == name) {
            Some(variable) => variable["value"] = value.into(),
            None => variables.push(json!({"name": name, "value": value})),
        }
    }

    fn add_env(&mut self, text: &str) -> Option<()> {
        let pairs: Option<Vec<_>> = text.split(',').map(|pair| pair.trim().split_once('=')).collect();
        let pairs = pairs?;
        let is_variable = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !pairs.iter().all(|(name, _)| is_variable(name)) {
            return None;
        }
        pairs.into_iter().for_each(|(name, value)| self.set_env(name, value.to_owned()));
        Some(())
    }

    /// Puts a port into the addresses of these variables, as far as they are addresses.
    fn set_port(&mut self, text: &str, variables: &[&str]) -> Option<()> {
        let port: u16 = text.parse().ok().filter(|port| *port >= 1024)?;
        let moved = |address: &str| Some(format!("{}:{port}", address.rsplit_once(':')?.0));
        let is_socket = |address: &str| address.starts_with("unix:");
        for name in variables {
            let own = list(&self.container["env"]).find(|variable| variable["name"] == *name);
            let address = own.and_then(|variable| variable["value"].as_str()).filter(|address| !is_socket(address));
            if let Some(address) = address.and_then(moved) {
                self.set_env(name, address);
            }
            for variable in self.env.iter_mut().filter(|variable| variable["name"] == *name) {
                let address = variable["value"].as_str().filter(|address| !is_socket(address)).and_then(moved);
                if let Some(address) = address {
                    variable["value"] = address.into();
                }
            }
        }
        if variables.contains(&"EBB_HTTP_LISTEN") {
            self.container["ports"][0]["containerPort"] = port.into();
        }
        Some(())
    }

    fn set_config_map(&mut self, name: &str) {
        for volume in &mut self.volumes {
            // By pointer: an index would put what is looked for into volumes of other kinds, and no pod may have that.
            let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
            for source in sources.into_iter().flatten().filter(|source| source["configMap"].is_object()) {
                source["configMap"]["name"] = name.into();
            }
        }
    }

    fn set_readiness(&mut self, wanted: bool) {
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
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn quantity(text: &str) -> Option<String> {
    Quantity::parse(text).filter(|amount| *amount > Quantity::ZERO).map(|_| text.to_owned())
}

/// As much memory as a cache starts with.
fn enough(text: &str) -> Option<String> {
    quantity(text).filter(|text| Quantity::parse(text) >= Quantity::parse(LEAST))
}

fn id(text: &str) -> Option<u64> {
    text.parse().ok().filter(|id| (1..=0x7fff_ffff).contains(id))
}

/// Whether it can be the name of a ConfigMap: a DNS subdomain.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
