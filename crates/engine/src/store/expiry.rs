//! The deadlines of a segment's items, summarized by time to live.
//!
//! Items of one segment may live for seconds or for months. So the summary is kept per octave: the power of two of the
//! time to live, in milliseconds. The length of an octave sets how often it is scanned for expired items, and each
//! octave estimates its expired bytes.

/// The octave of an item written at `now_ms` with this deadline: its time to live as a power of two of milliseconds.
pub(super) fn octave(deadline_ms: u64, now_ms: u64) -> u8 {
    deadline_ms.saturating_sub(now_ms).max(1).ilog2() as u8
}

/// Delay from the first deadline of an octave to the scan of the segment, in milliseconds: 1/16 of the shortest time to
/// live in the octave, at least 500 ms. The cleaner then has as long again to drop an item within 1/8 of its time to
/// live, or within two seconds.
fn patience_ms(octave: u8) -> u64 {
    const SHORTEST_MS: u64 = 500;
    ((1_u64 << octave) / 16).max(SHORTEST_MS)
}

/// The summary of one octave.
#[derive(Clone, Copy, Debug)]
struct Class {
    octave: u8,
    /// Words of its items.
    words: usize,
    /// The earliest and the latest deadline since the last scan; (`u64::MAX`, 0) for none.
    first_ms: u64,
    last_ms: u64,
}

impl Class {
    fn new(octave: u8) -> Self {
        Self { octave, words: 0, first_ms: u64::MAX, last_ms: 0 }
    }

    fn note(&mut self, deadline_ms: u64) {
        (self.first_ms, self.last_ms) = (self.first_ms.min(deadline_ms), self.last_ms.max(deadline_ms));
    }

    fn due_ms(&self) -> u64 {
        self.first_ms.saturating_add(patience_ms(self.octave))
    }

    /// Estimate of expired words, assuming evenly spread deadlines.
    fn expired_words(&self, now_ms: u64) -> usize {
        match now_ms {
            _ if now_ms < self.first_ms => 0,
            _ if now_ms >= self.last_ms => self.words,
            _ => {
                let (passed, all) = (now_ms - self.first_ms, self.last_ms - self.first_ms);
                (self.words as u128 * u128::from(passed) / u128::from(all)) as usize
            }
        }
    }
}

/// The summary of the deadlines in a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiry(Vec<Class>);

impl Expiry {
    /// Adds an item with a deadline.
    pub(super) fn add(&mut self, words: usize, deadline_ms: u64, octave: u8) {
        let class = self.class(octave);
        class.words += words;
        class.note(deadline_ms);
    }

    /// Removes an item with a deadline.
    pub(super) fn remove(&mut self, words: usize, octave: u8) {
        self.class(octave).words -= words;
        self.0.retain(|class| class.words > 0);
    }

    /// Forgets the deadlines at the start of a scan, which [notes](Self::note) those of the remaining items again.
    pub(super) fn forget_deadlines(&mut self) {
        for class in &mut self.0 {
            (class.first_ms, class.last_ms) = (u64::MAX, 0);
        }
    }

    /// Records the deadline of an item that remains.
    pub(super) fn note(&mut self, deadline_ms: u64, octave: u8) {
        self.class(octave).note(deadline_ms);
    }

    /// Time of the next scan for expired items, in ms; `u64::MAX` for never.
    pub(super) fn due_ms(&self) -> u64 {
        self.0.iter().map(Class::due_ms).min().unwrap_or(u64::MAX)
    }

    /// Estimate of the words of expired items.
    pub(super) fn expired_words(&self, now_ms: u64) -> usize {
        self.0.iter().map(|class| class.expired_words(now_ms)).sum()
    }

    fn class(&mut self, octave: u8) -> &mut Class {
        let at = self.0.iter().position(|class| class.octave == octave).unwrap_or_else(|| {
            self.0.push(Class::new(octave));
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    fn expiry(items: &[(usize, u64)]) -> Expiry {
        let mut expiry = Expiry::default();
        items.iter().for_each(|(words, ttl_ms)| expiry.add(*words, 1_000 + ttl_ms, octave(1_000 + ttl_ms, 1_000)));
        expiry
    }

    #[test]
    fn long_lived_items_do_not_delay_the_scan_for_short_lived_ones() {
        let expiry = expiry(&[(990, 10_000), (10, 30 * DAY_MS)]);
        assert_eq!(expiry.due_ms(), 11_000 + 512);
        assert_eq!((expiry.expired_words(10_999), expiry.expired_words(11_000)), (0, 990));
    }

    #[test]
    fn a_scan_is_due_a_sixteenth_of_the_ttl_after_the_deadline() {
        let wrong: Vec<_> = [1, 500, 2_000, 16_000, 16_383, 16_384, 100_000, DAY_MS, 30 * DAY_MS]
            .map(|ttl_ms| (ttl_ms, expiry(&[(1, ttl_ms)]).due_ms() - 1_000 - ttl_ms))
            .into_iter()
            .filter(|&(ttl_ms, late_ms)| late_ms > 500.max(ttl_ms / 16))
            .collect();
        assert!(wrong.is_empty(), "TTL and lateness in ms: {wrong:?}");
    }

    #[test]
    fn expired_words_are_estimated_between_the_first_deadline_and_the_last() {
        let mut expiry = expiry(&[(50, 10_000), (50, 16_000)]);
        assert_eq!(expiry.expired_words(1_000 + 13_000), 50);
        expiry.remove(50, octave(10_000, 0));
        assert_eq!(expiry.expired_words(u64::MAX), 50);
        expiry.forget_deadlines();
        assert_eq!((expiry.expired_words(u64::MAX), expiry.due_ms()), (50, u64::MAX));
        expiry.note(17_000, octave(16_000, 0));
        assert_eq!((expiry.expired_words(16_999), expiry.due_ms()), (0, 17_512));
    }

    #[test]
    fn an_octave_without_items_is_forgotten() {
        let mut expiry = expiry(&[(5, 100), (7, DAY_MS)]);
        expiry.remove(5, octave(100, 0));
        expiry.remove(7, octave(DAY_MS, 0));
        assert_eq!((expiry.due_ms(), expiry.0.len()), (u64::MAX, 0));
    }
}
