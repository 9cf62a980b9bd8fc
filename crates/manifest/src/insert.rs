//! Adds values to a document.

use crate::documents::Document;
use crate::edit::{self, Edit, as_lines, column, next_line, own_line, with_comments};
use crate::pointer;
use crate::print::{self, Prints, Style};
use crate::remove;
use crate::tree::{Entry, Node, NotEditable, Shape, Tree};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// A value to add (`add` of RFC 6902). The parent exists, or an addition before this one creates it.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// JSON pointer in the document.
    pub path: String,
    /// The value.
    pub value: Value,
}

impl Addition {
    /// Pointers and values.
    pub(crate) fn pairs(additions: &[Self]) -> Vec<(&str, &Value)> {
        additions.iter().map(|addition| (addition.path.as_str(), &addition.value)).collect()
    }
}

/// Additions below one node of the document.
#[derive(Debug, Default)]
struct Below<'a> {
    entries: Vec<(String, Cow<'a, Value>)>,
    front: Vec<Cow<'a, Value>>,
    back: Vec<Cow<'a, Value>>,
}

/// Edits, and the texts that they replace.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<Edit>,
    /// By pointer, what stood after the colon: an empty collection, an explicit null, or another value.
    pub(crate) replaced: BTreeMap<String, String>,
}

/// Applies additions to a value: each is a pointer and a value.
pub(crate) fn apply(object: &mut Value, additions: &[(&str, &Value)]) {
    for (path, value) in additions {
        let (parent, last) = pointer::split(path).expect("a pointer has a slash");
        match pointer::get_mut(object, parent) {
            Some(Value::Array(values)) => {
                let at = if last == "-" { values.len() } else { last.parse().expect("an index") };
                values.insert(at, (*value).clone());
            }
            Some(Value::Object(fields)) => drop(fields.insert(last.into_owned(), (*value).clone())),
            other => unreachable!("{path} leads to {other:?}, although its parent was added before"),
        }
    }
}

/// Plans the edits for additions to a document.
pub(crate) fn plan(
    document: &Document<'_>,
    tree: &Tree<'_>,
    style: Style,
    additions: &[(&str, &Value)],
    prints: &mut Prints,
) -> Result<Plan, NotEditable> {
    let (text, value) = (document.text, &document.value);
    let mut writer = Writer { text, value, tree, style, plan: Plan::default(), prints };
    for (parent, below) in group(&document.value, additions)? {
        writer.write(&parent, below)?;
    }
    Ok(writer.plan)
}

/// Groups additions by the node of the document that they are below.
fn group<'a>(value: &Value, additions: &[(&str, &'a Value)]) -> Result<Vec<(String, Below<'a>)>, NotEditable> {
    let mut groups: Vec<(String, Below<'a>)> = Vec::new();
    for (path, addition) in additions {
        let (parent, last) = pointer::split(path).expect("a pointer has a slash");
        let created = groups.iter_mut().find_map(|(at, below)| {
            let rest = parent.strip_prefix(at.as_str())?.strip_prefix('/')?;
            let first = rest.split('/').next()?;
            let key = pointer::unescaped(first);
            let (_, value) = below.entries.iter_mut().find(|(name, _)| *name == key)?;
            Some((at.len() + 1 + first.len(), value))
        });
        if let Some((length, value)) = created {
            apply(value.to_mut(), &[(&path[length..], addition)]);
            continue;
        }
        let at = groups.iter().position(|(at, _)| at == parent).unwrap_or_else(|| {
            groups.push((parent.to_owned(), Below::default()));
            groups.len() - 1
        });
        let below = &mut groups[at].1;
        match pointer::get(value, parent) {
            Some(Value::Object(_)) => {
                below.entries.push((last.into_owned(), Cow::Borrowed(addition)));
            }
            Some(Value::Array(_)) if last == "-" => below.back.push(Cow::Borrowed(addition)),
            Some(Value::Array(_)) if last == "0" => below.front.insert(0, Cow::Borrowed(addition)),
            _ => return Err(NotEditable::Form((*path).to_owned())),
        }
    }
    Ok(groups)
}

struct Writer<'a> {
    text: &'a str,
    value: &'a Value,
    tree: &'a Tree<'a>,
    style: Style,
    plan: Plan,
    prints: &'a mut Prints,
}

