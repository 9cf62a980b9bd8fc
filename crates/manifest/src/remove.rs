//! Removes values from a document.

use crate::documents::Document;
use crate::edit::{Edit, line_break, line_start, next_line, own_line};
use crate::insert::{colon, dash, end, locate};
use crate::pointer;
use crate::tree::{NotEditable, Shape, Tree};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Values to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// JSON pointers in the document.
    pub paths: Vec<String>,
    /// Pointers of collections to remove if nothing is left in them, unless they are in `replaced`.
    pub if_empty: Vec<String>,
    /// What stood after the colon before, by pointer: of a value in `paths`, which is restored then, or of a collection
    /// that is empty then.
    pub replaced: BTreeMap<String, String>,
}

impl Removal {
    /// The same for a text in which merge keys give values for some paths: these need not be restored, and what is around
    /// them is not empty.
    pub(crate) fn beside(&self, merged: &[(String, Value)]) -> Cow<'_, Self> {
        if merged.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut removal = self.clone();
        removal.replaced.retain(|path, _| merged.iter().all(|(merged, _)| merged != path));
        removal.if_empty.retain(|path| {
            let is_around = |merged: &str| merged.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'));
            !merged.iter().any(|(merged, _)| is_around(merged))
        });
        Cow::Owned(removal)
    }

    /// The same without some paths.
    pub(crate) fn without(&self, merged: &[(String, Value)]) -> Cow<'_, Self> {
        if merged.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut removal = self.clone();
        removal.paths.retain(|path| merged.iter().all(|(merged, _)| merged != path));
        Cow::Owned(removal)
    }

    /// Applies the removal to a value.
    pub fn apply(&self, object: &mut Value) {
        let mut paths: Vec<&String> = self.paths.iter().collect();
        // Later items first, so that the indexes of others stay right.
        paths.sort_by(|a, b| compare(b, a));
        paths.retain(|path| !self.replaced.contains_key(*path));
        for (path, text) in self.replaced.iter().filter(|(path, _)| self.paths.contains(path)) {
            if let Some(value) = pointer::get_mut(object, path) {
                *value = read_alone(text).unwrap_or_default();
            }
        }
        paths.iter().for_each(|path| remove(object, path));
        for (path, text) in &self.replaced {
            let is_empty = pointer::get(object, path).is_some_and(is_empty);
            if let Some(value) = pointer::get_mut(object, path).filter(|_| is_empty) {
                *value = read_alone(text).unwrap_or_default();
            }
        }
        let mut parents: Vec<&String> = self.if_empty.iter().collect();
        parents.sort_by(|a, b| compare(b, a));
        for path in parents {
            if pointer::get(object, path).is_some_and(is_empty) && !self.replaced.contains_key(path) {
                remove(object, path);
            }
        }
    }
}

/// The value of a text that stood after a colon.
pub(crate) fn read_alone(text: &str) -> Option<Value> {
    // The line break after it belongs to a block scalar.
    let line = format!("{text}\n");
    Tree::read(&line).and_then(|tree| tree.value()).ok()
}

/// Compares pointers by key, indexes as numbers.
fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    let keys = |pointer: &str| -> Vec<(Option<usize>, String)> {
        pointer::keys(pointer).map(|key| (key.parse().ok(), key.into_owned())).collect()
    };
    keys(a).cmp(&keys(b))
}

pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        value => value.is_null(),
    }
}

fn remove(object: &mut Value, path: &str) {
    let Some((parent, last)) = pointer::split(path) else { return };
    match pointer::get_mut(object, parent) {
        Some(Value::Object(fields)) => drop(fields.shift_remove(last.as_ref())),
        Some(Value::Array(values)) => {
            if let Some(index) = last.parse::<usize>().ok().filter(|index| *index < values.len()) {
                values.remove(index);
            }
        }
        _ => {}
    }
}

/// A value without empty collections and nulls, to compare what a removal leaves: `labels:` is null and `labels: {}` is
/// not, and both mean the same.
pub fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), pruned(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(pruned).collect()),
        value => value.clone(),
    }
}

