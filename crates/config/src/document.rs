//! The schema and the reference page, printed from the structs.

use super::Config;
use super::layers::{leaves, plain, variable};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::fmt::Write as _;

/// The JSON schema of the file.
pub fn schema() -> Value {
    // Sections inline: the page below reads them where they are.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    schema["title"] = "Ebb configuration".into();
    schema["additionalProperties"] = false.into();
    schema
}

/// `docs/configuration.md`.
pub fn reference() -> String {
    let defaults = serde_json::to_value(Config::default()).expect("a configuration is a tree");
    let static_settings = serde_json::to_value(super::StaticSettings::default()).expect("a configuration is a tree");
    let schema = schema();
    let mut page = String::from(
        "# Configuration\n\n\
         Printed from the code by `EBB_BLESS=1 cargo test --test config`; do not edit.\n\n\
         A value comes from, later ones winning: the default, the environment, the file (`--config`, YAML), in a pod its\n\
         annotations, a flag. `--config` may also name the directory of a pod's projected volume; each file in it is\n\
         optional, and one that goes away stays active until the next start.\n\
         Sizes are quantities of Kubernetes (`64Mi`, `0.5Gi`, `129e6`) or `64MiB`, `64MB`; shares are whole percents (`85%`);\n\
         lengths of time are those of Go, and days and weeks (`250ms`, `1h30m`, `7d`). Every layer takes them. A key that is null\n\
         and a section without keys are not given. A plain file takes hold when two looks, a second apart, find the same bytes.\n\
         A file that is wrong stops the start; in a volume each wrong key is left out, and is a problem that metrics and the\n\
         doctor name. A change that is wrong is left out as a whole. `ebb config check FILE` says what\n\
         is wrong with a file, `ebb config print` what is active and where it comes from.\n",
    );
    let sections = [("Dynamic settings", false), ("Static settings", true)];
    for (title, wanted) in sections {
        let _ = write!(page, "\n## {title}\n\n| key | default | environment | meaning |\n|---|---|---|---|\n");
        for (key, value) in leaves(&defaults) {
            let is_static = static_settings.get(key.split('.').next().unwrap_or_default()).is_some();
            if is_static == wanted {
                let meaning = describe(&schema, &key);
                let default =
                    Some(plain(&value)).filter(|text| !text.is_empty()).map_or("–".to_owned(), |v| format!("`{v}`"));
                let _ = writeln!(page, "| `{key}` | {default} | `{}` | {meaning} |", variable(&key));
            }
        }
    }
    page
}

/// The doc comments along a path.
fn describe(schema: &Value, key: &str) -> String {
    let mut at = schema;
    let mut words = Vec::new();
    for part in key.split('.') {
        at = &at["properties"][part];
        if let Some(text) = at["description"].as_str() {
            words.push(text.replace('\n', " "));
        }
    }
    words.join(" ")
}
