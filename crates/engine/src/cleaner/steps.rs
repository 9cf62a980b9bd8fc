//! A histogram of the lengths of the cleaner's steps. Its buckets are a quarter of an octave wide, so it needs a few
//! hundred bytes for any number of steps.

/// Number of buckets, up to 2^20 µs. A longer step counts as one of that length.
const BUCKETS: usize = 72;

/// A histogram of step lengths, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    counts: [u64; BUCKETS],
    longest_us: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], longest_us: 0 }
    }
}

impl Steps {
    /// Counts a step of `us` microseconds.
    pub(super) fn count(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.longest_us = self.longest_us.max(us);
    }

    /// Number of steps.
    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Length of the longest step, in microseconds.
    pub(super) fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// The length that `permille` of the steps did not exceed, in microseconds: the upper end of a bucket, at most a
    /// quarter too high.
    pub(super) fn within_us(&self, permille: u64) -> u64 {
        let wanted = (self.total() * permille).div_ceil(1000);
        let mut sum = 0;
        let reached = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        reached.map_or(0, |bucket| upper_us(bucket).min(self.longest_us))
    }
}

fn bucket(us: u64) -> usize {
    let us = us.clamp(4, (1 << 20) - 1);
    let octave = us.ilog2() as usize;
    (octave * 4 + (us >> (octave - 2)) as usize - 12).min(BUCKETS - 1)
}

/// The largest length in a bucket, in microseconds.
fn upper_us(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4 + 2, bucket % 4);
    ((quarter as u64 + 5) << (octave - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_lies_within_its_bucket() {
        for us in 4..70_000 {
            let upper = upper_us(bucket(us));
            assert!(upper >= us && upper <= us + us / 4, "{us}: {upper}");
            assert!(bucket(us) == 0 || upper_us(bucket(us) - 1) < us);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, 71));
    }

    #[test]
    fn one_long_step_in_two_thousand_is_the_longest_and_not_the_tail() {
        let mut steps = Steps::default();
        (0..1_999).for_each(|_| steps.count(40));
        steps.count(5_000);
        assert_eq!((steps.total(), steps.within_us(999), steps.longest_us()), (2_000, 47, 5_000));
        assert!(steps.within_us(1000) >= 5_000);
        assert_eq!(Steps::default().within_us(999), 0);
    }
}
