use super::super::{Attributes, Condition, DeleteOutcome, Deletion, Error, Group, Options, SetOutcome, Store, Update};
use super::*;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

const TTL_MS: u64 = 1_000;
const WAITS: LeaseRequest = LeaseRequest { ttl_ms: TTL_MS, token: None, waits: true };

fn store_of(capacity_bytes: u64) -> Store {
    Store::new(Options { first_version: 1 << 40, shards: Some(2), ..Options::new(capacity_bytes) }).unwrap()
}

fn store() -> Store {
    store_of(16 << 20)
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key { namespace: 3, bytes }
}

fn set(store: &Store, k: &[u8], condition: Condition, now_ms: u64) -> SetOutcome {
    let attributes = Attributes { stale_at_ms: 500, ..Attributes::default() };
    store.set(key(k), b"value", &attributes, condition, false, now_ms).unwrap()
}

fn won(store: &Store, k: &[u8], now_ms: u64) -> u64 {
    match store.lease(key(k), WAITS, now_ms).unwrap() {
        Leased::Won { token, ends_at_ms } => {
            assert_eq!(ends_at_ms, now_ms + TTL_MS);
            token
        }
        other => panic!("{other:?}"),
    }
}

fn waiter(store: &Store, k: &[u8], now_ms: u64) -> Waiter {
    match store.lease(key(k), WAITS, now_ms).unwrap() {
        Leased::Refused { waiter: Some(waiter), .. } => waiter,
        other => panic!("{other:?}"),
    }
}

/// Counts how often it wakes a task.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn has_ended(waiter: &mut Waiter, bell: &Arc<Bell>) -> bool {
    let waker = Waker::from(bell.clone());
    Pin::new(waiter).poll(&mut Context::from_waker(&waker)).is_ready()
}

#[test]
fn one_caller_wins_and_its_fill_wakes_the_others() {
    let store = store();
    let token = won(&store, b"k", 1);
    let (mut first, mut second) = (waiter(&store, b"k", 2), waiter(&store, b"k", 2));
    let bell = Arc::new(Bell::default());
    assert!(!has_ended(&mut first, &bell) && !has_ended(&mut second, &bell));
    assert_eq!(store.lease_counts(), LeaseCounts { leases: 1, waiters: 2 });
    assert!(matches!(set(&store, b"k", Condition::Lease(token), 3), SetOutcome::Stored(_)));
    assert_eq!(bell.0.load(Ordering::Relaxed), 2);
    assert!(has_ended(&mut first, &bell) && has_ended(&mut second, &bell));
    assert!(matches!(store.lease(key(b"k"), WAITS, 3), Ok(Leased::Fresh)), "a fresh item needs no lease");
    drop((first, second));
    assert_eq!(store.lease_counts(), LeaseCounts::default());
    assert!(matches!(store.lease(key(b"k"), WAITS, 500), Ok(Leased::Won { .. })), "a stale item does");
}

