//! The template of the sidecar, followed while the injector runs.
//!
//! A changed file is parsed and checked as the sidecar checks its configuration at start. A bad one changes nothing: the
//! last good template stays in use, and the problem is in the log, the metric `ebb_injector_template_good` and an Event.
//! Without any good template the injector is not ready, and pods pass without a sidecar.

use super::Objects;
use super::events::Events;
use super::metrics::Metrics;
use crate::inject::{Allowed, Template};
use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::ObjectReference;
use std::path::PathBuf;
use std::sync::Arc;

/// The file of the template.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    /// The annotations that namespaces and pods may set.
    allowed: Allowed,
    /// The last reading: the text, or why there is none.
    seen: Option<Result<String, String>>,
    problem: Option<String>,
    /// The pod of this replica, which the Event is about.
    about: ObjectReference,
}

impl Followed {
    pub(super) fn new(path: PathBuf, allowed: Allowed, objects: &Objects) -> Self {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(objects.identity.clone()),
            namespace: Some(objects.namespace.clone()),
            ..ObjectReference::default()
        };
        Self { path, allowed, seen: None, problem: None, about }
    }

    /// Why the template on disk is not in use, if it is not.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Applies a changed template.
    pub(super) fn look(&mut self, active: &ArcSwapOption<Template>, metrics: &Metrics, events: Option<&Events>) {
        let path = self.path.display();
        let now = std::fs::read_to_string(&self.path).map_err(|error| format!("cannot read {path}: {error}"));
        if self.seen.as_ref() == Some(&now) {
            return;
        }
        let parsed = match &now {
            Ok(text) => Template::parse(text).map_err(|error| format!("{path}: {error}")),
            Err(why) => Err(why.clone()),
        };
        self.seen = Some(now);
        metrics.template_is_good(parsed.is_ok());
        match parsed {
            Ok(template) => {
                self.problem = None;
                active.store(Some(Arc::new(template.changed_by(self.allowed.clone()))));
                tracing::info!("sidecar template loaded");
            }
            Err(why) => {
                let has_last = active.load().is_some();
                match has_last {
                    true => tracing::error!(why, "sidecar template rejected; the last good one stays active"),
                    false => tracing::error!(why, "sidecar template rejected; no pod gets a sidecar until it is valid"),
                }
                if let Some(events) = events {
                    events.template_rejected(&why, has_last, self.about.clone());
                }
                self.problem = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::serve;

    const GOOD: &str = include_str!("../../../../manifests/sidecar.yaml");

    #[test]
    fn a_bad_template_keeps_the_last_good_one() {
        let path = std::env::temp_dir().join(format!("ebb-template-{}.yaml", std::process::id()));
        let objects = Objects {
            namespace: "ebb-system".to_owned(),
            secret: String::new(),
            lease: String::new(),
            webhook: String::new(),
            identity: "ebb-injector-0".to_owned(),
        };
        let allowed = Allowed::new(None, None).unwrap();
        let (active, metrics) = (ArcSwapOption::empty(), Metrics::new(serve::connections()));
        let mut followed = Followed::new(path.clone(), allowed.clone(), &objects);
        let mut look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            followed.look(&active, &metrics, None);
            let is_good = metrics.text().contains("ebb_injector_template_good 1");
            (is_good, active.load_full(), followed.problem().map(str::to_owned))
        };
        let bad = GOOD
            .replace("- name: EBB_LOG_FORMAT", "- {name: EBB_CORES, value: \"0\"}\n          - name: EBB_LOG_FORMAT");
        let (is_good, template, problem) = look(&bad);
        assert!(!is_good && template.is_none(), "there is none to keep");
        assert!(problem.unwrap().ends_with("the sidecar refuses its environment: cores: 0 is out of range (1 to 64)"));
        let (is_good, first, problem) = look(GOOD);
        assert!(is_good && problem.is_none());
        let restricted = Template::parse(GOOD).unwrap().changed_by(allowed);
        assert_eq!(first.as_deref(), Some(&restricted));
        let (is_good, kept, problem) = look(&bad);
        assert!(!is_good && kept == first && problem.is_some());
        let (is_good, again, _) = look(GOOD);
        assert!(
            is_good && again.as_deref() == Some(&restricted),
            "a template that is loaded again has the same bounds"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
