//! Short names for long contents: BLAKE2s (RFC 7693), cut to 96 bits.
//!
//! Whoever may write a policy chooses what is hashed, and a content that met another's name would be used in its place, so a hash
//! that is easily met would not do. It must not be used for secrets.

use alloc::string::String;
use core::fmt::Write as _;

/// Bytes that a name shows of the hash.
const SHOWN: usize = 12;

/// Bytes of a block.
const BLOCK: usize = 64;

const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The order in which each round takes the words of a block.
const ORDER: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

/// What a name is made of: parts one behind the other, each told apart from its neighbours, so that `ab`, `c` and `a`, `bc` differ.
#[derive(Debug, Default)]
pub struct Content(alloc::vec::Vec<u8>);

impl Content {
    /// Adds a part.
    pub fn part(&mut self, part: &[u8]) -> &mut Content {
        self.0.extend((part.len() as u64).to_be_bytes());
        self.0.extend(part);
        self
    }

    /// The name: 24 hex digits.
    pub fn name(&self) -> String {
        let mut name = String::new();
        for byte in hash(&self.0).iter().take(SHOWN) {
            let _ = write!(name, "{byte:02x}"); // a String takes everything
        }
        name
    }
}

/// BLAKE2s of 256 bits, without a key.
fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut state = START;
    state[0] ^= 0x0101_0020;
    let (mut rest, mut count) = (bytes, 0);
    while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>().filter(|(_, behind)| !behind.is_empty()) {
        count += BLOCK as u64;
        compress(&mut state, block, count, false);
        rest = behind;
    }
    let mut last = [0; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    compress(&mut state, &last, count + rest.len() as u64, true);
    let mut out = [0; 32];
    for (to, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_le_bytes();
    }
    out
}

fn compress(state: &mut [u32; 8], block: &[u8; BLOCK], count: u64, last: bool) {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let [a0, a1, a2, a3, b0, b1, b2, b3] = *state;
    let [c0, c1, c2, c3, d0, d1, d2, d3] = START;
    let finish = if last { u32::MAX } else { 0 };
    let mut rows = [
        [a0, a1, a2, a3],
        [b0, b1, b2, b3],
        [c0, c1, c2, c3],
        [d0 ^ count as u32, d1 ^ (count >> 32) as u32, d2 ^ finish, d3],
    ];
    for order in ORDER {
        let taken = order.map(|at| words.get(at).copied().unwrap_or_default());
        let (columns, diagonals) = taken.split_at(8);
        mix(&mut rows, columns);
        rows[1].rotate_left(1);
        rows[2].rotate_left(2);
        rows[3].rotate_left(3);
        mix(&mut rows, diagonals);
        rows[1].rotate_right(1);
        rows[2].rotate_right(2);
        rows[3].rotate_right(3);
    }
    let [low, low2, high, high2] = rows;
    let (low, high) = (low.into_iter().chain(low2), high.into_iter().chain(high2));
    for (word, (low, high)) in state.iter_mut().zip(low.zip(high)) {
        *word ^= low ^ high;
    }
}

/// The four columns, each with two words of the block.
fn mix(rows: &mut [[u32; 4]; 4], words: &[u32]) {
    let [a, b, c, d] = rows;
    let columns = a.iter_mut().zip(b).zip(c.iter_mut().zip(d));
    for (((a, b), (c, d)), [x, y]) in columns.zip(words.as_chunks::<2>().0) {
        *a = a.wrapping_add(*b).wrapping_add(*x);
        *d = (*d ^ *a).rotate_right(16);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_right(12);
        *a = a.wrapping_add(*b).wrapping_add(*y);
        *d = (*d ^ *a).rotate_right(8);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_right(7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_agrees_with_others_programs_at_every_edge_of_a_block() {
        for (text, hex) in [
            (String::new(), "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9"),
            ("abc".into(), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"),
            ("a".repeat(64), "651d2f5f20952eacaea2fba2f2af2bcd633e511ea2d2e4c9ae2ac0d9ffb7b252"),
            ("a".repeat(65), "045f8ae18932119bd051ac7ba5c73db59892055fad5c32f82d79a6543d92a497"),
            ("a".repeat(200), "2b033f9f5ba9cf20671da79e492f41545e673b562603945ffed09662fd92321a"),
        ] {
            let shown: String = hash(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, hex, "{text}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        let name = |parts: &[&str]| {
            let mut content = Content::default();
            parts.iter().for_each(|part| _ = content.part(part.as_bytes()));
            content.name()
        };
        assert_eq!(name(&["ab", "c"]).len(), 2 * SHOWN);
        assert_ne!(name(&["ab", "c"]), name(&["a", "bc"]));
        assert_ne!(name(&["a"]), name(&["a", ""]));
    }
}
