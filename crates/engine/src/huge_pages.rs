//! Transparent huge pages, which keep freed memory charged to the container.

use std::io;

/// Turns transparent huge pages off for this process. A page fault of a thread's stack or of the allocator would
/// otherwise charge 2 MiB at once, and memory released from within a huge page stays charged until the kernel splits
/// the page. In a container of 64 MiB that was 10 to 17 MB.
///
/// # Errors
/// The error of the system call. A kernel without huge pages has nothing to turn off.
pub fn disable() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}
