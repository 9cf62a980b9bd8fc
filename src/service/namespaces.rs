//! Namespaces by number. Items carry the number; the default namespace is 0 and costs an item nothing.
//!
//! N1. Only a write that may create an entry assigns a number to a name. Other operations use [`NOWHERE`] for an
//!     unknown name, a number under which no item is ever stored.
//! N2. A number is reused only when no item has it and no operation uses it. An operation holds the table in which it
//!     looked up its name until it ends. To reclaim numbers, the writer first publishes a closed table and waits until
//!     no operation holds an older one; only then it checks which numbers have items.
//!
//! A lookup of a name writes no shared memory.

use super::Refusal;
use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of namespaces, including the default one.
pub const MAX_NAMESPACES: usize = 1_024;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The number that stands for every name without a number.
pub(super) const NOWHERE: u16 = u16::MAX;
/// The namespace of the empty name.
pub(super) const DEFAULT: &str = "default";

const _: () = assert!(MAX_NAMESPACES <= NOWHERE as usize, "no namespace has the number NOWHERE");

/// The names that have numbers.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    table: ArcSwap<Table>,
    /// Locked by writers of the table.
    names: Mutex<Names>,
    default_invalidations: AtomicU64,
}

/// The immutable table in which operations look up names. A change publishes a new one.
#[derive(Clone, Debug, Default)]
struct Table {
    by_name: HashMap<String, Arc<Named>>,
    /// Numbers are being reclaimed: a lookup waits for the lock of the names.
    is_closed: bool,
    /// See [`Names::least_invalidations`].
    least_invalidations: u64,
}

#[derive(Debug, Default)]
struct Names {
    /// Reclaimed numbers.
    free: Vec<u16>,
    /// Initial invalidation count of a new name, so that a client never sees the count of a name decrease.
    least_invalidations: u64,
}

#[derive(Debug)]
struct Named {
    number: u16,
    invalidations: AtomicU64,
}

/// A namespace whose number is not reclaimed until this is dropped (N2). Never hold two.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: u16,
    /// `None` for the default namespace, whose number is never reclaimed.
    table: Option<Guard<Arc<Table>>>,
}

impl Held {
    /// Whether the name has no number, and so no entries.
    pub(super) fn is_unknown(&self) -> bool {
        self.number == NOWHERE
    }

    fn in_table(name: &str, table: Guard<Arc<Table>>) -> Self {
        let number = table.by_name.get(name).map_or(NOWHERE, |named| named.number);
        Self { number, table: Some(table) }
    }
}

impl Namespaces {
    /// The namespace of an operation that creates no entry.
    ///
    /// # Errors
    /// [`Refusal::Length`] for a name that is too long.
    pub(super) fn find(&self, name: &str) -> Result<Held, Refusal> {
        if name.is_empty() || name == DEFAULT {
            return Ok(Held { number: 0, table: None });
        }
        Refusal::length("namespace", name.len(), 0, MAX_NAME_BYTES)?;
        Ok(Held::in_table(name, self.open_table()))
    }

    /// The current table. Its holder may use its numbers until it drops the table.
    fn open_table(&self) -> Guard<Arc<Table>> {
        let table = self.table.load();
        if !table.is_closed {
            return table;
        }
        drop(table);
        let _names = self.lock();
        self.table.load()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    /// Publishes a table, and waits until no operation holds the previous one. An operation holds a table only during
    /// its call of the store, and waits for no lock of this module meanwhile.
    fn publish(&self, table: Table) {
        let mut before = self.table.swap(Arc::new(table));
        while Arc::get_mut(&mut before).is_none() {
            std::thread::yield_now();
        }
    }

    /// The namespace of an operation that may create an entry. If all numbers are assigned, it reclaims those of
    /// namespaces without items: `in_use` returns which namespaces have items, and `forget` is called with each number
    /// before its reuse.
    ///
    /// # Errors
    /// [`Refusal::Length`], and [`Refusal::TooManyNamespaces`] if all of them have items.
    pub(super) fn find_or_create(
        &self,
        name: &str,
        in_use: impl Fn() -> Vec<bool>,
        forget: impl Fn(u16),
    ) -> Result<Held, Refusal> {
        let found = self.find(name)?;
        if !found.is_unknown() {
            return Ok(found);
        }
        drop(found);
        let mut names = self.lock();
        let mut table = Table { is_closed: false, ..Table::clone(&self.table.load()) };
        // Another thread may have created it since.
        if !table.by_name.contains_key(name) {
            let number = match names.next_number(&table) {
                Some(number) => Some(number),
                // Do not close the table if no number can be reclaimed.
                None if table.unused(&in_use()).next().is_none() => None,
                None => {
                    self.publish(Table { is_closed: true, ..table.clone() });
                    names.take_back(&mut table, &in_use()).into_iter().for_each(forget);
                    // First publish the table without these names, so that a number never has two names.
                    self.publish(table.clone());
                    names.next_number(&table)
                }
            };
            let number = number.ok_or(Refusal::TooManyNamespaces { max: MAX_NAMESPACES })?;
            let invalidations = AtomicU64::new(names.least_invalidations);
            table.by_name.insert(name.to_owned(), Arc::new(Named { number, invalidations }));
            self.publish(table);
        }
        // Under the lock of the names, so that the number cannot be reclaimed before it is held.
        Ok(Held::in_table(name, self.table.load()))
    }

    /// All names and numbers, including the default one, in the order of numbers.
    pub(super) fn all(&self) -> Vec<(u16, String)> {
        let table = self.table.load();
        let mut all: Vec<_> = table.by_name.iter().map(|(name, named)| (named.number, name.clone())).collect();
        all.push((0, DEFAULT.to_owned()));
        all.sort();
        all
    }

    /// The name of a number.
    pub(super) fn name(&self, number: u16) -> String {
        let table = self.table.load();
        let named = table.by_name.iter().find(|(_, named)| named.number == number);
        named.map_or(DEFAULT, |(name, _)| name).to_owned()
    }

    /// Counts an invalidation, if the namespace is known. Returns its count.
    pub(super) fn count_invalidation(&self, name: &str, held: &Held) -> u64 {
        let count = |invalidations: &AtomicU64| invalidations.fetch_add(1, Ordering::Relaxed) + 1;
        match &held.table {
            None => count(&self.default_invalidations),
            Some(table) => {
                table.by_name.get(name).map_or(table.least_invalidations, |named| count(&named.invalidations))
            }
        }
    }
}

impl Table {
    /// The names whose numbers are not in use.
    fn unused(&self, in_use: &[bool]) -> impl Iterator<Item = &Named> {
        let is_in_use = |named: &Named| in_use.get(usize::from(named.number)).is_some_and(|in_use| *in_use);
        self.by_name.values().map(Arc::as_ref).filter(move |named| !is_in_use(named))
    }
}

impl Names {
    /// Reclaims and returns the numbers that are not in use.
    fn take_back(&mut self, table: &mut Table, in_use: &[bool]) -> Vec<u16> {
        let numbers: Vec<u16> = table.unused(in_use).map(|named| named.number).collect();
        let taken: Vec<_> = table.by_name.extract_if(|_, named| numbers.contains(&named.number)).collect();
        let seen = taken.iter().map(|(_, named)| named.invalidations.load(Ordering::Relaxed)).max();
        self.least_invalidations = self.least_invalidations.max(seen.unwrap_or(0));
        table.least_invalidations = self.least_invalidations;
        self.free.extend(&numbers);
        numbers
    }

