//! Excerpts of JSON: the fields of a review or of a list of pods that the injector reads.
//!
//! A pod may have 3 MiB, and a tree of all its values about a hundred times that. Clients choose the content, so the
//! parser keeps only the fields for injection, within a memory budget, and skips all others without allocating. An
//! excerpt has the same shape as the document: kept fields keep their types, and lists of containers keep their order
//! and length, so `inject` gives the same operations for both.

use ebb_config::annotations::PREFIX;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Maximum memory of the values of one excerpt, in bytes.
const BUDGET: usize = 2 << 20;
/// Maximum length of a kept string, in bytes; longer ones are cut. `inject` ignores longer annotations.
const TEXT_BYTES: usize = 17 << 10;
/// Memory of a tree node with some fields, of an additional field, and of an additional list element, in bytes.
const OBJECT_BYTES: usize = 640;
const FIELD_BYTES: usize = 110;
const ELEMENT_BYTES: usize = 64;

/// Which part of a value is kept.
#[derive(Clone, Copy)]
enum Shape {
    /// A scalar; a list or an object is kept empty.
    Scalar,
    /// The whole value.
    Whole,
    /// These fields.
    Fields(&'static [(&'static str, Shape)]),
    /// The scalars under keys with one of these prefixes.
    Keys(&'static [&'static str]),
    /// Every element.
    List(&'static Shape),
    /// Selected elements.
    Some(&'static Shape, fn(&Value) -> bool),
    /// The variables that `inject` might add.
    Env,
    /// Every element, and the whole of the container to complete.
    InitContainers,
    /// The value, if it fits into the budget; the values around it are kept in any case.
    Bounded(&'static Shape),
}

use Shape::{Bounded, Env, Fields, InitContainers, Keys, List, Scalar, Whole};

const AMOUNTS: Shape = Fields(&[("cpu", Scalar), ("memory", Scalar)]);
const RESOURCES: Shape = Fields(&[("limits", AMOUNTS), ("requests", AMOUNTS)]);
const PORT: Shape = Fields(&[("containerPort", Scalar), ("protocol", Scalar)]);
const MOUNT: Shape = Fields(&[("mountPath", Scalar)]);
const CONTAINER: Shape = Fields(&[
    ("name", Scalar),
    ("args", Scalar),
    ("env", Env),
    ("ports", Shape::Some(&PORT, is_tcp)),
    ("resources", RESOURCES),
    ("restartPolicy", Scalar),
    ("volumeMounts", List(&MOUNT)),
]);
const REQUIREMENT: Shape = Fields(&[("key", Scalar), ("operator", Scalar), ("values", List(&Scalar))]);
const TERM: Shape = Fields(&[("matchExpressions", List(&REQUIREMENT))]);
const NODES: Shape =
    Fields(&[("requiredDuringSchedulingIgnoredDuringExecution", Fields(&[("nodeSelectorTerms", List(&TERM))]))]);
const VOLUME: Shape = Fields(&[("name", Scalar)]);
const OWNER: Shape =
    Fields(&[("apiVersion", Scalar), ("controller", Scalar), ("kind", Scalar), ("name", Scalar), ("uid", Scalar)]);
const META: Shape = Fields(&[
    ("name", Scalar),
    ("namespace", Scalar),
    ("uid", Scalar),
    ("deletionTimestamp", Scalar),
    ("labels", Keys(&["ebb-cache.io/"])),
    (
        "annotations",
        Keys(&[PREFIX, "ebb-cache.io/", "kubernetes.io/config.mirror", "kubectl.kubernetes.io/default-container"]),
    ),
    ("ownerReferences", Shape::Some(&OWNER, is_controller)),
]);
const SPEC: Shape = Fields(&[
    ("containers", List(&CONTAINER)),
    ("initContainers", InitContainers),
    ("hostNetwork", Scalar),
    ("os", Fields(&[("name", Scalar)])),
    ("nodeSelector", Keys(&["kubernetes.io/os", "beta.kubernetes.io/os", "node.kubernetes.io/windows-build", "type"])),
    ("affinity", Fields(&[("nodeAffinity", NODES)])),
    ("volumes", Shape::Some(&VOLUME, is_ours)),
    ("securityContext", Fields(&[("supplementalGroups", List(&Scalar))])),
    ("imagePullSecrets", List(&Fields(&[("name", Scalar)]))),
    ("resources", RESOURCES),
]);
const POD: Shape = Fields(&[("metadata", META), ("spec", SPEC), ("status", Fields(&[("phase", Scalar)]))]);
const REVIEW: Shape = Fields(&[
    ("apiVersion", Scalar),
    ("kind", Scalar),
    (
        "request",
        Fields(&[
            ("uid", Scalar),
            ("kind", Fields(&[("kind", Scalar)])),
            ("operation", Scalar),
            ("namespace", Scalar),
            ("dryRun", Scalar),
            ("object", Bounded(&POD)),
        ]),
    ),
]);

fn is_tcp(port: &Value) -> bool {
    port["protocol"].is_null() || port["protocol"] == "TCP"
}

fn is_controller(owner: &Value) -> bool {
    owner["controller"] == true
}

fn is_ours(volume: &Value) -> bool {
    volume["name"].as_str().is_some_and(|name| name.starts_with("ebb-"))
}

/// State of building an excerpt.
struct Excerpt<'a> {
    /// Variables that `inject` might add to a container.
    variables: &'a [String],
    left: Cell<usize>,
    is_exceeded: Cell<bool>,
    /// Whether a bounded value was dropped.
    is_too_large: Cell<bool>,
    /// The init container that is kept completely.
    whole_at: Option<usize>,
}

impl<'a> Excerpt<'a> {
    fn new(variables: &'a [String], whole_at: Option<usize>) -> Self {
        let (is_exceeded, is_too_large) = (Cell::new(false), Cell::new(false));
        Self { variables, left: Cell::new(BUDGET), is_exceeded, is_too_large, whole_at }
    }

    /// Whether another `bytes` fit into the budget.
    fn take(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes);
        self.is_exceeded.set(self.is_exceeded.get() || left.is_none());
        self.left.set(left.unwrap_or(0));
        !self.is_exceeded.get()
    }

    fn text(&self, text: &str) -> Value {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES)];
        if self.take(text.len()) { Value::String(text.to_owned()) } else { Value::Null }
    }
}

