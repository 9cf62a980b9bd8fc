//! Applies annotations to the sidecar. Annotations of the pod override those of its namespace.
//!
//! An invalid annotation never rejects the pod: the default applies, and a warning names the annotation, its value and
//! the allowed values.

use super::allowed::TRUSTED;
use super::annotations::{ANNOTATIONS, Kind, VALUE_BYTES};
use super::pod::{SOCKET_VOLUME, all_containers, list, text};
use super::ports;
use super::resources::{self, STORAGE};
use super::settings::{followed_bound, followed_fits, variable_fits};
use super::template::Template;
use super::values::{is_socket, names, quantity};
use super::workload::{guess, label_as_annotation};
use super::{Context, texts};
use ebb_config::annotations::{PREFIX, SETTINGS};
use ebb_config::check_annotations;
use ebb_config::units::Span;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Maximum number of variables in `additional-env`; the API server limits the cost of a policy.
pub(super) const MOST_VARIABLES: usize = 100;
/// Maximum number of warnings about one pod; an additional one says that more annotations are ignored.
const MOST_WARNINGS: usize = 20;

/// What an annotation that is ignored must be.
#[derive(Debug, thiserror::Error)]
pub(super) enum IgnoredAnnotation {
    #[error("it must have at most {VALUE_BYTES} bytes")]
    TooLong,
    /// Contradicts others. Holds the problem.
    #[error("{0}")]
    Contradiction(String),
    /// Holds the probable name, as the end of the sentence.
    #[error("there is no such annotation{0}")]
    Unknown(String),
    #[error("the namespace needs the label {TRUSTED}: true")]
    Refused,
    /// Holds the allowed values.
    #[error("it must be {0}")]
    Value(String),
}

