//! Token buckets: a rate with a burst, for reviews (one bucket per address) and for Events.
//!
//! Each address has its own bucket, so a client that floods the webhook takes nothing from the API servers.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Reviews of one address. Controllers of large clusters create a few hundred pods a second.
pub(super) const REVIEWS: Rate = Rate { burst: 2_000, every: Duration::from_millis(2) };
/// Events of one replica.
pub(super) const EVENTS: Rate = Rate { burst: 100, every: Duration::from_millis(100) };
/// Maximum number of addresses with their own bucket; all others share one.
const ADDRESSES: usize = 256;

/// How many tokens a bucket holds, and the time after which it gets another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) every: Duration,
}

/// A bucket, which is full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// Time at which the bucket is full again.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.rate.every;
        let has_one = full_at <= now + self.rate.every * self.rate.burst;
        if has_one {
            self.full_at = full_at;
        }
        has_one
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// A bucket for each address.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Rate,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    by_address: BTreeMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Buckets {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        let table = Table { by_address: BTreeMap::new(), others: Bucket::new(rate, now) };
        Self { rate, table: Mutex::new(table) }
    }

    /// Takes a token of an address, if it has one.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let Table { by_address, others } = &mut *self.table.lock();
        let address = address.to_canonical();
        if !by_address.contains_key(&address) && by_address.len() >= ADDRESSES {
            // A full bucket says nothing.
            by_address.retain(|_, bucket| !bucket.is_full(now));
        }
        match by_address.len() < ADDRESSES || by_address.contains_key(&address) {
            true => by_address.entry(address).or_insert_with(|| Bucket::new(self.rate, now)).take(now),
            false => others.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(1) };

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_bucket_allows_a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        let mut at = |seconds| bucket.take(start + Duration::from_secs_f64(seconds));
        assert_eq!([0.0, 0.0, 0.0, 0.0, 0.9].map(&mut at), [true, true, true, false, false]);
        assert_eq!([1.0, 1.0, 2.0].map(&mut at), [true, false, true]);
        assert_eq!([60.0; 4].map(at), [true, true, true, false], "it does not grow beyond its burst");
    }

    #[test]
    fn a_flood_takes_nothing_from_another_address() {
        let start = Instant::now();
        let buckets = Buckets::new(RATE, start);
        let allowed = (0..1_000).filter(|_| buckets.take(address(1), start)).count();
        assert_eq!((allowed, buckets.take(address(2), start)), (3, true));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(!buckets.take(mapped, start), "the same address, as an IPv6 listener sees it");
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let start = Instant::now();
        let buckets = Buckets::new(RATE, start);
        let allowed = (0..10_000).filter(|number| buckets.take(address(*number), start)).count();
        assert_eq!((allowed, buckets.table.lock().by_address.len()), (ADDRESSES + 3, ADDRESSES));
        let later = start + Duration::from_secs(10);
        assert!(buckets.take(address(20_000), later));
        assert_eq!(buckets.table.lock().by_address.len(), 1, "full buckets make room");
    }
}