/// The excerpt of a document.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) value: Value,
    /// Whether the budget was exceeded, so that `value` is incomplete.
    pub(super) is_too_large: bool,
}

/// Reads an AdmissionReview. `variables` are the names that `inject` may add to a container.
///
/// # Errors
/// Why the text is not JSON.
pub(super) fn review(body: &[u8], variables: &[String]) -> Result<Read, serde_json::Error> {
    let read = |whole_at| {
        let excerpt = Excerpt::new(variables, whole_at);
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = Pick { shape: REVIEW, from: &excerpt }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(Read { value, is_too_large: excerpt.is_too_large.get() })
    };
    let first: Read = read(None)?;
    let containers = first.value["request"]["object"]["spec"]["initContainers"].as_array();
    let declared = containers.and_then(|all| all.iter().position(|container| container["name"] == "ebb"));
    match declared {
        // Injection completes this container, so all of it is needed.
        Some(at) if !first.is_too_large => {
            drop(first);
            read(Some(at))
        }
        _ => Ok(first),
    }
}

/// Reads a list of pods from a stream and calls `see` for each; returns the token of the next page.
///
/// # Errors
/// Why the text is not a list, or the error of the stream.
pub(super) fn pods(reader: impl std::io::Read, see: impl FnMut(Read)) -> Result<Option<String>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_reader(reader);
    let next = PodList { see }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(next)
}

