//! When the items of a segment expire, kept by how long they were to live.
//!
//! Items of one segment may live for seconds and for months. So what is known of their deadlines is kept by octave: the
//! power of two of the time to live, in milliseconds. Each octave is looked through for what has expired as often as its
//! own length asks for, and tells how many of its bytes have.

/// The time to live of items that were written with this deadline at this time, as a power of two of milliseconds.
pub(super) fn octave(deadline_ms: u64, now_ms: u64) -> u8 {
    deadline_ms.saturating_sub(now_ms).max(1).ilog2() as u8
}

/// How long after the first deadline of an octave the segment is looked through, in milliseconds: 1/16 of the shortest time
/// to live in the octave, at least 500 ms. That leaves the cleaner as much again until 1/8, or two seconds.
fn patience_ms(octave: u8) -> u64 {
    const SHORTEST_MS: u64 = 500;
    ((1_u64 << octave) / 16).max(SHORTEST_MS)
}

/// What is known of an octave.
#[derive(Clone, Copy, Debug)]
struct Class {
    octave: u8,
    /// Words of its items.
    words: usize,
    /// The earliest and the latest deadline since it was last looked through. (`u64::MAX`, 0): of none.
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

    /// Words that have expired, were its deadlines spread evenly.
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

/// What is known of the deadlines in a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiry(Vec<Class>);

impl Expiry {
    /// An item with a deadline is here now.
    pub(super) fn add(&mut self, words: usize, deadline_ms: u64, octave: u8) {
        let class = self.class(octave);
        class.words += words;
        class.note(deadline_ms);
    }

    /// One has gone.
    pub(super) fn remove(&mut self, words: usize, octave: u8) {
        self.class(octave).words -= words;
        self.0.retain(|class| class.words > 0);
    }

    /// From here on the segment is looked through: what stays is [noted](Self::note) again.
    pub(super) fn forget_deadlines(&mut self) {
        for class in &mut self.0 {
            (class.first_ms, class.last_ms) = (u64::MAX, 0);
        }
    }

    /// An item stays.
    pub(super) fn note(&mut self, deadline_ms: u64, octave: u8) {
        self.class(octave).note(deadline_ms);
    }

    /// When the segment is to be looked through; `u64::MAX` for never.
    pub(super) fn due_ms(&self) -> u64 {
        self.0.iter().map(Class::due_ms).min().unwrap_or(u64::MAX)
    }

    /// Words of items that have expired, by estimate.
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
    fn what_lives_long_does_not_hold_up_what_lives_briefly() {
        let expiry = expiry(&[(990, 10_000), (10, 30 * DAY_MS)]);
        assert_eq!(expiry.due_ms(), 11_000 + 512);
        assert_eq!((expiry.expired_words(10_999), expiry.expired_words(11_000)), (0, 990));
    }

    #[test]
    fn an_item_is_looked_for_within_an_eighth_of_its_time_to_live_or_two_seconds() {
        for ttl_ms in [1, 500, 2_000, 16_000, 16_383, 16_384, 100_000, DAY_MS, 30 * DAY_MS] {
            let late = expiry(&[(1, ttl_ms)]).due_ms() - 1_000 - ttl_ms;
            assert!(late <= 500.max(ttl_ms / 16), "{ttl_ms}: {late} ms late");
        }
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
