//! Writes to standard output and standard error, blocking or not.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// Writes all of `bytes`, even if the descriptor is non-blocking.
///
/// # Errors
/// The system's error, and the number of bytes written before it.
pub fn write_all(into: &impl AsFd, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(into, &bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            // Another process that shares the descriptor has made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(into, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err((error.into(), written)),
            },
            Err(error) => return Err((error.into(), written)),
        }
    }
    Ok(())
}

/// Whether the stream is a terminal that can move its cursor.
pub fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether to use colors: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    is_screen(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
