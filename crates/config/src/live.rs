//! The configuration while the process runs: polls the source and applies valid changes.
//!
//! All texts are read and compared about once a second. They are small, and polling detects every kind of change: an
//! edit in place, a rename, and the `..data` link by which Kubernetes swaps a whole directory. A file watch would keep
//! watching the old directory.

use super::layers::{self, Flags, Problems};
use super::source::{ReadError, Source, Texts};
use super::{Compaction, Config, DynamicSettings, Effective, Row};
use std::fmt;
use std::time::SystemTime;

/// The active configuration and its source.
pub struct Live {
    source: Source,
    environment: Vec<(String, String)>,
    flags: Flags,
    seen: Result<Texts, ReadError>,
    /// The result of the last poll, if a file may have been read half-written.
    unsettled: Option<Result<Texts, ReadError>>,
    /// Name and text of the active file.
    file: Option<(String, String)>,
    effective: Effective,
    problem: Option<String>,
    /// Why variables of dynamic settings are skipped; they stay so until the process ends.
    skipped: Option<String>,
    /// Both, for readers.
    problems: Option<String>,
    generation: u64,
    applied_at_ms: u64,
}

/// The active configuration as published to other threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveConfig {
    /// All settings with their sources.
    pub rows: Vec<Row>,
    /// When compaction runs.
    pub compaction: Compaction,
    /// Why the configuration on disk is not active, if it is not.
    pub problem: Option<String>,
    /// Number of applied configurations, from 1.
    pub generation: u64,
    /// When this configuration was applied, in Unix milliseconds.
    pub applied_at_ms: u64,
}

/// Result of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// No change.
    Unchanged,
    /// The change was applied.
    Applied {
        /// Changed settings, as `key: old → new`.
        changes: Vec<String>,
        /// Unknown keys and changed static settings.
        warnings: Vec<String>,
    },
    /// The change is invalid; the active configuration stays. Holds the reason.
    Rejected(String),
}

impl fmt::Debug for Live {
    /// Without the texts that were read: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, effective, problems, generation, .. } = self;
        let mut shown = f.debug_struct("Live");
        shown.field("source", source).field("rows", &effective.rows).field("problems", problems);
        shown.field("generation", generation).finish_non_exhaustive()
    }
}

impl Live {
    /// The configuration at the start.
    ///
    /// # Errors
    /// Every problem of every layer. Invalid keys in a volume, and variables of dynamic settings, are skipped instead;
    /// see [`Self::problem`].
    pub fn start(source: Source, environment: Vec<(String, String)>, flags: Flags) -> Result<Self, Problems> {
        let (environment, skipped) = layers::usable(environment);
        let seen = source.read();
        let (effective, problem) = match (&seen, source.is_lenient()) {
            (Ok(texts), false) => (layers::merge(texts, &environment, &flags)?, None),
            (Err(error), false) => return Err(Problems(vec![error.to_string()])),
            (_, true) => {
                let texts = seen.clone().unwrap_or_else(|_| source.readable());
                let (effective, problems) = layers::merge_leniently(&texts, &environment, &flags)?;
                let unreadable = seen.as_ref().err().map(ToString::to_string);
                let problems = unreadable.into_iter().chain(problems.map(|problems| problems.to_string()));
                (effective, Some(problems.collect::<Vec<_>>().join("; ")).filter(|problems| !problems.is_empty()))
            }
        };
        let file = seen.as_ref().ok().filter(|_| problem.is_none()).and_then(|texts| texts.file.clone());
        let skipped = Some(skipped.join("; ")).filter(|skipped| !skipped.is_empty());
        let mut live = Self {
            source,
            environment,
            flags,
            seen,
            unsettled: None,
            file,
            effective,
            problem: None,
            skipped,
            problems: None,
            generation: 1,
            applied_at_ms: unix_ms(),
        };
        live.set_problem(problem);
        Ok(live)
    }

    /// Why the current source or a variable is invalid, if one is. The last valid configuration of the source stays
    /// active, and the default of the variable's setting.
    pub fn problem(&self) -> Option<&str> {
        self.problems.as_deref()
    }

