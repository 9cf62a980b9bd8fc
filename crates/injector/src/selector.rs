//! Label selectors, as the API server applies them.

use crate::inject::texts;
use serde_json::Value;
use std::collections::BTreeMap;

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether a selector selects an object with these labels. An empty one selects everything.
pub(crate) fn selects(selector: &Value, labels: &Labels) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_one_of = |wanted: &Value, label: Option<&String>| {
        let mut wanted = wanted.as_array().into_iter().flatten();
        label.is_some_and(|label| wanted.any(|one| one == label))
    };
    let fits = |rule: &Value| {
        let label = labels.get(&text(&rule["key"]));
        match text(&rule["operator"]).as_str() {
            "In" => is_one_of(&rule["values"], label),
            "NotIn" => !is_one_of(&rule["values"], label),
            "Exists" => label.is_some(),
            _ => label.is_none(),
        }
    };
    texts(&selector["matchLabels"]).iter().all(|(key, wanted)| labels.get(key) == Some(wanted))
        && selector["matchExpressions"].as_array().into_iter().flatten().all(fits)
}
