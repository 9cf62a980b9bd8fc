//! Edits of a text by ranges of bytes.

use std::ops::Range;

/// Replaces a range of bytes. An empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
    /// Depth in the tree. Of two insertions at one place, the deeper one belongs to what stands before it.
    pub(crate) depth: usize,
}

/// Applies edits that do not overlap, except that ranges to delete may.
pub(crate) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.depth)));
    let mut out = String::with_capacity(text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
    let mut at = 0;
    for Edit { range, text: new, .. } in edits {
        if range.start > at {
            out.push_str(&text[at..range.start]);
        }
        out.push_str(&new);
        at = at.max(range.end);
    }
    out.push_str(&text[at..]);
    out
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
pub(crate) fn as_lines(text: &str, at: usize, lines: &[String]) -> String {
    let line_break = line_break(text, at);
    let joined = lines.join(line_break);
    match at == text.len() && at > 0 && !text.ends_with('\n') {
        true => format!("{line_break}{joined}"),
        false => format!("{joined}{line_break}"),
    }
}
