//! A bitmap that finds its next clear bit in constant time at any fill.
//!
//! Above the bits stand summary levels, each a 64th of the one below, in which a bit says "this word is full". A
//! search climbs until it sees a gap and descends into it, so its cost is the number of levels, at most six for
//! 2^32 bits. All words begin as zero, so memory that is never set is never touched. It must not know what a bit
//! stands for.

use alloc::vec::Vec;

const WORD: u64 = 64;

/// A fixed number of bits with summaries.
#[derive(Debug, Clone)]
pub(super) struct Bitmap {
    /// The bits, then the summaries, up to the level that is one word. Padding bits behind the end stay clear:
    /// a search that meets one has passed the end, and then says so.
    levels: Vec<Vec<u64>>,
    len: u64,
}

impl Bitmap {
    /// `len` clear bits.
    pub(super) fn new(len: u64) -> Self {
        let mut levels = Vec::new();
        let mut bits = len.max(1);
        loop {
            let words = bits.div_ceil(WORD);
            // A zeroed allocation of this size is fresh pages, which cost nothing until they are written.
            levels.push(vec![0; usize::try_from(words).unwrap_or(usize::MAX)]);
            if words == 1 {
                return Bitmap { levels, len };
            }
            bits = words;
        }
    }

    /// Sets bit `at`; behind the end, nothing happens.
    pub(super) fn set(&mut self, mut at: u64) {
        if at >= self.len {
            return;
        }
        for level in &mut self.levels {
            let Some(word) = word_mut(level, at) else { return };
            *word |= 1 << (at % WORD);
            if *word != u64::MAX {
                return;
            }
            at /= WORD;
        }
    }

    /// Clears bit `at`; behind the end, nothing happens.
    pub(super) fn clear(&mut self, mut at: u64) {
        if at >= self.len {
            return;
        }
        for level in &mut self.levels {
            let Some(word) = word_mut(level, at) else { return };
            let was_full = *word == u64::MAX;
            *word &= !(1 << (at % WORD));
            if !was_full {
                return;
            }
            at /= WORD;
        }
    }

    /// The first clear bit at or after `from` and before `to`.
    pub(super) fn first_clear(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = from;
        let mut height = 0;
        loop {
            let word = word(self.levels.get(height)?, at)?;
            let open = !word & (u64::MAX << (at % WORD));
            if open != 0 {
                at = at / WORD * WORD + u64::from(open.trailing_zeros());
                break;
            }
            // Everything up to the end of this word is taken, so the next word is where the level above goes on.
            at = at / WORD + 1;
            height += 1;
        }
        for level in self.levels.get(..height)?.iter().rev() {
            let word = level.get(usize::try_from(at).ok()?)?;
            at = at * WORD + u64::from((!word).trailing_zeros());
        }
        (at < to.min(self.len)).then_some(at)
    }
}

fn word(level: &[u64], bit: u64) -> Option<u64> {
    level.get(usize::try_from(bit / WORD).ok()?).copied()
}

fn word_mut(level: &mut [u64], bit: u64) -> Option<&mut u64> {
    level.get_mut(usize::try_from(bit / WORD).ok()?)
}
