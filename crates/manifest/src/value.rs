//! What a document means: its tree as JSON.
//!
//! V1. A merge key `<<` adds the entries of its mappings where it stands: it overrides keys before it, and keys after it
//!     override it. Of several mappings, the first wins.
//! V2. The copies that aliases make are bounded, since few bytes can ask for gigabytes.

use crate::pointer;
use crate::scalar::Scalar;
use crate::tree::{Entry, MAX_DEPTH, Node, Problem, Shape, Tree};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Maximum number of nodes that aliases copy.
const MAX_COPIES: usize = 200_000;
/// Maximum number of bytes of text that aliases copy.
const MAX_COPIED_BYTES: usize = 64 << 20;

impl<'a> Tree<'a> {
    /// The value of the document; null if it has no content.
    pub(crate) fn value(&self) -> Result<Value, Problem> {
        let Some(root) = &self.root else { return Ok(Value::Null) };
        let mut reader = Reader { tree: self, anchors: HashMap::new(), aliases: 0, copies: 0, copied_bytes: 0 };
        if !self.aliased.is_empty() {
            reader.find_anchors(root);
        }
        reader.value(root, 0)
    }

    /// The value that merge keys give a field, whether or not the field is written beside them, too.
    pub(crate) fn merged(&self, path: &str) -> Option<Value> {
        let mut node = self.root.as_ref().filter(|_| self.merges)?;
        let (parent, field) = pointer::split(path)?;
        for key in pointer::keys(parent) {
            node = match &node.shape {
                Shape::Mapping { .. } => &node.entry(&key)?.value,
                Shape::Sequence { items, .. } => items.get(key.parse::<usize>().ok()?)?,
                Shape::Scalar(_) | Shape::Alias(_) => return None,
            };
        }
        let Shape::Mapping { entries, .. } = &node.shape else { return None };
        let mut reader = Reader { tree: self, anchors: HashMap::new(), aliases: 0, copies: 0, copied_bytes: 0 };
        reader.find_anchors(self.root.as_ref()?);
        let mut fields = Map::new();
        for entry in entries.iter().filter(|entry| entry.is_merge) {
            reader.merge(&entry.value, &mut fields, 1).ok()?;
        }
        fields.shift_remove(field.as_ref())
    }

    /// Whether the document means this.
    pub(crate) fn is(&self, expected: &Value) -> bool {
        match &self.root {
            Some(root) if self.aliased.is_empty() && !self.merges => is(root, expected),
            _ => self.value().is_ok_and(|value| value == *expected),
        }
    }
}

/// Whether a node without aliases and merge keys means this.
fn is(node: &Node<'_>, expected: &Value) -> bool {
    match (&node.shape, expected) {
        (Shape::Scalar(scalar), expected) => scalar.is(expected),
        (Shape::Mapping { entries, .. }, Value::Object(fields)) => {
            let is_same =
                |entry: &Entry<'_>| fields.get(entry.key.as_ref()).is_some_and(|value| is(&entry.value, value));
            entries.len() == fields.len() && entries.iter().all(is_same)
        }
        (Shape::Sequence { items, .. }, Value::Array(values)) => {
            items.len() == values.len() && items.iter().zip(values).all(|(item, value)| is(item, value))
        }
        _ => false,
    }
}

struct Reader<'t, 'a> {
    tree: &'t Tree<'a>,
    /// The nodes that aliases refer to.
    anchors: HashMap<usize, &'t Node<'a>>,
    /// Number of aliases around a node.
    aliases: usize,
    copies: usize,
    copied_bytes: usize,
}

impl<'t, 'a> Reader<'t, 'a> {
    fn find_anchors(&mut self, node: &'t Node<'a>) {
        if self.tree.is_aliased(node) {
            self.anchors.insert(node.anchor, node);
        }
        match &node.shape {
            Shape::Mapping { entries, .. } => entries.iter().for_each(|entry| self.find_anchors(&entry.value)),
            Shape::Sequence { items, .. } => items.iter().for_each(|item| self.find_anchors(item)),
            Shape::Scalar(_) | Shape::Alias(_) => {}
        }
    }

    fn problem(&self, node: &Node<'_>, sentence: &str) -> Problem {
        let before = self.tree.text.get(..node.start).unwrap_or_default();
        Problem { line: 1 + before.matches('\n').count(), sentence: sentence.to_owned() }
    }

