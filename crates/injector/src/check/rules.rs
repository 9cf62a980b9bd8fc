//! ResourceQuotas and LimitRanges of a namespace, and how a sidecar fits them (pure).
//!
//! ```text
//!  application (requests, limits) ┐
//!  sidecar (requests, limits)     ├─► conflicts, in words ──► annotations that resolve them
//!  ResourceQuotas, LimitRanges    ┘
//! ```
//! Only the API server decides whether a pod is admitted. The annotations found here are tried before they are named.

use crate::inject::check_name;
use ebb_config::units::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The checked resources.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Least memory limit of a sidecar, in bytes.
const LEAST_MEMORY: i128 = 16 << 20;
/// The CPU limit and the ephemeral storage that are proposed if nothing bounds them.
const CPU_LIMIT: &str = "500m";
const STORAGE: &str = "64Mi";
/// Requests and limits of an application that is tried without a model, by resource.
const SMALL: [(&str, &str, &str); 3] =
    [("cpu", "10m", "100m"), ("memory", "16Mi", "32Mi"), ("ephemeral-storage", "16Mi", "32Mi")];

/// CPU limit of an application that is tried where the ratio of limits to requests is bounded.
const LARGE_CPU: &str = "1";

const NANO: i128 = 1_000_000_000;

/// The rules of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub(super) quotas: Vec<Value>,
    pub(super) ranges: Vec<Value>,
}

/// Where a sidecar contradicts the rules of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// The contradictions, in words.
    pub conflicts: Vec<String>,
    /// Annotations that resolve them, by full name; fewer than needed if no annotation helps.
    pub annotations: BTreeMap<String, String>,
    /// What only an administrator can change, in words.
    pub values: Vec<String>,
}

impl Misfit {
    fn annotate(&mut self, name: &str, value: String) {
        self.annotations.insert(format!("{}{name}", ebb_config::annotations::PREFIX), value);
    }
}

fn amount(text: &Value) -> Option<i128> {
    let text = text.as_str().map(str::to_owned).or_else(|| text.as_number().map(ToString::to_string))?;
    Quantity::parse(&text).map(Quantity::nanos)
}

/// An amount as Kubernetes writes it: CPU in thousandths, others in bytes.
fn written(resource: &str, nanos: i128) -> String {
    if resource == "cpu" {
        return match nanos / 1_000_000 {
            millis if millis % 1000 == 0 => (millis / 1000).to_string(),
            millis => format!("{millis}m"),
        };
    }
    let bytes = nanos / NANO;
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| bytes % size == 0 && bytes != 0);
    unit.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// The largest round amount that is not larger: whole Mi, or thousandths of a CPU.
fn rounded(resource: &str, nanos: i128) -> i128 {
    let unit = if resource == "cpu" { NANO / 1000 } else { (1 << 20) * NANO };
    if nanos >= unit { nanos / unit * unit } else { nanos }
}

impl Rules {
    fn limits(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let items = self.ranges.iter().flat_map(|range| range["spec"]["limits"].as_array().into_iter().flatten());
        items.filter(move |item| item["type"] == kind)
    }

    /// The strictest bound of containers or pods.
    fn least(&self, kind: &str, field: &str, resource: &str) -> Option<i128> {
        self.limits(kind).filter_map(|item| amount(&item[field][resource])).min()
    }

    fn greatest(&self, kind: &str, field: &str, resource: &str) -> Option<i128> {
        self.limits(kind).filter_map(|item| amount(&item[field][resource])).max()
    }

    /// Whether a quota counts this, such as `limits.cpu`.
    fn counts(&self, part: &str, resource: &str) -> bool {
        let names = names(part, resource);
        self.quotas.iter().any(|quota| names.iter().any(|name| !quota["spec"]["hard"][name].is_null()))
    }

    /// Whether a quota counts requests or limits of this.
    fn is_counted(&self, resource: &str) -> bool {
        self.counts("requests", resource) || self.counts("limits", resource)
    }

