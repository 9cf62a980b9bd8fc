//! The configuration while the process runs: the file is looked at again, and what is good in it takes hold.
//!
//! Its layers are read and compared whole, about once a second. They are small, and that notices every way in which they
//! can change: an edit in place, a rename, and the `..data` link by which Kubernetes swaps a whole directory (where a
//! file watch would go on watching the old one).

use super::layers::{self, Flags, Problems};
use super::source::{Source, Texts};
use super::{Compaction, Config, DynamicSettings, Effective, Row};
use std::time::SystemTime;

/// The active configuration, and how it is looked at again.
#[derive(Debug)]
pub struct Live {
    source: Source,
    environment: Vec<(String, String)>,
    flags: Flags,
    seen: Result<Texts, String>,
    /// What the last look found, if it may have caught somebody writing.
    unsettled: Option<Result<Texts, String>>,
    /// Name and text of the file that is active.
    file: Option<(String, String)>,
    effective: Effective,
    problem: Option<String>,
    generation: u64,
    applied_at_ms: u64,
}

/// The configuration as those who watch see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Every setting, and where its value comes from.
    pub rows: Vec<Row>,
    /// Whether compaction starts by itself.
    pub compaction: Compaction,
    /// Why what is on disk is not active, if so.
    pub problem: Option<String>,
    /// Counts up from 1 each time another one takes hold.
    pub generation: u64,
    /// When this one took hold, in Unix milliseconds.
    pub applied_at_ms: u64,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The same as last time.
    Unchanged,
    /// It took hold: each change as `key: old → new`, and what was passed over.
    Applied {
        /// What changed active.
        changes: Vec<String>,
        /// Unknown keys, and settings that are read only at the start.
        warnings: Vec<String>,
    },
    /// It is wrong; what was active stays. One sentence.
    Rejected(String),
}

impl Live {
    /// The configuration at the start.
    ///
    /// # Errors
    /// Every problem of every layer. What is wrong in a volume is passed over instead; see [`Self::problem`].
    pub fn start(source: Source, environment: Vec<(String, String)>, flags: Flags) -> Result<Self, Problems> {
        let seen = source.read();
        let (effective, problem) = match (&seen, source.is_lenient()) {
            (Ok(texts), false) => (layers::merge(texts, &environment, &flags)?, None),
            (Err(why), false) => return Err(Problems(vec![why.clone()])),
            (_, true) => {
                let texts = seen.clone().unwrap_or_else(|_| source.readable());
                let (effective, problems) = layers::merge_leniently(&texts, &environment, &flags)?;
                let problems = seen.as_ref().err().cloned().into_iter().chain(problems.map(|p| p.to_string()));
                (effective, Some(problems.collect::<Vec<_>>().join("; ")).filter(|problems| !problems.is_empty()))
            }
        };
        let file = seen.as_ref().ok().filter(|_| problem.is_none()).and_then(|texts| texts.file.clone());
        Ok(Self {
            source,
            environment,
            flags,
            seen,
            unsettled: None,
            file,
            effective,
            problem,
            generation: 1,
            applied_at_ms: unix_ms(),
        })
    }

    /// What is wrong with the layers as they are now; what was good last is active.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What is active.
    pub fn config(&self) -> &Config {
        &self.effective.config
    }

    /// What is active, with where each value came from.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// What those who watch see of it.
    pub fn in_force(&self) -> InForce {
        let Self { effective, problem, generation, applied_at_ms, .. } = self;
        let (generation, applied_at_ms) = (*generation, *applied_at_ms);
        InForce {
            rows: effective.rows.clone(),
            compaction: effective.config.dynamic.compaction,
            problem: problem.clone(),
            generation,
            applied_at_ms,
        }
    }

    /// The active tuning.
    pub fn dynamic(&self) -> &DynamicSettings {
        &self.effective.config.dynamic
    }

    /// Looks at the layers again.
    pub fn poll(&mut self) -> Reload {
        let now = self.source.read();
        if now == self.seen {
            self.unsettled = None;
            return Reload::Unchanged;
        }
        // A plain file may be caught half written: it takes hold when two looks find the same bytes.
        if !self.source.is_atomic() && self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return Reload::Unchanged;
        }
        self.unsettled = None;
        self.seen.clone_from(&now);
        let merged = now.and_then(|texts| {
            let (texts, gone) = self.with_last_file(texts);
            let next =
                layers::merge(&texts, &self.environment, &self.flags).map_err(|problems| problems.to_string())?;
            Ok((texts.file, gone, next))
        });
        match merged {
            Ok((file, gone, next)) => {
                (self.file, self.problem) = (file, gone);
                let applied = self.apply(next);
                self.problem.clone().map_or(applied, Reload::Rejected)
            }
            Err(why) => {
                self.problem = Some(why.clone());
                Reload::Rejected(why)
            }
        }
    }

    /// A file that is gone from a volume is no order to forget: a ConfigMap may be deleted only to be created again.
    fn with_last_file(&self, texts: Texts) -> (Texts, Option<String>) {
        match &self.file {
            Some((name, text)) if texts.file.is_none() => {
                let gone = format!("{name} is gone; what it said last stays until the next start, or until it is back");
                (Texts { file: Some((name.clone(), text.clone())), ..texts }, Some(gone))
            }
            _ => (texts, None),
        }
    }

    /// Takes the dynamic settings of `next`; its static settings wait for the next start.
    fn apply(&mut self, next: Effective) -> Reload {
        let mut warnings = next.warnings.clone();
        let mut changes = Vec::new();
        let is_static = |key: &str| {
            serde_json::to_value(&next.config.static_settings).is_ok_and(|settings| settings.get(key).is_some())
        };
        for (old, new) in self.effective.rows.iter().zip(&next.rows).filter(|(old, new)| old.value != new.value) {
            let change = format!("{}: {} → {}", old.key, old.value, new.value);
            match is_static(&old.key) {
                true => warnings.push(format!("{change} takes hold at the next start")),
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
#[expect(clippy::disallowed_methods, reason = "people are shown when a configuration took effect")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