    fn next_number(&mut self, table: &Table) -> Option<u16> {
        let next = table.by_name.len() + 1;
        self.free.pop().or_else(|| (next < MAX_NAMESPACES).then_some(next as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(namespaces: &Namespaces, name: &str, in_use: &[bool]) -> Result<u16, Refusal> {
        namespaces.find_or_create(name, || in_use.to_vec(), |_| {}).map(|held| held.number)
    }

    #[test]
    fn an_unknown_name_takes_no_number() {
        let namespaces = Namespaces::default();
        for i in 0..2 * MAX_NAMESPACES {
            assert!(namespaces.find(&format!("n{i}")).unwrap().is_unknown());
        }
        assert_eq!(create(&namespaces, "first", &[]), Ok(1));
        assert_eq!(namespaces.all(), [(0, "default".to_owned()), (1, "first".to_owned())]);
        assert!(matches!(namespaces.find(&"n".repeat(MAX_NAME_BYTES + 1)), Err(Refusal::Length { .. })));
    }

    #[test]
    fn numbers_of_empty_namespaces_are_reused() {
        let namespaces = Namespaces::default();
        for i in 1..MAX_NAMESPACES {
            assert_eq!(create(&namespaces, &format!("n{i}"), &[]), Ok(i as u16));
        }
        let held = namespaces.find("n7").unwrap();
        assert_eq!(namespaces.count_invalidation("n7", &held), 1);
        drop(held);
        let all = vec![true; MAX_NAMESPACES];
        let full = Refusal::TooManyNamespaces { max: MAX_NAMESPACES };
        assert_eq!(create(&namespaces, "one more", &all), Err(full.clone()));
        let mut all_but_7 = all.clone();
        all_but_7[7] = false;
        let forgotten = std::cell::RefCell::new(Vec::new());
        let held =
            namespaces.find_or_create("one more", || all_but_7.clone(), |number| forgotten.borrow_mut().push(number));
        assert_eq!((held.unwrap().number, forgotten.into_inner()), (7, vec![7]));
        assert!(namespaces.find("n7").unwrap().is_unknown());
        assert_eq!(namespaces.name(7), "one more");
        let held = namespaces.find("one more").unwrap();
        assert_eq!(namespaces.count_invalidation("one more", &held), 2, "a count that clients saw never decreases");
        drop(held);
        assert_eq!(create(&namespaces, "another", &all), Err(full));
    }

    /// Threads fill, empty and look up a few names while nearly all numbers are assigned.
    #[test]
    fn a_number_is_never_reused_under_an_operation() {
        const CONTENDED: usize = 4;
        let namespaces = Namespaces::default();
        for i in 1..MAX_NAMESPACES - CONTENDED {
            create(&namespaces, &format!("n{i}"), &[]).unwrap();
        }
        // The name whose item is stored under each number.
        let items: Vec<Mutex<Option<String>>> = (0..MAX_NAMESPACES).map(|_| Mutex::new(None)).collect();
        let in_use = || {
            let is_used = |number: usize| number < MAX_NAMESPACES - CONTENDED || items[number].lock().is_some();
            (0..MAX_NAMESPACES).map(is_used).collect::<Vec<_>>()
        };
        let work = |thread: usize| {
            for i in 0..3_000 {
                let name = format!("contended {}", (i * 5 + thread * 3) % (CONTENDED + 3));
                let Ok(held) = namespaces.find_or_create(&name, in_use, |_| {}) else { continue };
                std::thread::yield_now();
                let mut item = items[usize::from(held.number)].lock();
                assert!(item.as_ref().is_none_or(|of| *of == name), "{name} has the number of {item:?}");
                *item = (i % 3 == 0).then(|| name.clone());
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
