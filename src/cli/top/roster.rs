//! Which sidecars are on the screen: servers at addresses, or the present pods of targets.
//!
//! ```text
//!  look (every few seconds) ──► Roster ──► App: new pods are added, pods that went are removed
//!                                 └──► a task per sidecar (`follow`), ended with its pod
//! ```
//! R1. A pod keeps its readings as long as it exists. A later pod of its name is another one.
//! R2. A pod that begins or ceases to be one that can be asked is connected again, and keeps its readings.
//! R3. What the API server does not tell changes nothing; the reason is shown.

use super::App;
use super::follow::{Sidecar, Update, follow};
use crate::cli::connect::At;
use crate::cli::pods::{Pod, Pods, Present, once_each};
use crate::cli::targets::Target;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

/// Interval between searches for pods.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// Names in a line, beyond which pods are counted.
const NAMES: usize = 4;

/// Sends the present pods of all targets, until the receiver is dropped.
pub(super) async fn look(pods: Pods, to: Sender<Vec<(Target, Present)>>) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await; // the first search was made before
    loop {
        looks.tick().await;
        if to.send(pods.present().await).await.is_err() {
            return;
        }
    }
}

/// The tasks behind the sidecars on the screen.
#[derive(Debug)]
pub(super) struct Roster {
    every_ms: u64,
    updates: Sender<(u64, Update)>,
    tasks: BTreeMap<u64, AbortHandle>,
    last_id: u64,
    /// The last known pods of each target, by its name.
    known: BTreeMap<String, Vec<Pod>>,
}

impl Roster {
    /// `updates` receives the updates of all sidecars, with their IDs.
    pub(super) fn new(every_ms: u64, updates: Sender<(u64, Update)>) -> Self {
        Self { every_ms, updates, tasks: BTreeMap::new(), last_id: 0, known: BTreeMap::new() }
    }

    /// Adds a sidecar.
    pub(super) fn add(&mut self, app: &mut App, at: At) {
        self.last_id += 1;
        self.connect(self.last_id, &at);
        app.sidecars.push(Sidecar::new(self.last_id, at));
    }

    fn connect(&mut self, id: u64, at: &At) {
        let task = tokio::spawn(follow(id, at.clone(), self.every_ms, self.updates.clone()));
        if let Some(before) = self.tasks.insert(id, task.abort_handle()) {
            before.abort();
        }
    }

    /// Shows the present pods, and what has changed.
    pub(super) fn show(&mut self, app: &mut App, present: Vec<(Target, Present)>) {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for (target, present) in present {
            let known = self.known.entry(target.to_string()).or_default();
            match present {
                Present::Pods(pods) => *known = pods,
                Present::Missing(pods, why) => (*known, _) = (pods, problems.push(why)),
                Present::Unknown(why) => problems.push(why),
            }
            found.extend(known.iter().cloned());
        }
        app.problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.replace(app, once_each(found));
    }

