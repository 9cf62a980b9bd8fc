//! Writes Events about the cache on its own pod.
//!
//! ```text
//!  memory, configuration ──► Seen ──► notices (pure): changes since the last sample ──► Events
//! ```
//! Off by default (`pod.events`), since a sidecar uses its application's account. Logs and metrics contain the same
//! changes with figures; `kubectl describe pod` shows the Events.

use crate::governor::Snapshot;
use ebb_config::{ActiveConfig, Pod};
use ebb_engine::decide::Regime;
use ebb_injector::events::{EventWriter, Fate};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Reporter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strum::EnumCount as _;

/// Number of Events by outcome. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Fates(Arc<[AtomicU64; Fate::COUNT]>);

impl Fates {
    fn count(&self, fate: Fate) {
        self.0[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counters in the order of [`Fate`].
    pub(crate) fn totals(&self) -> [u64; Fate::COUNT] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// A sample of the state that Events report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    regime: Regime,
    has_no_limit: bool,
    limit_bytes: u64,
    shrink_pending: bool,
    oom_kills: u64,
    is_rejected: bool,
}

impl Seen {
    fn of(memory: &Snapshot, config: &ActiveConfig) -> Self {
        Self {
            regime: memory.regime,
            has_no_limit: memory.is_default_limit(),
            limit_bytes: memory.limit_bytes,
            shrink_pending: memory.shrink_pending,
            oom_kills: memory.container.events.oom_kills,
            is_rejected: config.problem.is_some(),
        }
    }
}

/// One Event to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice {
    is_warning: bool,
    reason: &'static str,
    note: &'static str,
}

const fn warning(reason: &'static str, note: &'static str) -> Notice {
    Notice { is_warning: true, reason, note }
}

const fn normal(reason: &'static str, note: &'static str) -> Notice {
    Notice { is_warning: false, reason, note }
}

/// Changes between two samples. Notes contain no numbers: the API server keeps the first note of a repeated Event.
fn notices(before: &Seen, now: &Seen) -> Vec<Notice> {
    let began = |of: fn(&Seen) -> bool| !of(before) && of(now);
    let ended = |of: fn(&Seen) -> bool| of(before) && !of(now);
    let critical = |seen: &Seen| seen.regime == Regime::Critical;
    // The end of a shrink also changes the limit; it is one Event.
    let resized = before.limit_bytes != 0 && before.limit_bytes != now.limit_bytes;
    let shrinks = before.shrink_pending || now.shrink_pending;
    let all = [
        (
            began(|seen| seen.has_no_limit),
            warning(
                "NoMemoryLimit",
                "the cache found no memory limit and uses a default; set a limit on its container",
            ),
        ),
        (
            began(critical),
            warning("MemoryCritical", "memory is at the limit: the cache evicts entries and may refuse writes"),
        ),
        (ended(critical), normal("MemoryRecovered", "memory is below the critical watermark again")),
        (
            began(|seen| seen.shrink_pending),
            normal(
                "ShrinkPending",
                "the memory limit is being lowered; the cache frees memory so that the resize can complete",
            ),
        ),
        (ended(|seen| seen.shrink_pending), normal("ShrinkCompleted", "the lowered memory limit is applied")),
        (resized && !shrinks, normal("MemoryLimitChanged", "the memory limit changed; the cache follows it")),
        (
            now.oom_kills > before.oom_kills,
            warning("OomKilled", "the kernel killed a process of this container (out of memory)"),
        ),
        (
            began(|seen| seen.is_rejected),
            warning(
                "ConfigRejected",
                "the configuration is invalid; the last good one stays active; run ebb doctor for the problem",
            ),
        ),
        (ended(|seen| seen.is_rejected), normal("ConfigApplied", "the configuration is valid and active again")),
    ];
    all.into_iter().filter_map(|(is_new, notice)| is_new.then_some(notice)).collect()
}

/// Writes Events about one pod.
#[derive(Debug)]
pub(crate) struct PodEvents {
    writer: EventWriter,
    fates: Fates,
    pod: ObjectReference,
    seen: Seen,
}

impl PodEvents {
    /// Starts on this runtime. Writes nothing if `pod.events` is off or the API server cannot be reached.
    pub(crate) async fn start(pod: &Pod, fates: Fates) -> Option<Self> {
        if !pod.events {
            return None;
        }
        let client = match Client::try_default().await {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "pod events disabled: cannot reach the API server");
                return None;
            }
        };
        let reporter = Reporter { controller: "ebb-cache.io/ebb".to_owned(), instance: Some(pod.name.clone()) };
        let counted = fates.clone();
        let writer = EventWriter::start(client, reporter, move |fate| counted.count(fate));
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        Some(Self { writer, fates, pod, seen: Seen::default() })
    }

    /// Compares a new sample with the last one and writes Events.
    pub(crate) fn look(&mut self, memory: &Snapshot, config: &ActiveConfig) {
        let now = Seen::of(memory, config);
        for Notice { is_warning, reason, note } in notices(&self.seen, &now) {
            let event = Event {
                type_: if is_warning { EventType::Warning } else { EventType::Normal },
                reason: reason.to_owned(),
                note: Some(note.to_owned()),
                action: "Watch".to_owned(),
                secondary: None,
            };
            if let Err(fate) = self.writer.write(event, self.pod.clone()) {
                self.fates.count(fate);
            }
        }
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(before: &Seen, now: &Seen) -> Vec<&'static str> {
        notices(before, now).into_iter().map(|notice| notice.reason).collect()
    }

    #[test]
    fn a_healthy_pod_causes_no_events() {
        let well = Seen { limit_bytes: 256 << 20, ..Seen::default() };
        assert_eq!(reasons(&Seen::default(), &well), [""; 0]);
        assert_eq!(reasons(&well, &well), [""; 0]);
    }

    #[test]
    fn each_change_is_told_once_in_both_directions() {
        let well = Seen { limit_bytes: 256 << 20, ..Seen::default() };
        type Change = fn(&mut Seen);
        let changes: &[(Change, &str, Option<&str>)] = &[
            (|seen| seen.has_no_limit = true, "NoMemoryLimit", None),
            (|seen| seen.regime = Regime::Critical, "MemoryCritical", Some("MemoryRecovered")),
            (|seen| seen.shrink_pending = true, "ShrinkPending", Some("ShrinkCompleted")),
            (|seen| seen.limit_bytes = 128 << 20, "MemoryLimitChanged", Some("MemoryLimitChanged")),
            (|seen| seen.oom_kills = 1, "OomKilled", None),
            (|seen| seen.is_rejected = true, "ConfigRejected", Some("ConfigApplied")),
        ];
        for (change, told, back) in changes {
            let mut now = well.clone();
            change(&mut now);
            assert_eq!(reasons(&well, &now), [*told]);
            assert_eq!(reasons(&now, &now), [""; 0], "{told} is told once");
            assert_eq!(reasons(&now, &well), back.iter().copied().collect::<Vec<_>>(), "the way back from {told}");
        }
    }

    #[test]
    fn a_shrink_is_told_as_one_thing() {
        let well = Seen { limit_bytes: 256 << 20, ..Seen::default() };
        let pending = Seen { limit_bytes: 128 << 20, shrink_pending: true, ..Seen::default() };
        let done = Seen { limit_bytes: 128 << 20, ..Seen::default() };
        assert_eq!(reasons(&well, &pending), ["ShrinkPending"]);
        assert_eq!(reasons(&pending, &done), ["ShrinkCompleted"]);
    }
}