    /// The smallest remainder of the quotas that count this.
    fn left(&self, part: &str, resource: &str) -> Option<i128> {
        let left = |quota: &Value| {
            let name = names(part, resource).into_iter().find(|name| !quota["spec"]["hard"][name].is_null())?;
            let used = amount(&quota["status"]["used"][&name]).unwrap_or(0);
            Some(amount(&quota["spec"]["hard"][&name])? - used)
        };
        self.quotas.iter().filter_map(left).min()
    }

    /// Request and limit of a container as the API server completes them.
    fn completed(&self, resources: &Value, resource: &str) -> (Option<i128>, Option<i128>) {
        let by_default = |field: &str| self.limits("Container").find_map(|item| amount(&item[field][resource]));
        let own = amount(&resources["limits"][resource]);
        let limit = own.or_else(|| by_default("default"));
        // A container's own limit is its request. Only then are the defaults of the LimitRange used.
        let request = amount(&resources["requests"][resource]).or(own).or_else(|| by_default("defaultRequest"));
        (request.or(limit), limit)
    }

    /// The sum of a pod's other containers that run with the sidecar: requests and limits.
    fn beside(&self, pod: &Value, resource: &str) -> (i128, i128) {
        let list = |name: &str| pod["spec"][name].as_array().into_iter().flatten();
        let sidecars = list("initContainers").filter(|one| one["restartPolicy"] == "Always" && one["name"] != "ebb");
        let all = list("containers").chain(sidecars).map(|one| self.completed(&one["resources"], resource));
        all.fold((0, 0), |sum, (request, limit)| (sum.0 + request.unwrap_or(0), sum.1 + limit.unwrap_or(0)))
    }

    /// The least ratio of a limit to its request that this sidecar may have: that of containers, and that of pods if the whole
    /// pod exceeds it. A pod that has the ratio keeps it if the sidecar has it, too.
    fn ratio(&self, resource: &str, sidecar: (i128, i128), others: (i128, i128)) -> Option<i128> {
        let of_pod = self.least("Pod", "maxLimitRequestRatio", resource);
        let of_pod = of_pod.filter(|ratio| is_steep(sidecar.0 + others.0, sidecar.1 + others.1, *ratio));
        self.least("Container", "maxLimitRequestRatio", resource).into_iter().chain(of_pod).min()
    }

    /// Resources of a small application that the rules admit; empty where no rule asks for any.
    pub(super) fn small(&self) -> Value {
        let mut resources = json!({});
        for (resource, request, limit) in SMALL {
            let is_ruled = self.is_counted(resource)
                || ["Container", "Pod"].iter().any(|kind| {
                    self.limits(kind).any(|item| {
                        ["min", "max", "maxLimitRequestRatio"].iter().any(|field| !item[*field][resource].is_null())
                    })
                });
            if !is_ruled {
                continue;
            }
            let of = |text: &str| Quantity::parse(text).map_or(0, Quantity::nanos);
            let bounds = |of: fn(&Self, &str, &str, &str) -> Option<i128>, field: &str| {
                ["Container", "Pod"].map(|kind| of(self, kind, field, resource))
            };
            let min = bounds(Self::greatest, "min").into_iter().flatten().max().unwrap_or(0);
            let max = bounds(Self::least, "max").into_iter().flatten().min().unwrap_or(i128::MAX);
            let mut request = of(request).max(min).min(max);
            let mut limit = of(limit).max(request).min(max);
            let ratio = bounds(Self::least, "maxLimitRequestRatio").into_iter().flatten().min();
            if let Some(ratio) = ratio.filter(|_| resource == "cpu" && !self.is_counted(resource)) {
                // The sidecar gets the CPU limit of its applications, and keeps its small request.
                let pod_max = self.least("Pod", "max", resource).map_or(i128::MAX, |max| max / 2);
                limit = of(LARGE_CPU).min(max).min(pod_max).max(limit);
                request = ceil(limit.saturating_mul(NANO), ratio.max(1), NANO / 1000).clamp(min, limit.max(min));
            }
            if ratio.is_some_and(|ratio| is_steep(request, limit, ratio)) {
                limit = request;
            }
            resources["requests"][resource] = written(resource, request).into();
            resources["limits"][resource] = written(resource, limit).into();
        }
        resources
    }

