//! The connections of a listener, bounded in number and in memory.
//!
//! Idle connections never block a new one: at either bound the longest-stalled connection is closed. The address with
//! the most connections loses one first, so one address cannot displace all others. A new connection is exempt from the
//! bound on their number for a moment, and of the new ones of an address those with a request make room for memory first;
//! otherwise a burst would close probes that have not sent their request yet.

use crate::RateLimit;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use tokio::sync::Notify;

/// The account to which the memory of connections is charged.
pub trait Account: Send + Sync {
    /// Adds `bytes`.
    fn add(&self, bytes: u64);
    /// Removes `bytes`.
    fn remove(&self, bytes: u64);
}

/// An account that counts nothing.
pub struct Unaccounted;

impl Account for Unaccounted {
    fn add(&self, _bytes: u64) {}
    fn remove(&self, _bytes: u64) {}
}

/// Bounds of a listener.
pub struct Bounds {
    /// The listener's name in log lines.
    pub listener: &'static str,
    /// Maximum open connections; new ones may exceed it [`BURST`] times for [`GRACE`].
    pub connections: usize,
    /// Memory of a connection that has sent nothing yet, in bytes.
    pub silent_bytes: u64,
    /// Maximum memory of all connections with their requests and responses, in bytes.
    pub max_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The account to which the memory is charged.
    pub account: Box<dyn Account>,
}

/// Why the server closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Closed {
    /// To make room for another connection or response.
    Displaced,
    /// The client did not read, or did not complete its request.
    Stalled,
}

impl Closed {
    /// Name, as a metric's label.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Counts of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open connections.
    pub open: u64,
    /// Memory charged to connections, in bytes.
    pub bytes: u64,
    /// Connections the server closed since the start, by [`Closed`].
    pub closed: [u64; Closed::COUNT],
}

impl Counts {
    /// Connections the server closed since the start.
    pub fn closed(&self) -> u64 {
        self.closed.iter().sum()
    }
}

/// The connections of a listener.
pub struct Connections {
    bounds: Bounds,
    table: Mutex<Table>,
    closed: [AtomicU64; Closed::COUNT],
    warning: Mutex<RateLimit>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    opened: Instant,
    stalled_since: Instant,
    bytes: u64,
    is_closing: bool,
    close: Arc<Notify>,
}

/// How long a new connection is exempt from the bound on the number of connections.
const GRACE: Duration = Duration::from_millis(500);
/// Factor by which new connections may exceed the bound on the number.
const BURST: usize = 8;

impl Bounds {
    /// The connection to close if a bound is exceeded, but never `spared`: the longest-stalled one of the address with
    /// the most connections.
    fn victim(&self, open: &BTreeMap<u64, Entry>, spared: u64, max_bytes: u64, now: Instant) -> Option<u64> {
        let staying = || open.iter().filter(|(_, entry)| !entry.is_closing);
        let (number, bytes) = staying().fold((0, 0), |(n, bytes), (_, entry)| (n + 1, bytes + entry.bytes));
        if number <= self.connections && bytes <= max_bytes {
            return None;
        }
        let may_be_new = number > self.connections * BURST || bytes > max_bytes;
        let is_new = |entry: &Entry| now.duration_since(entry.opened) < GRACE;
        let mut of_peer: BTreeMap<IpAddr, usize> = BTreeMap::new();
        staying().for_each(|(_, entry)| *of_peer.entry(entry.peer).or_default() += 1);
        // A silent connection gives back little memory. Against the bound on the number it counts like any other.
        let is_spared_for_memory =
            |entry: &Entry| number <= self.connections * BURST && is_new(entry) && entry.bytes <= self.silent_bytes;
        let rank = |(_, entry): &(&u64, &Entry)| {
            let crowd = std::cmp::Reverse(of_peer[&entry.peer]);
            (is_new(entry), crowd, is_spared_for_memory(entry), entry.stalled_since)
        };
        let candidates = staying().filter(|(id, entry)| **id != spared && (may_be_new || !is_new(entry)));
        candidates.min_by_key(rank).map(|(id, _)| *id)
    }
}

