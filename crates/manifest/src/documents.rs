//! Splits a text into documents, and reads each.

use crate::json::{self, Json};
use crate::kinds::{Found, PodPath, search};
use crate::lists::{self, ListOf, Part};
use crate::tree::{NotEditable, Problem, Tree};
use serde_json::Value;
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, or JSON among YAML documents.
    Yaml,
    /// JSON objects in a row.
    Json,
}

/// One document of a text, or one item of a List.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// The document with its marker and comments.
    pub text: &'a str,
    /// How it is written.
    pub format: Format,
    /// The content; null if there is none. A YAML item is written with its dash, so it is a list of one.
    pub value: Value,
    /// The List that it is an item of.
    item_of: Option<Arc<ListOf>>,
    /// YAML is read as a tree; JSON becomes one when it is edited.
    tree: OnceCell<Result<Tree<'a>, NotEditable>>,
}

impl<'a> Document<'a> {
    fn new(text: &'a str, format: Format, value: Value) -> Self {
        Self { text, format, value, item_of: None, tree: OnceCell::new() }
    }

    /// Reads a text that is one document.
    pub(crate) fn read(text: &'a str, format: Format) -> Option<Self> {
        match format {
            Format::Yaml => yaml(text).ok(),
            Format::Json => match json::read(text) {
                Json::Objects(mut objects) if objects.len() == 1 => {
                    let (text, value) = objects.swap_remove(0);
                    Some(Self::new(text, format, value))
                }
                _ => None,
            },
        }
    }

    /// A text that has none.
    pub(crate) fn without_content(text: &'a str, format: Format) -> Self {
        Self::new(text, format, Value::Null)
    }

    /// The same as an item of a List; `None` if it is no such item.
    pub(crate) fn in_list(mut self, list: Arc<ListOf>) -> Option<Self> {
        self.item_of = Some(list);
        let is_one = match self.format {
            Format::Yaml => self.value.as_array().is_some_and(|items| items.len() == 1),
            Format::Json => self.value.is_object(),
        };
        is_one.then_some(self)
    }

    /// Whether it is an item of a List.
    pub(crate) fn is_item(&self) -> bool {
        self.item_of.is_some()
    }

    /// The objects in it: one, or the items of a List, each with its JSON pointer, and the API version and kind of the items
    /// that do not name theirs.
    fn root(&self) -> (&Value, &'static str, Option<(&str, &str)>) {
        let Some(list) = &self.item_of else { return (&self.value, "", None) };
        let kind = Some((list.version.as_str(), list.kind.as_str())).filter(|(_, kind)| !kind.is_empty());
        match self.format {
            Format::Yaml => (&self.value[0], "/0", kind),
            Format::Json => (&self.value, "", kind),
        }
    }

    /// The objects of the document: those of a List, or the one that it is.
    pub fn objects(&self) -> &[Value] {
        let (root, ..) = self.root();
        root["items"].as_array().map_or(std::slice::from_ref(root), Vec::as_slice)
    }

    /// Finds the objects with pods. `more` are paths for kinds that are not known; they are searched in every object of such
    /// a kind.
    pub fn pods(&self, more: &[PodPath]) -> Vec<Found> {
        let (root, at, kind) = self.root();
        let mut found = Vec::new();
        search(root, at, kind, more, &mut found);
        found
    }

