//! What `ebb doctor` and `ebb check` report.

use serde::Serialize;
use strum::IntoStaticStr;

/// How bad a finding is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, Serialize)]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will fail or costs too much, or it could not be checked.
    Warning,
    /// Good to know.
    Info,
    /// Checked, without a problem.
    Ok,
}

impl Severity {
    /// The stable name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name: the rule of the doctor, or the category of a check of an installation.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The facts, with numbers, in a sentence.
    pub evidence: String,
    /// What to do; empty without a problem.
    pub remedy: String,
}