/// Minimum interval between log lines about displaced and stalled connections.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl Connections {
    /// An empty table of connections.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        let (table, warning) = (Mutex::default(), Mutex::new(RateLimit::new(WARN_EVERY)));
        Arc::new(Self { bounds, table, closed: Default::default(), warning })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Adds a new connection, and displaces others if a bound is exceeded.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Arc<Connection> {
        let (now, close) = (Instant::now(), Arc::new(Notify::new()));
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        let entry = Entry {
            peer: peer.to_canonical(),
            opened: now,
            stalled_since: now,
            bytes: 0,
            is_closing: false,
            close: close.clone(),
        };
        table.open.insert(id, entry);
        drop(table);
        let mut connection = Connection { id, connections: self.clone(), close, base: None };
        connection.base = Some(self.charge(id, self.bounds.silent_bytes));
        Arc::new(connection)
    }

    /// Charges `bytes` to a connection and closes others until the bounds hold.
    fn charge(self: &Arc<Self>, id: u64, bytes: u64) -> Charge {
        self.bounds.account.add(bytes);
        let max_bytes = (self.bounds.max_bytes)();
        let mut table = self.table();
        if let Some(entry) = table.open.get_mut(&id) {
            entry.bytes += bytes;
        }
        let now = Instant::now();
        while let Some(victim) = self.bounds.victim(&table.open, id, max_bytes, now) {
            let Some(entry) = table.open.get_mut(&victim) else { break };
            entry.is_closing = true;
            entry.close.notify_one();
            self.count(Closed::Displaced, entry.peer);
        }
        Charge { connections: self.clone(), id, bytes }
    }

    fn discharge(&self, id: u64, bytes: u64) {
        if let Some(entry) = self.table().open.get_mut(&id) {
            entry.bytes -= bytes;
        }
        self.bounds.account.remove(bytes);
    }

    fn count(&self, reason: Closed, peer: IpAddr) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.warning.lock().due() {
            tracing::warn!(
                listener = self.bounds.listener,
                reason = reason.name(),
                %peer,
                suppressed,
                "closed a connection that kept others from being served"
            );
        }
    }

    /// Counts of open and closed connections.
    pub fn counts(&self) -> Counts {
        let table = self.table();
        Counts {
            open: table.open.len() as u64,
            bytes: table.open.values().map(|entry| entry.bytes).sum(),
            closed: std::array::from_fn(|reason| self.closed[reason].load(Ordering::Relaxed)),
        }
    }
}

/// An open connection; dropped when it ends.
pub struct Connection {
    id: u64,
    connections: Arc<Connections>,
    close: Arc<Notify>,
    base: Option<Charge>,
}

impl Connection {
    /// Returns when the connection must close to make room.
    pub async fn displaced(&self) {
        self.close.notified().await;
    }

    /// Records that the client has not been served since `since`.
    pub fn stalled_since(&self, since: Instant) {
        if let Some(entry) = self.connections.table().open.get_mut(&self.id) {
            entry.stalled_since = since;
        }
    }

    /// Counts the connection as closed because its client stalled.
    pub fn count_stalled(&self) {
        let peer = self.connections.table().open.get(&self.id).map(|entry| entry.peer);
        if let Some(peer) = peer {
            self.connections.count(Closed::Stalled, peer);
        }
    }

    /// Charges `bytes` of a request or response.
    pub fn charge(&self, bytes: u64) -> Charge {
        self.connections.charge(self.id, bytes)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.base = None;
        self.connections.table().open.remove(&self.id);
    }
}

