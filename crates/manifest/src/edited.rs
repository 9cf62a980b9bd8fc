//! A document after an edit.

use crate::documents::{Document, Format, chunks};
use crate::edit::{self, Text};
use crate::insert::{self, Addition};
use crate::pointer;
use crate::print::{self, Prints, Style};
use crate::remove::{self, Removal, pruned};
use crate::tree::{NotEditable, Tree};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Maximum number of different values, and of texts, that an [`Editor`] remembers.
const MAX_REMEMBERED: usize = 64;
/// New texts of this length are shared by the documents that get them, in bytes.
const WORTH_SHARING: usize = 64;

/// A document after an edit.
#[derive(Clone, Debug)]
pub struct Edited<'a> {
    /// The text.
    pub text: Text<'a>,
    /// Why the document is reprinted, if it is: comments and format are lost then.
    pub reprinted: Option<String>,
}

/// Edits documents, and remembers what many of them get.
///
/// An edit is accepted only if the edited text reads as the expected value. A large addition takes longer to read than
/// the document it goes to, so it is read once by itself, in every style that it is printed in, and each document is read
/// with a stand-in of the same shape in its place.
#[derive(Debug, Default)]
pub struct Editor {
    shared: HashSet<Arc<str>>,
    readable: Vec<(Value, Style)>,
    prints: Prints,
}

/// Whether additions at these pointers may replace a text of an object. Most replace none.
pub fn may_replace<'a>(object: &Value, mut paths: impl Iterator<Item = &'a str>) -> bool {
    paths.any(|path| {
        let Some((parent, last)) = pointer::split(path) else { return false };
        match pointer::get(object, parent) {
            Some(Value::Object(fields)) => fields.is_empty() || fields.contains_key(last.as_ref()),
            Some(parent) => remove::is_empty(parent),
            None => false,
        }
    })
}

impl Document<'_> {
    /// The value of a field that an addition at its pointer overwrites.
    fn overwritten(&self, path: &str) -> Option<&Value> {
        let (parent, key) = pointer::split(path)?;
        pointer::get(&self.value, parent)?.as_object()?.get(key.as_ref())
    }

    /// The texts that additions would replace, by JSON pointer: the value of a field that is written, with the spaces
    /// between it and the colon. A [`Removal`] restores them.
    pub fn replaced(&self, additions: &[Addition]) -> BTreeMap<String, String> {
        let plan = self.tree().and_then(|tree| {
            let style = insert::style(self.text, tree);
            insert::plan(self, tree, style, &Addition::pairs(additions), &mut Prints::default())
        });
        // A document that cannot be edited is reprinted, and so are these values.
        let printed = |addition: &Addition| {
            let value = self.overwritten(&addition.path).filter(|value| !remove::is_empty(value))?;
            Some((addition.path.clone(), format!(" {}", print::flow(value))))
        };
        let Ok(mut plan) = plan else { return additions.iter().filter_map(printed).collect() };
        // A merge key gives the value again once the addition is removed, unless the document is printed without it.
        let is_merged = |addition: &&Addition| self.tree().is_ok_and(|tree| tree.merged(&addition.path).is_some());
        for (path, text) in additions.iter().filter(is_merged).filter_map(printed) {
            plan.replaced.entry(path).or_insert(text);
        }
        plan.replaced
    }

    /// The values that merge keys give fields that are written beside them: what is left when the fields are removed.
    fn merged(&self, paths: &[String]) -> Vec<(String, Value)> {
        let Ok(tree) = self.tree() else { return Vec::new() };
        paths.iter().filter_map(|path| Some((path.clone(), tree.merged(path)?))).collect()
    }

    /// Prints a value in place of the document, with its marker.
    fn print(&self, value: &Value) -> String {
        let line_break = edit::line_break(self.text, 0);
        if self.is_item() {
            return self.print_item(value, line_break);
        }
        let lines = match self.format {
            Format::Json => print::flow_lines(value, "", "  "),
            Format::Yaml => print::document(value),
        };
        let marker = if self.text.trim_start_matches('\u{feff}').starts_with("---") { "---" } else { "" };
        let end = if self.text.ends_with('\n') { line_break } else { "" };
        let head = if marker.is_empty() { String::new() } else { format!("{marker}{line_break}") };
        format!("{head}{}{end}", lines.join(line_break))
    }

    /// Prints an item where it stands in its List.
    fn print_item(&self, value: &Value, line_break: &str) -> String {
        let content = self.text.trim_start();
        let (before, from) = (&self.text[..self.text.len() - content.len()], self.text.len() - content.len());
        let column = edit::column(self.text, from);
        let lines = match self.format {
            Format::Json => print::flow_lines(value, &" ".repeat(column), "  "),
            Format::Yaml => print::item(&value[0], column, Style { step: 2, dash: 0 }),
        };
        let (before, end) = match self.format {
            Format::Json => (before, ""),
            Format::Yaml => ("", if self.text.ends_with('\n') { line_break } else { "" }),
        };
        format!("{before}{}{end}", lines.join(line_break))
    }

    fn reprinted<'a>(&self, value: &Value, reason: &NotEditable) -> Edited<'a> {
        Edited { text: Text::new(self.print(value).into()), reprinted: Some(reason.to_string()) }
    }
}

