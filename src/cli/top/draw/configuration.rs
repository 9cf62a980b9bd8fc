//! The active configuration: all settings with values and sources. Settings that are not defaults come first.
//!
//! Most screens have fewer rows than there are settings, so the list scrolls. Its border shows which lines are visible.

use crate::cli::top::follow::{Details, Sidecar};
use ebb_config::units::format::duration;
use ebb_proto::get_config_response::Setting;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

/// The source of a setting that is not set.
const DEFAULT_SOURCE: &str = "default";
/// Maximum columns of a key.
const MAX_KEY_COLUMNS: usize = 32;
/// Maximum columns of a value.
const MAX_VALUE_COLUMNS: usize = 24;

/// Draws as many lines as fit, from the scroll offset.
pub(super) fn draw(frame: &mut Frame<'_>, sidecar: &Sidecar, scroll_offset: usize, block: Block<'_>, area: Rect) {
    let inner = block.inner(area);
    let (lines, rows) = (lines(sidecar, inner.width), usize::from(inner.height));
    let first = scroll_offset.min(lines.len().saturating_sub(rows));
    let mut block = block;
    if let Some(title) = generation_title(sidecar) {
        block = block.title_bottom(title);
    }
    if lines.len() > rows {
        let shown = format!(" {} to {} of {} ", first + 1, first + rows, lines.len());
        block = block.title_bottom(Line::from(shown).right_aligned());
    }
    let lines: Vec<_> = lines.into_iter().skip(first).take(rows).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The scroll offset after one page forward or back.
pub(super) fn scroll(sidecar: &Sidecar, scroll_offset: usize, inner: Rect, is_forward: bool) -> usize {
    let rows = usize::from(inner.height);
    let last = lines(sidecar, inner.width).len().saturating_sub(rows);
    // One line of the previous page stays visible.
    let page = rows.saturating_sub(1).max(1);
    let scroll_offset = scroll_offset.min(last);
    if is_forward { (scroll_offset + page).min(last) } else { scroll_offset.saturating_sub(page) }
}

fn generation_title(sidecar: &Sidecar) -> Option<String> {
    let ((_, stats), config) = (sidecar.latest.as_ref()?, sidecar.details.as_ref()?.config.as_ref()?);
    let ms = stats.at_ms.saturating_sub(config.applied_at_ms).max(0);
    Some(format!(" generation {}, active for {} ", config.generation, duration(ms as u64)))
}

fn lines(sidecar: &Sidecar, width: u16) -> Vec<Line<'_>> {
    let config = match &sidecar.details {
        None => return vec![Line::from("…").dark_gray()],
        Some(Details { config: None, .. }) => {
            return vec![Line::from("this server is too old to report its configuration").dark_gray()];
        }
        Some(Details { config: Some(config), .. }) => config,
    };
    let mut lines = Vec::new();
    if !config.problem.is_empty() {
        let words = format!("configuration on disk rejected: {}", config.problem);
        lines.extend(wrap(&words, usize::from(width)).into_iter().map(|line| Line::from(line).red()));
    }
    let max_width =
        |of: fn(&Setting) -> &str| config.settings.iter().map(|setting| of(setting).chars().count()).max().unwrap_or(0);
    let (keys, values) = (
        max_width(|setting| &setting.key).min(MAX_KEY_COLUMNS),
        max_width(|setting| &setting.value).min(MAX_VALUE_COLUMNS),
    );
    let row = |Setting { key, value, source }: &Setting| {
        format!("{:keys$}  {:values$}  {source}", truncate(key, keys), truncate(value, values))
    };
    let (defaults, set): (Vec<_>, Vec<_>) =
        config.settings.iter().partition(|setting| setting.source == DEFAULT_SOURCE);
    lines.extend(set.into_iter().map(|setting| Line::from(row(setting)).bold()));
    lines.extend(defaults.into_iter().map(|setting| Line::from(row(setting)).dark_gray()));
    lines
}

/// Truncates a text to `width` columns, with an ellipsis at the end.
fn truncate(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Wraps a text at `width` columns. A longer word gets its own line, which the terminal cuts off.
fn wrap(words: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}
