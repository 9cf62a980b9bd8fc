//! Namespaces by number. Items carry the number; the default namespace is 0 and costs an item nothing.
//!
//! N1. Only a write that may create an entry gives a name a number. Everything else uses [`NOWHERE`] for an unknown name,
//!     a number under which nothing is ever stored.
//! N2. A number is reused only when no item carries it and no operation holds it: an operation holds the lock of the names
//!     for reading until it ends, and numbers are taken back under the lock for writing.

use super::Refusal;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The most namespaces at a time, the default one included.
pub const MAX_NAMESPACES: usize = 1_024;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The number that stands for every name without a number.
pub(super) const NOWHERE: u16 = u16::MAX;
/// What the empty name stands for.
const DEFAULT: &str = "default";

const _: () = assert!(MAX_NAMESPACES <= NOWHERE as usize, "no namespace has the number of none");

/// The names that have numbers.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    names: RwLock<Names>,
    default_invalidations: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<String, Named>,
    /// Numbers that were given out and taken back.
    free: Vec<u16>,
    /// No name that gets a number has seen fewer invalidations: a client never sees its number fall.
    least_invalidations: u64,
}

#[derive(Debug)]
struct Named {
    number: u16,
    invalidations: AtomicU64,
}

/// A namespace whose number stays its own until this is dropped (N2). Never hold two.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) number: u16,
    /// `None` for the default namespace, whose number is never taken back.
    names: Option<RwLockReadGuard<'a, Names>>,
}

impl Held<'_> {
    /// Whether the name has no number, and so no entries.
    pub(super) fn is_unknown(&self) -> bool {
        self.number == NOWHERE
    }
}

impl Names {
    /// Takes back the numbers that are not in use; returns them.
    fn take_back(&mut self, in_use: &[bool]) -> Vec<u16> {
        let is_in_use = |named: &Named| in_use.get(usize::from(named.number)).is_some_and(|in_use| *in_use);
        let taken: Vec<Named> = self.by_name.extract_if(|_, named| !is_in_use(named)).map(|(_, named)| named).collect();
        let seen = taken.iter().map(|named| named.invalidations.load(Ordering::Relaxed)).max();
        self.least_invalidations = self.least_invalidations.max(seen.unwrap_or(0));
        let numbers: Vec<u16> = taken.iter().map(|named| named.number).collect();
        self.free.extend(&numbers);
        numbers
    }

    fn next_number(&mut self) -> Option<u16> {
        let next = self.by_name.len() + 1;
        self.free.pop().or_else(|| (next < MAX_NAMESPACES).then_some(next as u16))
    }
}

impl Namespaces {
    /// The namespace of an operation that creates no entry.
    ///
    /// # Errors
    /// [`Refusal::Length`] for a name that is too long.
    pub(super) fn find(&self, name: &str) -> Result<Held<'_>, Refusal> {
        if name.is_empty() || name == DEFAULT {
            return Ok(Held { number: 0, names: None });
        }
        Refusal::length("namespace", name.len(), 0, MAX_NAME_BYTES)?;
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let number = names.by_name.get(name).map_or(NOWHERE, |named| named.number);
        Ok(Held { number, names: Some(names) })
    }

    /// The namespace of an operation that may create an entry. When all numbers are taken, those of namespaces without
    /// items are taken back: `in_use` says which hold some, and `forget` hears of each number before it is reused.
    ///
    /// # Errors
    /// [`Refusal::Length`], and [`Refusal::TooManyNamespaces`] when all of them hold items.
    pub(super) fn find_or_create(
        &self,
        name: &str,
        in_use: impl FnOnce() -> Vec<bool>,
        forget: impl Fn(u16),
    ) -> Result<Held<'_>, Refusal> {
        let found = self.find(name)?;
        if !found.is_unknown() {
            return Ok(found);
        }
        drop(found);
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have created it since.
        let number = match names.by_name.get(name).map(|named| named.number) {
            Some(number) => number,
            None => {
                let number = match names.next_number() {
                    Some(number) => number,
                    None => {
                        names.take_back(&in_use()).into_iter().for_each(forget);
                        names.next_number().ok_or(Refusal::TooManyNamespaces { max: MAX_NAMESPACES })?
                    }
                };
                let invalidations = AtomicU64::new(names.least_invalidations);
                names.by_name.insert(name.to_owned(), Named { number, invalidations });
                number
            }
        };
        Ok(Held { number, names: Some(RwLockWriteGuard::downgrade(names)) })
    }

    /// The names and their numbers, by number, the default one included.
    pub(super) fn all(&self) -> Vec<(u16, String)> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = names.by_name.iter().map(|(name, named)| (named.number, name.clone())).collect();
        all.push((0, DEFAULT.to_owned()));
        all.sort();
        all
    }

    /// The name of a number.
    pub(super) fn name(&self, number: u16) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let named = names.by_name.iter().find(|(_, named)| named.number == number);
        named.map_or(DEFAULT, |(name, _)| name).to_owned()
    }

    /// Counts an invalidation, if the namespace is known; how many it has seen.
    pub(super) fn count_invalidation(&self, name: &str, held: &Held<'_>) -> u64 {
        let count = |invalidations: &AtomicU64| invalidations.fetch_add(1, Ordering::Relaxed) + 1;
        match &held.names {
            None => count(&self.default_invalidations),
            Some(names) => {
                names.by_name.get(name).map_or(names.least_invalidations, |named| count(&named.invalidations))
            }
        }
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
        let held = namespaces.find_or_create("one more", || all_but_7, |number| forgotten.borrow_mut().push(number));
        assert_eq!((held.unwrap().number, forgotten.into_inner()), (7, vec![7]));
        assert!(namespaces.find("n7").unwrap().is_unknown());
        assert_eq!(namespaces.name(7), "one more");
        let held = namespaces.find("one more").unwrap();
        assert_eq!(namespaces.count_invalidation("one more", &held), 2, "a number that clients saw never falls");
        drop(held);
        assert_eq!(create(&namespaces, "another", &all), Err(full));
    }
}