    /// The places of its nodes.
    pub(crate) fn tree(&self) -> Result<&Tree<'a>, NotEditable> {
        if self.format == Format::Yaml && has_bare_returns(self.text) {
            return Err(NotEditable::Unknown("a line ends with a carriage return alone".to_owned()));
        }
        let read = || Tree::read(self.text).map_err(|problem| NotEditable::Unknown(problem.sentence));
        self.tree.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not YAML, or above a bound.
    #[error("document {document}, line {line}: not YAML: {problem}")]
    NotYaml {
        /// Number of the document, from 1.
        document: usize,
        /// Line of the text, from 1.
        line: usize,
        /// The parser's sentence.
        problem: String,
    },
    /// JSON objects, and then something else.
    #[error("document {document}, line {line}: not JSON: {problem}")]
    NotJson {
        /// Number of the document, from 1.
        document: usize,
        /// Line of the text, from 1.
        line: usize,
        /// The parser's sentence.
        problem: String,
    },
    /// An object that Kubernetes refuses.
    #[error("document {document}, line {line}: {problem}")]
    Malformed {
        /// Number of the document, from 1.
        document: usize,
        /// Line of the text, from 1.
        line: usize,
        /// The object, the field and what it must be.
        problem: String,
    },
    /// Placeholders of a template engine.
    #[error(
        "document {document}, line {line}: an unrendered template (`{{{{ … }}}}`); render it first, for example with \
         `helm template`"
    )]
    Unrendered {
        /// Number of the document, from 1.
        document: usize,
        /// Line of the first placeholder, from 1.
        line: usize,
    },
}

/// Reads the documents of a text one by one. Their texts in a row are the whole text.
pub fn documents(text: &str) -> impl Iterator<Item = Result<Document<'_>, ReadError>> {
    let (mut number, mut lines) = (0, 0);
    chunks(text).into_iter().flat_map(move |chunk| {
        let (documents, line) = (chunk.read(), lines);
        lines += chunk.lines();
        let before = number;
        number += documents.as_ref().map_or(1, Vec::len);
        match documents {
            Ok(documents) => documents.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error.after(before, line))],
        }
    })
}

/// The parts of a text that can be read without the others: one YAML document, or JSON objects in a row.
pub fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut is_ended = false;
    let chunk = |range: Range<usize>| {
        let text = &text[range];
        let chunk = Chunk { text, is_after_end: is_ended };
        is_ended = text.lines().next_back().is_some_and(|line| is_marker(line, "..."));
        chunk
    };
    split(text).into_iter().map(chunk).collect()
}

/// A part of a text that can be read without the others.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    text: &'a str,
    /// Whether the marker `...` stands before it.
    is_after_end: bool,
}

impl<'a> Chunk<'a> {
    /// Reads its documents. A chunk that starts with a brace is read as JSON if it is JSON.
    ///
    /// # Errors
    /// With the numbers of document and line in this chunk.
    pub fn read(&self) -> Result<Vec<Document<'a>>, ReadError> {
        let text = self.text;
        self.check_start()?;
        match json::read(text) {
            Json::Objects(objects) => {
                let document = |(text, value)| Document::new(text, Format::Json, value);
                Ok(objects.into_iter().map(document).collect())
            }
            Json::Not => yaml(text).map(|document| vec![document]),
            Json::Wrong { document, line, problem } => Err(ReadError::NotJson { document, line, problem }),
        }
    }

    /// Splits Lists into their items, which can be read one by one.
    pub fn parts(&self) -> Vec<Part<'a>> {
        lists::parts(*self, !self.is_after_end && !has_bare_returns(self.text))
    }

    /// `kubectl` ignores what stands between the marker `...` and the next `---`.
    fn check_start(&self) -> Result<(), ReadError> {
        let mut lines = self.text.lines().enumerate();
        let first = lines.find(|(_, line)| !line.trim().is_empty() && !line.starts_with(['#', '%']));
        match first.filter(|(_, line)| self.is_after_end && !is_marker(line, "---") && !is_marker(line, "...")) {
            None => Ok(()),
            Some((at, _)) => Err(ReadError::NotYaml {
                document: 1,
                line: 1 + at,
                problem: "kubectl ignores what follows the marker `...`; start a document with `---`".to_owned(),
            }),
        }
    }

    /// Its text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Number of line breaks.
    pub fn lines(&self) -> usize {
        self.text.matches('\n').count()
    }
}

impl ReadError {
    /// The number of its document, from 1.
    pub fn document(&self) -> usize {
        let (Self::NotYaml { document, .. }
        | Self::NotJson { document, .. }
        | Self::Malformed { document, .. }
        | Self::Unrendered { document, .. }) = self;
        *document
    }

