//! Reads YAML and JSON as `kubectl` does, for configurations, templates and manifests.
//!
//! `kubectl` reads YAML 1.1, so `yes` and `off` are booleans and `0644` is octal. Unlike `kubectl`, a key that is there
//! twice is an error.

use serde::de::DeserializeOwned;
use serde_saphyr::{Options, UserMessageFormatter};

/// A text is not YAML, or not of the expected type. The message names line and column.
#[derive(Debug, thiserror::Error)]
#[error("not YAML: {0}")]
pub struct Error(String);

impl From<serde_saphyr::Error> for Error {
    fn from(error: serde_saphyr::Error) -> Self {
        Self(error.render_with_formatter(&UserMessageFormatter).replace('\n', " "))
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        // Callers limit the size of their texts; `alias_limits` keeps aliases from multiplying it.
        budget: None,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// Parses the only document of a text. An empty text is `null`.
///
/// # Errors
/// The text is not YAML, not of type `T`, or has several documents.
pub fn document<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    Ok(serde_saphyr::from_str_with_options(text, options())?)
}

/// Parses all documents of a text, except those that are empty.
///
/// # Errors
/// The first document that is not YAML, or not of type `T`.
pub fn documents<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    Ok(serde_saphyr::from_multiple_with_options(text, options())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn texts_are_read_as_kubectl_reads_them() {
        let rows = [
            ("a: yes\nb: off\nc: 'yes'", json!({"a": true, "b": false, "c": "yes"})),
            ("a: 0644\nb: 0o644\nc: 1_000", json!({"a": 420, "b": 420, "c": 1000})),
            (
                "base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3",
                json!({"base": {"a": 1, "b": 2}, "own": {"a": 1, "b": 3}}),
            ),
            ("\u{feff}a: 1\r\nb: 2\r\n", json!({"a": 1, "b": 2})),
            ("a: ~\nb:\nc: ''", json!({"a": null, "b": null, "c": ""})),
            ("1: a\ntrue: b", json!({"1": "a", "true": "b"})),
            ("{\"a\": \"\\ud83d\\ude00\"}", json!({"a": "\u{1f600}"})),
            ("", json!(null)),
        ];
        let found = rows.clone().map(|(text, _)| {
            (text, document::<Value>(text).map_err(|error| error.to_string()).unwrap_or_else(Value::String))
        });
        assert_eq!(found, rows);
    }

    #[test]
    fn errors_name_the_problem_and_the_place() {
        let rows = [
            ("a: 1\na: 2", "duplicate mapping key `a` is not allowed here at line 2, column 1"),
            ("a: [", "unclosed bracket '[' at line 1, column 4"),
            ("a: 1\n---\nb: {", "unclosed bracket '{' at line 3, column 4"),
            ("a: b: c", "mapping values are not allowed in this context at line 1, column 5"),
        ];
        let found = rows.map(|(text, _)| (text, documents::<Value>(text).unwrap_err().to_string()));
        assert_eq!(found, rows.map(|(text, problem)| (text, format!("not YAML: {problem}"))));
    }
}
