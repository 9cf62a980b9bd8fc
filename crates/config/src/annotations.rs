//! The pod annotations by which one pod is tuned while it runs.
//!
//! The downward API writes all annotations of a pod into one file, a line each: `key="value"`, the value quoted as Go
//! quotes strings.

/// What stands before the name.
pub const PREFIX: &str = "config.ebb-cache.io/";

/// An annotation's name to the setting it sets. An annotation wins over the ConfigMap.
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

/// The annotations of the file that are settings: setting and value.
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

/// A string without Go's quotes. No setting's value needs more than the simple escapes; what has others stays as it is, and
/// is then refused for what it is.
fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_from_the_file_and_everything_else_is_left_alone() {
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
