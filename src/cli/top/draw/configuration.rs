//! The active configuration: each setting, its value, and where that comes from. What is no default stands first.
//!
//! There are more lines than most screens have rows: those above are scrolled away, and their number tells which are shown.

use crate::cli::top::follow::{Look, Sidecar};
use ebb_config::units::format::duration;
use ebb_proto::get_config_response::Setting;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

/// The source of what nobody set.
const DEFAULT: &str = "default";
/// Columns that a key has at most.
const KEY: usize = 32;
/// Columns that a value has at most.
const VALUE: usize = 24;

/// Draws as many lines as fit, after those that are scrolled away.
pub(super) fn draw(frame: &mut Frame<'_>, sidecar: &Sidecar, scrolled: usize, block: Block<'_>, area: Rect) {
    let inner = block.inner(area);
    let (lines, rows) = (lines(sidecar, inner.width), usize::from(inner.height));
    let first = scrolled.min(lines.len().saturating_sub(rows));
    let mut block = block;
    if let Some(since) = since(sidecar) {
        block = block.title_bottom(since);
    }
    if lines.len() > rows {
        let shown = format!(" {} to {} of {} ", first + 1, first + rows, lines.len());
        block = block.title_bottom(Line::from(shown).right_aligned());
    }
    let lines: Vec<_> = lines.into_iter().skip(first).take(rows).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// How many lines are scrolled away a page on, or back.
pub(super) fn scroll(sidecar: &Sidecar, scrolled: usize, inner: Rect, is_forward: bool) -> usize {
    let rows = usize::from(inner.height);
    let last = lines(sidecar, inner.width).len().saturating_sub(rows);
    // A line stays in view.
    let page = rows.saturating_sub(1).max(1);
    let scrolled = scrolled.min(last);
    if is_forward { (scrolled + page).min(last) } else { scrolled.saturating_sub(page) }
}

fn since(sidecar: &Sidecar) -> Option<String> {
    let ((_, stats), config) = (sidecar.now.as_ref()?, sidecar.look.as_ref()?.config.as_ref()?);
    let ms = stats.at_ms.saturating_sub(config.applied_at_ms).max(0);
    Some(format!(" generation {}, active for {} ", config.generation, duration(ms as u64)))
}

fn lines(sidecar: &Sidecar, width: u16) -> Vec<Line<'_>> {
    let config = match &sidecar.look {
        None => return vec![Line::from("…").dark_gray()],
        Some(Look { config: None, .. }) => {
            return vec![Line::from("this server is too old to report its configuration").dark_gray()];
        }
        Some(Look { config: Some(config), .. }) => config,
    };
    let mut lines = Vec::new();
    if !config.problem.is_empty() {
        let words = format!("configuration on disk rejected: {}", config.problem);
        lines.extend(folded(&words, usize::from(width)).into_iter().map(|line| Line::from(line).red()));
    }
    let wide =
        |of: fn(&Setting) -> &str| config.settings.iter().map(|setting| of(setting).chars().count()).max().unwrap_or(0);
    let (keys, values) = (wide(|setting| &setting.key).min(KEY), wide(|setting| &setting.value).min(VALUE));
    let row = |Setting { key, value, source }: &Setting| {
        format!("{:keys$}  {:values$}  {source}", cut(key, keys), cut(value, values))
    };
    let (defaults, set): (Vec<_>, Vec<_>) = config.settings.iter().partition(|setting| setting.source == DEFAULT);
    lines.extend(set.into_iter().map(|setting| Line::from(row(setting)).bold()));
    lines.extend(defaults.into_iter().map(|setting| Line::from(row(setting)).dark_gray()));
    lines
}

/// A text of at most so many columns; what is left out is told by a sign.
fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Words in lines of so many columns. A word that is longer has a line of its own, which ends where the terminal does.
fn folded(words: &str, width: usize) -> Vec<String> {
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