/// A charge of bytes, removed on drop.
pub struct Charge {
    connections: Arc<Connections>,
    id: u64,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.connections.discharge(self.id, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(connections: usize) -> Bounds {
        let max_bytes = Box::new(|| 100);
        Bounds { listener: "test", connections, silent_bytes: 10, max_bytes, account: Box::new(Unaccounted) }
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Connections by the last byte of their address, when they were opened, and since when they stall, in seconds.
    fn table(start: Instant, rows: &[(u8, u64, u64)]) -> BTreeMap<u64, Entry> {
        let at = |seconds| start + Duration::from_secs(seconds);
        let entry = |(last, opened, stalled): &(u8, u64, u64)| Entry {
            peer: peer(*last),
            opened: at(*opened),
            stalled_since: at(*stalled),
            bytes: 10,
            is_closing: false,
            close: Arc::default(),
        };
        rows.iter().map(entry).enumerate().map(|(id, entry)| (id as u64, entry)).collect()
    }

    #[test]
    fn longest_stalled_of_the_busiest_address_is_closed() {
        let (bounds, start) = (bounds(4), Instant::now());
        let victim = |rows: &[(u8, u64, u64)]| {
            bounds.victim(&table(start, rows), rows.len() as u64 - 1, u64::MAX, start + Duration::from_secs(60))
        };
        assert_eq!(victim(&[(1, 0, 0), (2, 0, 9), (2, 0, 5), (3, 0, 7)]), None, "four are within the bound");
        assert_eq!(victim(&[(1, 0, 0), (2, 0, 9), (2, 0, 5), (3, 0, 7), (4, 0, 8)]), Some(2), "the busiest address");
        assert_eq!(victim(&[(1, 0, 3), (2, 0, 9), (5, 0, 5), (3, 0, 7), (4, 0, 0)]), Some(0), "the newest is spared");
    }

    #[test]
    fn new_connections_stay_until_a_burst_is_too_large() {
        let (bounds, start) = (bounds(4), Instant::now());
        let crowd = |number: usize| table(start, &vec![(1, 60, 60); number]);
        let now = start + Duration::from_secs(60);
        assert_eq!(bounds.victim(&crowd(4 * BURST), 0, u64::MAX, now), None);
        assert_eq!(bounds.victim(&crowd(4 * BURST + 1), 0, u64::MAX, now), Some(1));
        assert_eq!(bounds.victim(&crowd(5), 0, u64::MAX, now + GRACE), Some(1));
        assert_eq!(bounds.victim(&crowd(3), 0, 29, now), Some(1), "the bound on memory has no grace");
    }

    #[test]
    fn new_connections_with_requests_make_room_before_silent_ones() {
        let (bounds, start) = (bounds(4), Instant::now());
        let mut crowd = table(start, &[(1, 60, 60), (1, 60, 61), (1, 60, 62), (1, 60, 63)]);
        for busy in [1, 2, 3] {
            crowd.get_mut(&busy).unwrap().bytes = 50;
        }
        let now = start + Duration::from_secs(60);
        assert_eq!(bounds.victim(&crowd, 3, 159, now), Some(1), "the first has not sent its request yet");
        assert_eq!(bounds.victim(&crowd, 3, 159, now + GRACE), Some(0), "nor does it for long");
    }

    #[test]
    fn a_crowd_of_silent_connections_closes_none_with_a_request() {
        let (bounds, start) = (bounds(4), Instant::now());
        let mut crowd = table(start, &vec![(1, 60, 60); 4 * BURST + 1]);
        let last = crowd.len() as u64 - 1;
        crowd.get_mut(&0).unwrap().bytes = 50;
        let now = start + Duration::from_secs(60);
        crowd.get_mut(&0).unwrap().stalled_since = now + Duration::from_secs(1);
        assert_eq!(bounds.victim(&crowd, last, u64::MAX, now), Some(1), "of one address");
        crowd.get_mut(&0).unwrap().peer = peer(2);
        crowd.get_mut(&0).unwrap().stalled_since = start;
        assert_eq!(bounds.victim(&crowd, last, 300, now), Some(1), "of another address");
    }

    #[test]
    fn lone_connection_may_exceed_the_memory_bound() {
        let all = Connections::new(bounds(10));
        let [one, two] = [1, 2].map(|last| all.admit(peer(last)));
        let held = one.charge(60);
        assert_eq!(all.counts(), Counts { open: 2, bytes: 80, closed: [0, 0] });
        let more = two.charge(30);
        assert_eq!(all.counts().closed, [1, 0], "the other connection is displaced");
        drop((held, one));
        assert_eq!(all.counts(), Counts { open: 1, bytes: 40, closed: [1, 0] });
        let most = two.charge(1_000);
        assert_eq!(all.counts().closed, [1, 0], "no other connection could be displaced");
        drop((two, more, most));
        assert_eq!(all.counts(), Counts { open: 0, bytes: 0, closed: [1, 0] });
    }
}