#[derive(Clone, Copy)]
struct Pick<'a> {
    shape: Shape,
    from: &'a Excerpt<'a>,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Bounded(shape) = self.shape else { return deserializer.deserialize_any(self) };
        let value = Pick { shape: *shape, ..self }.deserialize(deserializer)?;
        if !self.from.is_exceeded.replace(false) {
            return Ok(value);
        }
        self.from.is_too_large.set(true);
        self.from.left.set(BUDGET);
        Ok(Value::Null)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.from.text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        for at in 0.. {
            let shape = match self.shape {
                _ if self.from.is_exceeded.get() => None,
                Shape::List(shape) | Shape::Some(shape, _) => Some(*shape),
                Env => Some(VOLUME),
                InitContainers if self.from.whole_at == Some(at) => Some(Whole),
                InitContainers => Some(CONTAINER),
                Whole => Some(Whole),
                Scalar | Fields(_) | Keys(_) | Bounded(_) => None,
            };
            let Some(shape) = shape else {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            };
            let left = self.from.left.get();
            let Some(value) = list.next_element_seed(Pick { shape, ..self })? else { break };
            let is_wanted = match self.shape {
                Shape::Some(_, passes) => passes(&value),
                Env => value["name"].as_str().is_some_and(|name| self.from.variables.iter().any(|own| own == name)),
                _ => true,
            };
            if !is_wanted {
                if !self.from.is_exceeded.get() {
                    self.from.left.set(left);
                }
            } else if self.from.take(ELEMENT_BYTES) {
                kept.push(value);
            }
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = object.next_key_seed(Key { shape: self.shape, from: self.from })? {
            match key {
                Some((key, shape)) => {
                    let bytes = if kept.is_empty() { OBJECT_BYTES } else { FIELD_BYTES };
                    let value = object.next_value_seed(Pick { shape, ..self })?;
                    if self.from.take(bytes + key.len()) {
                        kept.insert(key, value);
                    }
                }
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(kept))
    }
}

/// A kept key, and the kept part of its value.
struct Key<'a> {
    shape: Shape,
    from: &'a Excerpt<'a>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<(String, Shape)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<(String, Shape)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        if self.from.is_exceeded.get() || key.len() > TEXT_BYTES {
            return Ok(None);
        }
        let shape = match self.shape {
            Fields(fields) => fields.iter().find(|(name, _)| *name == key).map(|(_, shape)| *shape),
            Keys(starts) => starts.iter().any(|start| key.starts_with(start)).then_some(Scalar),
            Whole => Some(Whole),
            _ => None,
        };
        Ok(shape.map(|shape| (key.to_owned(), shape)))
    }
}

/// A list of pods, or of their metadata.
struct PodList<F> {
    see: F,
}

impl<'de, F: FnMut(Read)> DeserializeSeed<'de> for PodList<F> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Read)> Visitor<'de> for PodList<F> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Self::Value, A::Error> {
        const LIST: Shape = Fields(&[("metadata", Scalar), ("items", Scalar)]);
        let excerpt = Excerpt::new(&[], None);
        let mut next = None;
        while let Some(key) = object.next_key_seed(Key { shape: LIST, from: &excerpt })? {
            match key.as_ref().map(|(key, _)| key.as_str()) {
                Some("metadata") => {
                    let shape = Fields(&[("continue", Scalar)]);
                    let meta = object.next_value_seed(Pick { shape, from: &excerpt })?;
                    next = meta["continue"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
                }
                Some("items") => object.next_value_seed(Items { see: &mut self.see })?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        if excerpt.is_exceeded.get() {
            return Err(A::Error::custom("the list's metadata is too large"));
        }
        Ok(next)
    }
}

/// The items of a list, passed on as they are read.
struct Items<'a, F> {
    see: &'a mut F,
}

