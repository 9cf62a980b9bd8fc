//! Generates the schema and the reference page from the structs.

use super::Config;
use super::layers::{leaves, plain, variable};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::fmt::Write as _;

/// The JSON schema of the file.
pub fn schema() -> Value {
    // Subschemas are inlined, so that `describe` can follow a path.
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
         Sources of a value, in ascending precedence: default, environment, file (`--config`, YAML), pod annotations, flag.\n\
         `--config` may also name the directory of a pod's projected volume. Each file in it is optional; if a file\n\
         disappears, its values stay active until the next start.\n\n\
         Sizes are Kubernetes quantities (`64Mi`, `0.5Gi`, `129e6`) or `64MiB`, `64MB`. Shares are whole percentages (`85%`).\n\
         Durations have the syntax of Go, plus days and weeks (`250ms`, `1h30m`, `7d`). All sources accept these forms. A\n\
         null value and an empty section count as not set.\n\n\
         Ebb reads the file about once a second. It applies a change of a plain file once two consecutive reads return the\n\
         same bytes. An invalid file stops Ebb from starting. In a volume, Ebb starts without the invalid keys and reports\n\
         them in metrics and `ebb doctor`. A change with an invalid value is rejected as a whole. `ebb config check FILE`\n\
         lists the problems of a file; `ebb config print` lists the active values with their sources.\n",
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

/// The doc comment of a setting.
fn describe(schema: &Value, key: &str) -> String {
    let setting = key.split('.').fold(schema, |at, part| &at["properties"][part]);
    setting["description"].as_str().unwrap_or_default().replace('\n', " ")
}
