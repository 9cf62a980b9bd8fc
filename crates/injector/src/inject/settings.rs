//! Settings of the sidecar that a pod chooses: by the annotations that the sidecar follows, and by variables in
//! `additional-env`. Each check exists twice, in Rust and in CEL for the chart's policy, from the same bounds.

use super::annotations::READ_SIZE;
use ebb_config::bounds::{BOUNDS, Bound, Unit};
use ebb_config::units::Quantity;
use ebb_config::{check_annotations, check_value, variable};

/// Settings that accept certain words only.
const WORDS: &[(&str, &[&str])] = &[
    ("compaction", &["auto", "off", "now"]),
    ("evictionAware", &["true", "false"]),
    ("logFormat", &["text", "json"]),
    ("logLevel", &["error", "warn", "info", "debug", "trace"]),
];
/// Units of durations in `additional-env`, in milliseconds.
const SPANS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// An `http://` URL after the scheme, as a pattern: host, port and path.
const ENDPOINT: &str = "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._/-]*)?";

fn bound(key: &str) -> Option<&'static Bound> {
    BOUNDS.iter().find(|bound| bound.key == key)
}

fn words(key: &str) -> Option<&'static [&'static str]> {
    WORDS.iter().find(|(known, _)| *known == key).map(|(_, words)| *words)
}

/// Whether `additional-env` may set this variable of Ebb to this value. Addresses and files have annotations or belong
/// to the template.
pub(super) fn variable_fits(name: &str, value: &str) -> bool {
    let amount = BOUNDS.iter().find(|bound| variable(bound.key) == name).map(|bound| amount_fits(bound, value));
    let word = WORDS.iter().find(|(key, _)| variable(key) == name).map(|(_, words)| words.contains(&value));
    amount.or(word).unwrap_or(name == "EBB_OTLP_ENDPOINT" && is_endpoint(value))
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let is_number = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && (text == "0" || !text.starts_with('0'))).then(|| text.parse().expect("a few digits fit"))
}

fn amount_fits(bound: &Bound, text: &str) -> bool {
    let value = match bound.unit {
        Unit::Number | Unit::Micros => number(text, 5),
        Unit::Percent => number(text.strip_suffix('%').unwrap_or(text), 5),
        Unit::Millis => {
            let unit = text.find(|c: char| !c.is_ascii_digit()).map(|at| text.split_at(at));
            unit.and_then(|(amount, unit)| {
                let factor = SPANS.iter().find(|(name, _)| *name == unit)?.1;
                Some(number(amount, 6)? * factor)
            })
        }
        Unit::Bytes => {
            let bytes = |bytes: u64| Quantity::parse(&bytes.to_string());
            let amount = Quantity::parse(text);
            let is_zero = bound.is_zero_allowed && amount == bytes(0);
            return amount.is_some() && (is_zero || amount >= bytes(bound.min) && amount <= bytes(bound.max));
        }
    };
    value.is_some_and(|value| bound.allows(value))
}

fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else { return false };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let is_of = |text: &str, more: &[u8]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte));
    is_of(host, b".-")
        && is_edge(host.as_bytes().first())
        && is_edge(host.as_bytes().last())
        && port.is_none_or(|port| number(port, 4).is_some_and(|port| port > 0))
        && is_of(path, b"._/-")
}

