//! Tabs between the nodes of a document, as `kubectl` reads them.
//!
//! T1. In braces and brackets a tab separates like a space, at the start of a line, too.
//! T2. Outside of them a tab must not stand where a key may start: at the start of a line, or after `-` and `?`.
//! T3. A tab must not stand in the indentation of a line that continues a plain scalar or a block scalar, nor in that of
//!     the lines after it.
//!
//! The parser refuses some tabs that T1 allows, and accepts some that T2 and T3 refuse. So the separators between the
//! nodes of a tree are scanned here, in the way of the Go library that `kubectl` uses.

use crate::tree::{Node, Problem, Shape, Tree};

/// What a scan finds, as bytes of the text.
#[derive(Debug, Default)]
pub(crate) struct Tabs {
    /// The first tab that `kubectl` refuses.
    pub(crate) refused: Option<usize>,
    /// Tabs in braces and brackets.
    pub(crate) in_flow: Vec<usize>,
}

/// The text with a space in place of each tab that starts a line.
pub(crate) fn without_leading(text: &str) -> String {
    let mut is_leading = true;
    let replaced = text.chars().map(|c| {
        is_leading = c == '\n' || is_leading && (c == ' ' || c == '\t');
        if c == '\t' && is_leading { ' ' } else { c }
    });
    replaced.collect()
}

/// The text with a space in place of these tabs.
pub(crate) fn replaced(text: &str, tabs: &[usize]) -> String {
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for tab in tabs {
        out.push_str(&text[at..*tab]);
        out.push(' ');
        at = tab + 1;
    }
    out.push_str(&text[at..]);
    out
}

/// Refuses a text with a tab that `kubectl` refuses.
pub(crate) fn check(text: &str, tree: &Tree<'_>) -> Result<(), Problem> {
    match scan(text, tree).refused {
        None => Ok(()),
        Some(at) => Err(Problem {
            line: 1 + text[..at].matches('\n').count(),
            sentence: "kubectl refuses a tab that indents, or that follows `-`; use spaces".to_owned(),
        }),
    }
}

/// Scans the tabs between the nodes of a tree. The text may differ from the tree's by tabs in place of spaces.
pub(crate) fn scan(text: &str, tree: &Tree<'_>) -> Tabs {
    let mut words = Vec::new();
    tree.root.iter().for_each(|root| collect(root, &mut words));
    let mut scanner = Scanner {
        text: text.as_bytes(),
        at: 0,
        line: 0,
        flow: 0,
        may_be_key: true,
        indents: Vec::new(),
        key_line: None,
        properties: None,
        tabs: Tabs::default(),
    };
    words.sort_unstable_by_key(|word| word.start);
    scanner.run(&words);
    scanner.tabs
}

/// A scalar or an alias.
#[derive(Clone, Copy)]
struct Word {
    start: usize,
    end: usize,
    is_key: bool,
}

