//! Prints values as YAML in block style, or as JSON.

use serde_json::Value;
use std::sync::Arc;

/// Indentation of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Columns from a key to the keys below it.
    pub(crate) step: usize,
    /// Columns from a key to the dashes of its list.
    pub(crate) dash: usize,
}

/// Values in block style that were printed before: many documents get the same ones.
#[derive(Debug, Default)]
pub(crate) struct Prints(Vec<Print>);

#[derive(Debug)]
struct Print {
    key: Option<String>,
    value: Value,
    column: usize,
    style: Style,
    text: Arc<str>,
}

/// Maximum number of values that are remembered.
const MAX_PRINTS: usize = 64;

impl Prints {
    /// The lines of `key: value`, or of `- value` without a key, at a column.
    pub(crate) fn print(&mut self, key: Option<&str>, value: &Value, column: usize, style: Style) -> Arc<str> {
        let is_same = |known: &&Print| {
            known.column == column && known.style == style && known.key.as_deref() == key && known.value == *value
        };
        if let Some(known) = self.0.iter().find(is_same) {
            return known.text.clone();
        }
        let lines = match key {
            Some(key) => entry(key, value, column, style),
            None => item(value, column, style),
        };
        let text: Arc<str> = lines.join("\n").into();
        if matches!(value, Value::Object(_) | Value::Array(_)) {
            if self.0.len() >= MAX_PRINTS {
                self.0.clear();
            }
            let key = key.map(str::to_owned);
            self.0.push(Print { key, value: value.clone(), column, style, text: text.clone() });
        }
        text
    }
}

/// The lines of a document.
pub(crate) fn document(value: &Value) -> Vec<String> {
    let style = Style { step: 2, dash: 0 };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().flat_map(|(key, value)| entry(key, value, 0, style)).collect()
        }
        value => vec![inline(value)],
    }
}

/// The lines of `key: value` at a column.
pub(crate) fn entry(key: &str, value: &Value, column: usize, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    push_entry(&mut lines, &" ".repeat(column), key, value, column, style);
    lines
}

/// The lines of `- value` with the dash at a column.
pub(crate) fn item(value: &Value, column: usize, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    let dash = format!("{}- ", " ".repeat(column));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (key, value)) in fields.iter().enumerate() {
                let indent = if at == 0 { dash.clone() } else { " ".repeat(column + 2) };
                push_entry(&mut lines, &indent, key, value, column + 2, style);
            }
        }
        value => lines.push(dash + &inline(value)),
    }
    lines
}

/// The lines below a key at `column` whose value this is. It has children.
pub(crate) fn children(value: &Value, column: usize, style: Style) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| entry(key, value, column + style.step, style)).collect()
        }
        Value::Array(items) => items.iter().flat_map(|value| item(value, column + style.dash, style)).collect(),
        _ => Vec::new(),
    }
}

fn push_entry(lines: &mut Vec<String>, indent: &str, key: &str, value: &Value, column: usize, style: Style) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            lines.push(format!("{indent}{}:", scalar(key)));
            lines.extend(children(value, column, style));
        }
        Value::Array(items) if !items.is_empty() => {
            lines.push(format!("{indent}{}:", scalar(key)));
            lines.extend(children(value, column, style));
        }
        value => lines.push(format!("{indent}{}: {}", scalar(key), inline(value))),
    }
}

/// A value on one line. Collections are written as JSON.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        value => flow(value),
    }
}

/// A text as a scalar: plain if every YAML reader takes it for text, else in double quotes.
fn scalar(text: &str) -> String {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte);
    let is_word = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let is_safe = starts && text.bytes().all(is_plain) && !is_word;
    // JSON, such as that of the status annotation, stays readable in single quotes.
    let suits_single_quotes =
        || text.contains('"') && text.chars().all(|c| c == ' ' || c.is_ascii_graphic() && c != '\'');
    match is_safe || is_amount(text) {
        true => text.to_owned(),
        false if suits_single_quotes() => format!("'{text}'"),
        false => quoted(text),
    }
}