/// The same check as CEL, of a `pair` such as `EBB_CORES=2`.
pub(super) fn variable_policy() -> String {
    let rows = |unit: &[Unit]| {
        let rows = BOUNDS.iter().filter(|bound| unit.contains(&bound.unit)).map(|bound| {
            let least = if bound.is_zero_allowed { 0 } else { bound.min };
            format!("[\"{}=\", \"{least}\", \"{}\", \"{}\"]", variable(bound.key), bound.min, bound.max)
        });
        format!("[{}]", rows.collect::<Vec<_>>().join(", "))
    };
    let text = "pair.substring(size(row[0]))";
    let within = |read: &str, amount: fn(&str) -> String| {
        let (least, min, max) = (amount("row[1]"), amount("row[2]"), amount("row[3]"));
        format!("({read} == {least} || {read} >= {min} && {read} <= {max})")
    };
    let int = |text: &str| format!("int({text})");
    let digits = "pair.substring(size(row[0])).replace(\"%\", \"\")";
    let numbers = |rows: String, pattern: &str| {
        let read = within(&format!("int({digits})"), int);
        format!("{rows}.exists(row, pair.startsWith(row[0]) && {text}.matches(\"{pattern}\") && {read})")
    };
    let whole = numbers(rows(&[Unit::Number, Unit::Micros]), "^(0|[1-9][0-9]{0,4})$");
    let shares = numbers(rows(&[Unit::Percent]), "^(0|[1-9][0-9]{0,4})%?$");
    let compare = |bound: usize, how: &str| format!("quantity({text}).compareTo(quantity(row[{bound}])) {how} 0");
    let sizes = format!(
        "{}.exists(row, pair.startsWith(row[0]) && isQuantity({text}) && ({} || {} && {}))",
        rows(&[Unit::Bytes]),
        compare(1, "=="),
        compare(2, ">="),
        compare(3, "<="),
    );
    let spans = format!(
        "{}.exists(row, pair.startsWith(row[0]) && {text}.matches(\"^(0|[1-9][0-9]{{0,5}})(ms|s|m|h)$\") && {})",
        rows(&[Unit::Millis]),
        within(&format!("duration({text})"), |bound| format!("duration({bound} + \"ms\")")),
    );
    let words = WORDS.iter().map(|(key, words)| format!("{}=({})", variable(key), words.join("|")));
    let words = words.chain([format!("EBB_OTLP_ENDPOINT=http://{ENDPOINT}")]).collect::<Vec<_>>().join("|");
    format!("pair.matches(\"^({words})$\") || {whole} || {shares} || {sizes} || {spans}")
}

/// Whether a sidecar accepts the value of an annotation that it follows.
pub(super) fn followed_fits(key: &str, value: &str) -> bool {
    let alone = [(key.to_owned(), value.to_owned())];
    check_value(key, value).is_ok() && check_annotations(&[], &alone).is_empty()
}

/// The allowed values of a setting that an annotation sets; completes the sentence "it must be".
pub(super) fn followed_bound(key: &str) -> String {
    match (bound(key), words(key)) {
        (Some(bound), _) => {
            let range = format!("{} to {}", bound.unit.text(bound.min), bound.unit.text(bound.max));
            match bound.unit {
                Unit::Number | Unit::Micros => range,
                Unit::Percent => format!("a percentage, {range}"),
                Unit::Bytes if bound.is_zero_allowed => format!("0 or a size, {range}"),
                Unit::Bytes => format!("a size, {range}"),
                Unit::Millis => format!("a duration such as 1h30m, {range}"),
            }
        }
        (None, Some(words)) => format!("one of {}", words.join(", ")),
        (None, None) => unreachable!("every annotation sets a setting with a bound or words"),
    }
}