impl<'a> Writer<'a> {
    fn write(&mut self, at: &str, below: Below<'_>) -> Result<(), NotEditable> {
        let (node, entry) = locate(self.tree, at)?;
        let depth = at.matches('/').count() + 1;
        let form = || NotEditable::Form(at.to_owned());
        match &node.shape {
            Shape::Mapping { is_flow: false, entries } => {
                let (filled, new): (Vec<_>, Vec<_>) =
                    below.entries.into_iter().partition(|(key, _)| entries.iter().any(|entry| entry.key == *key));
                for (key, value) in filled {
                    let entry = node.entry(&key).expect("it was found");
                    self.fill(&format!("{at}/{}", pointer::escaped(&key)), entry, &value, depth + 1)?;
                }
                self.block_entries(entries, new, depth).ok_or_else(form)
            }
            Shape::Sequence { is_flow: false, items } => {
                let from = entry.map_or(node.start, |entry| entry.key_end);
                self.block_items(items, from, below, depth).ok_or_else(form)
            }
            Shape::Mapping { is_flow: true, entries } if !entries.is_empty() => {
                for (key, value) in &below.entries {
                    if let Some(entry) = node.entry(key) {
                        let at = format!("{at}/{}", pointer::escaped(key));
                        let range = self.overwritten(&at, entry)?;
                        self.replace(at, range.clone());
                        self.edit(range, format!(" {}", print::flow(value)), depth);
                    }
                }
                let new = below.entries.into_iter().filter(|(key, _)| node.entry(key).is_none());
                let new = new.map(|(key, value)| (format!("{}: ", print::quoted(&key)), value)).collect();
                let children = entries[0].start..end(entries.last().expect("it is not empty"));
                self.flow(node, children, Vec::new(), new, depth);
                Ok(())
            }
            Shape::Sequence { is_flow: true, items } if !items.is_empty() => {
                let parts = |values: Vec<_>| values.into_iter().map(|value| (String::new(), value)).collect();
                let children = items[0].start..items.last().expect("it is not empty").end;
                self.flow(node, children, parts(below.front), parts(below.back), depth);
                Ok(())
            }
            Shape::Mapping { .. } | Shape::Sequence { .. } => {
                let value = match &node.shape {
                    Shape::Mapping { .. } => {
                        Value::Object(below.entries.into_iter().map(|(key, value)| (key, value.into_owned())).collect())
                    }
                    _ => below.front.into_iter().chain(below.back).map(Cow::into_owned).collect(),
                };
                match entry {
                    Some(entry) if self.is_in_block(at) => self.fill(at, entry, &value, depth),
                    entry => {
                        if let Some(from) = entry.and_then(|entry| self.colon(entry)) {
                            self.replace(at.to_owned(), from + 1..node.end);
                        }
                        let inner = print::flow(&value);
                        self.edit(node.start + 1..node.start + 1, inner[1..inner.len() - 1].to_owned(), depth);
                        Ok(())
                    }
                }
            }
            Shape::Scalar(_) | Shape::Alias(_) => Err(form()),
        }
    }

    fn edit(&mut self, range: Range<usize>, text: String, depth: usize) {
        self.plan.edits.push(Edit { range, text, depth });
    }

    fn replace(&mut self, at: String, range: Range<usize>) {
        self.plan.replaced.insert(at, self.text[range].to_owned());
    }

    /// The colon of an entry.
    fn colon(&self, entry: &Entry<'_>) -> Option<usize> {
        colon(self.text, entry)
    }

    /// Whether the node at a pointer is the value of an entry in block style.
    fn is_in_block(&self, at: &str) -> bool {
        let parent = pointer::split(at).and_then(|(parent, _)| locate(self.tree, parent).ok());
        parent.is_some_and(|(node, _)| matches!(node.shape, Shape::Mapping { is_flow: false, .. }))
    }

    /// What stands after the colon of an entry that gets another value. It can be read without the rest of the document,
    /// since a removal restores it.
    fn overwritten(&self, at: &str, entry: &Entry<'_>) -> Result<Range<usize>, NotEditable> {
        let form = || NotEditable::Form(at.to_owned());
        if self.tree.is_aliased(&entry.value) {
            return Err(NotEditable::Shared(at.to_owned()));
        }
        let from = self.colon(entry).ok_or_else(form)? + 1;
        let range = from..entry.value.end.max(from);
        let read = self.text.get(range.clone()).and_then(remove::read_alone);
        match read.as_ref() == pointer::get(self.value, at) {
            true => Ok(range),
            false => Err(form()),
        }
    }