/// Whether a text is a quantity or a percentage that no reader takes for a number: digits and a suffix.
fn is_amount(text: &str) -> bool {
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit());
    suffix.len() < text.len() && ["m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "%"].contains(&suffix)
}

/// A text in double quotes. Characters that some readers take for line breaks, or refuse, are escaped.
pub(crate) fn quoted(text: &str) -> String {
    let is_special =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let text = Value::from(text).to_string();
    let escaped = |c: char| if is_special(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    if text.contains(is_special) { text.chars().map(escaped).collect() } else { text }
}

/// A value as JSON on one line, with a space after commas and colons, which YAML needs.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| flow_entry(key, value)).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// `"key": value` as JSON on one line.
fn flow_entry(key: &str, value: &Value) -> String {
    format!("{}: {}", quoted(key), flow(value))
}

/// A value as JSON on several lines, which start with `indent` except for the first; `unit` is one level more.
pub(crate) fn flow_lines(value: &Value, indent: &str, unit: &str) -> Vec<String> {
    let inner = format!("{indent}{unit}");
    let (open, close, parts): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(fields) if !fields.is_empty() => {
            let parts = fields.iter().map(|(key, value)| (format!("{}: ", quoted(key)), value));
            ("{", "}", parts.collect())
        }
        Value::Array(items) if !items.is_empty() => {
            ("[", "]", items.iter().map(|value| (String::new(), value)).collect())
        }
        value => return vec![flow(value)],
    };
    let mut lines = vec![open.to_owned()];
    let last = parts.len() - 1;
    for (at, (key, value)) in parts.into_iter().enumerate() {
        let mut of_part = flow_lines(value, &inner, unit);
        of_part[0] = format!("{inner}{key}{}", of_part[0]);
        if at != last {
            of_part.last_mut().expect("a value has a line").push(',');
        }
        lines.extend(of_part);
    }
    lines.push(format!("{indent}{close}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prints_block_style_at_a_column() {
        let value =
            json!([{"name": "ebb", "args": ["serve", "on", "1"], "env": [{"name": "A", "value": ""}], "x": {}}]);
        let lines = entry("initContainers", &value, 4, Style { step: 2, dash: 0 });
        let expected = "    initContainers:\n    - name: ebb\n      args:\n      - serve\n      - \"on\"\n      - \"1\"\n      \
                        env:\n      - name: A\n        value: \"\"\n      x: {}";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn text_that_some_reader_takes_for_something_else_is_quoted() {
        let plain = ["app", "/run/ebb", "ebb-cache.io/injected", "RollingUpdate", "256Mi", "50m", "94%"];
        assert_eq!(plain.map(scalar), plain);
        let quoted = [
            "",
            "yes",
            "Off",
            "NULL",
            "1",
            "0x1",
            "1e3",
            "a b",
            "a: b",
            "unix:/run",
            ".5",
            "~",
            "a#",
            "ä",
            "-",
            "1:30",
            "12_3",
        ];
        assert_eq!(quoted.map(scalar), quoted.map(|text| format!("{text:?}")));
    }

    #[test]
    fn json_is_printed_in_single_quotes() {
        let texts = ["{\"a\":[1]}", "\"'", "\"\n", "\u{85}\""];
        assert_eq!(texts.map(scalar), ["'{\"a\":[1]}'", "\"\\\"'\"", "\"\\\"\\n\"", "\"\\u0085\\\"\""]);
    }

    #[test]
    fn prints_json_on_one_line_or_on_several() {
        let value = json!({"a": [1, {"b": null}], "c": "\"", "d": []});
        assert_eq!(flow(&value), r#"{"a": [1, {"b": null}], "c": "\"", "d": []}"#);
        let lines = flow_lines(&value, "  ", "  ").join("\n");
        let expected = "{\n    \"a\": [\n      1,\n      {\n        \"b\": null\n      }\n    ],\n    \"c\": \"\\\"\",\n    \"d\": []\n  }";
        assert_eq!(lines, expected);
    }
}