    /// Where a sidecar with these resources contradicts the rules in this pod; `None` if it fits.
    pub(super) fn misfit(&self, pod: &Value, sidecar: &Value) -> Option<Misfit> {
        let mut misfit = Misfit::default();
        for resource in RESOURCES {
            self.judge(resource, pod, sidecar, &mut misfit);
        }
        (!misfit.conflicts.is_empty()).then_some(misfit)
    }

    fn judge(&self, resource: &str, pod: &Value, sidecar: &Value, misfit: &mut Misfit) {
        let (request, limit) = self.completed(sidecar, resource);
        let (own_request, own_limit) = (amount(&sidecar["requests"][resource]), amount(&sidecar["limits"][resource]));
        let (requests, limits) = self.beside(pod, resource);
        let spell = |nanos: i128| written(resource, nanos);
        let before = misfit.conflicts.len();
        let mut conflict = |text: String| misfit.conflicts.push(text);

        // The bounds of the sidecar's own request and limit.
        let container_max = self.least("Container", "max", resource);
        let pod_max = self.least("Pod", "max", resource).map(|max| max - limits);
        let quota_limit = self.left("limits", resource).map(|left| left - limits);
        let quota_request = self.left("requests", resource).map(|left| left - requests);
        let min = self.greatest("Container", "min", resource).unwrap_or(0);
        let of_sidecar = (request.unwrap_or(0), limit.unwrap_or(0));
        let ratio = self.ratio(resource, of_sidecar, (requests, limits));

        for part in ["requests", "limits"] {
            let missing = if part == "requests" { request.is_none() } else { limit.is_none() };
            // Of other resources, a quota counts only what containers have.
            if missing && resource != "ephemeral-storage" && self.counts(part, resource) {
                conflict(format!("a ResourceQuota counts {part}.{resource}, and the sidecar has none"));
            }
        }
        for (bound, what) in [(container_max, "of a container"), (pod_max, "left by the other containers of a pod")] {
            let used = limit.or(request);
            if let Some((bound, used)) = bound.zip(used).filter(|(bound, used)| used > bound) {
                let (used, bound) = (spell(used), spell(bound.max(0)));
                conflict(format!("the sidecar's {resource} {used} is above the LimitRange's max {bound} {what}"));
            }
        }
        for (left, used, part) in [(quota_limit, limit, "limits"), (quota_request, request, "requests")] {
            if let Some((left, used)) = left.zip(used).filter(|(left, used)| used > left) {
                let (used, left) = (spell(used), spell(left.max(0)));
                conflict(format!(
                    "the sidecar's {part}.{resource} {used} is above the {left} that a ResourceQuota leaves"
                ));
            }
        }
        if request.unwrap_or(0) < min {
            let request = spell(request.unwrap_or(0));
            conflict(format!(
                "the sidecar's {resource} request {request} is below the LimitRange's min {}",
                spell(min)
            ));
        }
        match (ratio, request, limit) {
            (Some(ratio), Some(request), Some(limit)) if is_steep(request, limit, ratio) => {
                let (limit, request) = (spell(limit), spell(request));
                conflict(format!("the sidecar's {resource} limit {limit} is too far above its request {request}"));
            }
            // The API server refuses a container for which it cannot compute the ratio.
            (Some(_), None, _) | (Some(_), _, None) => {
                conflict(format!("a LimitRange bounds the ratio of {resource}, and the sidecar has no limit"));
            }
            _ => {}
        }
        // A default limit of the LimitRange below the sidecar's request makes the pod invalid.
        if let (None, Some(request), Some(limit)) = (own_limit, own_request, limit)
            && request > limit
        {
            let (limit, request) = (spell(limit), spell(request));
            conflict(format!("the LimitRange's default {resource} {limit} is below the sidecar's request {request}"));
        }
        if misfit.conflicts.len() == before {
            return;
        }

        let top = [container_max, pod_max, quota_limit].into_iter().flatten().min().unwrap_or(i128::MAX);
        let most_requested = quota_request.unwrap_or(i128::MAX);
        let proposed = |by_default: &str| Quantity::parse(by_default).map_or(0, Quantity::nanos);
        if quota_limit.or(quota_request).is_some_and(|left| limit.or(request).is_some_and(|used| used > left)) {
            misfit.values.push(format!("raise the ResourceQuota: each pod with a sidecar needs more {resource}"));
        }
        match resource {
            "memory" => {
                let limit = limit.unwrap_or(0).min(top).min(most_requested).max(min);
                let limit = rounded(resource, limit).max(min);
                if limit < LEAST_MEMORY * NANO || limit > top.min(most_requested) {
                    misfit.values.push("allow a container of at least 16Mi of memory".to_owned());
                    return;
                }
                // Without `memory-request`, `memory-limit` sets the request, too. An annotation may have set a lower one.
                let least = ratio.map(|ratio| raised(limit, ratio).min(limit)).filter(|least| *least > of_sidecar.0);
                if Some(limit) != own_limit || least.is_none() {
                    misfit.annotate("memory-limit", spell(limit));
                }
                if let Some(least) = least {
                    misfit.annotate("memory-request", spell(least));
                }
            }
            "cpu" => {
                let old = request.unwrap_or_else(|| proposed("50m"));
                let request = rounded(resource, old.min(top).min(most_requested)).max(min);
                if request <= 0 || request > top.min(most_requested) {
                    misfit.values.push("allow a container of at least 1m of CPU".to_owned());
                    return;
                }
                if Some(request) != own_request {
                    misfit.annotate("cpu-request", spell(request));
                }
                let steepest = ratio.map_or(i128::MAX, |ratio| request.saturating_mul(ratio) / NANO);
                let wanted = own_limit.unwrap_or_else(|| proposed(CPU_LIMIT)).min(top).min(steepest);
                let wanted = rounded(resource, wanted).max(request);
                let is_needed = self.counts("limits", resource) || limit.is_some() || ratio.is_some();
                if is_needed && Some(wanted) != own_limit {
                    misfit.annotate("cpu-limit", spell(wanted));
                }
            }
            _ => {
                let amount = own_limit.or(own_request).unwrap_or_else(|| proposed(STORAGE));
                let amount = rounded(resource, amount.min(top).min(most_requested)).max(min);
                if amount <= 0 || amount > top.min(most_requested) {
                    misfit.values.push("allow a container some ephemeral storage".to_owned());
                } else if check_name(resource).is_ok() {
                    misfit.annotate(resource, spell(amount));
                } else {
                    let amount = spell(amount);
                    misfit.values.push(format!(
                        "set sidecar.resources.requests.{resource} and sidecar.resources.limits.{resource} of the chart to {amount}"
                    ));
                }
            }
        }
    }
}

