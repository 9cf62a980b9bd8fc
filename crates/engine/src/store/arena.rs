//! The memory of the store: one reserved range of address space, accessed as words. The only file in Ebb with `unsafe`.
//!
//! ```text
//!  reserve (no page is resident) ──store──► page resident ──release──► page gone, reads as zero
//! ```
//! Every byte the cache stores is in this range and is accessed as `&[AtomicU64]`. So the engine has no undefined
//! behaviour, without further proof: any thread may read and write a word at any time. A broken rule in the files above
//! this one can at worst return a wrong value; the numbered rules there prevent that.
//!
//! A1. The range is mapped once and stays mapped until the arena is dropped; no slice lives longer than that.
//! A2. Pages are returned to the kernel with `MADV_DONTNEED` alone: `MADV_FREE` does not lower RSS, and `munmap` of
//!     many pieces fails at the kernel's limit of mappings. `reserve` returns one page as a test, so that a kernel that
//!     refuses is detected at the start.
//! A3. Huge pages are off for the range: they would silently make released memory resident again.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::ops::Range;

/// The kernel's page size, in bytes: usually 4 KiB, 16 or 64 KiB on some arm64 machines. Memory is returned to the
/// kernel in multiples of it.
pub(super) fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Bytes in a word.
pub(super) const WORD_BYTES: usize = 8;

pub(super) use backend::Arena;

impl Arena {
    /// The words of a range, given in words.
    ///
    /// # Panics
    /// If the range is not in the arena.
    pub(super) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        &self.all()[range]
    }

    /// Number of words.
    pub(super) fn words_total(&self) -> usize {
        self.all().len()
    }

    /// One word.
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        &self.all()[at]
    }
}

#[cfg(not(any(loom, shuttle)))]
#[allow(unsafe_code, reason = "the only module with unsafe code")]
mod backend {
    use super::*;
    use rustix::io::Errno;
    use rustix::mm::{self, Advice, MapFlags, ProtFlags};
    use std::ffi::c_void;

    /// A reserved range of address space.
    #[derive(Debug)]
    pub(crate) struct Arena {
        base: *mut AtomicU64,
        words: usize,
    }

    // SAFETY: the arena is a range of atomics, which may be shared and sent between threads.
    unsafe impl Send for Arena {}
    // SAFETY: as above.
    unsafe impl Sync for Arena {}

    impl Arena {
        /// Reserves `bytes` (rounded up to pages) of address space. No page of it is resident.
        ///
        /// # Errors
        /// If the system refuses that much address space (RLIMIT_AS, RLIMIT_DATA, strict overcommit), or refuses to
        /// take a page back (a seccomp filter).
        pub(crate) fn reserve(bytes: usize) -> io::Result<Self> {
            let bytes = bytes.next_multiple_of(page_bytes()).max(page_bytes());
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new anonymous mapping at an address the kernel chooses aliases nothing.
            let base =
                unsafe { mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)? };
            let arena = Self { base: base.cast(), words: bytes / WORD_BYTES };
            // Kernels without huge pages refuse the first advice; both are hints (A3).
            for advice in [Advice::LinuxNoHugepage, Advice::LinuxDontDump] {
                // SAFETY: the range was mapped above, and neither advice changes its contents.
                let _ = unsafe { mm::madvise(base, bytes, advice) };
            }
            arena.word(0).store(1, Ordering::Relaxed);
            arena.give_back(0..page_bytes() / WORD_BYTES).map_err(|error| {
                io::Error::new(error.kind(), format!("the kernel takes no page back, madvise(MADV_DONTNEED): {error}"))
            })?;
            if arena.word(0).load(Ordering::Relaxed) != 0 {
                return Err(io::Error::other("the kernel takes no page back: madvise(MADV_DONTNEED) does nothing"));
            }
            Ok(arena)
        }

