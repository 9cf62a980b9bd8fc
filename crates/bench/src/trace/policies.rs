//! Exact FIFO and LRU: the misses of a cache with a given capacity.
//!
//! Both are one doubly linked queue over the dense ids of a trace; a hit moves an object to the front under LRU and
//! changes nothing under FIFO. An object larger than the whole capacity is never stored. An object keeps the size
//! with which it was inserted until it is evicted.

use super::format::Request;

/// Eviction policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Evicts the oldest object.
    Fifo,
    /// Evicts the least recently requested object.
    Lru,
}

const NONE: u32 = u32::MAX;

/// Objects in order of eviction, from `tail` to `head`.
struct Queue {
    newer: Vec<u32>,
    older: Vec<u32>,
    /// 0: not stored.
    size: Vec<u64>,
    head: u32,
    tail: u32,
}

impl Queue {
    fn new(objects: usize) -> Self {
        Self { newer: vec![NONE; objects], older: vec![NONE; objects], size: vec![0; objects], head: NONE, tail: NONE }
    }

    fn push(&mut self, id: u32) {
        let head = std::mem::replace(&mut self.head, id);
        self.older[id as usize] = head;
        self.newer[id as usize] = NONE;
        match head {
            NONE => self.tail = id,
            head => self.newer[head as usize] = id,
        }
    }

    fn unlink(&mut self, id: u32) {
        let (newer, older) = (self.newer[id as usize], self.older[id as usize]);
        match newer {
            NONE => self.head = older,
            newer => self.older[newer as usize] = older,
        }
        match older {
            NONE => self.tail = newer,
            older => self.newer[older as usize] = newer,
        }
    }
}

/// Counts the misses of `requests` at a `capacity`. `weigh` returns the weight of a request's object.
pub(super) fn misses(
    policy: Policy,
    requests: &[Request],
    objects: usize,
    capacity: u64,
    weigh: impl Fn(Request) -> u64,
) -> u64 {
    let mut queue = Queue::new(objects);
    let (mut used, mut misses) = (0, 0);
    for &request in requests {
        let id = request.id;
        if queue.size[id as usize] != 0 {
            if policy == Policy::Lru && queue.head != id {
                queue.unlink(id);
                queue.push(id);
            }
            continue;
        }
        misses += 1;
        let size = weigh(request).max(1);
        if size > capacity {
            continue;
        }
        while used + size > capacity {
            let oldest = queue.tail;
            used -= std::mem::take(&mut queue.size[oldest as usize]);
            queue.unlink(oldest);
        }
        queue.size[id as usize] = size;
        used += size;
        queue.push(id);
    }
    misses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(policy: Policy, ids: &[u32], capacity: u64) -> u64 {
        let requests: Vec<Request> = ids.iter().map(|&id| Request { id, size: 0 }).collect();
        misses(policy, &requests, 10, capacity, |_| 1)
    }

    #[test]
    fn a_hit_saves_an_object_under_lru_and_not_under_fifo() {
        // Capacity of two. 0 is requested again before 2; then LRU evicts 1, and FIFO evicts 0.
        assert_eq!(of(Policy::Lru, &[0, 1, 0, 2, 0], 2), 3);
        assert_eq!(of(Policy::Fifo, &[0, 1, 0, 2, 0], 2), 4);
    }

    #[test]
    fn a_cycle_one_larger_than_the_capacity_never_hits() {
        let cycle = [0, 1, 2, 0, 1, 2, 0, 1, 2];
        assert_eq!((of(Policy::Lru, &cycle, 2), of(Policy::Fifo, &cycle, 2)), (9, 9));
        assert_eq!((of(Policy::Lru, &cycle, 3), of(Policy::Fifo, &cycle, 3)), (3, 3));
    }

    #[test]
    fn large_objects_evict_several_and_oversized_ones_none() {
        let sized = |id, size| Request { id, size };
        let requests = [sized(0, 4), sized(1, 4), sized(2, 8), sized(0, 4), sized(3, 11), sized(0, 4)];
        let count = |policy| misses(policy, &requests, 4, 10, |request| request.size.into());
        // 2 evicts 0 and 1; then 0 evicts 2; 3 never fits and evicts nothing.
        assert_eq!((count(Policy::Fifo), count(Policy::Lru)), (5, 5));
    }
}
