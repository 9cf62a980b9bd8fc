//! Which annotations a namespace and a pod may set: the administrator's choice.
//!
//! Offline, everything is allowed, since the user is the author. In a cluster, a namespace with the label [`TRUSTED`] and
//! its pods may set everything; others only what the administrator lists. Annotations that the running sidecar follows
//! are not listed: it reads those of its own pod.

use super::Namespace;
use super::annotations::ANNOTATIONS;
use ebb_config::annotations::PREFIX;
use std::collections::{BTreeMap, BTreeSet};

/// The label by which an administrator lets a namespace and its pods set every annotation.
pub const TRUSTED: &str = "ebb-cache.io/trusted";
/// Annotations that need the label by default: they choose what runs in the sidecar, and what applications see.
pub const RESERVED: [&str; 3] = ["additional-env", "image", "unix-socket-path"];

/// The annotations that namespaces and pods may set, by name without the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Option<Lists>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lists {
    namespaces: BTreeSet<String>,
    pods: BTreeSet<String>,
}

impl Allowed {
    /// Namespaces and pods may set these annotations; `None` means all but the reserved ones.
    ///
    /// # Errors
    /// The first name that no annotation has.
    pub fn new(namespaces: Option<Vec<String>>, pods: Option<Vec<String>>) -> Result<Self, String> {
        let by_default = || names().filter(|name| !RESERVED.contains(name)).map(str::to_owned).collect();
        let list = |given: Option<Vec<String>>| match given {
            None => Ok(by_default()),
            Some(given) => {
                let given: BTreeSet<_> = given.into_iter().filter(|name| !name.is_empty()).collect();
                match given.iter().find(|given| names().all(|name| name != *given)) {
                    Some(unknown) => Err(unknown.clone()),
                    None => Ok(given),
                }
            }
        };
        Ok(Self(Some(Lists { namespaces: list(namespaces)?, pods: list(pods)? })))
    }

    /// Removes the annotations that the namespace and its pod may not set; returns their full names.
    pub(super) fn take_refused(
        &self,
        namespace: &Namespace,
        inherited: &mut BTreeMap<String, String>,
        own: &mut BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let Some(lists) = &self.0 else { return BTreeMap::new() };
        if namespace.labels.get(TRUSTED).is_some_and(|word| word == "true") {
            return BTreeMap::new();
        }
        let mut refused = BTreeMap::new();
        for (annotations, allowed) in [(inherited, &lists.namespaces), (own, &lists.pods)] {
            let is_refused = |name: &str| {
                let name = name.strip_prefix(PREFIX).filter(|name| names().any(|known| known == *name));
                name.is_some_and(|name| !allowed.contains(name))
            };
            annotations.retain(|name, value| {
                let is_refused = is_refused(name);
                if is_refused {
                    refused.insert(name.clone(), std::mem::take(value));
                }
                !is_refused
            });
        }
        refused
    }
}

/// The names of all annotations that are read at injection, without the prefix.
pub fn names() -> impl Iterator<Item = &'static str> {
    ANNOTATIONS.iter().map(|annotation| annotation.name)
}