/// Annotations that are ignored.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Their names without the prefix.
    pub(super) names: Vec<String>,
    /// The value of a single one, unless it is too long.
    pub(super) value: Option<String>,
    /// What is wrong, as a sentence with the bound.
    pub(super) why: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(|name| format!("{PREFIX}{name}")).collect();
        let value = self.value.as_ref().map(|value| format!(" ({value:?})")).unwrap_or_default();
        write!(f, "annotation {}{value} is ignored: {}", names.join(", "), self.why)
    }
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
    /// Percentage of the applications' memory limits.
    pub(super) memory_share: Option<u64>,
    /// Ephemeral storage by annotation.
    pub(super) storage: Option<String>,
    /// Limit and request of ephemeral storage of the declared container.
    pub(super) declared_storage: [Option<String>; 2],
    pub(super) is_last: bool,
    pub(super) is_scraped: bool,
    pub(super) warnings: Vec<String>,
    /// Annotations that are ignored, and why.
    pub(super) ignored: Vec<Ignored>,
    pub(super) only: Option<Vec<String>>,
    pub(super) never: Vec<String>,
    /// Data port, if an annotation opens it without choosing one.
    pub(super) opened_port: u64,
    /// Variables of the template's sidecar, which `additional-env` must not change.
    fixed: Vec<String>,
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
            memory_share: None,
            storage: None,
            declared_storage: [None, None],
            is_last: false,
            is_scraped: true,
            warnings: Vec::new(),
            ignored: Vec::new(),
            only: None,
            never: Vec::new(),
            opened_port: template.opened_port,
            fixed: list(&template.container["env"]).filter_map(|own| own["name"].as_str().map(str::to_owned)).collect(),
        };
        let mut own = texts(&pod["metadata"]["annotations"]);
        let mut all = context.namespace.annotations.clone();
        let refused = template.allowed.take_refused(context.namespace, &mut all, &mut own);
        all.extend(own.clone());
        for (name, value) in &refused {
            let is_long = value.len() > VALUE_BYTES;
            let why = if is_long { IgnoredAnnotation::TooLong } else { IgnoredAnnotation::Refused };
            wishes.warn(format!("annotation {name} is ignored: {why}"));
        }
        let containers: Vec<&str> = all_containers(&pod["spec"])
            .filter_map(|container| container["name"].as_str())
            .filter(|name| *name != "ebb")
            .collect();
        let read = all.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())));
        // `additional-env` is applied last, since it may override a variable that only another annotation sets.
        let (variables, others): (Vec<_>, Vec<_>) = read.partition(|(name, _)| *name == "additional-env");
        let (others, collision) = ports::without_collisions(&wishes.container, template.opened_port, others);
        collision.into_iter().for_each(|ignored| wishes.ignore(ignored));
        for (name, value) in others.into_iter().chain(variables) {
            let is_own = own.contains_key(&format!("{PREFIX}{name}"));
            let taken = match is_own {
                true => check_names(name, value, &containers).and_then(|warning| {
                    warning.into_iter().for_each(|warning| wishes.warn(warning));
                    wishes.take(name, value)
                }),
                false => wishes.take(name, value),
            };
            if let Err(must) = taken {
                wishes.ignored(name, value, &must);
            }
        }
        wishes.take_memory_share(pod, &own, &all);
        wishes.warn_about_contradictions(&all);
        wishes.warn_about_early_callers(pod, &all);
        if let Some(warning) = label_as_annotation(&pod["metadata"]) {
            wishes.warn(warning);
        }
        wishes.take_declared(pod);
        wishes
    }

    /// Adds a warning. A pod gets a bounded number of them.
    fn warn(&mut self, warning: String) {
        match self.warnings.len() {
            MOST_WARNINGS => self.warnings.push("more annotations are ignored".to_owned()),
            0..MOST_WARNINGS => self.warnings.push(warning),
            _ => {}
        }
    }

    fn ignored(&mut self, name: &str, value: &str, must: &IgnoredAnnotation) {
        let value = (value.len() <= VALUE_BYTES).then(|| value.to_owned());
        self.ignore(Ignored { names: vec![name.to_owned()], value, why: must.to_string() });
    }

    fn ignore(&mut self, ignored: Ignored) {
        self.warn(ignored.to_string());
        if self.ignored.len() < MOST_WARNINGS {
            self.ignored.push(ignored);
        }
    }

    /// Warns about values that the sidecar accepts alone, but not with each other.
    fn warn_about_contradictions(&mut self, all: &BTreeMap<String, String>) {
        let of = |name: &str| all.get(&format!("{PREFIX}{name}"));
        let chosen: Vec<(String, String)> = SETTINGS
            .iter()
            .filter_map(|(name, key)| Some(((*key).to_owned(), of(name)?.clone())))
            .filter(|(key, value)| value.len() <= VALUE_BYTES && followed_fits(key, value))
            .collect();
        if chosen.len() < 2 {
            return;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let environment: Vec<(String, String)> = list(&self.container["env"])
            .filter_map(|variable| Some((text(&variable["name"])?, text(&variable["value"])?)))
            .collect();
        for (key, why) in check_annotations(&environment, &chosen) {
            let known = SETTINGS.iter().find(|(_, setting)| *setting == key);
            let Some((name, value)) = known.and_then(|(name, _)| Some((*name, of(name)?.clone()))) else { continue };
            self.ignored(name, &value, &IgnoredAnnotation::Contradiction(why));
        }
    }

    /// Sets the memory limit to a share of the applications' limits, unless `memory-limit` of the same object, or of the
    /// pod, sets it.
    fn take_memory_share(&mut self, pod: &Value, own: &BTreeMap<String, String>, all: &BTreeMap<String, String>) {
        let Some(share) = self.memory_share else { return };
        let is_own = |name: &str| own.contains_key(&format!("{PREFIX}{name}"));
        let is_inherited = !is_own("memory-share");
        if self.memory_limit.is_some() && is_inherited && is_own("memory-limit") {
            return;
        }
        let problem = if self.memory_limit.is_some() && is_inherited != is_own("memory-limit") {
            "memory-limit is set, too"
        } else if let Some(limit) = resources::share_of_applications(&pod["spec"], share) {
            self.memory_limit = Some(limit);
            return;
        } else {
            "no container of the pod has a memory limit"
        };
        let value = all.get(&format!("{PREFIX}memory-share")).map(String::as_str).unwrap_or_default();
        self.ignored("memory-share", value, &IgnoredAnnotation::Contradiction(problem.to_owned()));
    }

    /// Warns about an init container that is named as a caller, but starts before the sidecar.
    fn warn_about_early_callers(&mut self, pod: &Value, all: &BTreeMap<String, String>) {
        let start = self.start(pod);
        let early = list(&pod["spec"]["initContainers"]).take(start).find(|container| self.wants_init(container));
        let Some(name) = early.and_then(|container| container["name"].as_str()) else { return };
        let value = all.get(&format!("{PREFIX}app-containers")).map(String::as_str).unwrap_or_default();
        self.warn(format!(
            "annotation {PREFIX}app-containers ({value:?}): init container {name} starts before the sidecar and cannot call it"
        ));
    }

    /// Number of the pod's init containers that start before the sidecar.
    pub(super) fn start(&self, pod: &Value) -> usize {
        let init = || list(&pod["spec"]["initContainers"]);
        let declared = init().position(|container| container["name"] == "ebb");
        declared.unwrap_or_else(|| if self.is_last { init().count() } else { 0 })
    }

    /// Amounts of a declared container override annotations, since they stay in the pod. A request without a limit is
    /// also the least that the limit may be.
    fn take_declared(&mut self, pod: &Value) {
        let Some(declared) = list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb") else {
            return;
        };
        let said = |part: &str, resource: &str| {
            text(&declared["resources"][part][resource]).and_then(|amount| quantity(&amount))
        };
        let of_template = text(&self.container["resources"]["limits"]["memory"]);
        let limit = self.memory_limit.clone().or(of_template);
        if let Some((request, limit)) = said("requests", "memory").zip(limit)
            && resources::is_less(&limit, &request)
        {
            self.memory_limit = Some(request);
        }
        // A request above a declared limit would make the pod invalid.
        if let Some(limit) = said("limits", "cpu").filter(|_| said("requests", "cpu").is_none()) {
            let wanted = resources::cpu_request(self);
            self.cpu_request = Some(if resources::is_less(&limit, &wanted) { limit } else { wanted });
        }
        for (wish, part, resource) in [
            (&mut self.memory_limit, "limits", "memory"),
            (&mut self.memory_request, "requests", "memory"),
            (&mut self.cpu_limit, "limits", "cpu"),
            (&mut self.cpu_request, "requests", "cpu"),
        ] {
            *wish = said(part, resource).or_else(|| wish.take());
        }
        self.declared_storage = ["limits", "requests"].map(|part| said(part, STORAGE));
    }

    /// Applies one annotation.
    fn take(&mut self, name: &str, value: &str) -> Result<(), IgnoredAnnotation> {
        if value.len() > VALUE_BYTES {
            return Err(IgnoredAnnotation::TooLong);
        }
        if let Some((_, setting)) = SETTINGS.iter().find(|(live, _)| *live == name) {
            // The running sidecar reads it.
            let fits = followed_fits(setting, value);
            return if fits { Ok(()) } else { Err(IgnoredAnnotation::Value(followed_bound(setting))) };
        }
        let Some(annotation) = ANNOTATIONS.iter().find(|known| known.name == name) else {
            let known = ANNOTATIONS.iter().map(|known| known.name).chain(SETTINGS.iter().map(|(live, _)| *live));
            let meant = guess(name, known).map(|name| format!("{PREFIX}{name}"));
            return Err(IgnoredAnnotation::Unknown(did_you_mean(meant.as_deref())));
        };
        (annotation.set)(self, value).ok_or_else(|| IgnoredAnnotation::Value(annotation.value.bound().replace('`', "")))
    }

    /// Whether an application container gets the environment variables and mounts.
    pub(super) fn wants(&self, container: &Value) -> bool {
        let Some(name) = container["name"].as_str() else { return false };
        let is_in = |names: &[String]| names.iter().any(|wanted| wanted == name);
        self.only.as_deref().is_none_or(is_in) && !is_in(&self.never)
    }

    /// Whether an init container gets the environment variables and mounts: only by its name.
    pub(super) fn wants_init(&self, container: &Value) -> bool {
        self.only.is_some() && container["name"] != "ebb" && self.wants(container)
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
        let is_free = |name: &str| !self.fixed.iter().any(|fixed| fixed == name);
        let fits = |name: &str, value: &str| {
            is_variable(name) && is_free(name) && (!name.starts_with("EBB_") || variable_fits(name, value))
        };
        if pairs.len() > MOST_VARIABLES || !pairs.iter().all(|(name, value)| fits(name, value)) {
            return None;
        }
        pairs.into_iter().for_each(|(name, value)| self.set_env(name, value.to_owned()));
        Some(())
    }

    /// Changes an address variable of the sidecar and of applications, if it is set and `moved` returns a new value.
    pub(super) fn move_address(&mut self, name: &str, moved: impl Fn(&str) -> Option<String>) {
        let own = self.container["env"].as_array_mut().expect("the template's container has an environment");
        for variable in own.iter_mut().chain(&mut self.env).filter(|variable| variable["name"] == name) {
            if let Some(address) = variable["value"].as_str().and_then(&moved) {
                variable["value"] = address.into();
            }
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
        // A mount hides what is there in the application's image, so sockets have directories of their own.
        let is_meant = match parts.as_slice() {
            ["var", "run" | "tmp", folder, _, ..] | ["run" | "tmp", folder, _, ..] => *folder != "secrets",
            _ => false,
        };
        let fits = is_meant && path.len() <= 100 && parts.into_iter().all(is_part);
        let (folder, _) = path.rsplit_once('/').filter(|_| fits && !self.mounts.is_empty())?;
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

/// Checks the names of containers in an annotation. Returns the warning about a name that no container has.
///
/// # Errors
/// No container has any of the names.
pub(super) fn check_names(name: &str, value: &str, containers: &[&str]) -> Result<Option<String>, IgnoredAnnotation> {
    let is_list = ANNOTATIONS.iter().any(|known| known.name == name && matches!(known.value, Kind::Names));
    if !is_list || value.len() > VALUE_BYTES {
        return Ok(None);
    }
    let names = names(value);
    let unknown: Vec<&String> = names.iter().filter(|name| !containers.contains(&name.as_str())).collect();
    let Some(first) = unknown.first() else { return Ok(None) };
    let hint = did_you_mean(guess(first, containers.iter().copied()));
    if unknown.len() == names.len() {
        let must = Kind::Names.bound();
        return Err(IgnoredAnnotation::Value(format!("{must}{hint}")));
    }
    Ok(Some(format!("annotation {PREFIX}{name} ({value:?}): the pod has no container {first}{hint}")))
}

/// The end of a sentence with a probable name.
fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
