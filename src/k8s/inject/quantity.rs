//! Kubernetes' quantities, compared exactly: `250m`, `64Mi`, `1.5Gi`, `1e3`.

/// Nothing that a pod may ask for is finer.
const NANO: i128 = 1_000_000_000;

const SUFFIXES: [(&str, i128, i128); 15] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, NANO),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
];

/// An amount, in billionths of its unit (bytes, cores).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

impl Quantity {
    pub(super) const ZERO: Self = Self(0);

    /// `None` when it is not a quantity.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (factor, divisor) = match suffix {
            "" => (1, 1),
            _ if suffix.starts_with(['e', 'E']) && suffix.len() > 1 => power(&suffix[1..])?,
            _ => SUFFIXES.iter().find(|(name, ..)| *name == suffix).map(|(_, factor, divisor)| (*factor, *divisor))?,
        };
        let (sign, digits) = match number.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9
        {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 10_i128.pow(fraction.len() as u32);
        let nano = mantissa.checked_mul(factor)?.checked_mul(NANO / divisor)? / scale;
        Some(Self(sign * nano))
    }
}

/// The factor and the divisor of a power of ten.
fn power(exponent: &str) -> Option<(i128, i128)> {
    let exponent: i32 = exponent.parse().ok()?;
    let factor = 10_i128.pow(exponent.unsigned_abs().min(18));
    match exponent {
        0..=18 => Some((factor, 1)),
        -9..=-1 => Some((1, factor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_differently_is_the_same_amount() {
        for (a, b) in [("1", "1000m"), ("1Gi", "1024Mi"), ("1.5Ki", "1536"), ("1e3", "1k"), ("+5", "5"), ("2E3", "2k")]
        {
            assert_eq!(Quantity::parse(a).unwrap(), Quantity::parse(b).unwrap(), "{a} {b}");
        }
        assert!(Quantity::parse("100M") < Quantity::parse("100Mi"));
        assert!(Quantity::parse("-1").unwrap() < Quantity::ZERO);
        assert_eq!(Quantity::parse("0.5"), Quantity::parse("500m"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Mi", "1 Gi", "1GB", "lots", "1.2.3", "--1", "1e", "1e99", ".", "0x10", "1Ki1", "9e18Ei"] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
    }
}
