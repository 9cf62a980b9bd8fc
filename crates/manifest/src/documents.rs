//! Splits a text into documents, and reads each.

use ebb_config::yaml;
use serde_json::Value;
use std::ops::Range;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, or JSON among YAML documents.
    Yaml,
    /// JSON objects in a row.
    Json,
}

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// The document with its marker and comments.
    pub text: &'a str,
    /// How it is written.
    pub format: Format,
    /// The content; null if there is none.
    pub value: Value,
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
    split(text).into_iter().map(|range| Chunk(&text[range])).collect()
}

/// A part of a text that can be read without the others.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a>(&'a str);

impl<'a> Chunk<'a> {
    /// Reads its documents. A chunk that starts with a brace is read as JSON if it is JSON.
    ///
    /// # Errors
    /// With the numbers of document and line in this chunk.
    pub fn read(&self) -> Result<Vec<Document<'a>>, ReadError> {
        let yaml = || Ok(vec![Document { text: self.0, format: Format::Yaml, value: read(self.0)? }]);
        match json(self.0) {
            Ok(Some(values)) => {
                let document = |(text, value)| Document { text, format: Format::Json, value };
                Ok(values.into_iter().map(document).collect())
            }
            Ok(None) => yaml(),
            // What follows an object may be a comment.
            Err(error) => yaml().map_err(|_: ReadError| error),
        }
    }

    /// Its text.
    pub fn text(&self) -> &'a str {
        self.0
    }

    /// Number of line breaks.
    pub fn lines(&self) -> usize {
        self.0.matches('\n').count()
    }
}

impl ReadError {
    /// The error of a chunk, as one of the whole text with so many documents and lines before the chunk.
    #[must_use]
    pub fn after(mut self, documents: usize, lines: usize) -> Self {
        let (Self::NotYaml { document, line, .. }
        | Self::NotJson { document, line, .. }
        | Self::Unrendered { document, line }) = &mut self;
        (*document, *line) = (*document + documents, *line + lines);
        self
    }
}

/// Reads one YAML document.
fn read(text: &str) -> Result<Value, ReadError> {
    let placeholder = || {
        let at = text.lines().position(|line| line.split('#').next().unwrap_or_default().contains("{{"))?;
        Some(ReadError::Unrendered { document: 1, line: 1 + at })
    };
    match yaml::manifests::<Value>(text) {
        Ok(mut values) => match values.len() {
            0 => Ok(Value::Null),
            _ => Ok(values.swap_remove(0)),
        },
        Err(error) => Err(placeholder().unwrap_or_else(|| {
            let problem = error.to_string();
            let problem = problem.strip_prefix("not YAML: ").unwrap_or(&problem);
            let (problem, line) = problem
                .rsplit_once(" at line ")
                .and_then(|(problem, place)| Some((problem, place.split(',').next()?.parse::<usize>().ok()?)))
                .unwrap_or((problem, 1));
            ReadError::NotYaml { document: 1, line, problem: problem.to_owned() }
        })),
    }
}

/// JSON objects in a row, with what follows each up to the next; `None` if the text does not start with one.
fn json(text: &str) -> Result<Option<Vec<(&str, Value)>>, ReadError> {
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        return Ok(None);
    }
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut stream = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    let mut found: Vec<(usize, Value)> = Vec::new();
    while let Some(value) = stream.next() {
        match value {
            Ok(value) => found.push((start + stream.byte_offset(), value)),
            Err(_) if found.is_empty() => return Ok(None),
            Err(error) => {
                let problem = error.to_string();
                let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
                return Err(ReadError::NotJson { document: found.len() + 1, line: error.line(), problem });
            }
        }
    }
    let mut from = 0;
    let Some(last) = found.len().checked_sub(1) else { return Ok(None) };
    let texts = found.into_iter().enumerate().map(|(at, (end, value))| {
        let end = if at == last { text.len() } else { end };
        let part = &text[from..end];
        from = end;
        (part, value)
    });
    Ok(Some(texts.collect()))
}

/// The ranges of the documents: each starts at its marker `---`, or after the marker `...` of the one before. At the
/// start of a line, these markers have this meaning in every context (YAML 1.2, section 9.1).
fn split(text: &str) -> Vec<Range<usize>> {
    let is_marker = |line: &str, marker: &str| {
        line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
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
            ("x: 1\n...\n{\"a\": 1}{\"b\": 1", "document 3, line 3: not JSON: EOF while parsing an object"),
        ]);
        let rows: Vec<_> = rows.collect();
        let errors = |text| documents(text).filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>();
        let found: Vec<_> = rows.iter().map(|(text, _)| errors(text)).collect();
        let expected: Vec<_> = rows.iter().map(|(_, error)| vec![(*error).to_owned()]).collect();
        assert_eq!(found, expected);
    }
}
