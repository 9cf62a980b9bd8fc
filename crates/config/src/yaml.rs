//! Reads YAML and JSON: configurations strictly, templates as `kubectl` reads them.
//!
//! A text comes from people and from tenants of a cluster, so depth, nodes and the copies that aliases make are bounded.

use serde::de::DeserializeOwned;
use serde_saphyr::{Options, UserMessageFormatter};

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration with more bytes than a ConfigMap holds. Holds their number.
    #[error("the configuration is too large: {0} bytes (at most {MAX_CONFIGURATION})")]
    TooLarge(usize),
    /// The text is not YAML, is not of the expected type, or exceeds a bound. Names line and column.
    #[error("not YAML: {0}")]
    NotYaml(String),
}

impl From<serde_saphyr::Error> for Error {
    fn from(error: serde_saphyr::Error) -> Self {
        Self::NotYaml(error.render_with_formatter(&UserMessageFormatter).replace('\n', " "))
    }
}

/// Largest configuration, in bytes: what a ConfigMap holds.
pub(crate) const MAX_CONFIGURATION: usize = 1 << 20;

/// Parses a configuration: one document. An empty text is `null`. Words such as `off` and numbers such as `070` or
/// `1_000` stay text, which the settings read themselves, as they read environment variables and annotations.
///
/// # Errors
/// The text is too large, not YAML, not of type `T`, or has several documents.
pub fn configuration<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.len() > MAX_CONFIGURATION {
        return Err(Error::TooLarge(text.len()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_events: 100_000,
            max_nodes: 50_000,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: MAX_CONFIGURATION,
            max_total_scalar_bytes: MAX_CONFIGURATION,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        emit_comments: false,
        with_snippet: false,
    };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}

/// Parses every document of a template. Empty documents are left out. `ebb inject` reads the manifests of others with the
/// crate `manifest`, which follows `kubectl` to the letter.
///
/// `kubectl` reads YAML 1.1: `yes` and `off` are booleans, and `0644` is octal. Unlike there, these words count in any
/// mix of capitals, numbers that JSON does not have are refused, and so is a key that is written twice in the same way.
///
/// # Errors
/// The first document that is not YAML, not of type `T`, or exceeds a bound.
pub fn manifests<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    Ok(serde_saphyr::from_multiple_with_options(text, of_manifests())?)
}

fn of_manifests() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 128,
            // The manifests of a platform have tens of megabytes. Only the copies that aliases make are few.
            max_documents: usize::MAX,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: 256 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 200_000 },
        legacy_octal_numbers: true,
        emit_comments: false,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn manifests_are_read_as_kubectl_reads_them() {
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
        ];
        let read = |text| manifests::<Value>(text).map_err(|error| error.to_string());
        let found = rows.clone().map(|(text, _)| (text, read(text)));
        assert_eq!(found, rows.map(|(text, value)| (text, Ok(vec![value]))));
        let comments = "# a line\n".repeat(100);
        let among = format!("{comments}a:\n{comments}- {comments}  b: 1\n{comments}---\n{comments}");
        assert_eq!(read(&among), Ok(vec![json!({"a": [{"b": 1}]})]));
    }

    #[test]
    fn a_configuration_keeps_words_and_numbers_as_they_are_written() {
        let rows = [
            ("a: off\nb: 070\nc: 1_000\nd: 08", json!({"a": "off", "b": "070", "c": "1_000", "d": "08"})),
            ("a: true\nb: 7\nc: 0.5\nd: 0", json!({"a": true, "b": 7, "c": 0.5, "d": 0})),
            ("", json!(null)),
        ];
        let found = rows.clone().map(|(text, _)| (text, configuration::<Value>(text).unwrap()));
        assert_eq!(found, rows);
        let error = configuration::<Value>(&"#".repeat(MAX_CONFIGURATION + 1)).unwrap_err().to_string();
        assert_eq!(error, "the configuration is too large: 1048577 bytes (at most 1048576)");
    }

    #[test]
    fn errors_name_the_problem_and_the_place() {
        let rows = [
            ("a: 1\na: 2", "duplicate mapping key `a` is not allowed here at line 2, column 1"),
            ("a: [", "unclosed bracket '[' at line 1, column 4"),
            ("a: 1\n---\nb: {", "unclosed bracket '{' at line 3, column 4"),
            ("a: b: c", "mapping values are not allowed in this context at line 1, column 5"),
        ];
        let found = rows.map(|(text, _)| (text, manifests::<Value>(text).unwrap_err().to_string()));
        assert_eq!(found, rows.map(|(text, problem)| (text, format!("not YAML: {problem}"))));
    }

    /// Each text needs gigabytes, or the whole stack, without a bound.
    #[test]
    fn texts_that_grow_when_they_are_read_are_refused() {
        let nested = |levels: usize, inner: &str| "[".repeat(levels) + inner + &"]".repeat(levels);
        let mut deep = format!("a0: &a0 {}\n", nested(200, "x"));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            deep += &format!("a{level}: &a{level} {}\n", nested(20, &format!("*a{}", level - 1)));
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{below}]\n");
        }
        let anchors: String = (0..60).map(|level| format!("&a{level} [")).collect();
        let copies = format!("a: {anchors}{}{}\n", "x, ".repeat(100_000), "]".repeat(60));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 9_000].join(", "));
        let merged = format!(
            "a: &a {{{}}}\nb:\n  <<: [{}]\n",
            (0..1000).map(|n| format!("k{n}: v, ")).collect::<String>(),
            vec!["*a"; 3000].join(", ")
        );
        let texts = [("deep", deep), ("laughs", laughs), ("copies", copies), ("long", long), ("merged", merged)];
        let accepted: Vec<_> = texts
            .iter()
            .filter(|(_, text)| configuration::<Value>(text).is_ok() || manifests::<Value>(text).is_ok())
            .map(|(name, _)| name)
            .collect();
        assert!(accepted.is_empty(), "{accepted:?}");
    }
}