    /// Adds and removes sidecars, so that those of these pods are on the screen, in this order.
    fn replace(&mut self, app: &mut App, pods: Vec<Pod>) {
        let selected = app.sidecars.get(app.selected).map(|sidecar| sidecar.id);
        let mut before = std::mem::take(&mut app.sidecars);
        let mut added = Vec::new();
        for pod in pods {
            let is_it = |sidecar: &Sidecar| matches!(&sidecar.at, At::Pod(old) if old.is_same(&pod));
            let Some(at) = before.iter().position(is_it) else {
                added.push(pod.to_string());
                self.add(app, At::Pod(Box::new(pod)));
                continue;
            };
            let mut sidecar = before.remove(at);
            if matches!(&sidecar.at, At::Pod(old) if old.problem() != pod.problem()) {
                sidecar.at = At::Pod(Box::new(pod));
                self.connect(sidecar.id, &sidecar.at);
            }
            app.sidecars.push(sidecar);
        }
        for gone in &before {
            if let Some(task) = self.tasks.remove(&gone.id) {
                task.abort();
            }
        }
        let same = app.sidecars.iter().position(|sidecar| Some(sidecar.id) == selected);
        app.selected = same.unwrap_or(app.selected.min(app.sidecars.len().saturating_sub(1)));
        let removed: Vec<_> = before.iter().map(|sidecar| sidecar.at.to_string()).collect();
        let parts = [("new", added), ("gone", removed)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<_> = parts.map(|(word, names)| format!("{word}: {}", listed(names))).collect();
        if !parts.is_empty() {
            app.change = Some(parts.join(", "));
        }
    }
}

/// The first names, and the number of the others.
fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMES)].join(" ");
    match names.len().saturating_sub(NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_proto::GetStatsResponse;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    /// Shows pods, given as name, UID and problem.
    fn show(roster: &mut Roster, app: &mut App, pods: &[(&str, &str, Option<&str>)]) {
        let pods = pods.iter().map(|(name, uid, problem)| Pod::fake(name, uid, *problem)).collect();
        roster.show(app, vec![(target("deploy/shop"), Present::Pods(pods))]);
    }

    fn names(app: &App) -> Vec<String> {
        app.sidecars.iter().map(|sidecar| sidecar.at.to_string()).collect()
    }

    fn new() -> (Roster, App, tokio::sync::mpsc::Receiver<(u64, Update)>) {
        let (sender, updates) = tokio::sync::mpsc::channel(64);
        (Roster::new(1_000, sender), App::new(), updates)
    }

    #[tokio::test]
    async fn a_rollout_replaces_the_pods_and_keeps_the_others() {
        let (mut roster, mut app, _updates) = new();
        show(&mut roster, &mut app, &[("a", "1", None), ("b", "2", None)]);
        app.selected = 1;
        app.sidecars[1].apply(Update::Stats(Box::new(GetStatsResponse { uptime_ms: 7, ..Default::default() })));
        let pending = Some("its sidecar is not running (the pod is Pending)");
        show(&mut roster, &mut app, &[("b", "2", None), ("c", "3", pending)]);
        assert_eq!((names(&app), app.selected), (vec!["pod/b".to_owned(), "pod/c".to_owned()], 0));
        assert_eq!(app.change.as_deref(), Some("new: pod/c, gone: pod/a"));
        assert_eq!(app.sidecars[0].latest.as_ref().map(|(_, stats)| stats.uptime_ms), Some(7), "it keeps its readings");
        assert_eq!(roster.tasks.len(), 2, "nobody follows a pod that has gone");
        let (id, task) = roster.tasks.last_key_value().map(|(id, task)| (*id, task.id())).unwrap();
        show(&mut roster, &mut app, &[("b", "2", None), ("c", "3", None)]);
        assert_ne!(roster.tasks[&id].id(), task, "a pod that runs is connected");
        // A StatefulSet's pod comes again under its name.
        show(&mut roster, &mut app, &[("b", "4", None), ("c", "3", None)]);
        assert_eq!(app.change.as_deref(), Some("new: pod/b, gone: pod/b"));
        assert!(app.sidecars[0].latest.is_none());
        show(&mut roster, &mut app, &[]);
        assert_eq!((app.sidecars.len(), app.selected, roster.tasks.len()), (0, 0, 0), "scaled to zero");
        show(&mut roster, &mut app, &[("d", "5", None)]);
        assert_eq!(names(&app), ["pod/d"]);
    }

    #[tokio::test]
    async fn what_the_api_server_does_not_tell_changes_nothing() {
        let (mut roster, mut app, _updates) = new();
        show(&mut roster, &mut app, &[("a", "1", None)]);
        roster.show(&mut app, vec![(target("deploy/shop"), Present::Unknown("cannot reach it".to_owned()))]);
        assert_eq!((names(&app), app.problem.as_deref()), (vec!["pod/a".to_owned()], Some("cannot reach it")));
        show(&mut roster, &mut app, &[("a", "1", None)]);
        assert_eq!(app.problem, None);
        let missing = || Present::Missing(Vec::new(), "deployment/shop: not found".to_owned());
        roster.show(&mut app, vec![(target("deploy/shop"), missing())]);
        assert_eq!((app.sidecars.len(), app.problem.as_deref()), (0, Some("deployment/shop: not found")));
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| (name, name, None)).into();
        show(&mut roster, &mut app, &many);
        assert_eq!(app.change.as_deref(), Some("new: pod/a pod/b pod/c pod/d and 2 more"));
    }

    #[tokio::test]
    async fn a_pod_of_two_targets_is_shown_once() {
        let (mut roster, mut app, _updates) = new();
        let present = |target: Target| (target, Present::Pods(vec![Pod::fake("a", "1", None)]));
        roster.show(&mut app, vec![present(target("deploy/shop")), present(target("pod/a"))]);
        assert_eq!(names(&app), ["pod/a"]);
    }
}
