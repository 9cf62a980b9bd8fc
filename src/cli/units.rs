//! Sizes and durations as people type and read them: `64Mi`, `1.5G`, `30s`, `2h`.

use std::str::FromStr;

use crate::units::one_or_many;

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        scaled(text, &units, "a duration such as 500ms, 30s, 5m, 2h or 7d").map(Self)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kilo, kibi) = (1000_u64, 1024_u64);
        let units = [
            ("", 1),
            ("B", 1),
            ("k", kilo),
            ("M", kilo.pow(2)),
            ("G", kilo.pow(3)),
            ("Ki", kibi),
            ("Mi", kibi.pow(2)),
            ("Gi", kibi.pow(3)),
        ];
        scaled(text, &units, "a size such as 4096, 64Mi or 1.5Gi").map(Self)
    }
}

fn scaled(text: &str, units: &[(&str, u64)], wanted: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is not {wanted}");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let &(_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    let exact = number.parse::<u64>().ok().map(|n| n.checked_mul(factor));
    match exact {
        Some(Some(product)) => Ok(product),
        Some(None) => Err(format!("`{text}` is too large")),
        None => {
            let product = number.parse::<f64>().map_err(|_| refuse())? * factor as f64;
            if product < u64::MAX as f64 { Ok(product as u64) } else { Err(format!("`{text}` is too large")) }
        }
    }
}

/// `1.4 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 segment`, `1,234 segments`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), one_or_many(n, one, many))
}

/// `1m 30s`: the two largest parts.
pub(crate) fn duration(ms: u64) -> String {
    let (days, hours, minutes) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1000 => format!("{ms} ms"),
        (0, 0, 0) => format!("{:.1} s", ms as f64 / 1000.0),
        (0, 0, m) => format!("{m}m {}s", ms / 1000 % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_meant() {
        assert_eq!("30s".parse(), Ok(Millis(30_000)));
        assert_eq!("500ms".parse(), Ok(Millis(500)));
        assert_eq!("1.5h".parse(), Ok(Millis(5_400_000)));
        assert_eq!("64Mi".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("1.5Gi".parse(), Ok(Bytes(3 << 29)));
        assert_eq!("18446744073709551615".parse(), Ok(Bytes(u64::MAX)));
    }

    #[test]
    fn what_means_nothing_is_refused_in_a_sentence() {
        for bad in ["", "30", "s", "-1s", "1..2s", "30 s", "1e3s"] {
            assert!(bad.parse::<Millis>().unwrap_err().contains("is not a duration"), "{bad}");
        }
        for bad in ["", "Mi", "-5", "64MB", "1.2.3"] {
            assert!(bad.parse::<Bytes>().unwrap_err().contains("is not a size"), "{bad}");
        }
        assert_eq!("18446744073709551615Gi".parse::<Bytes>().unwrap_err(), "`18446744073709551615Gi` is too large");
    }

    #[test]
    fn what_is_printed_can_be_read() {
        assert_eq!((bytes(0), bytes(1023), bytes(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
        assert_eq!((count(7), count(1_234_567)), ("7".into(), "1,234,567".into()));
        let segments = |n| counted(n, "segment", "segments");
        assert_eq!([0, 1, 1_234].map(segments), ["0 segments", "1 segment", "1,234 segments"]);
        assert_eq!(
            (duration(999), duration(90_000), duration(90_000_000)),
            ("999 ms".into(), "1m 30s".into(), "1d 1h".into())
        );
    }
}
