//! The pod annotations that set dynamic settings of one pod.
//!
//! The downward API writes all annotations of a pod into one file, one per line: `key="value"`. The value is quoted
//! like a Go string.

/// Prefix of the names.
pub const PREFIX: &str = "config.ebb-cache.io/";

/// Names of annotations and the settings they set. An annotation overrides the ConfigMap.
pub const SETTINGS: &[(&str, &str)] = &[
    ("compaction", "compaction"),
    ("default-ttl", "defaults.ttl"),
    ("drift-ratio", "drift.dead"),
    ("eviction-aware", "evictionAware"),
    ("log-level", "logLevel"),
    ("max-memory", "maxMemory"),
    ("memory-critical", "watermarks.critical"),
    ("memory-high", "watermarks.high"),
    ("memory-low", "watermarks.low"),
];

/// Parses the file; returns settings and values of the annotations that set one.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.strip_prefix(PREFIX)?.split_once('='));
    let setting =
        |name: &str| SETTINGS.iter().find(|(annotation, _)| *annotation == name).map(|(_, key)| (*key).to_owned());
    pairs.filter_map(|(name, quoted)| Some((setting(name)?, unquoted(quoted)))).collect()
}

/// The annotation that sets a setting.
pub(super) fn name(key: &str) -> String {
    let name = SETTINGS.iter().find(|(_, setting)| *setting == key).map_or(key, |(name, _)| *name);
    format!("annotation {PREFIX}{name}")
}

/// Removes Go's quotes. Values of settings need the simple escapes only. Other escapes are kept, and the value is
/// refused as invalid.
fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_settings_and_ignores_other_annotations() {
        let text = "config.ebb-cache.io/memory-high=\"80%\"\nconfig.ebb-cache.io/image=\"x\"\n\
                    kubernetes.io/config.seen=\"2026\"\nconfig.ebb-cache.io/log-level=\"de\\\"bug\"\nno line\n";
        let found = parse(text);
        assert_eq!(
            found,
            [("watermarks.high".to_owned(), "80%".to_owned()), ("logLevel".to_owned(), "de\"bug".to_owned())]
        );
        assert_eq!(name("watermarks.high"), "annotation config.ebb-cache.io/memory-high");
    }
}
