//! The configuration while the process runs: the file is looked at again, and what is good in it takes hold.
//!
//! The file is read and compared whole, about once a second. It is small, and that notices every way in which it can
//! change: an edit in place, a rename, and the `..data` link by which Kubernetes swaps a whole directory (where a file
//! watch would go on watching the old one).

use super::layers::{self, Flags};
use super::{Config, Effective, Tuning};
use std::path::PathBuf;

/// The configuration in force, and how it is looked at again.
#[derive(Debug)]
pub struct Live {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Flags,
    seen: Option<Result<String, String>>,
    effective: Effective,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The same as last time.
    Unchanged,
    /// It took hold: each change as `key: old → new`, and what was passed over.
    Applied {
        /// What changed in force.
        changes: Vec<String>,
        /// Unknown keys, and knobs that are read only at the start.
        warnings: Vec<String>,
    },
    /// It is wrong; what was in force stays. One sentence.
    Rejected(String),
}

impl Live {
    /// The configuration at the start.
    ///
    /// # Errors
    /// Every problem of every layer.
    pub fn start(
        file: Option<PathBuf>,
        environment: Vec<(String, String)>,
        flags: Flags,
    ) -> Result<Self, layers::Problems> {
        let effective = layers::load(file.as_deref(), &environment, &flags)?;
        let mut live = Self { file, environment, flags, seen: None, effective };
        live.seen = live.read();
        Ok(live)
    }

    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.effective.config
    }

    /// What is in force, with where each value came from.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// The tuning in force.
    pub fn tuning(&self) -> &Tuning {
        &self.effective.config.tuning
    }

    fn read(&self) -> Option<Result<String, String>> {
        let path = self.file.as_ref()?;
        Some(std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display())))
    }

    /// Looks at the file again.
    pub fn poll(&mut self) -> Reload {
        let now = self.read();
        if now == self.seen {
            return Reload::Unchanged;
        }
        self.seen.clone_from(&now);
        let (text, path) = match (now, &self.file) {
            (Some(Ok(text)), Some(path)) => (text, path),
            (Some(Err(why)), _) => return Reload::Rejected(why),
            _ => return Reload::Unchanged,
        };
        match layers::merge(Some((path.as_path(), &text)), &self.environment, &self.flags) {
            Err(problems) => Reload::Rejected(problems.to_string()),
            Ok(next) => self.apply(next),
        }
    }

    /// Takes the tuning of `next`; its boot values wait for the next start.
    fn apply(&mut self, next: Effective) -> Reload {
        let mut warnings = next.warnings.clone();
        let mut changes = Vec::new();
        let is_boot = |key: &str| serde_json::to_value(&next.config.boot).is_ok_and(|boot| boot.get(key).is_some());
        for (old, new) in self.effective.rows.iter().zip(&next.rows).filter(|(old, new)| old.value != new.value) {
            let change = format!("{}: {} → {}", old.key, old.value, new.value);
            match is_boot(&old.key) {
                true => warnings.push(format!("{change} takes hold at the next start")),
                false => changes.push(change),
            }
        }
        let boot = self.effective.config.boot.clone();
        let old_rows = std::mem::take(&mut self.effective.rows);
        let rows = old_rows.into_iter().zip(next.rows).map(|(old, new)| if is_boot(&old.key) { old } else { new });
        self.effective.rows = rows.collect();
        self.effective.config = Config { boot, tuning: next.config.tuning };
        Reload::Applied { changes, warnings }
    }
}
