//! Splits Lists into their items, which are read and edited one by one: a List of a whole cluster needs little more
//! memory than its text, and an item that cannot be edited as text is reprinted alone.
//!
//! The split goes by lines and indentation, and knows no quotes. That is safe: a part that begins or ends inside a quoted
//! text, a flow collection or an alias cannot be read, and then the whole document is read instead.

use crate::documents::{Chunk, Document, Format};
use crate::json;
use serde_json::Value;
use serde_json::value::RawValue;
use std::ops::Range;
use std::sync::Arc;

/// A part of a chunk. The texts of the parts in a row are the chunk's text.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Its text.
    pub text: &'a str,
    is: Is<'a>,
    /// Whether a document starts here.
    pub is_first: bool,
}

#[derive(Clone, Debug)]
enum Is<'a> {
    /// All of a chunk.
    Chunk(Chunk<'a>),
    /// A JSON object.
    Object,
    /// An item of a List: the item with its dash, or a JSON object with the spaces before it.
    Item(Format, Arc<ListOf>),
    /// What stands between the items.
    Rest(Format),
}

/// The kind of a List.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListOf {
    /// API version of the List.
    pub(crate) version: String,
    /// Kind of the items that name none; empty for a List of anything.
    pub(crate) kind: String,
}

impl<'a> Part<'a> {
    /// Reads the documents of the part; an item is one, too. `None` if it cannot be read alone: then read the chunk, which
    /// has no error, or one with its place.
    pub fn read(&self) -> Option<Vec<Document<'a>>> {
        let document = match &self.is {
            Is::Chunk(chunk) => return chunk.read().ok(),
            Is::Object => Document::read(self.text, Format::Json)?,
            Is::Item(format, list) => Document::read(self.text, *format)?.in_list(list.clone())?,
            Is::Rest(format) => Document::without_content(self.text, *format),
        };
        Some(vec![document])
    }
}

/// Splits a chunk.
pub(crate) fn parts<'a>(chunk: Chunk<'a>, can_split: bool) -> Vec<Part<'a>> {
    let text = chunk.text();
    let split = || match text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        true => json_parts(text),
        false => yaml_parts(text),
    };
    let whole = || vec![Part { text, is: Is::Chunk(chunk), is_first: true }];
    can_split.then(split).flatten().unwrap_or_else(whole)
}

/// What kind of List an object is, from its fields without the items.
fn list_of(frame: &Value) -> Option<ListOf> {
    let text = |field: &str| frame[field].as_str();
    let kind = text("kind")?.strip_suffix("List")?.to_owned();
    Some(ListOf { version: text("apiVersion").unwrap_or_default().to_owned(), kind })
}

/// The parts of a YAML document whose items stand below a line `items:`, each with a dash at one indentation.
fn yaml_parts(text: &str) -> Option<Vec<Part<'_>>> {
    let mut lines = text.split_inclusive('\n').scan(0, |at, line| {
        let from = *at;
        *at += line.len();
        Some((from, line))
    });
    let is_key = |line: &str| {
        let after = line.strip_prefix("items:").unwrap_or("x");
        after.trim().is_empty() || after.starts_with(' ') && after.trim_start().starts_with('#')
    };
    lines.by_ref().take_while(|(_, line)| !line.starts_with('%')).find(|(_, line)| is_key(line))?;
    let (mut starts, mut column, mut end) = (Vec::new(), None, text.len());
    for (at, line) in lines {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let has_dash = content.strip_prefix('-').is_some_and(|rest| rest.starts_with([' ', '\r', '\n']));
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        } else if has_dash && column.is_none_or(|column| column == indent) {
            column = Some(indent);
            starts.push(at);
        } else if column.is_none_or(|column| indent <= column) {
            end = at;
            break;
        }
    }
    let first = *starts.first()?;
    let frame = format!("{}{}", &text[..first], &text[end..]);
    let frame = Document::read(&frame, Format::Yaml)?.value;
    let list = Arc::new(list_of(&frame).filter(|_| frame.get("items").is_some_and(Value::is_null))?);
    let ends = starts.iter().skip(1).copied().chain([end]);
    let items: Vec<_> = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
    let mut parts = Vec::with_capacity(items.len() + 2);
    push_list(&mut parts, text, 0..text.len(), items, Format::Yaml, &list);
    Some(parts)
}

