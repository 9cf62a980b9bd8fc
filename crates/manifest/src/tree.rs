//! The tree of a document: each node with its place in the text and what it means.

use crate::scalar::Scalar;
use crate::tabs;
use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Maximum depth of a document.
pub(crate) const MAX_DEPTH: usize = 128;
/// Mappings with more keys than this are searched by hash.
const FEW: usize = 16;

/// A node of a document. Places are bytes of the document's text.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// Where it starts: at the first key or item of a collection in block style.
    pub(crate) start: usize,
    /// Where it ends. What follows on the line is a comment, or belongs to a collection around it.
    pub(crate) end: usize,
    pub(crate) shape: Shape<'a>,
    /// Number of its anchor; 0 for none.
    pub(crate) anchor: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape<'a> {
    Scalar(Scalar<'a>),
    /// Refers to the node with the anchor of this number.
    Alias(usize),
    Mapping {
        is_flow: bool,
        entries: Vec<Entry<'a>>,
    },
    Sequence {
        is_flow: bool,
        items: Vec<Node<'a>>,
    },
}

/// An entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// The key as JSON has it.
    pub(crate) key: Cow<'a, str>,
    /// Whether the key is `<<`, which adds the entries of other mappings.
    pub(crate) is_merge: bool,
    /// Where the key starts.
    pub(crate) start: usize,
    /// Where the key ends.
    pub(crate) key_end: usize,
    pub(crate) value: Node<'a>,
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line of the text, from 1.
    pub(crate) line: usize,
    pub(crate) sentence: String,
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
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) text: &'a str,
    /// `None` if the document has no content.
    pub(crate) root: Option<Node<'a>>,
    /// Whether a mapping has the key `<<`.
    pub(crate) merges: bool,
    pub(crate) aliased: HashSet<usize>,
    /// The scalars with an anchor, by its number.
    pub(crate) scalars: HashMap<usize, Scalar<'a>>,
}

impl<'a> Tree<'a> {
    /// Reads the tree of a document.
    pub(crate) fn read(text: &'a str) -> Result<Self, Problem> {
        let tree = Self::parse(text);
        if !text.contains('\t') {
            return tree;
        }
        let tree = tree.or_else(|problem| Self::with_tabs_in_flow(text).unwrap_or(Err(problem)))?;
        tabs::check(text, &tree)?;
        Ok(tree)
    }

    /// Reads a text in which tabs start lines in braces and brackets, which the parser refuses. `None` if that does not help.
    fn with_tabs_in_flow(text: &'a str) -> Option<Result<Self, Problem>> {
        // Only to find the braces and brackets: in a block scalar, a tab is content.
        let without = tabs::without_leading(text);
        let in_flow = tabs::scan(text, &Tree::parse(&without).ok()?).in_flow;
        let spaced = tabs::replaced(text, &in_flow);
        let Tree { text: _, root, merges, aliased, scalars } = match Tree::parse(&spaced) {
            Ok(tree) => tree,
            Err(problem) => return Some(Err(problem)),
        };
        let scalars = scalars.into_iter().map(|(anchor, scalar)| (anchor, scalar.into_owned())).collect();
        Some(Ok(Self { text, root: root.map(Node::into_owned), merges, aliased, scalars }))
    }

    fn parse(text: &'a str) -> Result<Self, Problem> {
        let options = granit_parser::options! { emit_comments: false };
        let mut builder = Builder {
            text,
            parser: Parser::new_from_str_with_options(text, options),
            aliased: HashSet::new(),
            merges: false,
            scalars: HashMap::new(),
        };
        let mut root = None;
        loop {
            match builder.next()? {
                (Event::StreamEnd, _) => break,
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                (_, span) if root.is_some() => return Err(problem(&span, "the text has a second document".to_owned())),
                (event, span) => root = Some(builder.node(event, span, 0)?),
            }
        }
        let Builder { merges, aliased, scalars, .. } = builder;
        Ok(Self { text, root, merges, aliased, scalars })
    }

    /// Whether other places of the document refer to a node.
    pub(crate) fn is_aliased(&self, node: &Node<'_>) -> bool {
        node.anchor != 0 && self.aliased.contains(&node.anchor)
    }
}

impl Node<'_> {
    /// The same without borrowing from the text that was parsed.
    fn into_owned<'a>(self) -> Node<'a> {
        let shape = match self.shape {
            Shape::Scalar(scalar) => Shape::Scalar(scalar.into_owned()),
            Shape::Alias(anchor) => Shape::Alias(anchor),
            Shape::Mapping { is_flow, entries } => {
                Shape::Mapping { is_flow, entries: entries.into_iter().map(Entry::into_owned).collect() }
            }
            Shape::Sequence { is_flow, items } => {
                Shape::Sequence { is_flow, items: items.into_iter().map(Node::into_owned).collect() }
            }
        };
        Node { start: self.start, end: self.end, shape, anchor: self.anchor }
    }
}

impl Entry<'_> {
    fn into_owned<'a>(self) -> Entry<'a> {
        let Self { key, is_merge, start, key_end, value } = self;
        Entry { key: key.into_owned().into(), is_merge, start, key_end, value: value.into_owned() }
    }
}

