//! Checks that each revision that a namespace or a pod names is installed, and lists the versions of sidecars by
//! revision.

use super::{Facts, Finding, Severity, bad, ok};

/// Maximum number of namespaces and pods in the evidence.
const MOST_NAMED: usize = 5;

pub(super) fn revisions(facts: &Facts, all: &mut Vec<Finding>) {
    const CATEGORY: &str = "revisions";
    let revisions = &facts.revisions;
    let checked = &revisions.checked;
    if let Some(installed) = revisions.installed.as_ref().filter(|installed| !installed.is_empty()) {
        let names = installed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match installed.contains_key(checked) {
            true => {
                let each = installed.iter().map(|(revision, objects)| format!("{revision} ({})", objects.join(", ")));
                let each = each.collect::<Vec<_>>().join("; ");
                ok(all, CATEGORY, format!("the checked revision is {checked}; installed: {each}"));
            }
            false => {
                let found = format!("no injector has the revision {checked} (installed: {names})");
                let remedy =
                    format!("Check an installed one by --rev, or install a release with injector.revision={checked}.");
                bad(all, CATEGORY, Severity::Error, found, &remedy);
            }
        }
        for (revision, who) in revisions.named.iter().filter(|(revision, _)| !installed.contains_key(*revision)) {
            let shown = who.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more =
                if who.len() > MOST_NAMED { format!(" and {} more", who.len() - MOST_NAMED) } else { String::new() };
            let found = format!("the revision {revision} is not installed (installed: {names}): {shown}{more}");
            let remedy = format!(
                "Nothing injects their pods. Correct the label ebb-cache.io/rev, or install a release with \
                 injector.revision={revision}."
            );
            bad(all, CATEGORY, Severity::Warning, found, &remedy);
        }
    }
    for (revision, versions) in &revisions.sidecars {
        let each = versions.iter().map(|(version, number)| {
            format!("{number} of version {}", if version.is_empty() { "unknown" } else { version })
        });
        let each = each.collect::<Vec<_>>().join(", ");
        ok(all, CATEGORY, format!("sidecars of the revision {revision}: {each}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only, troubles, well};
    use super::*;
    use crate::check::Revisions;
    use std::collections::{BTreeMap, BTreeSet};

    fn with(checked: &str, installed: &[&str], named: &[(&str, &[&str])]) -> Facts {
        let text = |text: &str| text.to_owned();
        let revisions = Revisions {
            checked: text(checked),
            installed: Some(
                installed.iter().map(|revision| (text(revision), vec![format!("webhook {revision}")])).collect(),
            ),
            named: named
                .iter()
                .map(|(revision, who)| (text(revision), who.iter().map(|who| text(who)).collect()))
                .collect(),
            sidecars: BTreeMap::from([(text(checked), BTreeMap::from([(text("1"), 2), (text("2"), 1)]))]),
        };
        Facts { revisions, ..well() }
    }

    #[test]
    fn a_revision_that_is_named_must_be_installed() {
        let both = &["canary", "default"][..];
        let named = [("canary", &["namespace a"][..]), ("default", &["namespace b"])];
        assert_eq!(troubles(&with("canary", both, &named)), []);
        let lines: Vec<_> =
            super::super::judge(&with("canary", both, &named)).into_iter().map(|one| one.evidence).collect();
        for line in [
            "the checked revision is canary; installed: canary (webhook canary); default (webhook default)",
            "sidecars of the revision canary: 2 of version 1, 1 of version 2",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        let words = "the revision blue is not installed (installed: canary, default): namespace c, pod d/e";
        let named = [("blue", &["namespace c", "pod d/e"][..])];
        only(&with("canary", both, &named), "revisions", Severity::Warning, words);
        let words = "no injector has the revision blue (installed: canary, default)";
        only(&with("blue", both, &[]), "revisions", Severity::Error, words);
        let many: BTreeSet<String> = (0..7).map(|n| format!("namespace n{n}")).collect();
        let mut facts = with("canary", both, &[]);
        facts.revisions.named.insert("blue".to_owned(), many);
        only(&facts, "revisions", Severity::Warning, "namespace n4 and 2 more");
    }

    #[test]
    fn without_an_injector_or_a_list_of_them_nobody_names_a_wrong_one() {
        let named = [("blue", &["namespace c"][..])];
        assert_eq!(troubles(&with("default", &[], &named)), []);
        let mut facts = with("default", &["default"], &named);
        facts.revisions.installed = None;
        assert_eq!(troubles(&facts), []);
    }
}