/// Plans the edits that remove values from a document.
pub(crate) fn plan(document: &Document<'_>, removal: &Removal) -> Result<Vec<Edit>, NotEditable> {
    let tree = document.tree()?;
    let text = document.text;
    let mut gone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |path: &str| {
        if let Some((parent, last)) = pointer::split(path) {
            gone.entry(parent.to_owned()).or_default().insert(last.into_owned());
        }
    };
    let (overwritten, added): (Vec<&String>, Vec<_>) =
        removal.paths.iter().partition(|path| removal.replaced.contains_key(*path));
    added.into_iter().for_each(|path| add(path));
    let mut parents: Vec<&String> = removal.if_empty.iter().collect();
    parents.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    for path in parents {
        let Some(value) = pointer::get(&document.value, path) else { continue };
        let children = gone.get(path.as_str()).map_or(0, BTreeSet::len);
        let all = match value {
            Value::Object(fields) => fields.len(),
            Value::Array(values) => values.len(),
            _ => continue,
        };
        if children == all && !removal.replaced.contains_key(path) {
            gone.remove(path.as_str());
            let (parent, last) = pointer::split(path).expect("a pointer has a slash");
            gone.entry(parent.to_owned()).or_default().insert(last.into_owned());
        }
    }
    let mut edits = Vec::new();
    let mut delete = |range: Range<usize>| edits.push(Edit { range, text: String::new(), depth: 0 });
    let mut restored = Vec::new();
    for path in overwritten {
        let form = || NotEditable::Form(path.clone());
        let entry = locate(tree, path)?.1.ok_or_else(form)?;
        let from = colon(text, entry).ok_or_else(form)? + 1;
        let end = entry.value.end.max(from);
        let original = removal.replaced[path].clone();
        match entry.value.shape {
            // It stands on lines of its own; what stands after the colon is a comment that was there before.
            Shape::Mapping { is_flow: false, .. } | Shape::Sequence { is_flow: false, .. } => {
                restored.push(Edit { range: from..from, text: original, depth: 0 });
                delete(next_line(text, from)..next_line(text, end));
            }
            _ => restored.push(Edit { range: from..end, text: original, depth: 0 }),
        }
    }
    for (at, children) in &gone {
        let (node, entry) = locate(tree, at)?;
        let form = || NotEditable::Form(at.clone());
        let count = match &node.shape {
            Shape::Mapping { entries, .. } => entries.len(),
            Shape::Sequence { items, .. } => items.len(),
            _ => return Err(form()),
        };
        if let Some((original, entry)) = removal.replaced.get(at).zip(entry).filter(|_| children.len() == count) {
            let from = colon(text, entry).ok_or_else(form)? + 1;
            restored.push(Edit { range: from..from, text: original.clone(), depth: 0 });
            if matches!(node.shape, Shape::Mapping { is_flow: true, .. } | Shape::Sequence { is_flow: true, .. }) {
                delete(from..node.end);
                continue;
            }
        }
        match &node.shape {
            Shape::Mapping { is_flow: false, entries } => {
                for entry in entries.iter().filter(|entry| children.contains(entry.key.as_ref())) {
                    own_line(text, entry.start).ok_or_else(form)?;
                    delete(line_start(text, entry.start)..next_line(text, end(entry)));
                }
            }
            Shape::Sequence { is_flow: false, items } => {
                let mut from = entry.map_or(node.start, |entry| entry.key_end);
                for (index, item) in items.iter().enumerate() {
                    let dash = dash(text, from, item).ok_or_else(form)?;
                    if children.contains(&index.to_string()) {
                        delete(line_start(text, dash)..next_line(text, item.end.max(dash + 1)));
                    }
                    from = item.end.max(dash + 1);
                }
            }
            Shape::Mapping { entries, .. } => {
                let parts: Vec<_> = entries.iter().map(|entry| (entry.start..end(entry), &entry.key)).collect();
                flow(parts.iter().map(|(range, key)| (range.clone(), children.contains(key.as_ref()))).collect())
                    .into_iter()
                    .for_each(&mut delete);
            }
            Shape::Sequence { items, .. } => {
                let parts = items.iter().enumerate();
                flow(parts.map(|(at, item)| (item.start..item.end, children.contains(&at.to_string()))).collect())
                    .into_iter()
                    .for_each(&mut delete);
            }
            _ => return Err(form()),
        }
    }
    let mut edits = merged(text, edits);
    edits.extend(restored);
    Ok(edits)
}

/// The ranges to delete so that only the children that stay are left in a collection in flow style.
fn flow(children: Vec<(Range<usize>, bool)>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < children.len() {
        if !children[at].1 {
            at += 1;
            continue;
        }
        let first = at;
        while at < children.len() && children[at].1 {
            at += 1;
        }
        let last = &children[at - 1].0;
        ranges.push(match (first.checked_sub(1), children.get(at)) {
            (None, Some((next, _))) => children[first].0.start..next.start,
            (Some(before), _) => children[before].0.end..last.end,
            (None, None) => children[first].0.start..last.end,
        });
    }
    ranges
}

/// Merges ranges that touch. One that leaves the last line without its line break, where the text has none at its end,
/// takes that line break, too.
fn merged(text: &str, mut edits: Vec<Edit>) -> Vec<Edit> {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out: Vec<Edit> = Vec::new();
    for edit in edits {
        match out.last_mut() {
            Some(last) if last.range.end >= edit.range.start => last.range.end = last.range.end.max(edit.range.end),
            _ => out.push(edit),
        }
    }
    if let Some(last) = out.last_mut()
        && last.range.end == text.len()
        && !text.ends_with('\n')
        && text[..last.range.start].ends_with('\n')
    {
        // A carriage return before it may be the end of the original text, so the line break before tells its length.
        last.range.start -= line_break(text, last.range.start - 1).len();
    }
    out
}
