//! Printing. All output of commands to standard output and standard error goes through this module.
//!
//! O1. A closed pipe ends the command silently with exit code 0: `ebb scan | head` is not an error.
//! O2. Another write error, such as a full disk, ends the command with a message and exit code 1.
//! O3. Errors of writing to standard error are ignored.
//! O4. Lines and JSON have no characters that a terminal obeys, whoever chose the text. [`bytes`] and [`Stdout`] are
//!     for bytes that the caller wants unchanged.
//!
//! `print!` and similar macros panic instead, so clippy forbids them.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _};

use crate::escape::{escaped_lines, escaped_value};
use crate::{Failure, Outcome, is_screen as stream_is_screen, write_all};

/// Prints a value as indented JSON.
pub fn json(value: &serde_json::Value) -> Outcome {
    line(&format!("{value:#}"))
}

/// Prints a line.
pub fn line(text: &str) -> Outcome {
    bytes(format!("{}\n", escaped_lines(text)).as_bytes())
}

/// Prints bytes unchanged.
pub fn bytes(bytes: &[u8]) -> Outcome {
    outcome(write_all(&io::stdout(), bytes).map_err(|(error, _)| error))
}

/// Prints a value: escaped on a terminal, which would obey its control characters, unless `raw`; else unchanged.
/// Returns whether anything was escaped.
pub fn value(value: &[u8], raw: bool) -> Result<bool, Failure> {
    if raw || !io::stdout().is_terminal() {
        return bytes(value).map(|()| false);
    }
    let shown = escaped_value(value);
    bytes(shown.as_bytes()).map(|()| shown.as_bytes() != value)
}

/// Prints a line at the top of the screen, which is cleared. Both in one write, to avoid flicker.
pub fn screen(text: &str) -> Outcome {
    bytes(format!("\x1b[H\x1b[2J{}\n", escaped_lines(text)).as_bytes())
}

/// Converts the result of a write to standard output.
pub fn outcome(written: io::Result<()>) -> Outcome {
    match written {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(Failure::ReaderGone)
        }
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a line from its own thread, so that a server never blocks on standard output.
pub fn announce(text: String) {
    let print = move || drop(line(&text));
    // If the thread cannot be created, the line is lost; the log contains it, too.
    let _ = std::thread::Builder::new().name("ebb-announce".to_owned()).spawn(print);
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    let _ = write_all(&io::stderr(), format!("{}\n", escaped_lines(&text.to_string())).as_bytes());
}

/// Replaces the displayed progress, on a terminal only; an empty text clears it.
pub fn progress(text: impl Display) {
    if shows_progress() {
        let _ = write_all(&io::stderr(), format!("\r\x1b[K{}", escaped_lines(&text.to_string())).as_bytes());
    }
}

/// Whether standard output is a terminal that can move its cursor.
pub fn is_screen() -> bool {
    stream_is_screen(&io::stdout())
}

/// Whether standard error is a terminal.
pub fn shows_progress() -> bool {
    stream_is_screen(&io::stderr())
}

/// Standard output as an unbuffered sink; its errors are converted with [`outcome`].
#[derive(Debug)]
pub struct Stdout;

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(&io::stdout(), bytes).map(|()| bytes.len()).map_err(|(error, _)| error)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        assert!(matches!(outcome(Err(ErrorKind::BrokenPipe.into())), Err(Failure::ReaderGone)));
        assert!(outcome(Ok(())).is_ok());
        let Err(Failure::Failed(sentence)) = outcome(Err(ErrorKind::StorageFull.into())) else { panic!("it failed") };
        assert!(sentence.starts_with("cannot write to standard output: "), "{sentence}");
    }
}
