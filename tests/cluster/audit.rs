//! What a service account asked the API server for, and whether it was let: the audit log.

use crate::apiserver::Cluster;
use crate::rbac::{Right, account};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

impl Cluster {
    /// What the account was let do, and what not.
    fn asked(&self, namespace: &str, name: &str) -> (BTreeSet<Right>, BTreeSet<Right>) {
        let (mut allowed, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let log = fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        // A line may be half written.
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let object = &event["objectRef"];
            if event["user"]["username"] != account(namespace, name) || object.is_null() {
                continue;
            }
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
            match event["annotations"]["authorization.k8s.io/decision"].as_str() {
                Some("allow") => allowed.insert(right),
                _ => refused.insert(right),
            };
        }
        (allowed, refused)
    }

    /// The account used each of its rights, and asked for nothing else: it has neither too many nor too few.
    pub fn used_its_rights(&self, namespace: &str, name: &str, rights: &BTreeSet<Right>) {
        let (allowed, refused) = self.asked(namespace, name);
        let unused: Vec<_> = rights.iter().filter(|right| !allowed.iter().any(|asked| right.covers(asked))).collect();
        assert!(unused.is_empty(), "{name} has rights that it did not use: {unused:?}; it asked for {allowed:?}");
        assert!(refused.is_empty(), "{name} was refused: {refused:?}");
    }
}
