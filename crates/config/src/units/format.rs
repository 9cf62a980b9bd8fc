//! Formats sizes, counts and durations for people. [`crate::units`] parses them.

use super::one_or_many;

/// `1.4 MiB`.
pub fn bytes(n: u64) -> String {
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
pub fn count(n: u64) -> String {
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
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), one_or_many(n, one, many))
}

/// `1m 30s`: the two largest units.
pub fn duration(ms: u64) -> String {
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
