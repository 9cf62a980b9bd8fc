//! Generates the schema and the reference page from the structs.

use super::Config;
use super::bounds::{BOUNDS, Bound, ENDPOINT_PATTERN, HOSTS_PATTERN, Unit};
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
    for bound in BOUNDS {
        restrict(setting_mut(&mut schema, bound.key), bound);
    }
    setting_mut(&mut schema, "otlpEndpoint")["pattern"] = ENDPOINT_PATTERN.into();
    setting_mut(&mut schema, "httpHosts")["pattern"] = HOSTS_PATTERN.into();
    schema
}

/// Adds a bound to the schema of its setting. JSON schema cannot compare amounts in strings, so for sizes and durations
/// the bounds are also in `x-minimum` and `x-maximum`, in bytes and milliseconds; the chart's templates compare them.
fn restrict(setting: &mut Value, bound: &Bound) {
    let Bound { unit, min, max, is_zero_allowed, .. } = *bound;
    match unit {
        Unit::Number | Unit::Micros | Unit::Percent => {
            setting["minimum"] = min.into();
            setting["maximum"] = max.into();
        }
        Unit::Bytes => setting["maximum"] = max.into(),
        Unit::Millis => {}
    }
    match unit {
        Unit::Number | Unit::Micros => {}
        Unit::Percent => {
            let wholes = (min..=max).map(|share| share.to_string()).collect::<Vec<_>>().join("|");
            setting["pattern"] = format!("^\\+?0{{0,30}}({wholes})(\\.0{{0,18}})? *%?$").into();
        }
        Unit::Bytes | Unit::Millis => {
            setting["x-minimum"] = min.into();
            setting["x-maximum"] = max.into();
            setting["x-range"] = range(bound.key).into();
            if unit == Unit::Bytes && !is_zero_allowed {
                setting["minimum"] = min.into();
            }
            if unit == Unit::Millis && min > 0 {
                // The only number without a unit is 0.
                setting["type"] = "string".into();
                let fields = setting.as_object_mut().expect("a setting is an object");
                fields.remove("minimum");
                fields.remove("maximum");
            }
            if is_zero_allowed {
                setting["x-zero"] = true.into();
            }
        }
    }
}

fn setting_mut<'a>(schema: &'a mut Value, key: &str) -> &'a mut Value {
    key.split('.').fold(schema, |at, part| &mut at["properties"][part])
}

/// The allowed amounts of a setting, for the reference page.
fn range(key: &str) -> String {
    let Some(Bound { unit, min, max, is_zero_allowed, .. }) = BOUNDS.iter().find(|bound| bound.key == key) else {
        return "–".to_owned();
    };
    let zero = if *is_zero_allowed { "0, " } else { "" };
    format!("{zero}{} to {}", unit.text(*min), unit.text(*max))
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
         them in metrics and `ebb doctor`. A change with an invalid value is rejected as a whole. A dynamic setting whose\n\
         variable is invalid is reported in the same way, and the variable is skipped. An invalid variable of a static\n\
         setting stops Ebb from starting.\n\n\
         A source that sets one watermark pulls the others along: marks that it leaves open keep their values while\n\
         low < high < critical holds, and otherwise their distance to the mark that moved. So `memory-high: 80%` alone\n\
         gives a low mark of 74%.\n\n\
         `ebb config check FILE` lists the problems of a file, and `ebb config check --env` those of the process's\n\
         environment, as the start of `ebb serve` reads it. `ebb config print` lists the active values with their\n\
         sources.\n",
    );
    let sections = [("Dynamic settings", false), ("Static settings", true)];
    for (title, wanted) in sections {
        let _ =
            write!(page, "\n## {title}\n\n| key | default | range | environment | meaning |\n|---|---|---|---|---|\n");
        for (key, value) in leaves(&defaults) {
            let is_static = static_settings.get(key.split('.').next().unwrap_or_default()).is_some();
            if is_static == wanted {
                let meaning = describe(&schema, &key);
                let default =
                    Some(plain(&value)).filter(|text| !text.is_empty()).map_or("–".to_owned(), |v| format!("`{v}`"));
                let _ = writeln!(page, "| `{key}` | {default} | {} | `{}` | {meaning} |", range(&key), variable(&key));
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
