//! One name for the primitives of concurrency, so that the same code runs on threads and under a model checker.
//!
//! `--cfg loom` and `--cfg shuttle` (not cargo features, so that `--all-features` still lints the real code) swap the
//! standard library's atomics and locks for the checkers'. [`Swap`] is arc-swap in production and a lock in a model:
//! arc-swap's own protocol is checked by its authors; what is checked here is what we build on "a load returns the
//! pointer that was stored, and a swap returns the old one".

#[cfg(loom)]
pub use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(shuttle)]
pub use shuttle::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// Locks, and goes on after a panic elsewhere: every structure behind our locks is whole between two statements that
/// can panic, and the cleaner stops the process on a broken invariant.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(loom)]
    return mutex.lock().unwrap();
    #[cfg(not(loom))]
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Locks if nobody has the lock.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// Measures wall time. In a model no time passes.
#[derive(Debug)]
pub struct Stopwatch(#[cfg(not(any(loom, shuttle)))] std::time::Instant);

impl Stopwatch {
    /// From now on.
    pub fn start() -> Self {
        Self(
            #[cfg(not(any(loom, shuttle)))]
            std::time::Instant::now(),
        )
    }

    /// Whether less than this has passed, in microseconds. In a model no wait is short enough.
    pub fn is_within(&self, us: u64) -> bool {
        cfg!(not(any(loom, shuttle))) && self.micros() < us
    }

    /// Since then, in microseconds.
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
    /// Points at `value`.
    pub fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// What it points at; kept alive while the guard lives.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.0.load()
    }

    /// Points at `value` from now on, and returns what it pointed at.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}

#[cfg(any(loom, shuttle))]
impl<T> Swap<T> {
    /// Points at `value`.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// What it points at; kept alive while the guard lives.
    pub fn load(&self) -> Arc<T> {
        lock(&self.0).clone()
    }

    /// Points at `value` from now on, and returns what it pointed at.
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

    /// Numbers of threads that have ended. The lowest is given first: only so many are of use.
    static FREE: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
    /// How many there are.
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

    /// A number that no other living thread has, from 0 on; `None` while the thread ends.
    pub fn thread_number() -> Option<usize> {
        NUMBER.try_with(|number| number.0).ok()
    }

    /// All numbers are below this one. Sequentially consistent: a number that is given later is given after this call to
    /// whoever compares what both threads have stored.
    pub fn thread_numbers() -> usize {
        GIVEN.load(Ordering::SeqCst)
    }
}

/// As in the real build.
#[cfg(shuttle)]
pub fn thread_number() -> Option<usize> {
    Some(shuttle::current::me().into())
}

/// Models of loom name their readers themselves.
#[cfg(loom)]
pub fn thread_number() -> Option<usize> {
    None
}

/// As in the real build.
#[cfg(any(loom, shuttle))]
pub fn thread_numbers() -> usize {
    usize::MAX
}

/// Lets other threads go first.
pub fn yield_now() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::thread::yield_now();
}

/// Bugs that a model can plant, to prove that it would notice them. In the real build nothing is ever planted, and the
/// question costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// An item's slot is stored before its bytes.
    SlotBeforeBytes = 1,
    /// An overwrite in place does not say that it is under way.
    OverwriteUnannounced = 2,
    /// Memory is freed while a reader still holds a map that leads to it.
    FreeUnderReaders = 3,
    /// A slot moves between its buckets without being counted.
    MoveUncounted = 4,
    /// A write during a migration goes to the old index alone.
    WriteOneSide = 5,
    /// A write during a sweep does not carry its version.
    SweepUnversioned = 6,
    /// The cleaner moves an item whose slot does not name it any more.
    MoveWhatDied = 7,
    /// A key is inserted without a look whether it is there.
    InsertUnlooked = 8,
    /// A read is counted by storing the slot instead of exchanging it.
    CountByStore = 9,
    /// What is kept for bytes in flight is lowered without a look at what took off meanwhile.
    LetGoUnlooked = 10,
    /// A reader does not announce what it reads.
    ReadUnannounced = 11,
    /// A reader does not look again after its announcement.
    AnnouncedUnlooked = 12,
    /// A bank of the index is reused although a retired map still leads to it.
    BankUnderReaders = 13,
    /// A map that is not the shard's any more goes on judging items.
    JudgedByOldMap = 14,
    /// A slot is stored without an order to the bytes it leads to.
    SlotRelaxed = 15,
    /// A copy that was made without the lock counts although the item has changed since.
    CommitUnlooked = 16,
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

    // Not one of the checker's: planting is not part of what is checked.
    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// Plants a bug, or with `None` takes it out again.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.store(fault.map_or(0, |fault| fault as u32), Ordering::SeqCst);
    }

    /// Whether a bug is planted.
    pub fn planted(fault: Fault) -> bool {
        PLANTED.load(Ordering::SeqCst) == fault as u32
    }
}
