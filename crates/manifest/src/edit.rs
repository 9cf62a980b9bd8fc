//! Edits of a text by ranges of bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text in pieces. Most documents get the same additions, which are stored once.
#[derive(Clone, Debug, Default)]
pub struct Text<'a>(Vec<Piece<'a>>);

#[derive(Clone, Debug)]
enum Piece<'a> {
    Kept(&'a str),
    New(Arc<str>),
}

impl<'a> Text<'a> {
    /// A text as it was.
    pub fn kept(text: &'a str) -> Self {
        Self(vec![Piece::Kept(text)])
    }

    pub(crate) fn new(text: Arc<str>) -> Self {
        Self(vec![Piece::New(text)])
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|piece| match piece {
            Piece::Kept(text) => *text,
            Piece::New(text) => text,
        })
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces().try_for_each(|piece| f.write_str(piece))
    }
}

/// Replaces a range of bytes. An empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
    /// Depth in the tree. Of two insertions at one place, the deeper one belongs to what stands before it.
    pub(crate) depth: usize,
}

/// Applies edits that do not overlap, except that ranges to delete may. `share` makes a piece of a new text.
pub(crate) fn apply<'a>(text: &'a str, mut edits: Vec<Edit>, mut share: impl FnMut(String) -> Arc<str>) -> Text<'a> {
    edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.depth)));
    let mut pieces = Vec::new();
    let mut at = 0;
    for Edit { range, text: new, .. } in edits {
        if range.start > at {
            pieces.push(Piece::Kept(&text[at..range.start]));
        }
        if !new.is_empty() {
            pieces.push(Piece::New(share(new)));
        }
        at = at.max(range.end);
    }
    pieces.push(Piece::Kept(&text[at..]));
    Text(pieces)
}

/// Start of the line that contains `at`.
pub(crate) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |at| at + 1)
}

/// Start of the next line after `at`, which is `at` itself at the start of a line; the end of the text if there is none.
pub(crate) fn next_line(text: &str, at: usize) -> usize {
    if at > 0 && text[..at].ends_with('\n') {
        return at;
    }
    text[at..].find('\n').map_or(text.len(), |found| at + found + 1)
}

/// The line break that the text uses around `at`.
pub(crate) fn line_break(text: &str, at: usize) -> &'static str {
    let before = text[..at].rfind('\n').or_else(|| text.find('\n'));
    match before {
        Some(found) if text[..found].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// The indentation of a node that is the first of its line, in columns; `None` if something stands before it.
pub(crate) fn own_line(text: &str, at: usize) -> Option<usize> {
    let before = text[line_start(text, at)..at].trim_start_matches('\u{feff}');
    before.bytes().all(|byte| byte == b' ').then_some(before.len())
}

/// The column of a node, from 0.
pub(crate) fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].trim_start_matches('\u{feff}').chars().count()
}

/// Where a node's own lines start: above the comments that stand right above it with its indentation, after `after`.
pub(crate) fn with_comments(text: &str, at: usize, after: usize) -> usize {
    let mut start = line_start(text, at);
    let indent = column(text, at);
    while start > after && start > 0 {
        let above = line_start(text, start - 1);
        let line = text[above..start].trim_start_matches('\u{feff}');
        let content = line.trim_start_matches(' ');
        let is_comment = content.starts_with('#') && line.len() - content.len() == indent;
        if above < after || !is_comment {
            break;
        }
        start = above;
    }
    start
}

/// Lines as they are inserted at the start of a line, or at the end of a text without a last line break.
pub(crate) fn as_lines(text: &str, at: usize, lines: &str) -> String {
    let line_break = line_break(text, at);
    let joined = if line_break == "\n" { Cow::Borrowed(lines) } else { lines.replace('\n', line_break).into() };
    match at == text.len() && at > 0 && !text.ends_with('\n') {
        true => format!("{line_break}{joined}"),
        false => format!("{joined}{line_break}"),
    }
}
