//! The Huffman code of HPACK (RFC 7541, appendix B), decoded bit by bit across any split of the bytes.
//!
//! The code is canonical, so the lengths of the codes determine it.

/// The length of each byte's code, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const LONGEST: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Codes {
    /// The first code.
    first: u32,
    /// Number of codes.
    count: u32,
    /// Index of their bytes in [`BYTES`].
    at: usize,
}

/// Every byte, in the order of its code.
const BYTES: [u8; 256] = bytes();
/// The codes by their length.
const CODES: [Codes; LONGEST + 1] = codes();

const fn bytes() -> [u8; 256] {
    let mut bytes = [0; 256];
    let (mut at, mut length) = (0, 1);
    while length <= LONGEST {
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                bytes[at] = byte as u8;
                at += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    bytes
}

const fn codes() -> [Codes; LONGEST + 1] {
    let mut codes = [Codes { first: 0, count: 0, at: 0 }; LONGEST + 1];
    let (mut length, mut next, mut at) = (1, 0, 0);
    while length <= LONGEST {
        next <<= 1;
        let (mut byte, mut count) = (0, 0);
        while byte < 256 {
            count += (LENGTHS[byte] as usize == length) as u32;
            byte += 1;
        }
        codes[length] = Codes { first: next, count, at };
        next += count;
        at += count as usize;
        length += 1;
    }
    codes
}

/// The length of a byte's code, in bits.
pub(super) fn length(byte: u8) -> u8 {
    LENGTHS[usize::from(byte)]
}

/// The code of a byte, in its lowest [`length`] bits.
pub(super) fn code(byte: u8) -> u32 {
    let codes = CODES[usize::from(length(byte))];
    let bytes = &BYTES[codes.at..codes.at + codes.count as usize];
    codes.first + bytes.iter().position(|other| *other == byte).expect("a byte has a code of its length") as u32
}

/// A decoder between two bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decoder {
    bits: u32,
    have: u8,
}

/// The code is invalid: the encoder is broken, or it sent the end-of-string code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Decoder {
    /// Whether the remaining bits are valid padding at the end of a string: less than an octet, all ones.
    pub(super) fn is_padding(self) -> bool {
        self.have < 8 && self.bits == (1 << self.have) - 1
    }

    /// Decodes one bit. Returns the byte that it completes.
    pub(super) fn bit(&mut self, bit: bool) -> Result<Option<u8>, Invalid> {
        self.bits = self.bits << 1 | u32::from(bit);
        self.have += 1;
        let Some(codes) = CODES.get(usize::from(self.have)) else { return Err(Invalid) };
        let above = self.bits.wrapping_sub(codes.first);
        if above >= codes.count {
            return if usize::from(self.have) == LONGEST { Err(Invalid) } else { Ok(None) };
        }
        *self = Self::default();
        Ok(Some(BYTES[codes.at + above as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_decodes_from_its_code() {
        for byte in 0..=255 {
            let mut decoder = Decoder::default();
            let mut decoded = None;
            for bit in (0..length(byte)).rev() {
                assert_eq!(decoded, None, "{byte}");
                decoded = decoder.bit(code(byte) >> bit & 1 == 1).unwrap();
            }
            assert_eq!(decoded, Some(byte));
        }
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (byte, bits) in
            [(b'%', "010101"), (b'-', "010110"), (b'/', "011000"), (b'a', "00011"), (b'@', "1111111111010")]
        {
            assert_eq!(format!("{:0width$b}", code(byte), width = usize::from(length(byte))), bits);
        }
    }

    #[test]
    fn the_end_of_string_code_is_invalid() {
        let mut decoder = Decoder::default();
        let last = (0..30).map(|_| decoder.bit(true)).find(Result::is_err);
        assert_eq!(last, Some(Err(Invalid)));
    }
}
