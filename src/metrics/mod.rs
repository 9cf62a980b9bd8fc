//! Metrics for Prometheus. `declared` defines each with unit and help; values are read at each scrape.
//!
//! Requests are not counted here: the store and [`crate::traffic`] count, and a scrape adds them up.

mod declared;
mod reading;

use crate::sources::Sources;
use declared::{Kind, METRICS, Measure, Metric};
use ebb_terminal::escape::escaped_name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use reading::Reading;
use std::borrow::Cow;
use std::fmt;

/// The metrics of a server.
#[derive(Debug)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Metrics of these sources.
    pub(crate) fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix("ebb");
        registry.register_collector(Box::new(Read(sources)));
        Self(registry)
    }

    /// The page, in OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("writing to a string cannot fail");
        text
    }
}

/// The values of one metric, with their labels.
type Series = Vec<(Vec<Cow<'static, str>>, Value)>;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Whole(u64),
    Real(f64),
    Durations(crate::traffic::Durations),
}

/// Reads all sources once per scrape.
#[derive(Debug)]
struct Read(Sources);

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reading = Reading::of(&self.0);
        METRICS.iter().try_for_each(|metric| write(metric, &reading, &mut encoder))
    }
}

fn write(metric: &Metric, reading: &Reading, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Metric { name, kind, unit, help, labels, read } = metric;
    let kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let unit = unit.map(|unit| match unit {
        Measure::Bytes => Unit::Bytes,
        Measure::Seconds => Unit::Seconds,
    });
    let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (values, value) in read(reading) {
        // The encoder does not escape label values, and callers choose some of them.
        let labels: Vec<_> = labels.iter().copied().zip(values.into_iter().map(escaped)).collect();
        match labels.is_empty() {
            true => write_value(kind, value, &mut encoder)?,
            false => write_value(kind, value, &mut encoder.encode_family(&labels)?)?,
        }
    }
    Ok(())
}

/// A label value with the escapes of OpenMetrics, of a name without characters that a terminal obeys.
fn escaped(value: Cow<'static, str>) -> Cow<'static, str> {
    let value = match escaped_name(&value) {
        Cow::Borrowed(_) => value,
        Cow::Owned(name) => name.into(),
    };
    match value.contains(['\\', '"', '\n']) {
        true => value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into(),
        false => value,
    }
}

fn write_value(kind: MetricType, value: Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (MetricType::Counter, Value::Real(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (_, Value::Whole(value)) => encoder.encode_gauge(&value),
        (_, Value::Real(value)) => encoder.encode_gauge(&value),
        (_, Value::Durations(durations)) => {
            let bounds = crate::traffic::BOUNDS_NANOS.iter().map(|nanos| *nanos as f64 / 1e9).chain([f64::MAX]);
            let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
            let sum = durations.sum_nanos as f64 / 1e9;
            encoder.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// The reference page.
    fn reference() -> String {
        let mut page =
            "# Metrics\n\nThe HTTP listener serves metrics at `/metrics`, in OpenMetrics. All series exist from the \
             first scrape, except status\ncodes other than `ok` and the outcome `refused`: they appear when they \
             first occur. Labels never contain keys or\nclients. The first 32 namespaces have their name as a \
             label; the others share `<others>`.\n\n"
                .to_owned();
        let mut group = "";
        for metric in METRICS {
            if let Some(title) = declared::group(metric.name)
                && title != group
            {
                group = title;
                let _ = write!(page, "## {group}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
            }
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind) = (metric.full_name(), metric.kind.name());
            let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), metric.help);
        }
        page += "\n## The injector\n\nThe HTTP listener of `ebb injector` serves these at `/metrics`.\n\n\
             | metric | kind | labels | meaning |\n|---|---|---|---|\n";
        page += &injector_rows(&ebb_injector::webhook::metrics_page());
        page.replace("|\n## ", "|\n\n## ")
    }

    /// The metrics of the injector, for the reference page.
    fn injector_rows(page: &str) -> String {
        let after = |start: String| page.lines().find_map(|line| line.strip_prefix(&start));
        let told = page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        let row = |(name, help): (&str, &str)| {
            let kind = after(format!("# TYPE {name} ")).unwrap();
            let total = if kind == "counter" { "_total" } else { "" };
            let series = after(format!("{name}{total}{{")).and_then(|series| series.split_once('}'));
            let labels =
                series.into_iter().flat_map(|(labels, _)| labels.split(',')).filter_map(|label| label.split_once('='));
            let labels: Vec<_> = labels.map(|(label, _)| format!("`{label}`")).collect();
            format!("| `{name}{total}` | {kind} | {} | {} |\n", labels.join(", "), help.trim_end_matches('.'))
        };
        told.map(row).collect()
    }

    #[test]
    fn the_reference_page_lists_what_is_declared() {
        let path = "docs/metrics.md";
        if std::env::var_os("EBB_BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == reference(), "{path} is stale; EBB_BLESS=1 cargo test reference_page rewrites it");
    }

    #[test]
    fn a_label_that_callers_chose_cannot_break_the_page() {
        assert_eq!(escaped("a\"b\\c\nd\u{1b}".into()), "a\\\"b\\\\\\\\c\\\\nd\\\\u001b");
        assert!(matches!(escaped("plain".into()), Cow::Borrowed("plain")));
    }

    #[test]
    fn names_are_unique_and_each_metric_explains_itself() {
        let mut names: Vec<_> = METRICS.iter().map(Metric::full_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let is_explained = |metric: &&Metric| {
            let has_plain_names = plain(metric.name) && metric.labels.iter().all(|label| plain(label));
            metric.help.len() > 10 && !metric.help.ends_with('.') && has_plain_names
        };
        let wrong: Vec<_> =
            METRICS.iter().filter(|metric| !is_explained(metric)).map(|metric| (metric.name, metric.help)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn an_empty_reading_shows_every_metric_with_its_labels() {
        let reading = Reading { namespaces: vec![Default::default()], ..Reading::default() };
        let mut wrong = Vec::new();
        for metric in METRICS {
            let series = (metric.read)(&reading);
            if series.is_empty() || series.iter().any(|(values, _)| values.len() != metric.labels.len()) {
                wrong.push(metric.name);
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
