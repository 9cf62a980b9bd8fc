//! Where values come from: defaults, environment, file, flags; and what is wrong with them, all at once.

use super::source::Texts;
use super::{Config, Source, annotations};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A knob's path, such as `watermarks.high`, to its value.
type Leaves = BTreeMap<String, Value>;

/// Values from the command line, by path.
pub type Flags = BTreeMap<String, (String, &'static str)>;

/// A knob as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its path.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Where that comes from.
    pub source: String,
}

/// A configuration with where each value came from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The same, one by one.
    pub rows: Vec<Row>,
    /// What was passed over, in sentences.
    pub warnings: Vec<String>,
}

/// Everything that is wrong, in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Everything that is wrong with one file. An unknown key, which a running server passes over, is a problem too.
///
/// # Errors
/// Every problem of the file.
pub fn check(file: &Path) -> Result<(), Problems> {
    strictly(&Source::File(file.to_owned()).read().map_err(|why| Problems(vec![why]))?)
}

/// The same of a text.
///
/// # Errors
/// Every problem of the text.
pub fn check_text(text: &str) -> Result<(), Problems> {
    strictly(&Texts { file: Some(("ebb.yaml".to_owned(), text.to_owned())), ..Texts::default() })
}

fn strictly(texts: &Texts) -> Result<(), Problems> {
    let effective = merge(texts, &[], &Flags::new())?;
    if effective.warnings.is_empty() { Ok(()) } else { Err(Problems(effective.warnings)) }
}

/// Puts all layers one on the other. Unknown keys of the file are warnings; see [`check`].
///
/// # Errors
/// Every problem of every layer.
pub(super) fn merge(texts: &Texts, environment: &[(String, String)], flags: &Flags) -> Result<Effective, Problems> {
    let defaults = defaults();
    let known = leaves(&defaults);
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut overrides: BTreeMap<String, (Value, String)> = BTreeMap::new();

    if let Some(volume) = &texts.volume {
        for (key, file) in [("limitFile", "memory-limit"), ("requestFile", "memory-request")] {
            let path = volume.join(file).display().to_string();
            overrides.insert(key.to_owned(), (path.into(), format!("volume {}", volume.display())));
        }
    }
    for key in known.keys() {
        let name = variable(key);
        if let Some((_, text)) = environment.iter().find(|(variable, _)| *variable == name) {
            overrides.insert(key.clone(), (typed(&defaults, key, text), name));
        }
    }
    if let Some((name, text)) = &texts.file {
        match parse(text) {
            Err(why) => problems.push(format!("{name}: {why}")),
            Ok(tree) => {
                for (key, value) in leaves(&tree) {
                    match known.contains_key(&key) {
                        true => drop(overrides.insert(key, (value, name.clone()))),
                        false => warnings.push(unknown(&key, &known, name)),
                    }
                }
            }
        }
    }
    for (key, text) in &texts.annotations {
        overrides.insert(key.clone(), (typed(&defaults, key, text), annotations::name(key)));
    }
    for (key, (text, flag)) in flags {
        overrides.insert(key.clone(), (typed(&defaults, key, text), (*flag).to_owned()));
    }

    let mut tree = defaults.clone();
    for (key, (value, source)) in &overrides {
        // Each value by itself first, so that every wrong one is reported, with its name.
        match with(&defaults, key, value.clone()) {
            Ok(_) => place(&mut tree, key, value.clone()),
            Err(error) => problems.push(format!("{key} ({source}): {error}")),
        }
    }
    let config: Config = serde_json::from_value(tree).map_err(|error| Problems(vec![error.to_string()]))?;
    problems.extend(config.problems());
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let source = |key: &str| overrides.get(key).map_or_else(|| "default".to_owned(), |(_, source)| source.clone());
    let values = leaves(&serde_json::to_value(&config).expect("a configuration is a tree"));
    let row = |(key, value): (String, Value)| Row { source: source(&key), value: plain(&value), key };
    Ok(Effective { config, rows: values.into_iter().map(row).collect(), warnings })
}

/// Whether a knob can have a value, all others as they come.
pub(super) fn alone(key: &str, text: &str) -> Result<(), String> {
    let defaults = defaults();
    with(&defaults, key, typed(&defaults, key, text)).map(drop).map_err(|error| error.to_string())
}

fn with(defaults: &Value, key: &str, value: Value) -> Result<Config, serde_json::Error> {
    let mut tree = defaults.clone();
    place(&mut tree, key, value);
    serde_json::from_value(tree)
}

/// The paths of all knobs.
pub(super) fn knobs() -> Vec<String> {
    leaves(&defaults()).into_keys().collect()
}

fn defaults() -> Value {
    serde_json::to_value(Config::default()).expect("a configuration is a tree")
}

/// The environment variable of a knob: `watermarks.high` is `EBB_WATERMARKS_HIGH`.
pub(super) fn variable(key: &str) -> String {
    let mut name = String::from("EBB_");
    for c in key.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => name.extend(['_', c]),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    match serde_yaml_ng::from_str(text) {
        Ok(tree @ Value::Object(_)) => Ok(tree),
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(_) => Err("the file must hold keys and values".to_owned()),
        Err(error) => Err(format!("not YAML: {error}")),
    }
}

/// What a variable, an annotation or a flag says: a text where the knob takes one (a pod may be called 7), else a number or
/// a switch.
fn typed(defaults: &Value, key: &str, text: &str) -> Value {
    if with(defaults, key, text.into()).is_ok() {
        return text.into();
    }
    match (text.parse::<u64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(switch)) => switch.into(),
        _ => text.into(),
    }
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The values of a tree by their paths.
pub(super) fn leaves(tree: &Value) -> Leaves {
    fn go(tree: &Value, path: &str, into: &mut Leaves) {
        match tree {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    go(value, &path, into);
                }
            }
            value => drop(into.insert(path.to_owned(), value.clone())),
        }
    }
    let mut into = Leaves::new();
    go(tree, "", &mut into);
    into.remove("");
    into
}

/// Puts a value where its path leads; every section is there in the defaults.
fn place(tree: &mut Value, key: &str, value: Value) {
    let mut at = tree;
    for part in key.split('.') {
        at = &mut at[part];
    }
    *at = value;
}

fn unknown(key: &str, known: &Leaves, file: &str) -> String {
    let nearest = known.keys().min_by_key(|candidate| distance(candidate, key)).expect("there are knobs");
    let hint = if distance(nearest, key) <= 3 { format!("; did you mean {nearest}?") } else { String::new() };
    format!("{file}: {key} is not a knob{hint}")
}

/// Levenshtein's distance.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}
