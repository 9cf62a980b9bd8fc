//! The tree of a document with the place of each node in the text.

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use std::collections::{HashMap, HashSet};

/// A node of a document. Places are bytes of the document's text.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it starts: at the first key or item of a collection in block style.
    pub(crate) start: usize,
    /// Where it ends. What follows on the line is a comment, or belongs to a collection around it.
    pub(crate) end: usize,
    pub(crate) shape: Shape,
    /// Number of its anchor; 0 for none.
    anchor: usize,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Scalar,
    /// Refers to the node with the anchor of this number.
    Alias(usize),
    Mapping {
        is_flow: bool,
        entries: Vec<Entry>,
    },
    Sequence {
        is_flow: bool,
        items: Vec<Node>,
    },
}

/// An entry of a mapping.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key starts.
    pub(crate) start: usize,
    /// Where the key ends.
    pub(crate) key_end: usize,
    pub(crate) value: Node,
}

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotEditable {
    #[error("{0} is an alias, has aliases, or comes from a merge key")]
    Shared(String),
    #[error("{0} is written in a form that cannot be extended")]
    Form(String),
    #[error("its spans are unknown: {0}")]
    Unknown(String),
}

/// The tree of one document, and the anchors that aliases refer to.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: Node,
    /// A key that a merge key after it overrides in kubectl. Other readers, and Ebb's, let it win over every merge key.
    pub(crate) overridden: Option<String>,
    aliased: HashSet<usize>,
}

impl Tree {
    /// Reads the tree of a document.
    pub(crate) fn read(text: &str) -> Result<Self, NotEditable> {
        let options = granit_parser::options! { emit_comments: false };
        let mut builder = Builder {
            text,
            parser: Parser::new_from_str_with_options(text, options),
            aliased: HashSet::new(),
            keys: HashMap::new(),
            overridden: None,
        };
        loop {
            let (event, span) = builder.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                event => {
                    let root = builder.node(event, span)?;
                    return Ok(Self { root, overridden: builder.overridden, aliased: builder.aliased });
                }
            }
        }
    }

    /// Whether other places of the document refer to a node.
    pub(crate) fn is_aliased(&self, node: &Node) -> bool {
        node.anchor != 0 && self.aliased.contains(&node.anchor)
    }
}

impl Node {
    /// The entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.shape {
            Shape::Mapping { entries, .. } => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    aliased: HashSet<usize>,
    /// Keys of the mappings with an anchor, by its number.
    keys: HashMap<usize, Vec<String>>,
    overridden: Option<String>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), NotEditable> {
        let unknown = |problem: String| NotEditable::Unknown(problem);
        let next = self.parser.next().ok_or_else(|| unknown("the document ends early".to_owned()))?;
        next.map_err(|error| unknown(error.to_string()))
    }

    /// Depth is bounded: the parser bounds it, and so did the reader of the value.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, NotEditable> {
        let (start, end) = bytes(&span)?;
        match event {
            Event::Scalar(_, style, anchor, _) => {
                let end = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => self.block_scalar_end(start, end),
                    _ => end,
                };
                Ok(Node { start, end, shape: Shape::Scalar, anchor })
            }
            Event::Alias(anchor) => {
                self.aliased.insert(anchor);
                Ok(Node { start, end, shape: Shape::Alias(anchor), anchor: 0 })
            }
            Event::SequenceStart(style, anchor, _) => {
                let (mut items, mut last) = (Vec::new(), end);
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break bytes(&span)?.1,
                        (event, span) => {
                            let item = self.node(event, span)?;
                            last = last.max(item.end);
                            items.push(item);
                        }
                    }
                };
                let is_flow = style == StructureStyle::Flow;
                Ok(Node {
                    start,
                    end: if is_flow { end } else { last },
                    shape: Shape::Sequence { is_flow, items },
                    anchor,
                })
            }
            Event::MappingStart(style, anchor, _) => {
                let (mut entries, mut last) = (Vec::new(), end);
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break bytes(&span)?.1,
                        (Event::Scalar(key, ..), span) => {
                            let (start, key_end) = bytes(&span)?;
                            let (event, span) = self.next()?;
                            let value = self.node(event, span)?;
                            last = last.max(key_end).max(value.end);
                            entries.push(Entry { key: key.into_owned(), start, key_end, value });
                        }
                        _ => return Err(NotEditable::Unknown("a key is not a scalar".to_owned())),
                    }
                };
                self.note_keys(anchor, &entries);
                let is_flow = style == StructureStyle::Flow;
                Ok(Node {
                    start,
                    end: if is_flow { end } else { last },
                    shape: Shape::Mapping { is_flow, entries },
                    anchor,
                })
            }
            other => Err(NotEditable::Unknown(format!("unexpected {other:?}"))),
        }
    }

    /// Notes the keys of a mapping with an anchor, and a key that a merge key after it overrides.
    fn note_keys(&mut self, anchor: usize, entries: &[Entry]) {
        let mut keys: Vec<String> = Vec::new();
        for Entry { key, value, .. } in entries {
            if key != "<<" {
                keys.push(key.clone());
                continue;
            }
            let merged = self.merged(value);
            if self.overridden.is_none() {
                self.overridden = merged.iter().find(|key| keys.contains(key)).cloned();
            }
            keys.extend(merged);
        }
        if anchor != 0 {
            self.keys.insert(anchor, keys);
        }
    }

    /// The keys that the value of a merge key brings.
    fn merged(&self, value: &Node) -> Vec<String> {
        match &value.shape {
            Shape::Alias(anchor) => self.keys.get(anchor).cloned().unwrap_or_default(),
            Shape::Mapping { entries, .. } => entries.iter().map(|entry| entry.key.clone()).collect(),
            Shape::Sequence { items, .. } => items.iter().flat_map(|item| self.merged(item)).collect(),
            Shape::Scalar => Vec::new(),
        }
    }

    /// The end of a block scalar. Its span extends to the next token; blank lines belong to it only with the indicator
    /// `+`, which keeps them.
    fn block_scalar_end(&self, start: usize, end: usize) -> usize {
        let content = &self.text[start..end];
        let above = &self.text[..start];
        let above = &above[..above.rfind('\n').unwrap_or(start)];
        let header = above.trim_end();
        let line = header.rsplit('\n').next().unwrap_or_default().split(" #").next().unwrap_or_default();
        let keeps = line.rsplit(['|', '>']).next().is_some_and(|indicators| indicators.contains('+'));
        match keeps {
            true => start + content.rfind('\n').map_or(content.len(), |at| at + 1),
            false if content.trim().is_empty() => header.len(),
            false => start + content.trim_end().len(),
        }
    }
}

