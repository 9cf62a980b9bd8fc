//! Parsers for sizes, percentages and durations in the file, environment, flags, annotations and on the command line. They
//! accept the syntax of Kubernetes and Go, compute exactly and print the shortest exact form. Also pluralization.

pub mod format;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// An amount of memory in bytes: a Kubernetes quantity (`64Mi`, `0.5Gi`, `129e6`, `128974848000m`), or a size with a
/// `B` (`64MiB`, `64MB`). A fraction of a byte is rounded up, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A percentage: `85`, `85%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// A duration in milliseconds: `250ms`, `5s`, `1h30m`, `7d`. A fraction of a millisecond is rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

/// A quantity in Kubernetes resources, in billionths of its unit (bytes, cores), the finest amount that a pod may
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// Why a text is not a size, a percentage or a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a [`ByteSize`].
    #[error("{text:?} is not a size{problem}; use a form such as 64Mi, 0.5Gi, 64MB or 1048576")]
    Size {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Not a [`Percent`]. Holds the text as given.
    #[error("{0:?} is not a percentage (a whole number from 0 to 100, such as 85 or 85%)")]
    Percent(String),
    /// Not a [`Span`].
    #[error("{text:?} is not a duration{problem}; use a form such as 250ms, 5s, 1h30m or 7d")]
    Duration {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// The part of a [`ParseError`] that explains the problem; empty if there is nothing to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not a number with a known unit.
    #[error("")]
    Syntax,
    /// Only the case or a trailing `b` of the suffix is wrong. Holds the probable suffix.
    #[error(" (did you mean {0}?)")]
    Misspelled(&'static str),
    /// Less than zero.
    #[error(" (it is negative)")]
    Negative,
    /// More bytes than 64 bits hold.
    #[error(" (it is too large)")]
    TooLarge,
    /// More milliseconds than 64 bits hold.
    #[error(" (it is too long)")]
    TooLong,
    /// A number alone.
    #[error(" (it has no unit)")]
    NoUnit,
}

/// Units and the nanounits in one of them.
type Units = [(&'static str, i128)];

const NANO: i128 = 1_000_000_000;

/// The suffixes of Kubernetes.
const QUANTITIES: &Units = &[
    ("Ei", NANO << 60),
    ("Pi", NANO << 50),
    ("Ti", NANO << 40),
    ("Gi", NANO << 30),
    ("Mi", NANO << 20),
    ("Ki", NANO << 10),
    ("E", NANO * 1_000_000_000_000_000_000),
    ("P", NANO * 1_000_000_000_000_000),
    ("T", NANO * 1_000_000_000_000),
    ("G", NANO * 1_000_000_000),
    ("M", NANO * 1_000_000),
    ("k", NANO * 1_000),
    ("", NANO),
    ("m", NANO / 1_000),
    ("u", NANO / 1_000_000),
    ("n", 1),
];

/// The units of Go, and days and weeks.
const SPANS: &Units = &[
    ("w", 604_800 * NANO),
    ("d", 86_400 * NANO),
    ("h", 3_600 * NANO),
    ("m", 60 * NANO),
    ("s", NANO),
    ("ms", NANO / 1_000),
    ("us", NANO / 1_000_000),
    ("\u{b5}s", NANO / 1_000_000),
    ("\u{3bc}s", NANO / 1_000_000),
    ("ns", 1),
];

impl Span {
    /// Converts to a standard-library duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A decimal number: `digits` over ten to the power of `scale`.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: u32,
}

/// Maximum number of decimals; more could not change a result.
const MAX_DECIMALS: usize = 18;

impl Decimal {
    /// Reads the number at the beginning of a text; returns it with the rest.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let digits_of = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits_of(unsigned));
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_of(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() || fraction.len() > MAX_DECIMALS {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse::<i128>().ok()?;
        Some((Self { digits: sign * digits, scale: fraction.len() as u32 }, rest))
    }

    /// Multiplies by a unit of `nanos` nanounits. A fraction is rounded away from zero.
    fn times(self, nanos: i128) -> Option<i128> {
        let (product, scale) = (self.digits.checked_mul(nanos)?, 10_i128.pow(self.scale));
        Some(product / scale + (product % scale).signum())
    }

    /// The integer value; `None` for a number with a fraction.
    fn whole(self) -> Option<i128> {
        let scale = 10_i128.pow(self.scale);
        (self.digits % scale == 0).then_some(self.digits / scale)
    }
}

fn nanos_of(units: &Units, unit: &str) -> Option<i128> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos)
}

/// A decimal exponent in Kubernetes' syntax: `e6`, `E-3`.
fn power_of_ten(suffix: &str) -> Option<i128> {
    match suffix.strip_prefix(['e', 'E'])?.parse().ok()? {
        exponent @ -9..=18_i32 => Some(10_i128.pow((exponent + 9) as u32)),
        _ => None,
    }
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// The amount in whole units, rounded down; 0 for a negative one.
    pub fn whole(self) -> u64 {
        u64::try_from(self.0.max(0) / NANO).unwrap_or(u64::MAX)
    }

    /// Parses exactly the syntax of Kubernetes; `None` if the text is not a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, suffix) = Decimal::read(text)?;
        let nanos = nanos_of(QUANTITIES, suffix).or_else(|| power_of_ten(suffix))?;
        number.times(nanos).map(Self)
    }

    /// The amount in billionths of a unit.
    pub fn nanos(self) -> i128 {
        self.0
    }

    /// Converts any form of [`ByteSize`] to Kubernetes' syntax: `64M` for `64MB`; `None` if the text is not a size.
    pub fn spelled(text: &str) -> Option<String> {
        text.parse::<ByteSize>().ok()?;
        // A size has at most one suffix with at most one B; `k` is the only lower-case multiple of Kubernetes.
        let spelled = text.trim().replace([' ', 'B'], "").replace('K', "k").replace("ki", "Ki");
        Self::parse(&spelled).map(|_| spelled)
    }
}

/// Nanounits as whole units, rounded up.
fn whole(nanos: i128) -> Option<u64> {
    u64::try_from((nanos + (NANO - 1)).div_euclid(NANO)).ok()
}

/// The probable suffix, if only its case or a trailing `b` is wrong.
fn meant(suffix: &str) -> Option<&'static str> {
    let bare = suffix.strip_suffix(['b', 'B']).unwrap_or(suffix);
    let mut units = QUANTITIES.iter().map(|(name, _)| *name).filter(|name| !["", "m", "u", "n"].contains(name));
    units.find(|name| name.eq_ignore_ascii_case(bare))
}

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |problem| ParseError::Size { text: text.to_owned(), problem };
        let (number, suffix) = Decimal::read(text.trim()).ok_or_else(|| refuse(Problem::Syntax))?;
        let suffix = suffix.trim_start_matches(' ');
        let with_b = |suffix: &str| {
            let prefix = suffix.strip_suffix('B')?;
            let prefix = if prefix == "K" { "k" } else { prefix };
            nanos_of(QUANTITIES, prefix).filter(|nanos| *nanos >= NANO)
        };
        let nanos = nanos_of(QUANTITIES, suffix).or_else(|| power_of_ten(suffix)).or_else(|| with_b(suffix));
        let nanos = nanos.ok_or_else(|| refuse(meant(suffix).map_or(Problem::Syntax, Problem::Misspelled)))?;
        if number.digits < 0 {
            return Err(refuse(Problem::Negative));
        }
        number.times(nanos).and_then(whole).map(Self).ok_or_else(|| refuse(Problem::TooLarge))
    }
}

