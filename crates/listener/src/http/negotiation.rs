//! Content negotiation by `Accept` (RFC 9110, section 12.5.1).
//!
//! The offer with the highest weight wins. With equal weights the more specific range wins, so that `*/*` never
//! outranks a type that the client names; then the range that the client lists first; then the first offer. Malformed
//! members are ignored.

use std::cmp::Reverse;

/// A media type that a resource offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) kind: &'a str,
    pub(super) subtype: &'a str,
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// Parameters that may have any value, because every value matches the resource.
    pub(super) any: &'a [&'a str],
}

/// Weight in thousandths, then the specificity of the range that gave it, then its position.
type Rank = (u16, u16, Reverse<usize>);

/// The number of the best offer for these `Accept` lines; `None` when the client accepts none of them. Without a line
/// every offer is accepted.
pub(super) fn best(offers: &[Offer<'_>], lines: &[&[u8]]) -> Option<usize> {
    if lines.is_empty() {
        return (!offers.is_empty()).then_some(0);
    }
    let ranges: Vec<_> = lines.iter().flat_map(|line| split(line, b',')).filter_map(Range::parse).collect();
    let rank = |offer: &Offer<'_>| -> Rank {
        let matching = ranges.iter().enumerate();
        let matching = matching.filter_map(|(at, range)| Some((range.specificity(offer)?, range.weight, Reverse(at))));
        // The most specific range decides about an offer, even if its weight is lower.
        matching.max().map_or((0, 0, Reverse(0)), |(specificity, weight, at)| (weight, specificity, at))
    };
    let ranked = offers.iter().map(rank).enumerate().filter(|(_, (weight, ..))| *weight > 0);
    ranked.rev().max_by_key(|(_, rank)| *rank).map(|(at, _)| at)
}

/// A media range with its weight.
#[derive(Debug, PartialEq)]
struct Range {
    /// Lower-case; `*` for any.
    kind: String,
    subtype: String,
    parameters: Vec<(String, String)>,
    weight: u16,
}

impl Range {
    fn parse(member: &[u8]) -> Option<Self> {
        let mut parts = split(member, b';').map(trim);
        let (kind, subtype) = split_once(parts.next()?, b'/')?;
        let (kind, subtype) = (token(kind)?, token(subtype)?);
        if kind == "*" && subtype != "*" {
            return None;
        }
        let mut range = Self { kind, subtype, parameters: Vec::new(), weight: 1_000 };
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = split_once(part, b'=')?;
            match token(name)?.as_str() {
                "q" => range.weight = weight(value)?,
                name => range.parameters.push((name.to_owned(), unquoted(value)?)),
            }
        }
        Some(range)
    }

    /// How closely the range names `offer`; `None` when it does not match.
    fn specificity(&self, offer: &Offer<'_>) -> Option<u16> {
        let is_given = |(name, value): &(String, String)| {
            let given = offer.parameters.iter().find(|(given, _)| given == name);
            offer.any.contains(&name.as_str()) || given.is_some_and(|(_, given)| given.eq_ignore_ascii_case(value))
        };
        let is_match = (self.kind == "*" || self.kind == offer.kind)
            && (self.subtype == "*" || self.subtype == offer.subtype)
            && self.parameters.iter().all(is_given);
        let names = u16::from(self.kind != "*") + u16::from(self.subtype != "*");
        is_match.then_some(names * 256 + self.parameters.len().min(255) as u16)
    }
}

/// A qvalue (RFC 9110, section 12.4.2) in thousandths: 0 to 1 with at most three decimals.
fn weight(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', decimals @ ..] => (*whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) || !matches!(whole, b'0' | b'1') {
        return None;
    }
    let places = decimals.iter().copied().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = places.fold(u16::from(whole - b'0'), |sum, digit| sum * 10 + u16::from(digit - b'0'));
    (thousandths <= 1_000).then_some(thousandths)
}

/// A token in lower case.
fn token(text: &[u8]) -> Option<String> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!text.is_empty() && text.iter().all(is_token)).then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

/// The value of a parameter: a token, or a quoted string without its quotes and escapes.
fn unquoted(text: &[u8]) -> Option<String> {
    let [b'"', inner @ .., b'"'] = text else { return token(text) };
    let (mut value, mut escaped) = (Vec::new(), false);
    for byte in inner {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return None,
            _ => {
                value.push(*byte);
                escaped = false;
            }
        }
    }
    (!escaped).then(|| String::from_utf8_lossy(&value).into_owned())
}

