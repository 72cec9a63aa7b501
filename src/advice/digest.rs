//! The digest of a body as it streams by: keyed, so that nobody outside can make two bodies look alike, and the same
//! however the bytes are cut into pieces.

/// A digest in the making. 64 bits by folded multiplication (as in wyhash and foldhash): a cycle for each byte or less,
/// which matters more here than strength: two bodies are compared, not vouched for.
#[derive(Debug, Clone)]
pub struct Digest {
    state: u64,
    /// The bytes that do not fill a word yet.
    tail: u64,
    held: u32,
    length: u64,
}

impl Digest {
    /// Of nothing so far, under a secret `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed ^ ODD, tail: 0, held: 0, length: 0 }
    }

    /// Takes the next bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while self.held > 0
            && let Some((first, rest)) = bytes.split_first()
        {
            self.hold(*first);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        let mut state = self.state;
        for word in words {
            state = fold(state ^ u64::from_le_bytes(*word));
        }
        self.state = state;
        rest.iter().for_each(|byte| self.hold(*byte));
    }

    /// Bytes taken so far.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes taken.
    pub const fn finish(&self) -> u64 {
        fold(fold(self.state ^ self.tail) ^ self.length)
    }

    fn hold(&mut self, byte: u8) {
        self.tail |= u64::from(byte) << (8 * self.held);
        self.held += 1;
        if self.held == 8 {
            self.state = fold(self.state ^ self.tail);
            (self.tail, self.held) = (0, 0);
        }
    }
}

/// Both halves of a product, on each other.
const fn fold(word: u64) -> u64 {
    let product = (word as u128).wrapping_mul(ODD as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

/// 2^64 divided by the golden ratio, made odd.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn digest(pieces: &[&[u8]]) -> u64 {
        let mut digest = Digest::new(7);
        pieces.iter().for_each(|piece| digest.add(piece));
        digest.finish()
    }

    #[test]
    fn small_differences_are_differences() {
        let texts: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"a", b"b", b"ab", b"ba", &[0; 8], &[0; 16]];
        let digests: HashSet<_> = texts.iter().map(|text| digest(&[text])).collect();
        assert_eq!(digests.len(), texts.len());
        assert_ne!(Digest::new(7).finish(), Digest::new(8).finish(), "the seed counts");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_body_is_cut(
            body in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).chain([0, body.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(digest(&pieces), digest(&[&body]));
        }

        #[test]
        fn a_changed_byte_changes_it(body in prop::collection::vec(any::<u8>(), 1..200), at in any::<usize>(), by in 1_u8..) {
            let mut other = body.clone();
            let at = at % other.len();
            other[at] ^= by;
            prop_assert_ne!(digest(&[&body]), digest(&[&other]));
        }
    }
}