impl FromStr for Percent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = || ParseError::Percent(text.to_owned());
        let number = text.trim();
        let (number, rest) = Decimal::read(number.strip_suffix('%').unwrap_or(number).trim_end()).ok_or_else(refuse)?;
        let whole = number.whole().filter(|n| rest.is_empty() && (0..=100).contains(n)).ok_or_else(refuse)?;
        Ok(Self(whole as u8))
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |problem| ParseError::Duration { text: text.to_owned(), problem };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(0));
        }
        let mut sum = 0_i128;
        loop {
            let (number, after) = Decimal::read(rest).ok_or_else(|| refuse(Problem::Syntax))?;
            let after = after.trim_start_matches(' ');
            let (unit, next) = after.split_at(after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len()));
            if number.digits < 0 {
                return Err(refuse(Problem::Negative));
            }
            let missing = || refuse(if unit.is_empty() { Problem::NoUnit } else { Problem::Syntax });
            let part = nanos_of(SPANS, unit).ok_or_else(missing)?;
            sum = number.times(part).and_then(|part| sum.checked_add(part)).ok_or_else(|| refuse(Problem::TooLong))?;
            rest = next.trim_start_matches(' ');
            if rest.is_empty() {
                let ms = sum.checked_mul(1_000).and_then(whole);
                return ms.map(Self).ok_or_else(|| refuse(Problem::TooLong));
            }
            if rest.starts_with(['+', '-']) {
                return Err(refuse(Problem::Syntax));
            }
        }
    }
}

/// Selects singular or plural.
pub fn one_or_many<'a>(n: u64, one: &'a str, many: &'a str) -> &'a str {
    if n == 1 { one } else { many }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        match units.iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        match units.iter().find(|(_, ms)| self.0 != 0 && self.0.is_multiple_of(*ms)) {
            Some((unit, ms)) => write!(f, "{}{unit}", self.0 / ms),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// Implements serde as text, accepting numbers where they are exact, and a schema that accepts the parser's syntax.
macro_rules! as_text {
    ($type:ident, $pattern:literal, $examples:literal, $number:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($examples)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    // YAML reads 129e6 as a float. Display writes it without an exponent.
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($number);
                schema.insert("pattern".to_owned(), $pattern.into());
                schema
            }
        }
    };
}

as_text!(
    ByteSize,
    "^\\+?([0-9]{1,30}\\.?[0-9]{0,18}|\\.[0-9]{1,18}) *([KMGTPE]iB?|[kKMGTPE]B|[numkMGTPEB]|[eE](\\+?(0?[0-9]|1[0-8])|-0?[0-9]))?$",
    "a size such as 64Mi",
    { "type": ["string", "number"], "minimum": 0 }
);
as_text!(
    Percent,
    "^\\+?0{0,30}(100|[0-9]{1,2})(\\.0{0,18})? *%?$",
    "a percentage such as 85 or 85%",
    { "type": ["string", "integer"], "minimum": 0, "maximum": 100 }
);
as_text!(
    Span,
    "^\\+?(([0-9]{1,30}\\.?[0-9]{0,18}|\\.[0-9]{1,18}) *(ns|us|\u{b5}s|\u{3bc}s|ms|s|m|h|d|w) *)+$|^0$",
    "a duration such as 250ms or 5s",
    { "type": ["string", "integer"], "minimum": 0, "maximum": 0 } // a number has no unit
);

#[cfg(test)]
mod tests;