    /// The error of a chunk, as one of the whole text with so many documents and lines before the chunk.
    #[must_use]
    pub fn after(mut self, documents: usize, lines: usize) -> Self {
        let (Self::NotYaml { document, line, .. }
        | Self::NotJson { document, line, .. }
        | Self::Malformed { document, line, .. }
        | Self::Unrendered { document, line }) = &mut self;
        (*document, *line) = (*document + documents, *line + lines);
        self
    }
}

/// Reads one YAML document.
fn yaml(text: &str) -> Result<Document<'_>, ReadError> {
    check_line_breaks(text)?;
    let read = Tree::read(text).and_then(|tree| Ok((tree.value()?, tree)));
    match read {
        Ok((value, tree)) => {
            Ok(Document { tree: OnceCell::from(Ok(tree)), ..Document::new(text, Format::Yaml, value) })
        }
        Err(Problem { line, sentence }) => {
            let is_placeholder = |line: &str| line.split('#').next().unwrap_or_default().contains("{{");
            Err(match text.lines().position(is_placeholder) {
                Some(at) => ReadError::Unrendered { document: 1, line: 1 + at },
                None => ReadError::NotYaml { document: 1, line, problem: sentence },
            })
        }
    }
}

/// Whether lines end with carriage returns alone, except for the last one. They are line breaks in YAML, and edits go by
/// line feeds.
fn has_bare_returns(text: &str) -> bool {
    let text = text.strip_suffix('\r').unwrap_or(text);
    text.match_indices('\r').any(|(at, _)| !text[at..].trim_start_matches('\r').starts_with('\n'))
}

/// Refuses characters that `kubectl` takes for line breaks, which have no such meaning since YAML 1.2.
fn check_line_breaks(text: &str) -> Result<(), ReadError> {
    let Some((at, found)) = text.char_indices().find(|(_, c)| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')) else {
        return Ok(());
    };
    let code = found as u32;
    let problem = format!("kubectl takes U+{code:04X} for a line break; write it as \"\\u{code:04x}\"");
    Err(ReadError::NotYaml { document: 1, line: 1 + text[..at].matches('\n').count(), problem })
}

