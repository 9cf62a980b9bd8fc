//! The primitives of concurrency, exported so that the same code runs on threads and under a model checker.
//!
//! `--cfg loom` and `--cfg shuttle` (not cargo features, so that `--all-features` still lints the real code) swap the
//! standard library's atomics and locks for the checkers'. [`Swap`] is arc-swap in production and a lock in a model.
//! The authors of arc-swap check its own protocol; the models here check the code built on the guarantee that a load
//! returns the stored pointer and a swap returns the old one.

#[cfg(loom)]
pub use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(shuttle)]
pub use shuttle::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// Locks a mutex, even if a thread panicked while it held it: the data behind these locks is consistent between any two
/// statements that can panic, and the cleaner stops the process on a broken invariant.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(loom)]
    return mutex.lock().unwrap();
    #[cfg(not(loom))]
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Locks a mutex if it is free.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// Measures wall time. It stands still in a model.
#[derive(Debug)]
pub struct Stopwatch(#[cfg(not(any(loom, shuttle)))] std::time::Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        Self(
            #[cfg(not(any(loom, shuttle)))]
            std::time::Instant::now(),
        )
    }

    /// Whether fewer than `us` microseconds have passed. Always false in a model.
    pub fn is_within(&self, us: u64) -> bool {
        cfg!(not(any(loom, shuttle))) && self.micros() < us
    }

    /// Time since the start, in microseconds.
    pub fn micros(&self) -> u64 {
        #[cfg(not(any(loom, shuttle)))]
        return self.0.elapsed().as_micros() as u64;
        #[cfg(any(loom, shuttle))]
        0
    }
}

/// A pointer that readers load without a lock and a writer swaps.
#[derive(Debug)]
pub struct Swap<T>(#[cfg(not(any(loom, shuttle)))] arc_swap::ArcSwap<T>, #[cfg(any(loom, shuttle))] Mutex<Arc<T>>);

#[cfg(not(any(loom, shuttle)))]
impl<T> Swap<T> {
    /// A pointer to `value`.
    pub fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// The current value; kept alive while the guard lives.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.0.load()
    }

    /// Stores `value` and returns the previous one.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}

#[cfg(any(loom, shuttle))]
impl<T> Swap<T> {
    /// A pointer to `value`.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// The current value; kept alive while the guard lives.
    pub fn load(&self) -> Arc<T> {
        lock(&self.0).clone()
    }

    /// Stores `value` and returns the previous one.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *lock(&self.0), value)
    }
}

#[cfg(not(any(loom, shuttle)))]
pub use numbers::{thread_number, thread_numbers};

#[cfg(not(any(loom, shuttle)))]
mod numbers {
    use super::{Mutex, lock};
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Numbers of ended threads, reused lowest first, because only low numbers have a reader of their own.
    static FREE: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
    /// Number of numbers ever assigned.
    static GIVEN: AtomicUsize = AtomicUsize::new(0);

    struct Number(usize);

    impl Drop for Number {
        fn drop(&mut self) {
            lock(&FREE).insert(self.0);
        }
    }

    thread_local! {
        static NUMBER: Number = Number(lock(&FREE).pop_first().unwrap_or_else(|| GIVEN.fetch_add(1, Ordering::SeqCst)));
    }

    /// A number from 0 on that no other living thread has; `None` while the thread ends.
    pub fn thread_number() -> Option<usize> {
        NUMBER.try_with(|number| number.0).ok()
    }

    /// A number above all assigned ones. Sequentially consistent: any number assigned later is also later in the single
    /// order of sequentially consistent operations, on which R1 in `store/readers.rs` relies.
    pub fn thread_numbers() -> usize {
        GIVEN.load(Ordering::SeqCst)
    }
}

/// See the real build.
#[cfg(shuttle)]
pub fn thread_number() -> Option<usize> {
    Some(shuttle::current::me().into())
}

/// Always `None`: loom models choose their readers explicitly.
#[cfg(loom)]
pub fn thread_number() -> Option<usize> {
    None
}

/// See the real build.
#[cfg(any(loom, shuttle))]
pub fn thread_numbers() -> usize {
    usize::MAX
}

/// Yields to other threads.
pub fn yield_now() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::thread::yield_now();
}

/// Bugs that a model can plant, to prove that it detects them. In the real build no bug is ever planted, and the check
/// costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// An item's slot is stored before its bytes.
    SlotBeforeBytes = 1,
    /// An overwrite in place does not set BUSY.
    OverwriteUnannounced = 2,
    /// Memory is freed while a reader still announces it.
    FreeUnderReaders = 3,
    /// A slot moves between its buckets and the move is not counted.
    MoveUncounted = 4,
    /// A write during a migration changes only the old index.
    WriteOneSide = 5,
    /// A write during a sweep does not store its full version.
    SweepUnversioned = 6,
    /// The cleaner moves an item whose slot no longer names it.
    MoveWhatDied = 7,
    /// A key is inserted without a check whether it exists.
    InsertUnlooked = 8,
    /// A read is counted by storing the slot instead of exchanging it.
    CountByStore = 9,
    /// The charge for bytes in flight decays without a check for bytes added meanwhile.
    DecayUnlooked = 10,
    /// A reader does not announce the segment it reads.
    ReadUnannounced = 11,
    /// A reader does not check the slot again after its announcement.
    AnnouncedUnlooked = 12,
    /// A bank of the index is reused although a retired map still refers to it.
    BankUnderReaders = 13,
    /// A reader applies the invalidations of a map that is no longer the newest.
    JudgedByOldMap = 14,
    /// A slot is stored without an ordering after the bytes of its item.
    SlotRelaxed = 15,
    /// A copy made without the lock counts although the item has changed since.
    CommitUnlooked = 16,
    /// A key gets a lease although another caller holds one.
    SecondLease = 17,
    /// A write or a deletion does not end the lease of its key.
    WriteKeepsLease = 18,
    /// A waiter joins the queue of a lease after the lock was released.
    WaiterJoinsLate = 19,
}

/// Whether a bug is planted.
#[cfg(not(any(loom, shuttle)))]
pub const fn planted(_: Fault) -> bool {
    false
}

#[cfg(any(loom, shuttle))]
pub use model::{plant, planted};

#[cfg(any(loom, shuttle))]
mod model {
    use super::Fault;
    use std::sync::atomic::{AtomicU32, Ordering};

    // A real atomic, because the checker must not explore the planting itself.
    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// Plants a bug; `None` removes it.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.store(fault.map_or(0, |fault| fault as u32), Ordering::SeqCst);
    }

    /// Whether a bug is planted.
    pub fn planted(fault: Fault) -> bool {
        PLANTED.load(Ordering::SeqCst) == fault as u32
    }
}
