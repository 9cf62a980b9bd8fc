//! A rate limit for log lines that a client could cause without bound.

use std::time::{Duration, Instant};

/// At most one log line in an interval, with the number of suppressed lines.
#[derive(Debug)]
pub struct RateLimit {
    every: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// A limit of one line per `every`.
    pub fn new(every: Duration) -> Self {
        Self { every, last: None, suppressed: 0 }
    }

    /// `Some` when the line is due, with the number of suppressed lines since the last one.
    pub fn due(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < self.every) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_suppressed_and_counted() {
        let mut limit = RateLimit::new(Duration::from_secs(3600));
        assert_eq!((limit.due(), limit.due(), limit.due()), (Some(0), None, None));
        let mut always = RateLimit { every: Duration::ZERO, ..limit };
        assert_eq!((always.due(), always.due()), (Some(2), Some(0)));
    }
}
