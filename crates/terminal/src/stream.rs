//! Standard output and standard error, whatever is behind them.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// Writes all of `bytes`, whether or not the descriptor blocks.
///
/// # Errors
/// What the system says, and how many bytes were written before.
pub fn write_all(into: &impl AsFd, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(into, &bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            // Whoever shares the descriptor has made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(into, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err((error.into(), written)),
            },
            Err(error) => return Err((error.into(), written)),
        }
    }
    Ok(())
}

/// Whether a person at a terminal reads this, and the terminal moves its cursor.
pub fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether colours are wanted: at a screen, unless `NO_COLOR` is set (no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    is_screen(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