    /// Gives an entry in block style another value, or its first children if it is null or empty.
    fn fill(&mut self, at: &str, entry: &Entry<'_>, value: &Value, depth: usize) -> Result<(), NotEditable> {
        let form = || NotEditable::Form(at.to_owned());
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            let range = self.overwritten(at, entry)?;
            self.replace(at.to_owned(), range.clone());
            self.edit(range, format!(" {}", print::inline(value)), depth);
            return Ok(());
        }
        let from = self.colon(entry).ok_or_else(form)? + 1;
        // An absent value is recorded, too: the entry stays when its children are removed.
        let range = from..entry.value.end.max(from);
        let is_plain = self.text.get(range.clone()).is_some_and(|text| {
            let text: String = text.split_whitespace().collect();
            ["", "{}", "[]", "~", "null", "Null", "NULL"].contains(&text.as_str())
        });
        if !is_plain {
            return Err(form());
        }
        self.replace(at.to_owned(), range.clone());
        self.edit(range, String::new(), depth);
        let lines = print::children(value, column(self.text, entry.start), self.style).join("\n");
        self.lines(next_line(self.text, entry.value.end.max(from)), &lines, depth);
        Ok(())
    }

    fn lines(&mut self, at: usize, lines: &str, depth: usize) {
        if !lines.is_empty() {
            self.edit(at..at, as_lines(self.text, at, lines), depth);
        }
    }

    /// Adds entries to a mapping in block style: before the entry that they belong before, else at the end.
    fn block_entries(&mut self, entries: &[Entry<'_>], new: Vec<(String, Cow<'_, Value>)>, depth: usize) -> Option<()> {
        let (first, last) = (entries.first()?, entries.last()?);
        let at_column = column(self.text, first.start);
        for (key, value) in new {
            let follower = match key.as_str() {
                "initContainers" => "containers",
                "metadata" => "spec",
                _ => "",
            };
            let lines = self.prints.print(Some(&key), &value, at_column, self.style);
            let before = entries.iter().position(|entry| entry.key == follower);
            let before = before.filter(|at| own_line(self.text, entries[*at].start).is_some());
            let at = match before {
                Some(at) => {
                    let after = at.checked_sub(1).map_or(0, |at| next_line(self.text, end(&entries[at])));
                    with_comments(self.text, entries[at].start, after)
                }
                None => next_line(self.text, end(last)),
            };
            self.lines(at, &lines, depth);
        }
        Some(())
    }

    /// Adds items to a sequence in block style, whose key ends at `from`.
    fn block_items(&mut self, items: &[Node<'_>], from: usize, below: Below<'_>, depth: usize) -> Option<()> {
        let first = dash(self.text, from, items.first()?)?;
        let at_column = own_line(self.text, first)?;
        let mut print = |values: &[Cow<'_, Value>]| {
            let items: Vec<_> =
                values.iter().map(|value| self.prints.print(None, value, at_column, self.style)).collect();
            items.join("\n")
        };
        let (front, back) = (print(&below.front), print(&below.back));
        let start = with_comments(self.text, first, next_line(self.text, from));
        self.lines(start, &front, depth);
        self.lines(next_line(self.text, items.last()?.end.max(first + 1)), &back, depth);
        Some(())
    }

    /// Adds children to a collection in flow style that has some. Each new child is what stands before its value, and
    /// the value.
    fn flow(
        &mut self,
        node: &Node<'_>,
        children: Range<usize>,
        front: Vec<(String, Cow<'_, Value>)>,
        back: Vec<(String, Cow<'_, Value>)>,
        depth: usize,
    ) {
        let line = edit::line_start(self.text, children.start);
        let line_break = edit::line_break(self.text, children.start);
        let indent = &self.text[line..children.start];
        let is_on_lines = line > node.start && indent.trim().is_empty();
        let (separator, unit) = if is_on_lines {
            let outer = &self.text[edit::line_start(self.text, node.start)..];
            let outer = &outer[..outer.len() - outer.trim_start_matches([' ', '\t']).len()];
            let unit = indent.strip_prefix(outer).filter(|unit| !unit.is_empty()).unwrap_or("  ");
            (format!("{line_break}{indent}"), Some(unit))
        } else {
            (" ".to_owned(), None)
        };
        let print = |(key, value): &(String, Cow<'_, Value>)| match unit {
            Some(unit) => format!("{key}{}", print::flow_lines(value, indent, unit).join(line_break)),
            None => format!("{key}{}", print::flow(value)),
        };
        let before: String = front.iter().map(|part| format!("{},{separator}", print(part))).collect();
        let after: String = back.iter().map(|part| format!(",{separator}{}", print(part))).collect();
        for (at, text) in [(children.start, before), (children.end, after)] {
            if !text.is_empty() {
                self.edit(at..at, text, depth);
            }
        }
    }
}

/// Where an entry ends.
pub(crate) fn end(entry: &Entry<'_>) -> usize {
    entry.key_end.max(entry.value.end)
}

/// The colon of an entry.
pub(crate) fn colon(text: &str, entry: &Entry<'_>) -> Option<usize> {
    let found = entry.key_end + text[entry.key_end..].find(':')?;
    text[entry.key_end..found].trim().is_empty().then_some(found)
}

/// The dash of an item, which is the first of its line; `from` is where the key, or the item before, ends.
pub(crate) fn dash(text: &str, from: usize, item: &Node<'_>) -> Option<usize> {
    let mut at = next_line(text, from);
    while at < text.len() && at <= item.start {
        let line = text[at..].split('\n').next().unwrap_or_default();
        let content = line.trim_start_matches(' ');
        if content.starts_with('-') {
            return Some(at + line.len() - content.len());
        }
        at += line.len() + 1;
    }
    None
}

/// The node at a pointer, and the entry that it is the value of. Nothing on the way is shared with other places.
pub(crate) fn locate<'a>(tree: &'a Tree<'a>, at: &str) -> Result<(&'a Node<'a>, Option<&'a Entry<'a>>), NotEditable> {
    let shared = || NotEditable::Shared(at.to_owned());
    let form = || NotEditable::Form(at.to_owned());
    let (mut node, mut entry) = (tree.root.as_ref().ok_or_else(form)?, None);
    for key in pointer::keys(at) {
        if tree.is_aliased(node) {
            return Err(shared());
        }
        match &node.shape {
            Shape::Mapping { .. } => {
                let found = node.entry(&key).ok_or_else(shared)?;
                (node, entry) = (&found.value, Some(found));
            }
            Shape::Sequence { items, .. } => {
                let found = key.parse::<usize>().ok().and_then(|index| items.get(index));
                (node, entry) = (found.ok_or_else(shared)?, None);
            }
            Shape::Alias(_) => return Err(shared()),
            Shape::Scalar(_) => return Err(form()),
        }
    }
    match &node.shape {
        Shape::Alias(_) => Err(shared()),
        _ if tree.is_aliased(node) => Err(shared()),
        _ => Ok((node, entry)),
    }
}

/// The indentation that a document uses where it first indents.
pub(crate) fn style(text: &str, tree: &Tree<'_>) -> Style {
    let (mut step, mut dashes) = (None, None);
    let mut nodes: Vec<&Node<'_>> = tree.root.iter().collect();
    while let Some(node) = nodes.pop() {
        match &node.shape {
            Shape::Mapping { entries, is_flow: false } => {
                for entry in entries {
                    let key = column(text, entry.start);
                    match &entry.value.shape {
                        Shape::Mapping { entries: below, is_flow: false } if step.is_none() => {
                            step = below.first().map(|below| column(text, below.start).saturating_sub(key));
                        }
                        Shape::Sequence { items, is_flow: false } if dashes.is_none() => {
                            let first = items.first().and_then(|item| dash(text, entry.key_end, item));
                            dashes = first.map(|first| column(text, first).saturating_sub(key));
                        }
                        _ => {}
                    }
                }
                nodes.extend(entries.iter().rev().map(|entry| &entry.value));
            }
            Shape::Sequence { items, .. } => nodes.extend(items.iter().rev()),
            _ => {}
        }
        if step.is_some() && dashes.is_some() {
            break;
        }
    }
    let step = step.filter(|step| *step > 0).unwrap_or(2);
    Style { step, dash: dashes.unwrap_or(step) }
}