/// Whether a limit is further above its request than a ratio allows.
fn is_steep(request: i128, limit: i128, ratio: i128) -> bool {
    limit.saturating_mul(NANO) > ratio.saturating_mul(request)
}

/// The least request in whole Mi with which a memory limit has the ratio.
fn raised(limit: i128, ratio: i128) -> i128 {
    ceil(limit.saturating_mul(NANO), ratio.max(1), (1 << 20) * NANO)
}

/// A quotient, rounded up to a multiple of a unit.
fn ceil(dividend: i128, divisor: i128, unit: i128) -> i128 {
    let least = dividend.saturating_add(divisor - 1) / divisor;
    least.saturating_add(unit - 1) / unit * unit
}

/// The names by which a quota counts this.
fn names(part: &str, resource: &str) -> Vec<String> {
    let full = format!("{part}.{resource}");
    if part == "requests" { vec![full, resource.to_owned()] } else { vec![full] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDECAR: &str = r#"{"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}"#;

    fn rules(quota: Value, used: Value, ranges: Value) -> Rules {
        let quotas =
            if quota.is_null() { Vec::new() } else { vec![json!({"spec": {"hard": quota}, "status": {"used": used}})] };
        let ranges = if ranges.is_null() { Vec::new() } else { vec![json!({"spec": {"limits": ranges}})] };
        Rules { quotas, ranges }
    }

    fn quota(hard: Value) -> Rules {
        rules(hard, json!({}), Value::Null)
    }

    fn range(kind: &str, bounds: Value) -> Rules {
        let mut item = json!({"type": kind});
        json_patch::merge(&mut item, &bounds);
        rules(Value::Null, Value::Null, json!([item]))
    }

    /// A pod whose application has these limits, and requests of half of them.
    fn pod() -> Value {
        let resources =
            json!({"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}});
        json!({"spec": {"containers": [{"name": "app", "resources": resources}]}})
    }

    fn cures(rules: &Rules, sidecar: &str) -> String {
        let Some(misfit) = rules.misfit(&pod(), &sidecar.parse().unwrap()) else { return "fits".to_owned() };
        assert!(!misfit.conflicts.is_empty());
        let annotations = misfit
            .annotations
            .iter()
            .map(|(name, value)| format!("{}: {value}", name.strip_prefix("config.ebb-cache.io/").unwrap()));
        annotations.chain(misfit.values).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_rule_that_a_sidecar_breaks_has_a_cure() {
        const RAISE: &str = "raise the ResourceQuota: each pod with a sidecar needs more";
        let cases = [
            (quota(json!({"pods": "10", "limits.memory": "1Gi"})), "fits".to_owned()),
            (quota(json!({"limits.cpu": "4"})), "cpu-limit: 500m".to_owned()),
            // 300m are left, and the application takes 200m.
            (quota(json!({"limits.cpu": "300m"})), "cpu-limit: 100m".to_owned()),
            (quota(json!({"limits.memory": "96Mi"})), format!("memory-limit: 64Mi, {RAISE} memory")),
            (quota(json!({"requests.memory": "96Mi"})), format!("memory-limit: 80Mi, {RAISE} memory")),
            (quota(json!({"memory": "40Mi"})), format!("memory-limit: 24Mi, {RAISE} memory")),
            (quota(json!({"memory": "20Mi"})), format!("{RAISE} memory, allow a container of at least 16Mi of memory")),
            (quota(json!({"requests.cpu": "120m"})), format!("cpu-request: 20m, {RAISE} cpu")),
            (range("Container", json!({"max": {"memory": "64Mi"}})), "memory-limit: 64Mi".to_owned()),
            (
                range("Container", json!({"max": {"memory": "8Mi"}})),
                "allow a container of at least 16Mi of memory".to_owned(),
            ),
            (range("Container", json!({"min": {"memory": "512Mi"}})), "memory-limit: 512Mi".to_owned()),
            (range("Pod", json!({"max": {"memory": "128Mi"}})), "memory-limit: 96Mi".to_owned()),
            (range("Container", json!({"min": {"cpu": "100m"}})), "cpu-request: 100m".to_owned()),
            // The API server makes the max the default limit.
            (
                range("Container", json!({"max": {"cpu": "40m"}, "default": {"cpu": "40m"}})),
                "cpu-request: 40m, cpu-limit: 40m".to_owned(),
            ),
            (range("Container", json!({"default": {"cpu": "20m"}})), "cpu-limit: 500m".to_owned()),
            (
                range("Container", json!({"default": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}})),
                "cpu-limit: 200m".to_owned(),
            ),
            (range("Container", json!({"default": {"memory": "16Mi", "cpu": "1"}})), "fits".to_owned()),
            (
                rules(json!({"limits.memory": "1Gi"}), json!({"limits.memory": "800Mi"}), Value::Null),
                format!("memory-limit: 192Mi, {RAISE} memory"),
            ),
        ];
        let found: Vec<_> = cases.iter().map(|(rules, _)| cures(rules, SIDECAR)).collect();
        let sorted = |text: &String| {
            let mut parts: Vec<String> = text.split(", ").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        let wrong: Vec<_> =
            cases.iter().zip(&found).filter(|((_, expected), found)| sorted(expected) != sorted(found)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_sidecar_with_a_request_below_its_limit_keeps_a_ratio() {
        let rules = range("Container", json!({"maxLimitRequestRatio": {"memory": "1"}}));
        let burst = r#"{"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}"#;
        assert_eq!(cures(&rules, burst), "memory-request: 256Mi");
        let of = |ratio: &str| range("Container", json!({"maxLimitRequestRatio": {"memory": ratio}}));
        assert_eq!([cures(&of("1500m"), burst), cures(&of("2"), burst)], ["memory-request: 171Mi", "fits"]);
        // The limit that a rule demands is another one.
        let both = range("Container", json!({"maxLimitRequestRatio": {"memory": "1"}, "max": {"memory": "192Mi"}}));
        assert_eq!(cures(&both, burst), "memory-limit: 192Mi, memory-request: 192Mi");
    }

    #[test]
    fn a_ratio_of_cpu_has_a_cure_wherever_the_limit_comes_from() {
        let of = |ratio: &str| range("Container", json!({"maxLimitRequestRatio": {"cpu": ratio}}));
        let with = |limit: &str| {
            format!(r#"{{"requests": {{"cpu": "50m", "memory": "256Mi"}}, "limits": {{{limit}"memory": "256Mi"}}}}"#)
        };
        // From the applications, by annotation, or absent: without a limit there is no ratio.
        assert_eq!(cures(&of("2"), &with(r#""cpu": "1", "#)), "cpu-limit: 100m");
        assert_eq!(cures(&of("1500m"), &with(r#""cpu": "1", "#)), "cpu-limit: 75m");
        assert_eq!(cures(&of("2"), &with("")), "cpu-limit: 100m");
        assert_eq!(cures(&of("1"), &with(r#""cpu": "50m", "#)), "fits");
    }

    #[test]
    fn a_ratio_of_whole_pods_counts_the_applications() {
        // The application has a ratio of 2, 100m beside 200m.
        let of = |ratio: &str| range("Pod", json!({"maxLimitRequestRatio": {"cpu": ratio}}));
        let steep = r#"{"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "400m", "memory": "256Mi"}}"#;
        assert_eq!([cures(&of("3"), steep), cures(&of("4"), steep)], ["cpu-limit: 150m", "fits"]);
    }

    #[test]
    fn a_ratio_of_storage_needs_an_amount() {
        let rules = range("Container", json!({"maxLimitRequestRatio": {"ephemeral-storage": "2"}}));
        assert_eq!(cures(&rules, SIDECAR), "ephemeral-storage: 64Mi");
    }

    #[test]
    fn ephemeral_storage_has_a_cure() {
        let of = |min: &str| cures(&range("Container", json!({"min": {"ephemeral-storage": min}})), SIDECAR);
        assert!(of("96Mi").ends_with("96Mi"), "{}", of("96Mi"));
        let found = of("32Mi");
        assert!(found.contains("ephemeral-storage") && found.ends_with("64Mi"), "{found}");
        assert_eq!(cures(&quota(json!({"limits.ephemeral-storage": "1Gi"})), SIDECAR), "fits", "a quota demands none");
    }

    #[test]
    fn a_small_application_fits_the_rules() {
        let found = |rules: &Rules| rules.small();
        assert_eq!(found(&Rules::default()), json!({}));
        assert_eq!(found(&range("Container", json!({"default": {"cpu": "1"}}))), json!({}));
        let of = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        assert_eq!(found(&quota(json!({"limits.cpu": "4"}))), of("10m", "100m"));
        assert_eq!(found(&range("Container", json!({"min": {"cpu": "200m"}}))), of("200m", "200m"));
        assert_eq!(found(&range("Pod", json!({"max": {"cpu": "50m"}}))), of("10m", "50m"));
        let ratio = |ratio: &str, max: &str| {
            found(&range("Container", json!({"maxLimitRequestRatio": {"cpu": ratio}, "max": {"cpu": max}})))
        };
        assert_eq!(
            [ratio("2", "4"), ratio("3", "4"), ratio("2", "300m")],
            [of("500m", "1"), of("334m", "1"), of("150m", "300m")]
        );
        let counted = json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "1500m"}}]);
        assert_eq!(found(&rules(json!({"limits.cpu": "4"}), json!({}), counted)), of("10m", "10m"));
    }
}
