//! Printing. Everything that a command writes to standard output or standard error goes through here.
//!
//! O1. A reader that has gone ends the command quietly, with exit code 0: `ebb scan | head` is no error.
//! O2. Output that cannot be written, such as to a full disk, ends the command with a sentence and exit code 1.
//! O3. What cannot be written to standard error is dropped.
//!
//! `print!` and its relatives panic instead, so clippy forbids them.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use crate::{Failure, Outcome, is_screen as stream_is_screen, write_all};

/// Prints a value as indented JSON.
pub fn json(value: &serde_json::Value) -> Outcome {
    line(&format!("{value:#}"))
}

/// Prints a line.
pub fn line(text: &str) -> Outcome {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub fn bytes(bytes: &[u8]) -> Outcome {
    outcome(write_all(&io::stdout(), bytes).map_err(|(error, _)| error))
}

/// What a write to standard output means for the command.
pub fn outcome(written: io::Result<()>) -> Outcome {
    match written {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(Failure::ReaderGone)
        }
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a line that a caller may wait for, and waits for nobody: who serves does not depend on standard output.
pub fn announce(text: String) {
    let print = move || drop(line(&text));
    // Without a thread nothing is printed; the log has the same.
    let _ = std::thread::Builder::new().name("ebb-announce".to_owned()).spawn(print);
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    let _ = write_all(&io::stderr(), format!("{text}\n").as_bytes());
}

/// Shows progress in place of what was shown before, at a screen only. Empty: clears it.
pub fn progress(text: impl Display) {
    if shows_progress() {
        let _ = write_all(&io::stderr(), format!("\r\x1b[K{text}").as_bytes());
    }
}

/// Whether standard output is a screen, whose cursor can be moved.
pub fn is_screen() -> bool {
    stream_is_screen(&io::stdout())
}

/// Whether standard error is a screen.
pub fn shows_progress() -> bool {
    stream_is_screen(&io::stderr())
}

/// Standard output as a sink without a buffer; an error of it becomes an [`outcome`].
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