impl Editor {
    /// Adds values to a document.
    ///
    /// # Panics
    /// The parent of an addition neither exists nor is added before it.
    pub fn add<'a>(&mut self, document: &Document<'a>, additions: &[Addition]) -> Edited<'a> {
        self.added(document, additions).unwrap_or_else(|reason| {
            let mut expected = document.value.clone();
            insert::apply(&mut expected, &Addition::pairs(additions));
            document.reprinted(&expected, &reason)
        })
    }

    fn added<'a>(&mut self, document: &Document<'a>, additions: &[Addition]) -> Result<Edited<'a>, NotEditable> {
        let tree = document.tree()?;
        let style = insert::style(document.text, tree);
        let light: Vec<Cow<'_, Value>> =
            additions.iter().map(|addition| self.lightened(addition, additions, style)).collect();
        let light: Vec<(&str, &Value)> =
            additions.iter().zip(&light).map(|(addition, value)| (addition.path.as_str(), value.as_ref())).collect();
        let check = insert::plan(document, tree, style, &light, &mut self.prints)?;
        let mut expected = document.value.clone();
        insert::apply(&mut expected, &light);
        let check = edit::apply(document.text, check.edits, Arc::from).to_string();
        if !is_read_as(&check, document.format, &expected) {
            return Err(reads_differently());
        }
        let plan = insert::plan(document, tree, style, &Addition::pairs(additions), &mut self.prints)?;
        let text = edit::apply(document.text, plan.edits, |text| self.share(text));
        Ok(Edited { text, reprinted: None })
    }

    /// Removes values from a document.
    pub fn remove<'a>(&mut self, document: &Document<'a>, removal: &Removal) -> Edited<'a> {
        let mut expected = document.value.clone();
        let merged = document.merged(&removal.paths);
        let removal = removal.beside(&merged);
        for (path, value) in &merged {
            if let Some(field) = pointer::get_mut(&mut expected, path) {
                field.clone_from(value);
            }
        }
        removal.without(&merged).apply(&mut expected);
        let wanted = pruned(&expected);
        let text = remove::plan(document, &removal).and_then(|edits| {
            let text = edit::apply(document.text, edits, |text| self.share(text));
            match value(&text.to_string()).is_some_and(|value| pruned(&value) == wanted) {
                true => Ok(text),
                false => Err(reads_differently()),
            }
        });
        match text {
            Ok(text) => Edited { text, reprinted: None },
            Err(reason) => document.reprinted(&expected, &reason),
        }
    }

    /// The same piece for the same text.
    fn share(&mut self, text: String) -> Arc<str> {
        if text.len() < WORTH_SHARING {
            return text.into();
        }
        if let Some(shared) = self.shared.get(text.as_str()) {
            return shared.clone();
        }
        if self.shared.len() >= MAX_REMEMBERED {
            self.shared.clear();
        }
        let shared: Arc<str> = text.into();
        self.shared.insert(shared.clone());
        shared
    }

    /// The value of an addition: a stand-in if it is large and printed readably, and no other addition goes into it.
    fn lightened<'v>(&mut self, addition: &'v Addition, all: &[Addition], style: Style) -> Cow<'v, Value> {
        let goes_into = |other: &Addition| {
            let siblings = pointer::split(&addition.path).map_or("", |(parent, _)| parent);
            other.path.strip_prefix(siblings).is_some_and(|rest| rest.matches('/').count() > 1)
        };
        let is_replaced =
            is_large(&addition.value) && !all.iter().any(goes_into) && self.is_readable(&addition.value, style);
        if is_replaced { Cow::Owned(stand_in(&addition.value)) } else { Cow::Borrowed(&addition.value) }
    }

    /// Whether a value reads back as itself in every form it is printed in.
    fn is_readable(&mut self, value: &Value, style: Style) -> bool {
        if self.readable.iter().any(|(known, of)| *of == style && known == value) {
            return true;
        }
        let texts = [
            print::item(value, 0, style).join("\n"),
            format!("- {}", print::flow(value)),
            format!("- {}", print::flow_lines(value, "  ", "  ").join("\n")),
        ];
        let list = Value::Array(vec![value.clone()]);
        let is_read = |text: &String| Tree::read(text).is_ok_and(|tree| tree.is(&list));
        let is_readable = texts.iter().all(is_read);
        if is_readable {
            if self.readable.len() >= MAX_REMEMBERED {
                self.readable.clear();
            }
            self.readable.push((value.clone(), style));
        }
        is_readable
    }
}