fn collect(node: &Node<'_>, words: &mut Vec<Word>) {
    match &node.shape {
        Shape::Scalar(_) | Shape::Alias(_) => words.push(Word { start: node.start, end: node.end, is_key: false }),
        Shape::Mapping { entries, .. } => {
            for entry in entries {
                words.push(Word { start: entry.start, end: entry.key_end, is_key: true });
                collect(&entry.value, words);
            }
        }
        Shape::Sequence { items, .. } => items.iter().for_each(|item| collect(item, words)),
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// Start of the line.
    line: usize,
    /// Number of braces and brackets around.
    flow: usize,
    /// Whether a key may start here.
    may_be_key: bool,
    /// Columns of the block collections around.
    indents: Vec<usize>,
    /// Start of the line with the last key, until its colon.
    key_line: Option<usize>,
    /// Column of an anchor or tag that may belong to a key.
    properties: Option<usize>,
    tabs: Tabs,
}

impl Scanner<'_> {
    fn run(&mut self, words: &[Word]) {
        let mut words = words.iter().filter(|word| word.end > word.start).peekable();
        loop {
            self.skip_separators();
            let Some(byte) = self.byte() else { return };
            let column = self.column();
            if self.flow == 0 {
                while self.indents.last().is_some_and(|indent| *indent > column) {
                    self.indents.pop();
                }
            }
            while words.next_if(|word| word.start < self.at).is_some() {}
            if let Some(word) = words.next_if(|word| word.start == self.at) {
                self.word(*word, byte, column);
                continue;
            }
            let is_end = self.text.get(self.at + 1).is_none_or(|next| b" \t\r\n".contains(next));
            match byte {
                b'-' | b'.' if column == 0 && self.is_marker() => {
                    self.indents.clear();
                    (self.at, self.may_be_key) = (self.at + 3, false);
                }
                b'|' | b'>' if self.flow == 0 => self.block_scalar(),
                b'-' | b'?' if is_end && self.flow == 0 => {
                    self.roll(column);
                    (self.at, self.may_be_key) = (self.at + 1, true);
                }
                b':' => {
                    let is_simple = self.key_line.take() == Some(self.line) || self.flow > 0;
                    if !is_simple {
                        self.roll(column);
                    }
                    (self.at, self.may_be_key) = (self.at + 1, !is_simple);
                }
                b'{' | b'[' => (self.at, self.flow, self.may_be_key) = (self.at + 1, self.flow + 1, true),
                b'}' | b']' => {
                    (self.at, self.flow, self.may_be_key) = (self.at + 1, self.flow.saturating_sub(1), false);
                }
                b'&' | b'!' => {
                    self.properties.get_or_insert(column);
                    let is_of = |byte: u8| !b" \t\r\n".contains(&byte) && (self.flow == 0 || !b",[]{}".contains(&byte));
                    while self.byte().is_some_and(is_of) {
                        self.at += 1;
                    }
                    self.may_be_key = false;
                }
                b'%' if column == 0 => self.skip_line(),
                _ => self.at += 1,
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Characters before this one in its line.
    fn column(&self) -> usize {
        let before = &self.text[self.line..self.at];
        let before = before.strip_prefix("\u{feff}".as_bytes()).unwrap_or(before);
        before.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
    }

    fn is_marker(&self) -> bool {
        let rest = &self.text[self.at..];
        (rest.starts_with(b"---") || rest.starts_with(b"..."))
            && rest.get(3).is_none_or(|next| b" \t\r\n".contains(next))
    }

    /// The indentation that continues a scalar: more than the collection around it.
    fn indent(&self) -> usize {
        self.indents.last().map_or(0, |indent| indent + 1)
    }

    /// A block collection starts at a column, unless it is the one around.
    fn roll(&mut self, column: usize) {
        if self.flow == 0 && self.indents.last().is_none_or(|indent| *indent < column) {
            self.indents.push(column);
        }
    }

    fn tab(&mut self, is_refused: bool) {
        if is_refused && self.tabs.refused.is_none() {
            self.tabs.refused = Some(self.at);
        }
        if self.flow > 0 {
            self.tabs.in_flow.push(self.at);
        }
    }

    /// Goes behind a line break.
    fn next_line(&mut self) {
        self.at += 1;
        self.line = self.at;
    }

    fn skip_line(&mut self) {
        while self.byte().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Skips spaces, tabs, line breaks and comments.
    fn skip_separators(&mut self) {
        while let Some(byte) = self.byte() {
            match byte {
                b'\t' => self.tab(self.flow == 0 && self.may_be_key),
                b'#' => {
                    self.skip_line();
                    continue;
                }
                b'\n' => {
                    self.may_be_key |= self.flow == 0;
                    self.next_line();
                    continue;
                }
                b' ' | b'\r' => {}
                0xef if self.text[self.at..].starts_with("\u{feff}".as_bytes()) => self.at += 2,
                _ => return,
            }
            self.at += 1;
        }
    }

    fn word(&mut self, word: Word, first: u8, column: usize) {
        let line = self.line;
        self.may_be_key = false;
        match first {
            b'"' | b'\'' | b'*' => {
                while self.at < word.end {
                    if self.text[self.at] == b'\n' { self.next_line() } else { self.at += 1 }
                }
            }
            _ => self.plain(word.end),
        }
        let column = self.properties.take().unwrap_or(column);
        if word.is_key {
            self.key_line = Some(line);
            self.roll(column);
        }
    }

    /// A plain scalar, with the spaces and line breaks after it.
    fn plain(&mut self, end: usize) {
        let indent = self.indent();
        let mut is_leading = false;
        while let Some(byte) = self.byte() {
            match byte {
                b'\n' => {
                    is_leading = true;
                    self.next_line();
                    continue;
                }
                b'\t' if self.at >= end || is_leading => self.tab(is_leading && self.column() < indent),
                b' ' | b'\t' | b'\r' => {}
                _ if self.at >= end => break,
                _ => is_leading = false,
            }
            self.at += 1;
        }
        self.may_be_key = is_leading;
    }

    /// A block scalar, from its header on.
    fn block_scalar(&mut self) {
        let header = self.at;
        self.skip_line();
        let mut header = self.text[header..self.at].iter().skip(1).take_while(|byte| b"+-123456789".contains(byte));
        let given = header.find(|byte| byte.is_ascii_digit()).map(|digit| usize::from(digit - b'0'));
        let around = self.indents.last().copied();
        let mut indent = given.map(|given| around.unwrap_or_default() + given);
        let mut widest = 0;
        while self.byte().is_some() {
            self.next_line();
            // The indentation of the line, or all of its spaces as long as the indentation is not known.
            while self.byte() == Some(b' ') && indent.is_none_or(|indent| self.column() < indent) {
                self.at += 1;
            }
            let column = self.column();
            widest = widest.max(column);
            let is_content = indent.is_some_and(|indent| column >= indent);
            match self.byte() {
                Some(b'\t') if !is_content => {
                    self.tab(true);
                    break;
                }
                Some(b'\r' | b'\n') if !is_content => {}
                Some(_) if indent.is_none() => {
                    let known = widest.max(self.indent()).max(1);
                    indent = Some(known);
                    if column < known {
                        break;
                    }
                }
                Some(_) if !is_content => break,
                _ => {}
            }
            self.skip_line();
        }
        self.may_be_key = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<Value, usize> {
        Tree::read(text).and_then(|tree| tree.value()).map_err(|problem| problem.line)
    }

    #[test]
    fn tabs_separate_in_braces_and_after_a_key() {
        let rows = [
            ("a: {\n\tb:\tc,\n\td: [\n\t\te,\n\t\t# f\n\t\t'g'\n\t],\n}\n", json!({"a": {"b": "c", "d": ["e", "g"]}})),
            ("{\n\ta: b\n\t}\n", json!({"a": "b"})),
            ("a:\tb\t# c\nd:\t\n  - e\t\n", json!({"a": "b", "d": ["e"]})),
            ("a: |\n  b\n  \tc\nd: {\n\te: f }\n", json!({"a": "b\n\tc\n", "d": {"e": "f"}})),
            ("a: \"b\n\tc\"\nd: {e: 'f\n\tg'}\n", json!({"a": "b c", "d": {"e": "f g"}})),
            ("a: b\n  \t\nc: &d\te\nf: *d\t\n", json!({"a": "b", "c": "e", "f": "e"})),
        ];
        let found = rows.clone().map(|(text, _)| (text, read(text)));
        assert_eq!(found, rows.map(|(text, value)| (text, Ok(value))));
    }

    #[test]
    fn tabs_that_kubectl_refuses_are_refused_with_their_line() {
        let rows = [
            ("-\ta\n", 1),
            ("a:\n  -\tb: c\n", 2),
            ("\ta: b\n", 1),
            ("a:\n\tb: c\n", 2),
            ("a:\n  b: c\n\t\nd: e\n", 3),
            ("a: b\n\t# c\nd: e\n", 2),
            ("a: 'b'\n\t\nc: d\n", 2),
            ("a: {b: c}\n\t# d\ne: f\n", 2),
            ("a: |\n  b\n\t# c\nd: e\n", 3),
            ("a: {\n\tb: c\n\t}\n", 3),
        ];
        let found = rows.map(|(text, _)| (text, read(text)));
        assert_eq!(found, rows.map(|(text, line)| (text, Err(line))));
    }
}
