//! Settings that a user gives on a command line, for pods that do not have them as annotations.
//!
//! A wrong annotation of a pod is ignored with a warning, since the pod must start. A user at a command line can correct
//! the value, so it is refused.

use super::pod::all_containers;
use super::template::Template;
use super::wish::{Ignored, Wishes, check_names};
use super::{Context, Namespace};
use ebb_config::annotations::PREFIX;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is wrong with settings, by full name of their annotations: one sentence for each setting that would be ignored in
/// every pod.
pub fn wrong_settings(settings: &BTreeMap<String, String>, template: &Template) -> Vec<String> {
    // A pod that lets every setting have an effect.
    let pod = json!({"spec": {"containers": [{"name": "app", "resources": {"limits": {"memory": "1Gi"}}}]}});
    let namespace = Namespace { annotations: settings.clone(), ..Namespace::default() };
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "" };
    let sentence = |Ignored { names, value, why }: Ignored| {
        let value = value.map(|value| format!(" ({value:?})")).unwrap_or_default();
        format!("{}{value}: {why}", names.join(", "))
    };
    Wishes::read(&pod, &context, template).ignored.into_iter().map(sentence).collect()
}

/// Removes the settings that name no container of the pod, as an annotation of the pod would be ignored. Returns the
/// warnings.
pub fn without_other_containers(settings: &mut BTreeMap<String, String>, pod: &Value) -> Vec<String> {
    let names = all_containers(&pod["spec"]).filter_map(|container| container["name"].as_str());
    let containers: Vec<&str> = names.filter(|name| *name != "ebb").collect();
    let mut warnings = Vec::new();
    settings.retain(|full, value| {
        let name = full.strip_prefix(PREFIX).unwrap_or_default();
        match check_names(name, value, &containers) {
            Ok(warning) => {
                warnings.extend(warning);
                true
            }
            Err(must) => {
                let ignored =
                    Ignored { names: vec![name.to_owned()], value: Some(value.clone()), why: must.to_string() };
                warnings.push(ignored.to_string());
                false
            }
        }
    });
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::annotations::ANNOTATIONS;
    use ebb_config::annotations::SETTINGS;

    fn wrong(settings: &[(&str, &str)]) -> Vec<String> {
        let settings = settings.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect();
        wrong_settings(&settings, &Template::built_in())
    }

    #[test]
    fn every_setting_refuses_values_its_annotation_is_ignored_for() {
        let names = ANNOTATIONS.iter().map(|known| known.name).chain(SETTINGS.iter().map(|(name, _)| *name));
        // Names of containers depend on the pod.
        let checked = names.filter(|name| !name.ends_with("-containers"));
        let mut accepted = Vec::new();
        for name in checked {
            let found = wrong(&[(name, " no such value ")]);
            if found.len() != 1 || !found[0].starts_with(&format!("{name} (\" no such value \"): it must be ")) {
                accepted.push((name, found));
            }
        }
        assert!(accepted.is_empty(), "{accepted:?}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let rows: [(&[(&str, &str)], &str); 4] = [
            (&[("admin-port", "9000"), ("http-port", "9000")], "admin-port, http-port: the ports must differ"),
            (&[("memory-limit", "64Mi"), ("memory-share", "10%")], "memory-share (\"10%\"): memory-limit is set, too"),
            (&[("memory-low", "90%"), ("memory-high", "50%")], "memory-"),
            (&[("memory-limit", "1Mi")], "memory-limit (\"1Mi\"): it must be a quantity of at least 16Mi"),
        ];
        let found = rows.map(|(settings, sentence)| (wrong(settings), sentence));
        let is_other = |(found, sentence): &&(Vec<String>, &str)| !found.iter().any(|one| one.starts_with(sentence));
        let other: Vec<_> = found.iter().filter(is_other).collect();
        assert!(other.is_empty(), "{other:?}");
        let fitting: [&[(&str, &str)]; 4] = [
            &[("memory-share", "10%")],
            &[("memory-limit", "64Mi"), ("uid", "1000")],
            &[("grpc-port", "9070"), ("bind-address", "0.0.0.0")],
            &[("app-containers", "one,two"), ("skip-containers", "three")],
        ];
        assert_eq!(fitting.map(wrong), [const { Vec::<String>::new() }; 4]);
    }

    #[test]
    fn names_that_a_pod_does_not_have_are_left_out() {
        let pod = json!({"spec": {"containers": [{"name": "web"}, {"name": "log"}]}});
        let left = |value: &str| {
            let mut settings = BTreeMap::from([(format!("{PREFIX}app-containers"), value.to_owned())]);
            let warnings = without_other_containers(&mut settings, &pod);
            (settings.len(), warnings)
        };
        assert_eq!(left("web, log"), (1, vec![]));
        let all = "annotation config.ebb-cache.io/app-containers (\"wbe\") is ignored: it must be names of containers of the \
                   pod, separated by commas; did you mean web?";
        assert_eq!(left("wbe"), (0, vec![all.to_owned()]));
        let one = "annotation config.ebb-cache.io/app-containers (\"web,zzzz\"): the pod has no container zzzz";
        assert_eq!(left("web,zzzz"), (1, vec![one.to_owned()]));
    }
}
