//! Replaces an authority that `h2` rejects by one that it accepts.
//!
//! A replacement has as many characters and as many encoded octets as the original, so that frames keep their lengths
//! and the HPACK tables of both ends stay equal. In plain text every character takes one octet. In Huffman code, the
//! code of a forbidden character can be longer than any code of a permitted one (`#` takes 12 bits, `é` 49). Longer
//! codes for other characters then make up for the missing bits.

use super::huffman;

/// Replacement characters: one for each code length of permitted characters, longest first.
const STAND_INS: &[u8; 7] = b"$'!&x-0";
/// Maximum bits of padding at the end of a Huffman-coded string (RFC 7541, section 5.2).
const MAX_PADDING_BITS: usize = 7;

/// Whether `byte` is permitted anywhere in an authority. Colons and brackets are permitted only at certain positions,
/// and `h2` rejects a percent sign.
pub(super) fn is_permitted(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// The replacement character in plain text.
pub(super) const PLAIN_STAND_IN: u8 = b'-';

fn bits(byte: u8) -> usize {
    huffman::length(byte).into()
}

/// The replacement character with the longest code of at most `most` bits.
fn stand_in(most: usize) -> u8 {
    STAND_INS.iter().copied().find(|byte| bits(*byte) <= most).unwrap_or(b'0')
}

/// Permitted characters whose codes fill as many octets as those of `text`, which takes `octets`. `None` if `text` has
/// too many long codes.
pub(super) fn replacement(text: &[u8], octets: usize) -> Option<Vec<u8>> {
    let mut replaced = Vec::with_capacity(text.len());
    // Bits by which the original is longer so far.
    let mut missing = 0;
    for byte in text {
        let room = bits(*byte) + missing;
        let chosen = if is_permitted(*byte) && missing == 0 { *byte } else { stand_in(room) };
        missing = room - bits(chosen);
        replaced.push(chosen);
    }
    missing += (octets * 8).checked_sub(text.iter().map(|byte| bits(*byte)).sum())?;
    for chosen in replaced.iter_mut().rev() {
        if missing <= MAX_PADDING_BITS {
            break;
        }
        let room = bits(*chosen) + missing;
        *chosen = stand_in(room);
        missing = room - bits(*chosen);
    }
    (missing <= MAX_PADDING_BITS).then_some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::Authority;

    fn octets(text: &[u8]) -> usize {
        text.iter().map(|byte| bits(*byte)).sum::<usize>().div_ceil(8)
    }

    /// Checks a replacement; returns whether there is one.
    fn check(text: &[u8]) -> bool {
        let Some(replaced) = replacement(text, octets(text)) else { return false };
        assert_eq!((replaced.len(), octets(&replaced)), (text.len(), octets(text)), "{}", text.escape_ascii());
        assert!(Authority::try_from(&replaced[..]).is_ok(), "{}", replaced.escape_ascii());
        true
    }

    #[test]
    fn stand_ins_are_permitted_and_have_each_length() {
        let lengths = STAND_INS.map(bits);
        assert!(lengths.is_sorted_by(|longer, shorter| longer > shorter), "{lengths:?}");
        assert!(STAND_INS.iter().all(|byte| is_permitted(*byte)));
        assert!((0..=255).filter(|byte| is_permitted(*byte)).all(|byte| lengths.contains(&bits(byte))));
    }

    #[test]
    fn any_one_byte_in_a_path_is_replaced() {
        for byte in 0..=255 {
            for text in [&[b"run/ebb".as_slice(), &[byte]].concat(), &[&[byte], b"run/ebb".as_slice()].concat()] {
                assert!(check(text), "{}", text.escape_ascii());
            }
        }
        assert_eq!(
            replacement(b"localhost", octets(b"localhost")).as_deref(),
            Some(&b"localhost"[..]),
            "a permitted authority does not change"
        );
        assert_eq!(replacement(b"run%2Febb", octets(b"run%2Febb")).as_deref(), Some(&b"run-2Febb"[..]));
    }

    #[test]
    fn only_text_with_too_many_long_codes_has_no_replacement() {
        let longest = bits(STAND_INS[0]);
        let (mut replaced, mut refused) = (0, 0);
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut next = |below: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) % below
            };
            let odd = next(10);
            let len = 1 + next(40);
            let text: Vec<u8> = (0..len)
                .map(|_| if next(10) < odd { next(256) as u8 } else { b"az/_.09%"[next(8) as usize] })
                .collect();
            let is_possible = text.len() * longest + MAX_PADDING_BITS >= octets(&text) * 8;
            assert_eq!(check(&text), is_possible, "{}", text.escape_ascii());
            *if is_possible { &mut replaced } else { &mut refused } += 1;
        }
        assert!(replaced > 1_000 && refused > 1_000, "{replaced} {refused}");
    }
}
