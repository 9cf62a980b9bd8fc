//! What Kubernetes refuses in any object, and where a field stands.

use crate::documents::{Document, Format};
use crate::kinds::{is_known, looks_like_pod};
use crate::pointer;
use crate::tree::{Node, Shape, Tree};
use serde_json::Value;

/// The first field of an object that Kubernetes refuses: its pointer in the object, and what it must be. Objects that are no
/// manifests, such as the values of a chart, have none.
pub(crate) fn problem(object: &Value, is_item: bool) -> Option<(String, String)> {
    let wrong = |path: &str, must: &str| Some((path.to_owned(), must_be(must, &object[path.trim_start_matches('/')])));
    if object.is_null() && !is_item {
        return None;
    }
    if !object.is_object() {
        return Some((String::new(), must_be("an object with apiVersion and kind", object)));
    }
    for path in ["/apiVersion", "/kind"] {
        let value = &object[&path[1..]];
        if !value.is_null() && !value.is_string() {
            return wrong(path, "a string");
        }
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind.is_empty() {
        let is_pod = looks_like_pod(object) || looks_like_pod(&object["spec"]["template"]);
        return if is_pod && !is_item { wrong("/kind", "a kind such as Pod") } else { None };
    }
    if object["apiVersion"].as_str().is_none_or(str::is_empty) && is_known(kind) && !is_item {
        return wrong("/apiVersion", "a version such as v1 or apps/v1");
    }
    let metadata = &object["metadata"];
    if !metadata.is_null() && !metadata.is_object() {
        return wrong("/metadata", "an object");
    }
    for field in ["name", "generateName", "namespace"] {
        let value = &metadata[field];
        if !value.is_null() && !value.is_string() {
            return Some((format!("/metadata/{field}"), must_be("a string", value)));
        }
    }
    let items = &object["items"];
    let is_list = kind.strip_suffix("List").is_some_and(|of| of.is_empty() || is_known(of));
    if is_list && !items.is_null() && !items.is_array() {
        return wrong("/items", "a list");
    }
    None
}

/// What a field must be, and what it is instead.
pub fn must_be(must: &str, value: &Value) -> String {
    let instead = match value {
        Value::Null => "missing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "empty",
        Value::String(_) => "a string",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("must be {must}, but is {instead}")
}

impl Document<'_> {
    /// The line of a field in the document's text, from 1; of the nearest field around it if it is missing or comes from an
    /// alias.
    pub fn line(&self, pointer: &str) -> usize {
        // Also of documents that cannot be edited.
        let own;
        let tree = match self.tree() {
            Ok(tree) => Some(tree),
            Err(_) => {
                own = Tree::read(self.text).ok();
                own.as_ref()
            }
        };
        let at = tree.and_then(|tree| Some(start(tree.root.as_ref()?, pointer))).unwrap_or_default();
        1 + self.text.get(..at).unwrap_or_default().matches('\n').count()
    }

    /// The path of a field as a user writes it, such as `spec.containers[0].name`.
    pub fn field(&self, pointer: &str) -> String {
        let below = if self.is_item() && self.format == Format::Yaml { pointer.strip_prefix("/0") } else { None };
        let (mut at, mut path) = (&self.value, String::new());
        let item = below.map(|_| &self.value[0]);
        at = item.unwrap_or(at);
        for key in pointer::keys(below.unwrap_or(pointer)) {
            match at {
                Value::Array(_) => path += &format!("[{key}]"),
                _ if path.is_empty() => path += &key,
                _ => path += &format!(".{key}"),
            }
            at = pointer::get(at, &format!("/{}", pointer::escaped(&key))).unwrap_or(&Value::Null);
        }
        path
    }
}

/// Where the deepest node on the way to a field starts: its key, if it has one.
fn start(root: &Node<'_>, pointer: &str) -> usize {
    let (mut node, mut start) = (root, root.start);
    for key in pointer::keys(pointer) {
        match &node.shape {
            Shape::Mapping { .. } => match node.entry(&key) {
                Some(entry) => (node, start) = (&entry.value, entry.start),
                None => break,
            },
            Shape::Sequence { items, .. } => match key.parse::<usize>().ok().and_then(|index| items.get(index)) {
                Some(item) => (node, start) = (item, item.start),
                None => break,
            },
            Shape::Scalar(_) | Shape::Alias(_) => break,
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use crate::documents;

    #[test]
    fn lines_are_those_of_keys_and_items() {
        let text = "# c\n---\na: 1\nb:\n  c:\n  - d: 1\n\n  - {e: 2,\n     f: 3}\ng: &g {h: 1}\ni: *g\n";
        let document = documents(text).nth(1).unwrap().unwrap();
        let rows = [("/a", 2), ("/b/c", 4), ("/b/c/0/d", 5), ("/b/c/1/f", 8), ("/b/c/1/x", 7), ("/i/h", 10), ("/x", 2)];
        let found = rows.map(|(pointer, _)| (pointer, document.line(pointer)));
        assert_eq!(found, rows);
        assert_eq!(document.field("/b/c/1/f"), "b.c[1].f");
        let json = documents("{\"a\": 1}\n{\n \"b\": [\n  {\"c\": 1}]}").nth(1).unwrap().unwrap();
        assert_eq!([json.line("/b"), json.line("/b/0/c")], [3, 4], "after the line break that ends the first");
    }
}