#[test]
fn what_changes_a_key_ends_its_lease() {
    type Change = fn(&Store);
    let ends: [(&str, Change); 8] = [
        ("set", |store| assert!(matches!(set(store, b"ab", Condition::Always, 2), SetOutcome::Stored(_)))),
        ("delete of no item", |store| {
            assert_eq!(store.delete(key(b"ab"), None, Deletion::Remove, 2), Ok(DeleteOutcome::NotFound));
        }),
        ("mark stale", |store| {
            store.delete(key(b"ab"), None, Deletion::MarkStale, 2).unwrap();
        }),
        ("update", |store| {
            let update = Update::Store { value: "1".into(), attributes: Attributes::default() };
            store.update(key(b"ab"), 2, |_| (update.clone(), ())).unwrap();
        }),
        ("prefix", |store| store.invalidate(Group::Prefix(3, b"a"), false).unwrap()),
        ("prefix, stale", |store| store.invalidate(Group::Prefix(3, b"ab"), true).unwrap()),
        ("namespace", |store| store.invalidate(Group::Namespace(3), false).unwrap()),
        ("its holder", |store| {
            let Ok(Leased::Won { token, .. }) = store.lease(key(b"x"), WAITS, 2) else { panic!("x has no lease") };
            store.give_back_lease(key(b"x"), token).unwrap();
            assert!(matches!(store.lease(key(b"x"), WAITS, 2), Ok(Leased::Won { .. })));
            store.delete(key(b"ab"), None, Deletion::Remove, 2).unwrap();
        }),
    ];
    for (name, end) in ends {
        let store = store();
        let token = won(&store, b"ab", 1);
        let mut waiter = waiter(&store, b"ab", 1);
        end(&store);
        assert!(has_ended(&mut waiter, &Arc::default()), "{name}");
        let lost = set(&store, b"ab", Condition::Lease(token), 2);
        assert!(matches!(lost, SetOutcome::LeaseLost(_)), "{name}: {lost:?}");
    }
    let keeps: [(&str, Change); 6] = [
        ("touch", |store| assert_eq!(store.touch(key(b"ab"), 9_000, 2), Ok(None))),
        ("another key", |store| assert!(matches!(set(store, b"a", Condition::Always, 2), SetOutcome::Stored(_)))),
        ("another prefix", |store| store.invalidate(Group::Prefix(3, b"abc"), false).unwrap()),
        ("another namespace", |store| {
            store.invalidate(Group::Namespace(0), false).unwrap();
            store.invalidate(Group::Namespace(4), false).unwrap();
        }),
        ("a condition that does not hold", |store| {
            assert_eq!(set(store, b"ab", Condition::Present, 2), SetOutcome::NotStored(0));
        }),
        ("an update that keeps", |store| {
            store.update(key(b"ab"), 2, |_| (Update::Keep, ())).unwrap();
        }),
    ];
    for (name, keep) in keeps {
        let store = store();
        let token = won(&store, b"ab", 1);
        keep(&store);
        assert!(matches!(set(&store, b"ab", Condition::Lease(token), 2), SetOutcome::Stored(_)), "{name}");
    }
    // A deletion whose version differs changes nothing.
    let store = store();
    set(&store, b"ab", Condition::Always, 1);
    let token = won(&store, b"ab", 600);
    let conflict = store.delete(key(b"ab"), Some(7), Deletion::Remove, 600);
    assert!(matches!(conflict, Ok(DeleteOutcome::Conflict(_))));
    assert!(matches!(set(&store, b"ab", Condition::Lease(token), 600), SetOutcome::Stored(_)));
}

#[test]
fn tokens_are_of_one_key_and_never_granted_twice() {
    let store = store();
    let token = won(&store, b"a", 1);
    assert!(token > 1 << 40, "tokens start at the clock");
    assert!(token < super::super::MAX_VERSION);
    let other = won(&store, b"b", 1);
    assert_ne!(token, other);
    assert_eq!(set(&store, b"b", Condition::Lease(token), 2), SetOutcome::LeaseLost(0));
    assert_eq!(set(&store, b"c", Condition::Lease(token), 2), SetOutcome::LeaseLost(0));
    assert_eq!(set(&store, b"c", Condition::Lease(0), 2), SetOutcome::LeaseLost(0));
    // It ends with its time, also before anything removes it.
    assert_eq!(set(&store, b"a", Condition::Lease(token), 1 + TTL_MS), SetOutcome::LeaseLost(0));
    let again = won(&store, b"a", 1 + TTL_MS);
    assert!(again > other);
    // A holder that asks again keeps its lease.
    let request = LeaseRequest { token: Some(again), ..WAITS };
    assert!(matches!(store.lease(key(b"a"), request, 1_500), Ok(Leased::Won { token, ends_at_ms })
        if token == again && ends_at_ms == 1 + 2 * TTL_MS));
}

#[test]
fn a_tombstone_refuses_leases_and_fills_until_its_end() {
    let store = store();
    set(&store, b"k", Condition::Always, 1);
    let token = won(&store, b"k", 600);
    let tombstone = |until_ms| store.delete(key(b"k"), None, Deletion::Tombstone { until_ms }, 600);
    assert!(matches!(tombstone(2_000), Ok(DeleteOutcome::Deleted(0))));
    assert_eq!(set(&store, b"k", Condition::Lease(token), 600), SetOutcome::LeaseLost(0));
    assert!(matches!(tombstone(1_000), Ok(DeleteOutcome::NotFound)), "a shorter one does not shorten it");
    let refused = store.lease(key(b"k"), WAITS, 1_500).unwrap();
    let Leased::Refused { is_hold_off: true, ends_at_ms: 2_000, waiter: Some(mut waiter) } = refused else {
        panic!("{refused:?}")
    };
    // A write is allowed, wakes waiters, and does not end the hold-off.
    assert!(matches!(set(&store, b"k", Condition::Always, 100), SetOutcome::Stored(_)));
    assert!(has_ended(&mut waiter, &Arc::default()));
    store.invalidate(Group::Namespace(3), false).unwrap();
    store.delete(key(b"k"), None, Deletion::Remove, 1_600).unwrap();
    assert!(matches!(store.lease(key(b"k"), WAITS, 1_999), Ok(Leased::Refused { is_hold_off: true, .. })));
    assert!(matches!(store.lease(key(b"k"), WAITS, 2_000), Ok(Leased::Won { .. })));
}