        /// Whether the system grants `bytes` more of address space.
        pub(crate) fn has_room(bytes: usize) -> bool {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new anonymous mapping at an address the kernel chooses aliases nothing.
            let mapped =
                unsafe { mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
            // SAFETY: it was mapped above, and no other code has its address.
            mapped.is_ok_and(|base| unsafe { mm::munmap(base, bytes) }.is_ok())
        }

        pub(super) fn all(&self) -> &[AtomicU64] {
            // SAFETY: mapped, zeroed and aligned by `reserve`, until `drop` (A1); every bit pattern is a valid word.
            unsafe { std::slice::from_raw_parts(self.base, self.words) }
        }

        /// Prefetches the cache line of a word that will be loaded soon. It does not block.
        ///
        /// # Panics
        /// If the word is not in the arena.
        pub(crate) fn prefetch(&self, at: usize) {
            let word: *const AtomicU64 = self.word(at);
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                // SAFETY: a hint about a word of the arena, without an effect that the program can observe.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(word.cast()) };
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) word, options(nostack, readonly, preserves_flags));
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = word;
        }

        /// Returns the pages of a range (in words, on page boundaries) to the kernel; they then read as zero.
        ///
        /// # Panics
        /// If the range is not in the arena or not on page boundaries.
        pub(crate) fn release(&self, range: Range<usize>) {
            self.give_back(range).expect("the kernel took a page back when the range was reserved");
        }

        fn give_back(&self, range: Range<usize>) -> io::Result<()> {
            let words = self.words(range);
            let (at, bytes) = (words.as_ptr() as *mut c_void, size_of_val(words));
            assert!(
                (at as usize).is_multiple_of(page_bytes()) && bytes.is_multiple_of(page_bytes()),
                "whole pages only"
            );
            if bytes == 0 {
                return Ok(());
            }
            loop {
                // SAFETY: the range is in the arena's mapping; anonymous pages read as zero afterwards, and a zero is a
                // valid word, so existing slices stay valid.
                match unsafe { mm::madvise(at, bytes, Advice::LinuxDontNeed) } {
                    Err(Errno::AGAIN | Errno::INTR) => {} // the kernel is short of something for a moment
                    released => return Ok(released?),
                }
            }
        }
    }

    impl Drop for Arena {
        fn drop(&mut self) {
            // SAFETY: mapped by `reserve`; no slice outlives `self` (A1).
            let _ = unsafe { mm::munmap(self.base.cast(), self.words * WORD_BYTES) };
        }
    }
}

#[cfg(any(loom, shuttle))]
mod backend {
    use super::*;

    /// The arena of a model: a vector of the checker's own atomics. As in the real arena, released memory reads as
    /// zero.
    #[derive(Debug)]
    pub struct Arena(Vec<AtomicU64>);

    impl Arena {
        /// See the real arena.
        pub fn reserve(bytes: usize) -> io::Result<Self> {
            Ok(Self((0..bytes.div_ceil(WORD_BYTES)).map(|_| AtomicU64::new(0)).collect()))
        }

        /// See the real arena.
        pub fn has_room(_: usize) -> bool {
            true
        }

        pub(super) fn all(&self) -> &[AtomicU64] {
            &self.0
        }

        /// See the real arena.
        pub fn prefetch(&self, _: usize) {}

        /// See the real arena.
        pub fn release(&self, range: Range<usize>) {
            self.words(range).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn released_pages_read_as_zero_and_can_be_written_again() {
        let arena = Arena::reserve(4 * page_bytes()).unwrap();
        let page = page_bytes() / WORD_BYTES;
        arena.word(page).store(7, Ordering::Relaxed);
        arena.word(0).store(9, Ordering::Relaxed);
        arena.release(page..2 * page);
        assert_eq!((arena.word(0).load(Ordering::Relaxed), arena.word(page).load(Ordering::Relaxed)), (9, 0));
        arena.word(page).store(8, Ordering::Relaxed);
        assert_eq!(arena.word(page).load(Ordering::Relaxed), 8);
    }

    #[test]
    fn more_address_space_than_any_machine_has_is_refused() {
        assert!(Arena::reserve(1 << 50).is_err());
        assert!(!Arena::has_room(1 << 50) && Arena::has_room(64 << 30));
    }

    #[test]
    fn sixty_four_gibibytes_of_address_space_cost_nothing() {
        let arena = Arena::reserve(64 << 30).unwrap();
        arena.word((64 << 30) / WORD_BYTES - 1).store(1, Ordering::Relaxed);
    }

    #[test]
    #[should_panic(expected = "whole pages only")]
    fn half_a_page_cannot_be_released() {
        Arena::reserve(2 * page_bytes()).unwrap().release(0..page_bytes() / WORD_BYTES / 2);
    }
}