/// The parts of JSON objects in a row, of which some may be Lists.
fn json_parts(text: &str) -> Option<Vec<Part<'_>>> {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let mut parts = Vec::new();
    for object in json::objects(text)? {
        let content = &text[object.clone()];
        let start = |raw: &RawValue| raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let is_list = || {
            let content = content.trim_start_matches('\u{feff}').trim_start();
            serde_json::from_str::<List<'_>>(content.trim_end()).ok().filter(|list| !list.items.is_empty())
        };
        let split = || {
            let items: Vec<_> =
                is_list()?.items.iter().map(|item| start(item)..start(item) + item.get().len()).collect();
            let (first, last) = (items.first()?.start, items.last()?.end);
            let frame = format!("{}{}", &text[object.start..first], &text[last..object.end]);
            let list = list_of(&Document::read(&frame, Format::Json)?.value)?;
            let with_spaces = |item: Range<usize>| text[..item.start].trim_end().len()..item.end;
            let is_object = |item: &Range<usize>| text[item.clone()].starts_with('{');
            items.iter().all(is_object).then(|| (list, items.into_iter().map(with_spaces).collect::<Vec<_>>()))
        };
        match split() {
            Some((list, items)) => push_list(&mut parts, text, object, items, Format::Json, &Arc::new(list)),
            None => parts.push(Part { text: content, is: Is::Object, is_first: true }),
        }
    }
    Some(parts)
}

/// Adds the items of a List, and what stands around them.
fn push_list<'a>(
    parts: &mut Vec<Part<'a>>,
    text: &'a str,
    whole: Range<usize>,
    items: Vec<Range<usize>>,
    format: Format,
    list: &Arc<ListOf>,
) {
    let (mut at, mut is_first, end) = (whole.start, true, whole.end);
    let mut push = |range: Range<usize>, is| {
        if !range.is_empty() {
            parts.push(Part { text: &text[range], is, is_first: std::mem::take(&mut is_first) });
        }
    };
    for item in items {
        push(at..item.start, Is::Rest(format));
        at = item.end;
        push(item, Is::Item(format, list.clone()));
    }
    push(at..end, Is::Rest(format));
}

#[cfg(test)]
mod tests {
    use crate::documents::chunks;

    fn parts(text: &str) -> Vec<&str> {
        let parts: Vec<_> = chunks(text).iter().flat_map(|chunk| chunk.parts()).collect();
        assert!(parts.iter().all(|part| part.read().is_some()), "{text}");
        parts.into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn lists_are_split_into_their_items() {
        let rows: &[(&[&str],)] = &[
            (&["apiVersion: v1\nitems:\n", "- a: 1\n  b: 2\n# c\n", "- {a: 2}\n\n", "kind: List\n"],),
            (&["kind: PodList\nitems: # c\n# d\n", "  - a:\n    - 1\n  # e\n", "  -\n    a: |\n      - x\n"],),
            (&["---\r\nkind: List\r\nitems:\r\n", "- a: 1\r\n", "- b: 1"],),
            (&["{\"kind\": \"List\",\n \"items\": [", "\n  {\"a\": 1}", ",", "\n  {\"b\": [2]}", "\n ]}\n"],),
            (&["{\"items\":[", "{}", ",", "{}", "],\"kind\":\"PodList\"}", "\n{\"kind\": \"Pod\"}\n"],),
        ];
        for (expected,) in rows {
            assert_eq!(parts(&expected.concat()), *expected);
        }
    }

    #[test]
    fn other_documents_stay_whole() {
        let rows = [
            "kind: Pod\nitems:\n- a: 1\n",
            "kind: List\nitems: []\n",
            "kind: List\nitems: [{a: 1}]\n",
            "kind: List\nitems:\n",
            "%YAML 1.1\n---\nkind: List\nitems:\n- a: 1\n",
            "kind: List\nb: \"x\nitems:\n- a: 1\n\"\n",
            "items:\n- a: 1\n",
            "{\"kind\": \"List\", \"items\": []}",
            "{\"kind\": \"List\", \"items\": [1]}",
            "{\"kind\": \"App\", \"items\": [{}]}",
            "{kind: List, items: [{}]}",
        ];
        for text in rows {
            assert_eq!(parts(text), [text]);
        }
    }

    #[test]
    fn a_part_that_depends_on_another_cannot_be_read() {
        let rows = [
            "kind: List\nitems:\n- a: &x 1\n- b: *x\n",
            "kind: List\nmetadata: &x {}\nitems:\n- a: *x\n",
            "kind: List\nitems:\n- a: \"x\n- y\"\n- b: 1\n",
            "kind: List\nitems:\n- a: [1,\n- 2]\n",
            "kind: List\nitems:\n- a: 'x\nkind: List'\n",
            "kind: List\nitems:\n- a: 1\n- {{ .Values.x }}\n",
        ];
        for text in rows {
            let parts = chunks(text)[0].parts();
            assert!(parts.iter().any(|part| part.read().is_none()) || parts.len() == 1, "{text}: {parts:?}");
        }
    }
}