    fn value(&mut self, node: &'t Node<'a>, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(self.problem(node, "an alias is inside of what it refers to, or nested too deeply"));
        }
        let scalar = match &node.shape {
            Shape::Scalar(scalar) => Some(scalar),
            Shape::Alias(anchor) => self.tree.scalars.get(anchor),
            _ => None,
        };
        if self.aliases > 0 || matches!(node.shape, Shape::Alias(_)) {
            self.copies += 1;
            self.copied_bytes += scalar.map_or(0, Scalar::len);
            if self.copies > MAX_COPIES || self.copied_bytes > MAX_COPIED_BYTES {
                return Err(self.problem(node, "aliases copy too much"));
            }
        }
        if let Some(scalar) = scalar {
            return Ok(scalar.to_value());
        }
        match &node.shape {
            Shape::Scalar(_) => unreachable!("it was returned"),
            Shape::Alias(anchor) => {
                let target = self.anchors[anchor];
                self.aliases += 1;
                let value = self.value(target, depth + 1);
                self.aliases -= 1;
                value
            }
            Shape::Mapping { entries, .. } => {
                let mut fields = Map::with_capacity(entries.len());
                self.entries(entries, &mut fields, depth)?;
                Ok(Value::Object(fields))
            }
            Shape::Sequence { items, .. } => items.iter().map(|item| self.value(item, depth + 1)).collect(),
        }
    }

    fn entries(
        &mut self,
        entries: &'t [Entry<'a>],
        fields: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Problem> {
        for entry in entries {
            if entry.is_merge {
                self.merge(&entry.value, fields, depth + 1)?;
            } else {
                let value = self.value(&entry.value, depth + 1)?;
                fields.insert(entry.key.as_ref().to_owned(), value);
            }
        }
        Ok(())
    }

    /// Adds the entries of the mappings that a merge key names.
    fn merge(&mut self, node: &'t Node<'a>, fields: &mut Map<String, Value>, depth: usize) -> Result<(), Problem> {
        if depth > MAX_DEPTH {
            return Err(self.problem(node, "an alias is inside of what it refers to, or nested too deeply"));
        }
        match &node.shape {
            Shape::Mapping { entries, .. } => self.entries(entries, fields, depth),
            Shape::Alias(anchor) => {
                self.aliases += 1;
                let merged = match self.anchors.get(anchor).map(|target| &target.shape) {
                    Some(Shape::Mapping { entries, .. }) => self.entries(entries, fields, depth),
                    _ => Err(self.no_mapping(node)),
                };
                self.aliases -= 1;
                merged
            }
            Shape::Sequence { items, .. } => {
                for item in items.iter().rev() {
                    match &item.shape {
                        Shape::Mapping { .. } | Shape::Alias(_) => self.merge(item, fields, depth + 1)?,
                        _ => return Err(self.no_mapping(item)),
                    }
                }
                Ok(())
            }
            Shape::Scalar(_) => Err(self.no_mapping(node)),
        }
    }

    fn no_mapping(&self, node: &Node<'_>) -> Problem {
        self.problem(node, "the merge key << needs a mapping, or a list of mappings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        let value = Tree::read(text).and_then(|tree| tree.value());
        value.map_err(|problem| format!("{}: {}", problem.line, problem.sentence))
    }

    #[test]
    fn merge_keys_override_what_stands_before_them() {
        let rows = [
            ("x: &x {k: 1}\na:\n  <<: *x\n  k: 2\n", json!({"k": 2})),
            ("x: &x {k: 1}\na:\n  k: 2\n  <<: *x\n", json!({"k": 1})),
            ("x: &x {k: 1}\nz: &z {k: 3}\na:\n  <<: [*x, *z]\n", json!({"k": 1})),
            ("x: &x {k: 1}\nz: &z {k: 3}\na:\n  <<: *x\n  <<: *z\n", json!({"k": 3})),
            ("x: &x {k: 1}\na:\n  \"<<\": *x\n", json!({"<<": {"k": 1}})),
            ("x: &x k\na: {*x : 1}\n", json!({"k": 1})),
            ("&x k: 1\na: {k: *x}\n", json!({"k": "k"})),
        ];
        let found = rows.clone().map(|(text, _)| read(text).map(|value| value["a"].clone()));
        assert_eq!(found, rows.map(|(_, value)| Ok(value)));
        let error = "2: the merge key << needs a mapping, or a list of mappings";
        assert_eq!(read("x: &x [1]\na: {<<: *x}\n"), Err(error.to_owned()));
    }

    /// Each text needs gigabytes, or the whole stack, without a bound.
    #[test]
    fn texts_that_grow_when_they_are_read_are_refused() {
        let nested = |levels: usize, inner: &str| "[".repeat(levels) + inner + &"]".repeat(levels);
        let mut deep = format!("a0: &a0 {}\n", nested(100, "x"));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            deep += &format!("a{level}: &a{level} {}\n", nested(20, &format!("*a{}", level - 1)));
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{below}]\n");
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 9_000].join(", "));
        let merged = format!(
            "a: &a {{{}}}\nb:\n  <<: [{}]\n",
            (0..1000).map(|n| format!("k{n}: v, ")).collect::<String>(),
            vec!["*a"; 3000].join(", ")
        );
        let own = "a: &a [*a]\n".to_owned();
        let own_merge = "a: &a\n  <<: *a\n".to_owned();
        let rows = [
            (deep, "or nested too deeply"),
            (nested(130, ""), "nested too deeply"),
            (laughs, "aliases copy too much"),
            (long, "aliases copy too much"),
            (merged, "aliases copy too much"),
            (own, "an alias is inside of what it refers to"),
            (own_merge, "an alias is inside of what it refers to"),
        ];
        let wrong: Vec<_> = rows
            .iter()
            .map(|(text, sentence)| (read(text).map(|_| "a value"), sentence))
            .filter(|(found, sentence)| !found.as_ref().is_err_and(|error| error.contains(**sentence)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn a_tree_is_compared_without_its_value() {
        let text = "a: [1, {b: x}]\nc: ~\n";
        let tree = Tree::read(text).unwrap();
        assert!(tree.is(&json!({"c": null, "a": [1, {"b": "x"}]})));
        let others = [
            json!({"a": [1, {"b": "x"}]}),
            json!({"c": null, "a": [1, {"b": "y"}]}),
            json!({"c": null, "a": [1]}),
            json!({"c": null, "a": {}}),
        ];
        assert!(!others.iter().any(|other| tree.is(other)));
    }
}