/// The parts of `text` between separators outside of quoted strings.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let is_separator = *byte == separator && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        is_separator
    })
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: [Offer<'_>; 3] = [
        Offer { kind: "text", subtype: "plain", parameters: &[("version", "0.0.4"), ("charset", "utf-8")], any: &[] },
        Offer { kind: "application", subtype: "x", parameters: &[("version", "1.0.0")], any: &["escaping"] },
        Offer { kind: "text", subtype: "html", parameters: &[], any: &[] },
    ];
    const PLAIN: Option<usize> = Some(0);
    const X: Option<usize> = Some(1);
    const HTML: Option<usize> = Some(2);

    #[test]
    fn the_best_offer_is_chosen_by_weight_and_specificity() {
        let cases: [(&[&str], Option<usize>); 43] = [
            (&[], PLAIN),
            (&["*/*"], PLAIN),
            (&["application/x"], X),
            (&["APPLICATION/X"], X),
            (&["text/*"], PLAIN),
            (&["application/*"], X),
            (&["text/html"], HTML),
            (&["image/png"], None),
            // Weights.
            (&["text/plain;q=0.5, application/x;q=0.6"], X),
            (&["text/plain;q=0.6,application/x;q=0.5"], PLAIN),
            (&["text/plain;q=0.001, application/x;q=0"], PLAIN),
            (&["application/x;Q=0.9, text/plain;q=0.91"], PLAIN),
            (&["text/plain ; q=0.1 , application/x\t;\tq=0.2"], X),
            (&["text/plain;q=0.9", "application/x"], X),
            (&["text/plain;q=1.000, application/x;q=0.999"], PLAIN),
            (&["text/plain;q=0., application/x;q=0.1"], X),
            (&["text/plain, application/x"], PLAIN),
            (&["application/x, text/plain"], X),
            // The more specific range decides.
            (&["*/*, application/x;q=0"], PLAIN),
            (&["*/*, text/plain;q=0"], X),
            (&["*/*;q=0.1, text/*;q=0, text/html;q=0.2"], HTML),
            (&["text/*;q=0.9, text/plain;q=0.1, application/x;q=0.5"], HTML),
            (&["*/*, application/x"], X),
            (&["*/*;q=0"], None),
            (&["text/*;q=0, application/*;q=0"], None),
            // Parameters.
            (&["application/x;version=1.0.0"], X),
            (&["application/x; version=\"1.0.0\""], X),
            (&["application/x;version=2.0.0"], None),
            (&["application/x;version=1.0.0;escaping=allow-utf-8;q=0.6, text/plain;version=0.0.4;q=0.3, */*;q=0.2"], X),
            (&["application/x;version=9;q=0.9, text/plain;version=0.0.4;q=0.3"], PLAIN),
            (&["text/plain;charset=UTF-8;q=0.4, application/x;q=0.3"], PLAIN),
            (&["text/plain;format=flowed, application/x;q=0.1"], X),
            (&["application/x;version=1.0.0;q=0.1, application/x;q=0.9, text/plain;q=0.5"], PLAIN),
            (&["application/x;;q=0.5;, text/html;q=0.4"], X),
            // Quoted commas and semicolons separate nothing.
            (&["text/plain;a=\"b,application/x;q=1\\\",\";q=1, text/html;q=0.1"], HTML),
            // Malformed members are ignored.
            (&["application/x;q=2, text/plain;q=0.1"], PLAIN),
            (&["application/x;q=0.1234, text/html"], HTML),
            (&["application/x;q=-1, application/x;q=, application/x;q=a, text/html"], HTML),
            (&["application/x; q = 1, text/html;q=0.1"], HTML),
            (&["application, /x, application/, */x, a b/c, , text/html;q=0.1"], HTML),
            (&["*, text/html;q=0.2, *; q=.2"], HTML),
            (&["nonsense"], None),
            (&["\u{e9}/x, application/x"], X),
        ];
        let found = cases.map(|(lines, _)| {
            let bytes: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            (lines, best(&OFFERS, &bytes))
        });
        assert_eq!(found, cases);
    }
}