    fn set_problem(&mut self, problem: Option<String>) {
        let both: Vec<&str> = [&problem, &self.skipped].into_iter().flatten().map(String::as_str).collect();
        self.problems = Some(both.join("; ")).filter(|problems| !problems.is_empty());
        self.problem = problem;
    }

    /// The active configuration.
    pub fn config(&self) -> &Config {
        &self.effective.config
    }

    /// The active configuration with sources.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// The active configuration, for publishing.
    pub fn active(&self) -> ActiveConfig {
        let Self { effective, problems, generation, applied_at_ms, .. } = self;
        let (generation, applied_at_ms) = (*generation, *applied_at_ms);
        ActiveConfig {
            rows: effective.rows.clone(),
            compaction: effective.config.dynamic.compaction,
            problem: problems.clone(),
            generation,
            applied_at_ms,
        }
    }

    /// The active dynamic settings.
    pub fn dynamic(&self) -> &DynamicSettings {
        &self.effective.config.dynamic
    }

    /// Reads the source again and applies a valid change.
    pub fn poll(&mut self) -> Reload {
        let now = self.source.read();
        if now == self.seen {
            self.unsettled = None;
            return Reload::Unchanged;
        }
        // A plain file may be read half-written: a change is applied once two polls read the same bytes.
        if !self.source.is_atomic() && self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return Reload::Unchanged;
        }
        self.unsettled = None;
        self.seen.clone_from(&now);
        let merged = now.map_err(|error| error.to_string()).and_then(|texts| {
            let (texts, gone) = self.with_last_file(texts);
            let next =
                layers::merge(&texts, &self.environment, &self.flags).map_err(|problems| problems.to_string())?;
            Ok((texts.file, gone, next))
        });
        match merged {
            Ok((file, gone, next)) => {
                self.file = file;
                self.set_problem(gone);
                let applied = self.apply(next);
                self.problem.clone().map_or(applied, Reload::Rejected)
            }
            Err(why) => {
                self.set_problem(Some(why.clone()));
                Reload::Rejected(why)
            }
        }
    }

    /// Keeps the last file if it disappears from a volume: a ConfigMap may be deleted and created again.
    fn with_last_file(&self, texts: Texts) -> (Texts, Option<String>) {
        match &self.file {
            Some((name, text)) if texts.file.is_none() => {
                let gone = format!(
                    "{name} is missing; its last values stay active until the next start or until the file returns"
                );
                (Texts { file: Some((name.clone(), text.clone())), ..texts }, Some(gone))
            }
            _ => (texts, None),
        }
    }

    /// Applies the dynamic settings of `next`. Its static settings apply at the next start.
    fn apply(&mut self, next: Effective) -> Reload {
        let mut warnings = next.warnings.clone();
        let mut changes = Vec::new();
        let is_static = |key: &str| {
            serde_json::to_value(&next.config.static_settings).is_ok_and(|settings| settings.get(key).is_some())
        };
        let endpoint = |of: &Effective| of.config.static_settings.otlp_endpoint.clone();
        let has_other_secret = endpoint(&self.effective) != endpoint(&next);
        let is_changed = |(old, new): &(&Row, &Row)| {
            // A row hides the credentials, and may look the same with others.
            old.value != new.value || old.key == "otlpEndpoint" && has_other_secret
        };
        for (old, new) in self.effective.rows.iter().zip(&next.rows).filter(is_changed) {
            let change = format!("{}: {} → {}", old.key, old.value, new.value);
            match is_static(&old.key) {
                true => warnings.push(format!("{change} applies at the next start")),
                false => changes.push(change),
            }
        }
        let static_settings = self.effective.config.static_settings.clone();
        let old_rows = std::mem::take(&mut self.effective.rows);
        let rows = old_rows.into_iter().zip(next.rows).map(|(old, new)| if is_static(&old.key) { old } else { new });
        self.effective.rows = rows.collect();
        self.effective.config = Config { static_settings, dynamic: next.config.dynamic };
        (self.generation, self.applied_at_ms) = (self.generation + 1, unix_ms());
        Reload::Applied { changes, warnings }
    }
}

/// Unix time in milliseconds.
#[expect(clippy::disallowed_methods, reason = "the time of the last change is shown to people")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
