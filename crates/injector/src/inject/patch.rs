//! Collects `add` operations (RFC 6902) and applies each to a copy of the object.
//!
//! The copy is raw JSON, so unknown fields are kept, and every operation is known to apply.

use ebb_manifest::pointer::{self, escaped, unescaped};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;

/// One `add`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    /// JSON pointer to the target.
    pub path: String,
    /// The value.
    pub value: Value,
}

/// Operations, and the object after them.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    object: Value,
    operations: Vec<Operation>,
    addresses: Vec<String>,
}

impl Patch {
    pub(super) fn new(object: &Value) -> Self {
        Self { object: object.clone(), operations: Vec::new(), addresses: Vec::new() }
    }

    /// The object after all operations so far.
    pub(super) fn object(&self) -> &Value {
        &self.object
    }

    /// Adds a value. An array index inserts before that element; `-` appends.
    pub(super) fn add(&mut self, path: &str, value: Value) {
        let (parent, last) = path.rsplit_once('/').expect("a pointer has a slash");
        let name = match pointer::get(&self.object, parent) {
            Some(Value::Array(values)) => identity(&value, values.len()),
            _ => last.to_owned(),
        };
        // A collection that is created for others goes when nothing is left in it, so it is not listed.
        if value != json!({}) && value != json!([]) {
            self.addresses.push(format!("{}/{name}", address(&self.object, parent)));
        }
        match pointer::get_mut(&mut self.object, parent) {
            Some(Value::Object(fields)) => drop(fields.insert(unescaped(last).into_owned(), value.clone())),
            Some(Value::Array(values)) => {
                let at = if last == "-" { values.len() } else { last.parse().expect("an index") };
                values.insert(at, value.clone());
            }
            other => unreachable!("{path} leads to {other:?}; the object was checked before"),
        }
        self.operations.push(Operation { op: "add", path: path.to_owned(), value });
    }

    /// Adds an empty object if the path is missing or null.
    pub(super) fn object_at(&mut self, path: &str) {
        self.unless(path, json!({}));
    }

    /// Adds an empty array if the path is missing or null.
    pub(super) fn array_at(&mut self, path: &str) {
        self.unless(path, json!([]));
    }

    /// Adds a value if the path is missing or null.
    pub(super) fn unless(&mut self, path: &str, value: Value) {
        if pointer::get(&self.object, path).is_none_or(Value::is_null) {
            self.add(path, value);
        }
    }

    /// Addresses of all additions so far.
    pub(super) fn added(&self) -> &[String] {
        &self.addresses
    }

    pub(super) fn finish(self) -> Vec<Operation> {
        self.operations
    }
}

/// The address of a value: its JSON pointer with the names of list elements instead of their indexes, so that it stays
/// right when the lists change.
pub(super) fn address(object: &Value, pointer: &str) -> String {
    let (mut at, mut address) = (object, String::new());
    for part in pointer.split('/').skip(1) {
        let next = match at {
            Value::Array(values) => part.parse().ok().and_then(|index: usize| values.get(index)),
            at => at.get(unescaped(part).as_ref()),
        };
        let name = match (at, next) {
            (Value::Array(_), Some(next)) => identity(next, part.parse().unwrap_or_default()).into(),
            _ => Cow::Borrowed(part),
        };
        address.push('/');
        address.push_str(&name);
        at = next.unwrap_or(&Value::Null);
    }
    address
}

/// The pointer of an address; `None` if there is no such value.
pub(super) fn resolve(object: &Value, address: &str) -> Option<String> {
    let (mut at, mut pointer) = (object, String::new());
    for part in address.split('/').skip(1) {
        match at {
            Value::Array(values) => {
                let mut all = values.iter().enumerate();
                let (index, value) = all.find(|(index, value)| identity(value, *index) == part)?;
                (at, pointer) = (value, format!("{pointer}/{index}"));
            }
            fields => (at, pointer) = (fields.get(unescaped(part).as_ref())?, format!("{pointer}/{part}")),
        }
    }
    Some(pointer)
}

/// What distinguishes an element of a list: its mount path, its name, or the element itself.
fn identity(element: &Value, index: usize) -> String {
    let name = ["mountPath", "name"].iter().find_map(|key| element.get(key)?.as_str());
    match element {
        Value::String(text) => escaped(text).into_owned(),
        Value::Number(number) => number.to_string(),
        _ => name.map_or_else(|| index.to_string(), |name| escaped(name).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_applies_to_what_the_ones_before_have_left() {
        let mut patch = Patch::new(&json!({"spec": {"list": null}}));
        patch.array_at("/spec/list");
        patch.add("/spec/list/-", json!(2));
        patch.add("/spec/list/0", json!(1));
        patch.object_at("/spec");
        patch.add(&format!("/spec/{}", escaped("a/b~c")), json!(true));
        assert_eq!(*patch.object(), json!({"spec": {"list": [1, 2], "a/b~c": true}}));
        let paths: Vec<String> = patch.finish().into_iter().map(|operation| operation.path).collect();
        assert_eq!(paths, ["/spec/list", "/spec/list/-", "/spec/list/0", "/spec/a~1b~0c"]);
    }
}
