//! What Kubernetes refuses in a pod of a manifest, among the fields that an injection reads or extends.
//!
//! The webhook skips such a pod, and the API server rejects it then. `ebb inject` reports it, since nobody else reads the
//! manifest before it is applied.

use ebb_manifest::{must_be, pointer};
use serde_json::Value;
use std::collections::HashSet;

/// Type of a field.
#[derive(Clone, Copy)]
enum Type {
    Boolean,
    List,
    Number,
    Object,
    Text,
}

/// Fields of a pod.
const POD: &[(&str, Type)] = &[
    ("/metadata", Type::Object),
    ("/metadata/labels", Type::Object),
    ("/metadata/annotations", Type::Object),
    ("/spec", Type::Object),
    ("/spec/containers", Type::List),
    ("/spec/initContainers", Type::List),
    ("/spec/volumes", Type::List),
    ("/spec/imagePullSecrets", Type::List),
    ("/spec/hostNetwork", Type::Boolean),
    ("/spec/nodeSelector", Type::Object),
    ("/spec/affinity", Type::Object),
    ("/spec/os", Type::Object),
    ("/spec/resources", Type::Object),
    ("/spec/resources/limits", Type::Object),
    ("/spec/resources/requests", Type::Object),
    ("/spec/securityContext", Type::Object),
    ("/spec/securityContext/supplementalGroups", Type::List),
];
/// Fields of a container.
const CONTAINER: &[(&str, Type)] = &[
    ("/image", Type::Text),
    ("/args", Type::List),
    ("/command", Type::List),
    ("/env", Type::List),
    ("/ports", Type::List),
    ("/volumeMounts", Type::List),
    ("/resources", Type::Object),
    ("/resources/limits", Type::Object),
    ("/resources/requests", Type::Object),
    ("/securityContext", Type::Object),
];
/// Lists of objects in a container, and the field that each object must have.
const LISTS: &[(&str, &str, Type)] = &[
    ("/env", "name", Type::Text),
    ("/ports", "containerPort", Type::Number),
    ("/volumeMounts", "mountPath", Type::Text),
];

/// What Kubernetes refuses: pointers in the pod, and what each field must be. A pod without containers is no problem: it may
/// be a patch.
pub(crate) fn problems(pod: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if !pod.is_object() {
        return vec![(String::new(), must_be("an object", pod))];
    }
    check(pod, "", POD, &mut found);
    if pod["spec"]["containers"].as_array().is_some_and(Vec::is_empty) {
        let problem = must_be("a list of at least one container", &pod["spec"]["containers"]);
        found.push(("/spec/containers".to_owned(), problem));
    }
    check_objects(pod, "", "/spec/volumes", "name", Type::Text, &mut found);
    let mut names = HashSet::new();
    for list in ["/spec/initContainers", "/spec/containers"] {
        check_objects(pod, "", list, "name", Type::Text, &mut found);
        for (at, container) in objects(pod, list) {
            check(container, &at, CONTAINER, &mut found);
            for (list, field, kind) in LISTS {
                check_objects(container, &at, list, field, *kind, &mut found);
            }
            if let Some(name) = container["name"].as_str().filter(|name| !name.is_empty() && !names.insert(*name)) {
                found.push((format!("{at}/name"), format!("must be unique, but another container is named {name:?}")));
            }
        }
    }
    found
}

/// The objects of a list, with their pointers.
fn objects<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let items = pointer::get(value, list).and_then(Value::as_array).into_iter().flatten();
    items.enumerate().map(move |(at, item)| (format!("{list}/{at}"), item)).filter(|(_, item)| item.is_object())
}

fn check(value: &Value, at: &str, fields: &[(&str, Type)], found: &mut Vec<(String, String)>) {
    for (path, kind) in fields {
        let field = pointer::get(value, path).filter(|field| !field.is_null() && !kind.fits(field));
        found.extend(field.map(|field| (format!("{at}{path}"), must_be(kind.name(), field))));
    }
}

/// Checks that the items of a list are objects with a field.
fn check_objects(value: &Value, at: &str, list: &str, field: &str, kind: Type, found: &mut Vec<(String, String)>) {
    for (index, item) in pointer::get(value, list).and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = format!("{at}{list}/{index}");
        if !item.is_object() {
            found.push((at, must_be("an object", item)));
        } else if !kind.fits(&item[field]) || item[field] == "" {
            found.push((format!("{at}/{field}"), must_be(kind.name(), &item[field])));
        }
    }
}

impl Type {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Number => value.is_number(),
            Self::Object => value.is_object(),
            Self::Text => value.is_string(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Number => "a number",
            Self::Object => "an object",
            Self::Text => "a string",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_of_another_type_is_reported() {
        let whole = json!({
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "containers": [{
                    "name": "app", "image": "app", "args": [], "command": [], "env": [{"name": "A"}],
                    "ports": [{"containerPort": 1}], "volumeMounts": [{"mountPath": "/a"}],
                    "resources": {"limits": {}, "requests": {}}, "securityContext": {},
                }],
                "initContainers": [], "volumes": [{"name": "a"}], "imagePullSecrets": [], "hostNetwork": false,
                "nodeSelector": {}, "affinity": {}, "os": {}, "resources": {"limits": {}, "requests": {}},
                "securityContext": {"supplementalGroups": []},
            },
        });
        assert_eq!(problems(&whole), []);
        let at = "/spec/containers/0";
        let of_container = CONTAINER.iter().map(|(path, kind)| (format!("{at}{path}"), *kind));
        let of_lists = LISTS.iter().map(|(list, field, kind)| (format!("{at}{list}/0/{field}"), *kind));
        let named = [format!("{at}/name"), "/spec/volumes/0/name".to_owned()].map(|path| (path, Type::Text));
        let items = [at.to_owned(), format!("{at}/env/0"), format!("{at}/ports/0"), "/spec/volumes/0".to_owned()];
        let fields = POD.iter().map(|(path, kind)| ((*path).to_owned(), *kind)).chain(of_container).chain(of_lists);
        let fields = fields.chain(named).chain(items.map(|path| (path, Type::Object)));
        let mut wrong = Vec::new();
        for (path, kind) in fields {
            let mut pod = whole.clone();
            let other = if matches!(kind, Type::Text) { json!(5) } else { json!("x") };
            *pointer::get_mut(&mut pod, &path).unwrap() = other.clone();
            let expected = vec![(path, must_be(kind.name(), &other))];
            let found = problems(&pod);
            if found != expected {
                wrong.push((found, expected));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn containers_have_names_of_their_own() {
        let pod = |containers: Value| json!({"spec": {"containers": containers, "initContainers": [{"name": "init"}]}});
        let rows = [
            (json!([{"image": "a"}]), "/spec/containers/0/name", "must be a string, but is missing"),
            (json!([{"name": ""}]), "/spec/containers/0/name", "must be a string, but is empty"),
            (json!([]), "/spec/containers", "must be a list of at least one container, but is an empty list"),
            (
                json!([{"name": "a"}, {"name": "init"}]),
                "/spec/containers/1/name",
                "must be unique, but another container is named \"init\"",
            ),
        ];
        let found = rows.clone().map(|(containers, ..)| problems(&pod(containers)));
        assert_eq!(found, rows.map(|(_, path, problem)| vec![(path.to_owned(), problem.to_owned())]));
        assert_eq!(problems(&json!({"metadata": null, "spec": null})), [], "a patch");
        assert_eq!(problems(&json!([])), [(String::new(), "must be an object, but is an empty list".to_owned())]);
    }
}
