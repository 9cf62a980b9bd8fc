//! Metrics of the injector.

use super::review::Admission;
use ebb_listener::{Closed, Connections};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use strum::VariantArray as _;

type Labels = Vec<(&'static str, &'static str)>;

/// The metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    admissions: Family<Labels, Counter>,
    duration: Histogram,
    warnings: Counter,
    refused: Counter,
    certificate: Gauge,
    leads: Gauge,
    template: Gauge,
    events: Family<Labels, Counter>,
    limited: Family<Labels, Counter>,
    missed: Gauge,
    evictions: Family<Labels, Counter>,
    answers: Gauge,
}

/// The connections of the webhook, read at a scrape.
#[derive(Debug)]
struct Webhook(Arc<Connections>);

impl Collector for Webhook {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.counts();
        let help = "Open connections of the webhook";
        let gauge = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        ConstGauge::new(counts.open as i64).encode(gauge)?;
        let help = "Memory charged to connections of the webhook, in bytes";
        let gauge = encoder.encode_descriptor("in_flight", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        ConstGauge::new(counts.bytes as i64).encode(gauge)?;
        let help = "Connections of the webhook closed by the server, by reason";
        let mut family = encoder.encode_descriptor("closed_connections", help, None, MetricType::Counter)?;
        Closed::VARIANTS.iter().try_for_each(|&reason| {
            let counter = ConstCounter::new(counts.closed[reason as usize]);
            counter.encode(family.encode_family(&[("reason", reason.name())])?)
        })
    }
}

impl Metrics {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        let mut registry = Registry::with_prefix("ebb_injector");
        let (admissions, events) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        let duration = Histogram::new(exponential_buckets(0.000_05, 2.0, 14));
        let (refused, certificate, leads, template) =
            (Counter::default(), Gauge::default(), Gauge::default(), Gauge::default());
        let warnings = Counter::default();
        registry.register("admissions", "Admission reviews, by outcome and reason", admissions.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from the last byte of an admission review to its response, in seconds",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register(
            "refused_requests",
            "Requests refused because they are not an AdmissionReview",
            refused.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "Expiry of the serving certificate, in seconds since 1970",
            Unit::Seconds,
            certificate.clone(),
        );
        registry.register(
            "leader",
            "Leadership of this replica (1 for the leader, else 0; 1 on every replica if no Lease is used)",
            leads.clone(),
        );
        registry.register("template_good", "State of the template on disk (1 active, 0 rejected)", template.clone());
        registry.register("warnings", "Annotations ignored because their value is invalid", warnings.clone());
        registry.register("events", "Kubernetes Events, by outcome", events.clone());
        let limited = Family::<Labels, Counter>::default();
        registry.register(
            "limited",
            "Reviews refused and Events not written because their rate is too high",
            limited.clone(),
        );
        let (missed, evictions) = (Gauge::default(), Family::<Labels, Counter>::default());
        registry.register(
            "missed_pods",
            "Pods that ask for a sidecar and have none, at the last scan of the watchdog",
            missed.clone(),
        );
        registry.register("evictions", "Evictions requested by the watchdog, by outcome", evictions.clone());
        let answers = Gauge::default();
        registry.register(
            "webhook_answers",
            "Result of the injector's probe of its own webhook (1 success, 0 failure)",
            answers.clone(),
        );
        registry.register_collector(Box::new(Webhook(connections)));
        template.set(1);
        Self {
            registry,
            admissions,
            duration,
            warnings,
            refused,
            certificate,
            leads,
            template,
            events,
            limited,
            missed,
            evictions,
            answers,
        }
    }

    pub(super) fn admitted(&self, admission: &Admission, took: Duration) {
        let (outcome, reason) = match admission.reason {
            None => ("passed", ""),
            Some(None) => ("injected", ""),
            Some(Some(reason)) => ("skipped", reason.label()),
        };
        self.admissions.get_or_create(&vec![("outcome", outcome), ("reason", reason)]).inc();
        self.duration.observe(took.as_secs_f64());
        self.warnings.inc_by(admission.warnings.len() as u64);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn certificate_ends(&self, at: i64) {
        self.certificate.set(at);
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    pub(super) fn template_is_good(&self, good: bool) {
        self.template.set(good.into());
    }

    pub(super) fn webhook_answers(&self, answers: bool) {
        self.answers.set(answers.into());
    }

    pub(super) fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&vec![("outcome", outcome)]).inc();
    }

    /// Counts a review or an admission's Events that exceed their rate.
    pub(super) fn limited(&self, what: &'static str) {
        self.limited.get_or_create(&vec![("what", what)]).inc();
    }

    /// Sets the number of pods that lack their sidecar.
    pub(super) fn missed(&self, pods: usize) {
        self.missed.set(pods as i64);
    }

    /// Counts an eviction by outcome.
    pub(super) fn evicted(&self, outcome: &'static str) {
        self.evictions.get_or_create(&vec![("outcome", outcome)]).inc();
    }

    /// The page, in OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

/// A page with a series of each metric; `docs/metrics.md` is generated from it.
pub(super) fn example_page(connections: Arc<Connections>) -> String {
    let metrics = Metrics::new(connections);
    let admission = Admission {
        answer: serde_json::Value::Null,
        reason: None,
        detail: String::new(),
        warnings: Vec::new(),
        namespace: String::new(),
        owner: None,
        is_dry_run: false,
    };
    metrics.admitted(&admission, Duration::ZERO);
    metrics.event("written");
    metrics.limited("review");
    metrics.evicted("evicted");
    let (registered, text) = (format!("{:?}", metrics.registry), metrics.text());
    // The collector's three are not registered one by one.
    let shown = text.matches("# TYPE ").count() - 3;
    assert_eq!(registered.matches("Descriptor {").count(), shown, "a family without a series is not on the page");
    text
}
