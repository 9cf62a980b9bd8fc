//! Namespaces by number. Items carry the number; the default namespace is 0 and costs an item nothing.

use super::Refusal;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// The most namespaces of a process: each name is remembered for good.
pub(super) const MAX_NAMESPACES: usize = 1_024;
/// The longest name, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 128;
/// What the empty name stands for.
const DEFAULT: &str = "default";

/// The names seen so far.
#[derive(Debug, Default)]
pub(super) struct Namespaces(RwLock<Names>);

#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<String, u16>,
    generations: HashMap<u16, u64>,
}

impl Namespaces {
    /// The number of a namespace, a new one if the name is new.
    pub(super) fn number(&self, name: &str) -> Result<u16, Refusal> {
        if name.is_empty() || name == DEFAULT {
            return Ok(0);
        }
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = names.numbers.get(name) {
            return Ok(*number);
        }
        drop(names);
        Refusal::length("namespace", name.len(), 0, MAX_NAME_BYTES)?;
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let next = names.numbers.len() + 1;
        match names.numbers.get(name) {
            Some(number) => Ok(*number),
            None if next >= MAX_NAMESPACES => Err(Refusal::TooManyNamespaces { max: MAX_NAMESPACES }),
            None => {
                names.numbers.insert(name.to_owned(), next as u16);
                Ok(next as u16)
            }
        }
    }

    /// How many there are, the default one included.
    pub(super) fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).numbers.len() + 1
    }

    /// The name of a number that was given out.
    pub(super) fn name(&self, namespace: u16) -> String {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let named = names.numbers.iter().find(|(_, number)| **number == namespace);
        named.map_or(DEFAULT, |(name, _)| name).to_owned()
    }

    /// Counts an invalidation.
    pub(super) fn next_generation(&self, namespace: u16) -> u64 {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let generation = names.generations.entry(namespace).or_default();
        *generation += 1;
        *generation
    }
}
