//! Merges defaults, environment, file, annotations and flags, and collects all their problems.

use super::secret::redacted;
use super::source::Texts;
use super::{Config, Source, Watermarks, annotations, bounds, marks, yaml};
use crate::units::Percent;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use strsim::levenshtein;

/// Values of settings by path, such as `watermarks.high`.
type Leaves = BTreeMap<String, Value>;

/// Values from the command line, by path.
pub type Flags = BTreeMap<String, (String, &'static str)>;

/// An active setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its path.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The source of the value.
    pub source: String,
}

/// A configuration with the source of each value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The values as rows.
    pub rows: Vec<Row>,
    /// Warnings about ignored keys.
    pub warnings: Vec<String>,
}

/// All problems of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Problems(pub Vec<String>);

/// Why a text is not a tree of settings.
#[derive(Debug, thiserror::Error)]
enum ParseError {
    #[error(transparent)]
    Yaml(#[from] yaml::Error),
    #[error("the file must be a mapping of keys to values")]
    NotMapping,
}

/// Checks a file. An unknown key is a problem here, although a running server ignores it.
///
/// # Errors
/// Every problem of the file.
pub fn check(file: &Path) -> Result<(), Problems> {
    strictly(&Source::File(file.to_owned()).read().map_err(|error| Problems(vec![error.to_string()]))?)
}

/// Checks everything that a start of the server reads. It is stricter than the start: every problem counts, also one
/// with which a server starts.
///
/// # Errors
/// Every problem.
pub fn check_start(source: &Source, environment: &[(String, String)], flags: &Flags) -> Result<(), Problems> {
    let (texts, unreadable) = match source.read() {
        Ok(texts) => (texts, None),
        Err(error) => (source.readable(), Some(error.to_string())),
    };
    let mut problems: Vec<String> = unreadable.into_iter().collect();
    // The environment alone first: the file may hide its problems.
    for texts in [&Texts::default(), &texts] {
        let (layers, of_file) = Layers::read(texts, environment, flags);
        problems.extend(of_file);
        problems.extend(layers.wrong().into_values());
        problems.extend(layers.config().err().unwrap_or_default());
        problems.extend(layers.warnings);
    }
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Checks variables as [`check_start`] does, without a file.
///
/// # Errors
/// Every problem.
pub fn check_environment(environment: &[(String, String)]) -> Result<(), Problems> {
    check_start(&Source::Nothing, environment, &Flags::new())
}

/// Settings of annotations that a sidecar with these variables skips, with the reason. Each value is valid on its own
/// ([`check_value`]).
pub fn check_annotations(environment: &[(String, String)], annotations: &[(String, String)]) -> Vec<(String, String)> {
    let (environment, _) = usable(environment.to_vec());
    let texts = Texts { annotations: annotations.to_vec(), ..Texts::default() };
    let (mut layers, _) = Layers::read(&texts, &environment, &Flags::new());
    let reason = |why: String| why.split_once(" is skipped: ").map_or(why.clone(), |(_, reason)| reason.to_owned());
    layers.settle().into_iter().map(|(key, why)| (key, reason(why))).collect()
}

/// Checks a text.
///
/// # Errors
/// Every problem of the text.
pub fn check_text(text: &str) -> Result<(), Problems> {
    strictly(&Texts { file: Some(("ebb.yaml".to_owned(), text.to_owned())), ..Texts::default() })
}

fn strictly(texts: &Texts) -> Result<(), Problems> {
    let (layers, mut problems) = Layers::read(texts, &[], &Flags::new());
    problems.extend(layers.wrong().into_values());
    problems.extend(layers.config().err().unwrap_or_default());
    problems.extend(layers.warnings);
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Merges all layers. Unknown keys of the file are warnings; see [`check`].
///
/// # Errors
/// Every problem of every layer.
pub(super) fn merge(texts: &Texts, environment: &[(String, String)], flags: &Flags) -> Result<Effective, Problems> {
    let (layers, mut problems) = Layers::read(texts, environment, flags);
    problems.extend(layers.wrong().into_values());
    match layers.config() {
        Ok(config) if problems.is_empty() => Ok(layers.effective(config)),
        Ok(_) => Err(Problems(problems)),
        Err(across) => Err(Problems(problems.into_iter().chain(across).collect())),
    }
}

/// Merges layers that must not stop the process from starting. Each key of the file and each annotation that is
/// invalid, alone or in combination, is skipped. Returns the active configuration with all problems, including those of
/// an unreadable text.
///
/// # Errors
/// Every problem of environment and flags.
pub(super) fn merge_leniently(
    texts: &Texts,
    environment: &[(String, String)],
    flags: &Flags,
) -> Result<(Effective, Option<Problems>), Problems> {
    merge(&Texts { file: None, annotations: Vec::new(), ..texts.clone() }, environment, flags)?;
    let (mut layers, mut problems) = Layers::read(texts, environment, flags);
    problems.extend(layers.settle().into_iter().map(|(_, why)| why));
    let config = layers.config().map_err(Problems)?;
    let problems = Some(Problems(problems)).filter(|problems| !problems.0.is_empty());
    Ok((layers.effective(config), problems))
}

/// The variables without those of dynamic settings that are invalid, alone or in combination, and why those are
/// skipped: a cache can be served without them.
pub(super) fn usable(mut environment: Vec<(String, String)>) -> (Vec<(String, String)>, Vec<String>) {
    let (mut layers, _) = Layers::read(&Texts::default(), &environment, &Flags::new());
    let dynamic = leaves(&serde_json::to_value(super::DynamicSettings::default()).expect("settings are a tree"));
    layers.overrides.iter_mut().for_each(|(key, value)| value.may_go = dynamic.contains_key(key));
    let skipped = layers.settle();
    environment.retain(|(name, _)| !skipped.iter().any(|(key, _)| variable(key) == *name));
    (environment, skipped.into_iter().map(|(_, why)| why).collect())
}

/// A value that is not the default. Without `Debug`: it may be a secret.
#[derive(Clone)]
struct Override {
    value: Value,
    source: String,
    /// Whether the value is from a layer that must not stop the process from starting.
    may_go: bool,
    /// The layer, in ascending precedence.
    rank: u8,
    /// The value of the layer below.
    beneath: Option<Box<Override>>,
}

/// The merged layers: by path, the value of the highest layer.
#[derive(Clone)]
struct Layers {
    defaults: Value,
    overrides: BTreeMap<String, Override>,
    warnings: Vec<String>,
}

impl Layers {
    /// Reads every layer; also returns problems of the file as a whole.
    fn read(texts: &Texts, environment: &[(String, String)], flags: &Flags) -> (Self, Vec<String>) {
        let defaults = defaults();
        let known = leaves(&defaults);
        let mut layers = Self { defaults, overrides: BTreeMap::new(), warnings: Vec::new() };
        let mut problems = Vec::new();
        if let Some(volume) = &texts.volume {
            for (key, file) in [("limitFile", "memory-limit"), ("requestFile", "memory-request")] {
                let path = volume.join(file).display().to_string();
                layers.put(key, path.into(), format!("volume {}", volume.display()), 0, false);
            }
        }
        for key in known.keys() {
            let name = variable(key);
            if let Some((_, text)) = environment.iter().find(|(variable, _)| *variable == name) {
                layers.put(key, text.as_str().into(), name, 1, false);
            }
        }
        if let Some((name, text)) = &texts.file {
            match parse(text) {
                Err(error) => problems.push(format!("{name}: {error}")),
                Ok(tree) => {
                    for (key, value) in leaves(&tree) {
                        let in_section = format!("{key}.");
                        let keys: Vec<_> = known.keys().filter_map(|known| known.strip_prefix(&in_section)).collect();
                        match () {
                            () if known.contains_key(&key) => match value {
                                Value::Null => {} // not set
                                value => layers.put(&key, value, name.clone(), 2, true),
                            },
                            // An empty section counts as not set.
                            () if !keys.is_empty() && is_empty(&value) => {}
                            () if !keys.is_empty() => {
                                let keys = keys.join(", ");
                                problems.push(format!("{key} ({name}): {value} is not a section (keys: {keys})"));
                            }
                            () => layers.warnings.push(unknown(&key, &known, name)),
                        }
                    }
                }
            }
        }
        for (key, text) in &texts.annotations {
            layers.put(key, text.as_str().into(), annotations::name(key), 3, true);
        }
        for (key, (text, flag)) in flags {
            layers.put(key, text.as_str().into(), (*flag).to_owned(), 4, false);
        }
        let (warnings, problems) = (shown(std::mem::take(&mut layers.warnings)), shown(problems));
        (Self { warnings, ..layers }, problems)
    }

    fn put(&mut self, key: &str, value: Value, source: String, rank: u8, may_go: bool) {
        let value = meant(&self.defaults, key, value);
        let beneath = self.overrides.remove(key).map(Box::new);
        self.overrides.insert(key.to_owned(), Override { value, source, may_go, rank, beneath });
    }

    /// Removes the highest layer's value of a key.
    fn leave_out(&mut self, key: &str) {
        if let Some(Override { beneath: Some(beneath), .. }) = self.overrides.remove(key) {
            self.overrides.insert(key.to_owned(), *beneath);
        }
    }

    /// Values of the highest layers that are invalid on their own, by path, with the reason.
    fn wrong(&self) -> BTreeMap<String, String> {
        let wrong = self.overrides.iter().filter_map(|(key, Override { value, source, .. })| {
            let error = with(&self.defaults, key, value.clone()).err()?;
            let problem = format!("{key} ({source}): {}", explained(&error.to_string(), value));
            Some((key.clone(), redacted(&problem).into_owned()))
        });
        wrong.collect()
    }

    /// Skips values of layers that must not stop the process, until no other of them can be improved. Returns their
    /// keys, with the reasons.
    fn settle(&mut self) -> Vec<(String, String)> {
        let mut skipped = Vec::new();
        loop {
            let wrong = self.wrong().into_iter().filter(|(key, _)| self.overrides[key].may_go);
            let wrong: Vec<_> = wrong.collect();
            if wrong.is_empty() {
                break;
            }
            // A value of a lower layer may be wrong, too.
            for (key, why) in wrong {
                self.leave_out(&key);
                skipped.push((key, why));
            }
        }
        while let Err(across) = self.config() {
            // Skip the optional key whose absence leaves the fewest problems.
            let without = |key: &String| {
                let mut fewer = self.clone();
                fewer.leave_out(key);
                fewer.config().err().map_or(0, |problems| problems.len())
            };
            let may_go = self.overrides.iter().filter(|(_, value)| value.may_go).map(|(key, _)| key);
            let Some((left, key)) = may_go.map(|key| (without(key), key.clone())).min() else { break };
            if left >= across.len() {
                break;
            }
            let source = &self.overrides[&key].source;
            skipped.push((key.clone(), format!("{key} ({source}) is skipped: {}", across.join("; "))));
            self.leave_out(&key);
        }
        skipped
    }

    /// The watermarks, and for each one that follows another the source of that one.
    fn marks(&self) -> [(Percent, Option<String>); 3] {
        let all = marks::KEYS.map(|key| {
            let chain = std::iter::successors(self.overrides.get(key), |one| one.beneath.as_deref());
            let valid = chain.filter_map(|one| {
                let mark: Percent = serde_json::from_value(one.value.clone()).ok()?;
                Some((one.rank, mark.0, one.source.clone()))
            });
            valid.collect::<Vec<_>>()
        });
        let Watermarks { low, high, critical } = Watermarks::default();
        let mut marks = [low.0, high.0, critical.0];
        let mut followed = [None, None, None];
        for rank in 0..=4 {
            let of_layer = |at: usize| all[at].iter().find(|(layer, ..)| *layer == rank);
            let set = [0, 1, 2].map(|at| of_layer(at).map(|(_, mark, _)| *mark));
            let next = marks::follow(marks, set);
            for at in 0..3 {
                if set[at].is_some() {
                    followed[at] = None;
                } else if next[at] != marks[at] {
                    // The mark that was set last, seen from this one.
                    let leader = [1, 0, 2].into_iter().filter(|other| *other != at).find_map(of_layer);
                    followed[at] = leader.map(|(.., source)| format!("follows {source}"));
                }
            }
            marks = next;
        }
        let mut followed = followed.into_iter();
        marks.map(|mark| (Percent(mark), followed.next().flatten()))
    }

    /// The configuration without the values that are invalid on their own.
    ///
    /// # Errors
    /// Conflicts between values.
    fn config(&self) -> Result<Config, Vec<String>> {
        let mut tree = self.defaults.clone();
        for (key, Override { value, .. }) in &self.overrides {
            if with(&self.defaults, key, value.clone()).is_ok() {
                place(&mut tree, key, value.clone());
            }
        }
        let mut config: Config = serde_json::from_value(tree).map_err(|error| vec![error.to_string()])?;
        let [(low, _), (high, _), (critical, _)] = self.marks();
        config.dynamic.watermarks = Watermarks { low, high, critical };
        let problems = bounds::problems(&config);
        if problems.is_empty() { Ok(config) } else { Err(shown(problems)) }
    }

    fn effective(self, config: Config) -> Effective {
        let marks = self.marks();
        let follows = |key: &str| {
            let at = marks::KEYS.iter().position(|mark| *mark == key)?;
            marks[at].1.clone()
        };
        let set = |key: &str| self.overrides.get(key).map_or_else(|| "default".to_owned(), |o| o.source.clone());
        let source = |key: &str| follows(key).unwrap_or_else(|| set(key));
        let values = leaves(&serde_json::to_value(&config).expect("a configuration is a tree"));
        let row = |(key, value): (String, Value)| Row { source: source(&key), value: plain(&value), key };
        Effective { rows: values.into_iter().map(row).collect(), config, warnings: self.warnings }
    }
}

/// Sentences that may quote values, without credentials.
fn shown(sentences: Vec<String>) -> Vec<String> {
    sentences.into_iter().map(|sentence| redacted(&sentence).into_owned()).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Extends serde's message if YAML has read a word as a boolean.
fn explained(error: &str, value: &Value) -> String {
    match value {
        Value::Bool(_) => {
            format!(
                "{error}; {value} is a boolean (some YAML parsers read on, off, yes and no as booleans); \
                 quote it if you mean the word"
            )
        }
        _ => error.to_owned(),
    }
}

/// Checks one value of a setting, with all others at their defaults.
///
/// # Errors
/// Why the value is invalid.
pub fn check_value(key: &str, text: &str) -> Result<(), serde_json::Error> {
    let defaults = defaults();
    with(&defaults, key, meant(&defaults, key, text.into())).map(drop)
}

fn with(defaults: &Value, key: &str, value: Value) -> Result<Config, serde_json::Error> {
    let mut tree = defaults.clone();
    place(&mut tree, key, value);
    serde_json::from_value(tree)
}

/// The paths of all settings.
pub(super) fn setting_paths() -> Vec<String> {
    leaves(&defaults()).into_keys().collect()
}

fn defaults() -> Value {
    serde_json::to_value(Config::default()).expect("a configuration is a tree")
}

/// The environment variable of a setting: `watermarks.high` is `EBB_WATERMARKS_HIGH`.
pub fn variable(key: &str) -> String {
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

/// Parses the file.
fn parse(text: &str) -> Result<Value, ParseError> {
    match yaml::configuration(text)? {
        Value::Null => Ok(Value::Object(Map::new())),
        tree @ Value::Object(_) => Ok(tree),
        _ => Err(ParseError::NotMapping),
    }
}

/// Converts a value of another type than the setting's: a number or boolean in quotes, a boolean for a word (`off` is a
/// boolean in YAML 1.1), a number for a text (a pod may be called 7).
fn meant(defaults: &Value, key: &str, value: Value) -> Value {
    let fits = |value: &Value| with(defaults, key, value.clone()).is_ok();
    let words = |words: &[&str]| words.iter().map(|word| Value::from(*word)).collect();
    let readings: Vec<Value> = match &value {
        value if fits(value) => Vec::new(),
        Value::Bool(true) if is_word(defaults, key) => words(&["on", "yes", "true"]),
        Value::Bool(false) if is_word(defaults, key) => words(&["off", "no", "false"]),
        Value::Number(number) => vec![number.to_string().into()],
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" => vec![true.into()],
            "false" | "off" | "no" => vec![false.into()],
            text => text.parse::<u64>().map(Value::from).into_iter().collect(),
        },
        _ => Vec::new(),
    };
    readings.into_iter().find(fits).unwrap_or(value)
}

/// Whether a setting accepts only certain words.
fn is_word(defaults: &Value, key: &str) -> bool {
    with(defaults, key, "\u{0}".into()).is_err()
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

/// Sets the value at a path. The defaults contain every section.
fn place(tree: &mut Value, key: &str, value: Value) {
    let mut at = tree;
    for part in key.split('.') {
        at = &mut at[part];
    }
    *at = value;
}

fn unknown(key: &str, known: &Leaves, file: &str) -> String {
    let nearest = known.keys().min_by_key(|candidate| levenshtein(candidate, key)).expect("there are settings");
    let hint = if levenshtein(nearest, key) <= 3 { format!("; did you mean {nearest}?") } else { String::new() };
    format!("{file}: {key} is not a setting{hint}")
}