/// Whether a line has a marker. At the start of a line it has this meaning in every context (YAML 1.2, section 9.1).
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The ranges of the documents: each starts at its marker `---`, or after the marker `...` of the one before.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let from = at;
        at += line.len();
        if is_marker(line, "---") && !is_preamble(&text[*starts.last().expect("it is not empty")..from]) {
            starts.push(from);
        } else if is_marker(line, "...") && at < text.len() {
            starts.push(at);
        }
    }
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Whether a text before a marker belongs to the document of that marker: it is empty, or has directives.
fn is_preamble(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines();
    text.is_empty()
        || (text.lines().any(|line| line.starts_with('%'))
            && lines.all(|line| line.trim().is_empty() || line.starts_with(['%', '#'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(text: &str) -> Vec<String> {
        split(text).into_iter().map(|range| text[range].to_owned()).collect()
    }

    #[test]
    fn documents_start_at_their_markers() {
        let rows: [(&str, &[&str]); 9] = [
            ("", &[""]),
            ("a: 1", &["a: 1"]),
            ("---\na: 1\n---\nb: 1\n", &["---\na: 1\n", "---\nb: 1\n"]),
            ("# c\n---\na: 1\n", &["# c\n", "---\na: 1\n"]),
            ("%YAML 1.1\n# c\n---\na: 1\n", &["%YAML 1.1\n# c\n---\na: 1\n"]),
            ("a: 1\r\n--- # x\r\nb: 1", &["a: 1\r\n", "--- # x\r\nb: 1"]),
            ("a: 1\n...\nb: 1\n", &["a: 1\n...\n", "b: 1\n"]),
            ("a: |\n  ---\n  ----\nb: ----\n", &["a: |\n  ---\n  ----\nb: ----\n"]),
            ("a: 1\n...\n---\nb: 1\n...\n", &["a: 1\n...\n", "---\nb: 1\n...\n"]),
        ];
        let wrong: Vec<_> = rows.iter().map(|(text, parts)| (texts(text), *parts)).filter(|(a, b)| a != b).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn json_objects_in_a_row_are_documents() {
        let rows = [
            (
                "{\"a\": 1}{\"b\": \"\\ud83d\\ude00\"}\n{\"c\": [1,\n\t2]}\n",
                vec![
                    (Format::Json, json!({"a": 1})),
                    (Format::Json, json!({"b": "😀"})),
                    (Format::Json, json!({"c": [1, 2]})),
                ],
            ),
            ("{a: yes}\n---\n{\"b\": 1}\n", vec![(Format::Yaml, json!({"a": true})), (Format::Yaml, json!({"b": 1}))]),
            ("{\"a\": 1}\n# c\n{\"b\": 1}", vec![(Format::Json, json!({"a": 1})), (Format::Json, json!({"b": 1}))]),
            ("\u{feff}{\"a\": 1}\n", vec![(Format::Json, json!({"a": 1}))]),
            ("# nothing\n---\na: 0644\n", vec![(Format::Yaml, json!(null)), (Format::Yaml, json!({"a": 420}))]),
        ];
        let mut wrong = Vec::new();
        for (text, expected) in rows {
            let found: Vec<_> = documents(text).map(|document| document.unwrap()).collect();
            let whole: String = found.iter().map(|document| document.text).collect();
            let found: Vec<_> = found.into_iter().map(|document| (document.format, document.value)).collect();
            if found != expected || whole != text {
                wrong.push((text, whole, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn errors_name_document_and_line() {
        let rows = [
            ("a: 1\n---\nb: [\n", "document 2, line 3: not YAML: unclosed bracket '['"),
            ("a: 1\na: 2\n", "document 1, line 2: not YAML: duplicate mapping key `a` is not allowed here"),
            (
                "a: 1\n---\nb: x\nc: {{ .Values.c }}\n",
                "document 2, line 4: an unrendered template (`{{ … }}`); render it first, for example with `helm template`",
            ),
            (
                "{{- if .Values.a }}\na: 1\n{{- end }}\n",
                "document 1, line 1: an unrendered template (`{{ … }}`); render it first, for example with `helm template`",
            ),
        ];
        let rows = rows.into_iter().chain([
            ("{\"a\": 1}\n{\n\"b\": }\n", "document 2, line 3: not JSON: expected value"),
            ("{\"a\": 1}\n{\"b\": 1", "document 2, line 2: not JSON: EOF while parsing an object"),
            (
                "a: 1\n...\n# c\nb: 1\n",
                "document 2, line 4: not YAML: kubectl ignores what follows the marker `...`; start a document with `---`",
            ),
            (
                "a: 1\nb: x\u{2028}c: 1\n",
                "document 1, line 2: not YAML: kubectl takes U+2028 for a line break; write it as \"\\u2028\"",
            ),
            ("a: 1\nb: {<<: 1}\n", "document 1, line 2: not YAML: the merge key << needs a mapping, or a list of mappings"),
            ("{\"a\": 1,\n\"a\": 2}", "document 1, line 2: not JSON: duplicate key `a`"),
            ("1: a\n\"1\": b\n", "document 1, line 2: not YAML: duplicate mapping key `1` is not allowed here"),
            ("a: 1\n~: b\n", "document 1, line 2: not YAML: null cannot be a key; put it in quotes"),
            ("a: .inf\n", "document 1, line 1: not YAML: JSON has no number .inf"),
        ]);
        let rows: Vec<_> = rows.collect();
        let errors = |text| documents(text).filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>();
        let found: Vec<_> = rows.iter().map(|(text, _)| errors(text)).collect();
        let expected: Vec<_> = rows.iter().map(|(_, error)| vec![(*error).to_owned()]).collect();
        assert_eq!(found, expected);
    }
}