#[test]
fn leases_and_waiters_are_bounded_and_in_the_ledger() {
    let store = store_of(4 << 20);
    let used = || store.ledger().used(Account::Tables);
    let mut granted = 0_u64;
    while let Leased::Won { .. } = store.lease(key(&granted.to_be_bytes()), WAITS, 1).unwrap() {
        granted += 1;
    }
    let bytes = granted * (LEASE_BYTES + 2 + 8);
    assert_eq!(used(), bytes);
    assert!((60 << 10..=(4 << 20) / SHARE).contains(&bytes), "{bytes}");
    assert!(matches!(store.lease(key(b"one more"), WAITS, 1), Ok(Leased::Exhausted)));
    // Hold-offs have a share of their own: readers cannot prevent a tombstone.
    assert!(!store.namespaces_in_use().contains(&true), "leases alone keep no namespace");
    let tombstone = |n: u64| store.delete(key(&n.to_be_bytes()), None, Deletion::Tombstone { until_ms: 9 }, 1);
    let held_off = (0..).find(|n| tombstone(*n).is_err()).unwrap();
    assert_eq!(held_off, granted);
    assert!(matches!(tombstone(granted), Err(Error::TooManyLeases { .. })));
    assert_eq!(store.namespaces_in_use(), [false, false, false, true]);
    assert_eq!((used(), store.lease_counts().leases), (bytes, granted), "each took the place of a lease");
    store.expire_leases(9);
    assert_eq!(used(), 0);
    (0..granted).for_each(|n| _ = won(&store, &n.to_be_bytes(), 1));
    // Leases whose time is over make room.
    assert!(matches!(store.lease(key(b"one more"), WAITS, 1 + TTL_MS), Ok(Leased::Won { .. })));
    store.expire_leases(2 + 2 * TTL_MS);
    assert_eq!((used(), store.lease_counts()), (0, LeaseCounts::default()));
    assert!(!store.namespaces_in_use().contains(&true));

    let store = store_of(64 << 20);
    let used = || store.ledger().used(Account::Tables);
    won(&store, b"k", 1);
    let mut waiters: Vec<_> = (0..MAX_WAITERS_OF_A_LEASE).map(|_| waiter(&store, b"k", 1)).collect();
    let refused = |store: &Store| matches!(store.lease(key(b"k"), WAITS, 1), Ok(Leased::Refused { waiter: None, .. }));
    assert!(refused(&store), "the queue is full");
    waiters.pop();
    assert!(!refused(&store), "a waiter has left");
    drop(waiters);
    assert_eq!((used(), store.lease_counts().waiters), (LEASE_BYTES + 3, 0));
    // Waiters of all leases have a share of the capacity, too.
    let store = store_of(4 << 20);
    won(&store, b"k", 1);
    let waiters: Vec<_> = (0..(4 << 20) / SHARE / WAITER_BYTES).map(|_| waiter(&store, b"k", 1)).collect();
    assert!(matches!(store.lease(key(b"k"), WAITS, 1), Ok(Leased::Refused { waiter: None, .. })));
    drop(waiters);
}

#[test]
fn a_full_store_grants_leases() {
    let store = store_of(4 << 20);
    let ledger = store.ledger();
    while ledger.reserve(Account::Connections, 64) {}
    let token = won(&store, b"k", 1);
    assert!(ledger.total() > ledger.capacity(), "the cleaner makes room for it");
    store.give_back_lease(key(b"k"), token).unwrap();
    assert!(ledger.total() <= ledger.capacity());
}
