//! A document after an edit.

use crate::documents::{Document, Format, documents};
use crate::insert::{self, Addition};
use crate::remove::{self, Removal, pruned};
use crate::tree::{NotEditable, Tree};
use crate::{edit, pointer, print};
use serde_json::Value;
use std::collections::BTreeMap;

/// A document after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// Why the document is reprinted, if it is: comments and format are lost then.
    pub reprinted: Option<String>,
}

impl Document<'_> {
    /// A key that stands before a merge key `<<` with the same key. In `kubectl` the merge key wins, here the key; so the
    /// document means something else there.
    pub fn overridden_key(&self) -> Option<String> {
        // Reading the spans costs as much as reading the document.
        self.text.contains("<<").then(|| Tree::read(self.text).ok()?.overridden).flatten()
    }

    /// The texts that additions would replace, by JSON pointer: an empty collection or a null that is written, with the
    /// spaces between it and the colon. A [`Removal`] restores them.
    pub fn replaced(&self, additions: &[Addition]) -> BTreeMap<String, String> {
        // Most documents have none, and reading the spans costs as much as reading the document.
        let is_candidate = |path: &str| self.value.pointer(path).is_some_and(remove::is_empty);
        let is_below = |path: &str| pointer::split(path).is_some_and(|(parent, _)| is_candidate(parent));
        if !additions.iter().any(|addition| is_candidate(&addition.path) || is_below(&addition.path)) {
            return BTreeMap::new();
        }
        insert::plan(self, additions).map(|plan| plan.replaced).unwrap_or_default()
    }

    /// Adds values.
    ///
    /// # Panics
    /// The parent of an addition neither exists nor is added before it.
    pub fn add(&self, additions: &[Addition]) -> Edited {
        let mut expected = self.value.clone();
        insert::apply(&mut expected, additions);
        let edits = insert::plan(self, additions).map(|plan| plan.edits);
        self.edited(edits, &expected, |value| *value == expected)
    }

    /// Removes values.
    pub fn remove(&self, removal: &Removal) -> Edited {
        let mut expected = self.value.clone();
        removal.apply(&mut expected);
        let wanted = pruned(&expected);
        self.edited(remove::plan(self, removal), &expected, |value| pruned(value) == wanted)
    }

    /// Applies edits, and reads the result again. If it is not what it should be, prints the expected value.
    fn edited(
        &self,
        edits: Result<Vec<edit::Edit>, NotEditable>,
        expected: &Value,
        is_expected: impl Fn(&Value) -> bool,
    ) -> Edited {
        let edited = edits.and_then(|edits| {
            let text = edit::apply(self.text, edits);
            match is_read_as(&text, is_expected) {
                true => Ok(text),
                false => Err(NotEditable::Unknown("the edited text would read differently".to_owned())),
            }
        });
        match edited {
            Ok(text) => Edited { text, reprinted: None },
            Err(reason) => Edited { text: self.print(expected), reprinted: Some(reason.to_string()) },
        }
    }

    /// Prints a value in place of the document, with its marker.
    fn print(&self, value: &Value) -> String {
        let line_break = edit::line_break(self.text, 0);
        let lines = match self.format {
            Format::Json => print::flow_lines(value, "", "  "),
            Format::Yaml => print::document(value),
        };
        let marker = if self.text.trim_start_matches('\u{feff}').starts_with("---") { "---" } else { "" };
        let end = if self.text.ends_with('\n') { line_break } else { "" };
        let head = if marker.is_empty() { String::new() } else { format!("{marker}{line_break}") };
        format!("{head}{}{end}", lines.join(line_break))
    }
}

/// Whether a text is one document with the expected value.
fn is_read_as(text: &str, is_expected: impl Fn(&Value) -> bool) -> bool {
    let mut read = documents(text);
    let first = read.next();
    read.next().is_none() && first.is_some_and(|document| document.is_ok_and(|document| is_expected(&document.value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Adds values to a text; the edited text, or why it is reprinted.
    fn added(text: &str, additions: &[(&str, Value)]) -> Result<String, String> {
        let additions: Vec<_> =
            additions.iter().map(|(path, value)| Addition { path: (*path).to_owned(), value: value.clone() }).collect();
        let document = documents(text).next().unwrap().unwrap();
        let Edited { text, reprinted } = document.add(&additions);
        reprinted.map_or(Ok(text), Err)
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
            documents(after).next().unwrap().unwrap().remove(&removal)
        };
        let mut wrong = Vec::new();
        for (text, after) in rows {
            let (found, back) = (with_key(text), removed(text, after));
            if found.as_deref() != Ok(after) || back != (Edited { text: text.to_owned(), reprinted: None }) {
                wrong.push((text, found, back));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