impl<'a> Node<'a> {
    /// The entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry<'a>> {
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
    merges: bool,
    /// An alias may be a key.
    scalars: HashMap<usize, Scalar<'a>>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        let next = self.parser.next().expect("the end of the stream is the last event");
        next.map_err(|error| Problem { line: error.marker().line(), sentence: error.info().replace('\n', " ") })
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node<'a>, Problem> {
        let (start, end) = bytes(&span);
        if depth > MAX_DEPTH {
            return Err(problem(&span, format!("nested too deeply (at most {MAX_DEPTH} levels)")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let end = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => self.block_scalar_end(start, end),
                    _ => end,
                };
                let scalar = Scalar::read(text, style == ScalarStyle::Plain, tag.as_deref())
                    .map_err(|sentence| problem(&span, sentence))?;
                if anchor != 0 {
                    self.scalars.insert(anchor, scalar.clone());
                }
                Ok(Node { start, end, shape: Shape::Scalar(scalar), anchor })
            }
            Event::Alias(anchor) => {
                self.aliased.insert(anchor);
                Ok(Node { start, end, shape: Shape::Alias(anchor), anchor: 0 })
            }
            Event::SequenceStart(style, anchor, _) => {
                let (mut items, mut last) = (Vec::new(), end);
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break bytes(&span).1,
                        (event, span) => {
                            let item = self.node(event, span, depth + 1)?;
                            last = last.max(item.end);
                            items.push(item);
                        }
                    }
                };
                let is_flow = style == StructureStyle::Flow;
                let shape = Shape::Sequence { is_flow, items };
                Ok(Node { start, end: if is_flow { end } else { last }, shape, anchor })
            }
            Event::MappingStart(style, anchor, _) => {
                let (mut entries, mut last) = (Vec::new(), end);
                let mut keys = Keys::default();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break bytes(&span).1,
                        (event, span) => {
                            let entry = self.entry(event, span, depth)?;
                            if !entry.is_merge && keys.has(&entries, &entry) {
                                let sentence = format!("duplicate mapping key `{}` is not allowed here", entry.key);
                                return Err(problem(&span, sentence));
                            }
                            last = last.max(entry.key_end).max(entry.value.end);
                            entries.push(entry);
                        }
                    }
                };
                let is_flow = style == StructureStyle::Flow;
                let shape = Shape::Mapping { is_flow, entries };
                Ok(Node { start, end: if is_flow { end } else { last }, shape, anchor })
            }
            other => Err(problem(&span, format!("unexpected {other:?}"))),
        }
    }

    fn entry(&mut self, key: Event<'a>, span: Span, depth: usize) -> Result<Entry<'a>, Problem> {
        let (start, key_end) = bytes(&span);
        let (scalar, is_merge) = match key {
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = text == "<<"
                    && match &tag {
                        None => style == ScalarStyle::Plain,
                        Some(tag) => tag.handle() == "tag:yaml.org,2002:" && tag.suffix() == "merge",
                    };
                let scalar = Scalar::read(text, style == ScalarStyle::Plain, tag.as_deref());
                let scalar = scalar.map_err(|sentence| problem(&span, sentence))?;
                if anchor != 0 {
                    self.scalars.insert(anchor, scalar.clone());
                }
                (scalar, is_merge)
            }
            Event::Alias(anchor) if self.scalars.contains_key(&anchor) => {
                self.aliased.insert(anchor);
                (self.scalars[&anchor].clone(), false)
            }
            _ => return Err(problem(&span, "a key is a mapping or a list, which JSON does not have".to_owned())),
        };
        let key = scalar.into_key().map_err(|sentence| problem(&span, sentence))?;
        self.merges |= is_merge;
        let (event, span) = self.next()?;
        let value = self.node(event, span, depth + 1)?;
        Ok(Entry { key, is_merge, start, key_end, value })
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

/// The keys of a mapping that is read, once it has many.
#[derive(Default)]
struct Keys<'a>(HashSet<Cow<'a, str>>);

impl<'a> Keys<'a> {
    /// Whether the key of an entry is among those so far.
    fn has(&mut self, entries: &[Entry<'a>], new: &Entry<'a>) -> bool {
        if entries.len() < FEW {
            return entries.iter().any(|entry| !entry.is_merge && entry.key == new.key);
        }
        if self.0.is_empty() {
            self.0 = entries.iter().filter(|entry| !entry.is_merge).map(|entry| entry.key.clone()).collect();
        }
        !self.0.insert(new.key.clone())
    }
}

fn problem(span: &Span, sentence: String) -> Problem {
    Problem { line: span.start.line(), sentence }
}

fn bytes(span: &Span) -> (usize, usize) {
    let of = |marker: granit_parser::Marker| marker.byte_offset().expect("a text in memory has offsets");
    (of(span.start), of(span.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the values below the root.
    fn values(text: &str) -> Vec<&str> {
        let tree = Tree::read(text).unwrap();
        let Shape::Mapping { entries, .. } = tree.root.unwrap().shape else { panic!("{text:?} is no mapping") };
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