fn bytes(span: &Span) -> Result<(usize, usize), NotEditable> {
    span.start.byte_offset().zip(span.end.byte_offset()).ok_or_else(|| NotEditable::Unknown("no offsets".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_that_a_merge_key_overrides() {
        let rows = [
            ("a: &a {k: 1}\nb: {<<: *a, k: 2}\n", None),
            ("a: &a {k: 1}\nb: {k: 2, <<: *a}\n", Some("k")),
            ("a: &a {k: 1}\nb:\n  l: 2\n  <<: *a\n", None),
            ("a: &a {k: 1}\nb:\n- k: 2\n  <<: [*a, {l: 1}]\n", Some("k")),
            ("a: &a {k: 1}\nb: &b {<<: *a}\nc: {k: 2, <<: *b}\n", Some("k")),
        ];
        let found = rows.map(|(text, _)| Tree::read(text).unwrap().overridden);
        assert_eq!(found, rows.map(|(_, key)| key.map(str::to_owned)));
    }

    /// The texts of the values below the root.
    fn values(text: &str) -> Vec<&str> {
        let tree = Tree::read(text).unwrap();
        let Shape::Mapping { entries, .. } = tree.root.shape else { panic!("{text:?} is no mapping") };
        entries.iter().map(|entry| &text[entry.value.start..entry.value.end]).collect()
    }

    #[test]
    fn nodes_end_before_comments_and_blank_lines() {
        let rows: [(&str, &[&str]); 8] = [
            ("a: 1 # c\n# d\nb: x\n", &["1", "x"]),
            ("a:\n  b: c # d\n  # e\n\nf: 'g'\n", &["b: c", "'g'"]),
            ("a:\n- b # c\n\n- d\n# e\nf:\n", &["b # c\n\n- d", ""]),
            ("a: |\n  b\n\n  c\n\n\nd: >-\n  e\n", &["b\n\n  c", "e"]),
            ("a: |+\n  b\n\nc: |2+ # -> -\n    d\n\ne: |- # >+\n  f\n\n", &["b\n\n", "  d\n\n", "f"]),
            ("a: {b: [c, d], } # e\nf: [\n]\n", &["{b: [c, d], }", "[\n]"]),
            ("\u{feff}a: 1\r\nb: &x 'y'\r\nc: *x\r\n", &["1", "'y'", "*x"]),
            ("a: b\n  c\nd: ~", &["b\n  c", "~"]),
        ];
        let wrong: Vec<_> = rows.iter().map(|(text, parts)| (values(text), *parts)).filter(|(a, b)| a != b).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