impl<'de, F: FnMut(Read)> DeserializeSeed<'de> for Items<'_, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Read)> Visitor<'de> for Items<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        loop {
            let excerpt = Excerpt::new(&[], None);
            match list.next_element_seed(Pick { shape: POD, from: &excerpt })? {
                Some(value) => (self.see)(Read { value, is_too_large: excerpt.is_exceeded.get() }),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::{Context, Namespace, Template, inject};
    use serde_json::json;

    fn review_of(pod: &Value) -> Vec<u8> {
        let request = json!({"uid": "7", "kind": {"kind": "Pod"}, "operation": "CREATE", "object": pod});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string().into()
    }

    #[test]
    fn excerpt_of_each_pod_of_the_corpus_is_injected_as_the_whole() {
        let text = std::fs::read_to_string("../../manifests/sidecar.yaml").unwrap();
        let secrets = "imagePullSecrets: [{name: mirror}, {name: own}]\n    initContainers:";
        let template = Template::parse(&text.replace("initContainers:", secrets)).unwrap();
        let namespace = Namespace { name: "shop".to_owned(), ..Namespace::default() };
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let (mut seen, mut wrong) = (0, Vec::new());
        for file in std::fs::read_dir("../../tests/inject/pods").unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for pod in ebb_config::yaml::manifests::<Value>(&text).unwrap() {
                if pod["kind"] != "Pod" {
                    continue;
                }
                let read = review(&review_of(&pod), &template.variables()).unwrap();
                let excerpt = &read.value["request"]["object"];
                let (found, expected) = (inject(excerpt, &context, &template), inject(&pod, &context, &template));
                if found != expected || read.is_too_large {
                    wrong.push(format!("{pod}: {found:?} instead of {expected:?}, too large: {}", read.is_too_large));
                }
                seen += 1;
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 40, "{seen} pods");
    }

    #[test]
    fn excerpt_is_small_whatever_the_pod_holds() {
        let many = |value: Value| Value::Array(vec![value; 48_000]);
        let deep = (0..100).fold(json!({}), |inner, _| json!({"x": inner}));
        let map: Map<String, Value> = (0..48_000).map(|n| (format!("k{n}"), json!("v"))).collect();
        let app = json!([{"name": "app"}]);
        let mut wrong = Vec::new();
        for (what, pod) in [
            ("env", json!({"spec": {"containers": [{"name": "app", "env": many(json!({"name": "A"}))}]}})),
            ("command", json!({"spec": {"containers": [{"name": "app", "command": many(json!("x"))}]}})),
            ("volumes", json!({"spec": {"containers": app, "volumes": many(json!({"name": "v"}))}})),
            ("tolerations", json!({"spec": {"containers": app, "tolerations": many(deep)}})),
            ("labels", json!({"metadata": {"labels": map, "annotations": map}, "spec": {"containers": app}})),
            (
                "owners",
                json!({"metadata": {"ownerReferences": many(json!({"kind": "Node"}))}, "spec": {"containers": app}}),
            ),
        ] {
            let read = review(&review_of(&pod), &["EBB_ADDR".to_owned()]).unwrap();
            let excerpt = &read.value["request"]["object"];
            let (bytes, name) = (excerpt.to_string().len(), &excerpt["spec"]["containers"][0]["name"]);
            if read.is_too_large || bytes >= 500 || name != "app" {
                wrong.push(format!("{what}: {bytes} bytes, of {name}, too large: {}", read.is_too_large));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let lists = ["containers", "initContainers"].map(|list| {
            let pod = json!({"spec": {list: many(json!({"name": "a"}))}});
            (list, review(&review_of(&pod), &[]).unwrap().is_too_large)
        });
        assert_eq!(lists, [("containers", true), ("initContainers", true)], "with 48,000 items");
    }

    #[test]
    fn lists_are_read_item_by_item() {
        let list = json!({"metadata": {"continue": "t"}, "items": [
            {"metadata": {"name": "a", "managedFields": [{}]}}, {"metadata": {"name": "b"}},
        ]});
        let mut names = Vec::new();
        let next = pods(list.to_string().as_bytes(), |read| names.push(read.value["metadata"].to_string())).unwrap();
        assert_eq!(
            (next.as_deref(), names),
            (Some("t"), vec![r#"{"name":"a"}"#.to_owned(), r#"{"name":"b"}"#.to_owned()])
        );
        assert_eq!(pods(&b"{\"items\":null}"[..], |_| ()).unwrap(), None);
        assert!(pods(&b"[]"[..], |_| ()).is_err());
    }
}
