//! The audit log: the calls of a service account and their results.

use crate::apiserver::Cluster;
use crate::rbac::{Right, account};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Number of calls that one Event causes if all of them are refused.
pub const EVENT_TRIES: usize = 4;

fn is_allowed(event: &Value) -> bool {
    event["annotations"]["authorization.k8s.io/decision"] == "allow"
}

impl Cluster {
    /// All calls of the account for objects.
    fn calls(&self, namespace: &str, name: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        // The last line may be incomplete.
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_ours =
            |event: &Value| event["user"]["username"] == account(namespace, name) && !event["objectRef"].is_null();
        events.filter(is_ours).collect()
    }

    /// Number of refused calls.
    pub fn times_refused(&self, namespace: &str, name: &str) -> usize {
        self.calls(namespace, name).iter().filter(|event| !is_allowed(event)).count()
    }

    /// Allowed and refused calls of the account.
    fn asked(&self, namespace: &str, name: &str) -> (BTreeSet<Right>, BTreeSet<Right>) {
        let (mut allowed, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for event in self.calls(namespace, name) {
            let object = &event["objectRef"];
            let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            let right = Right {
                group: text("apiGroup"),
                resource: match object["subresource"].as_str() {
                    Some(subresource) => format!("{}/{subresource}", text("resource")),
                    None => text("resource"),
                },
                namespace: text("namespace"),
                name: text("name"),
                verb: event["verb"].as_str().unwrap().to_owned(),
            };
            let decided = if is_allowed(&event) { &mut allowed } else { &mut refused };
            decided.insert(right);
        }
        (allowed, refused)
    }

    /// Checks that the account used each of its rights and requested no others.
    pub fn used_its_rights(&self, namespace: &str, name: &str, rights: &BTreeSet<Right>) {
        let (allowed, refused) = self.asked(namespace, name);
        let unused: Vec<_> = rights.iter().filter(|right| !allowed.iter().any(|asked| right.covers(asked))).collect();
        assert!(unused.is_empty(), "{name} has rights that it did not use: {unused:?}; it asked for {allowed:?}");
        assert!(refused.is_empty(), "{name} was refused: {refused:?}");
    }
}