/// Whether a collection has several children, or one that has: a stand-in is smaller then.
fn is_large(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.len() > 1 || fields.values().any(is_large),
        Value::Array(items) => items.len() > 1 || items.iter().any(is_large),
        _ => false,
    }
}

/// A value with the first child of each collection alone, which is printed in the same style.
fn stand_in(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().take(1).map(|(key, value)| (key.clone(), stand_in(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().take(1).map(stand_in).collect(),
        value => value.clone(),
    }
}

fn reads_differently() -> NotEditable {
    NotEditable::Unknown("the edited text would read differently".to_owned())
}

/// The value of a text that is one document.
fn value(text: &str) -> Option<Value> {
    let mut read = chunks(text).into_iter().next()?.read().ok()?;
    (chunks(text).len() == 1 && read.len() == 1).then(|| read.swap_remove(0).value)
}

/// Whether a text is one document with the expected value.
fn is_read_as(text: &str, format: Format, expected: &Value) -> bool {
    match format {
        Format::Json => value(text).is_some_and(|value| value == *expected),
        Format::Yaml => chunks(text).len() == 1 && Tree::read(text).is_ok_and(|tree| tree.is(expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents;
    use serde_json::json;

    /// Adds values to a text; the edited text, or why it is reprinted.
    fn added(text: &str, additions: &[(&str, Value)]) -> Result<String, String> {
        let additions: Vec<_> =
            additions.iter().map(|(path, value)| Addition { path: (*path).to_owned(), value: value.clone() }).collect();
        let document = documents(text).next().unwrap().unwrap();
        let Edited { text, reprinted } = Editor::default().add(&document, &additions);
        reprinted.map_or(Ok(text.to_string()), Err)
    }

    #[test]
    fn nulls_and_empty_collections_get_their_first_children() {
        let rows = [
            ("a:\nb: 1\n", "a:\n  k: v\nb: 1\n"),
            ("a: # c\nb: 1\n", "a: # c\n  k: v\nb: 1\n"),
            ("a: ~ # c\nb: 1\n", "a: # c\n  k: v\nb: 1\n"),
            ("a: {} # c\nb: 1\n", "a: # c\n  k: v\nb: 1\n"),
            ("a:\n  {}\nb: 1", "a:\n  k: v\nb: 1"),
            ("b: 1\na:", "b: 1\na:\n  k: v"),
            ("b: 1\r\na: {}\r\n", "b: 1\r\na:\r\n  k: v\r\n"),
            ("{a: {}, b: 1}", "{a: {\"k\": \"v\"}, b: 1}"),
            ("{\"a\": null, \"b\": 1}", "{\"a\": {\"k\": \"v\"}, \"b\": 1}"),
            ("{\"b\": 1, \"a\": null}", "{\"b\": 1, \"a\": {\"k\": \"v\"}}"),
            ("{\"b\": 1}", "{\"b\": 1, \"a\": {\"k\": \"v\"}}"),
            ("{\n\t\"b\": 1\n}", "{\n\t\"b\": 1,\n\t\"a\": {\n\t\t\"k\": \"v\"\n\t}\n}"),
        ];
        let with_key = |text: &str| {
            let exists = documents(text).next().unwrap().unwrap().value["a"].is_object();
            let created = (!exists).then(|| ("/a", json!({})));
            let additions: Vec<_> = created.into_iter().chain([("/a/k", json!("v"))]).collect();
            added(text, &additions)
        };
        let removed = |text: &str, after: &str| {
            let exists = documents(text).next().unwrap().unwrap().value["a"].is_object();
            let additions = [("/a", json!({})), ("/a/k", json!("v"))]
                .map(|(path, value)| Addition { path: path.to_owned(), value });
            let additions = if exists { &additions[1..] } else { &additions[..] };
            let replaced = documents(text).next().unwrap().unwrap().replaced(additions);
            let if_empty = (!exists).then(|| "/a".to_owned()).into_iter().collect();
            let removal = Removal { paths: vec!["/a/k".to_owned()], if_empty, replaced };
            let back = Editor::default().remove(&documents(after).next().unwrap().unwrap(), &removal);
            (back.text.to_string(), back.reprinted)
        };
        let mut wrong = Vec::new();
        for (text, after) in rows {
            let (found, back) = (with_key(text), removed(text, after));
            if found.as_deref() != Ok(after) || back != (text.to_owned(), None) {
                wrong.push((text, found, back));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