/// The same check as CEL of `value`, and the expression for `read`, if it is parsed first.
pub(super) fn followed_policy(key: &str) -> (String, Option<&'static str>) {
    match (bound(key), words(key)) {
        (Some(bound), _) if bound.unit == Unit::Percent => {
            let shares = (bound.min..=bound.max).map(|share| share.to_string()).collect::<Vec<_>>().join("|");
            (format!(r#"value.trim().matches("^[+]?0*({shares})([.]0*)? *%? *$")"#), None)
        }
        (Some(bound), _) if bound.unit == Unit::Bytes => {
            let zero = if bound.is_zero_allowed { r#"quantity(read).compareTo(quantity("0")) == 0 || "# } else { "" };
            let (min, max) = (bound.min, bound.max);
            let within = format!(
                r#"!quantity(read).isLessThan(quantity("{min}")) && !quantity(read).isGreaterThan(quantity("{max}"))"#
            );
            (format!("isQuantity(read) && ({zero}{within})"), Some(READ_SIZE))
        }
        (Some(_), _) => {
            let pattern = r#"{{ include "ebb.spanPattern" . | include "ebb.celString" }}"#;
            (format!(r#"value.trim() == "0" || value.trim().matches({pattern})"#), None)
        }
        // As YAML 1.1, the sidecar takes other words for true and false.
        (None, _) if key == "evictionAware" => {
            (r#"value.trim().lowerAscii() in ["true", "on", "yes", "false", "off", "no"]"#.to_owned(), None)
        }
        (None, words) => {
            let mut words = words.unwrap_or_default().to_vec();
            words.extend((key == "compaction").then_some("on"));
            (format!("value in {words:?}"), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_config::annotations::SETTINGS;
    use ebb_config::check_environment;

    #[test]
    fn variables_are_checked_as_the_sidecar_reads_them() {
        let good = [
            ("EBB_CORES", "64"),
            ("EBB_MAX_VALUE", "3584Ki"),
            ("EBB_MAX_VALUE", "2Mi"),
            ("EBB_MAX_MEMORY", "0"),
            ("EBB_IDLE_TIMEOUT", "30m"),
            ("EBB_TICK", "10ms"),
            ("EBB_PACING_CPU", "50%"),
            ("EBB_PACING_STEP_MICROS", "1000"),
            ("EBB_LOG_LEVEL", "debug"),
            ("EBB_OTLP_ENDPOINT", "http://agent.tracing:4317/v1"),
            ("EBB_RESERVE_SHARE", "0"),
        ];
        let bad = [
            ("EBB_CORES", "65"),
            ("EBB_CORES", "01"),
            ("EBB_CORES", ""),
            ("EBB_MAX_VALUE", "4Mi"),
            ("EBB_MAX_VALUE", "0"),
            ("EBB_TICK", "9ms"),
            ("EBB_TICK", "1h"),
            ("EBB_TICK", "10"),
            ("EBB_PACING_CPU", "0%"),
            ("EBB_LOG_LEVEL", "loud"),
            ("EBB_OTLP_ENDPOINT", "x y"),
            ("EBB_OTLP_ENDPOINT", "http://-"),
            ("EBB_LISTEN", "127.0.0.1:7070"),
            ("EBB_CONFIG", "/x"),
            ("EBB_POD_EVENTS", "true"),
            ("EBB_NO_SUCH", "1"),
        ];
        let wrong: Vec<_> = good.iter().filter(|(name, value)| !variable_fits(name, value)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let wrong: Vec<_> = bad.iter().filter(|(name, value)| variable_fits(name, value)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let start = |(name, value): (&str, &str)| check_environment(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(good.map(start), good.map(|_| Ok(())), "and a sidecar starts with them");
    }

    #[test]
    fn every_followed_annotation_has_a_bound_that_holds() {
        let at_edge = |key: &str| match bound(key) {
            Some(bound) => vec![bound.unit.text(bound.min), bound.unit.text(bound.max)],
            None => words(key).unwrap().iter().map(|word| (*word).to_owned()).collect(),
        };
        for (_, key) in SETTINGS {
            assert!(!followed_bound(key).is_empty() && !followed_policy(key).0.is_empty());
            let wrong: Vec<_> = at_edge(key).into_iter().filter(|value| !followed_fits(key, value)).collect();
            assert!(wrong.is_empty(), "{key}: {wrong:?}");
        }
        let beyond = [("watermarks.low", "98%"), ("watermarks.high", "99%"), ("watermarks.critical", "100%")];
        let more = [("maxMemory", "1Mi"), ("maxMemory", "17Ti"), ("drift.dead", "101"), ("compaction", "true")];
        let wrong: Vec<_> = beyond.into_iter().chain(more).filter(|(key, value)| followed_fits(key, value)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
