//! Printing. Everything that a command writes to standard output or standard error goes through here.
//!
//! O1. A reader that has gone ends the command quietly, with exit code 0: `ebb scan | head` is no error.
//! O2. Output that cannot be written, such as to a full disk, ends the command with a sentence and exit code 1.
//! O3. What cannot be written to standard error is dropped.
//!
//! `print!` and its relatives panic instead, so clippy forbids them.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use super::{Failure, Outcome};
use crate::logging;

/// Prints a value as indented JSON.
pub(crate) fn json(value: &serde_json::Value) -> Outcome {
    line(&format!("{value:#}"))
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Outcome {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Outcome {
    outcome(logging::write_all(&io::stdout(), bytes).map_err(|(error, _)| error))
}

/// What a write to standard output means for the command.
pub(crate) fn outcome(written: io::Result<()>) -> Outcome {
    match written {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(Failure::ReaderGone)
        }
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a line that a caller may wait for, and waits for nobody: who serves does not depend on standard output.
pub(crate) fn announce(text: String) {
    let print = move || drop(line(&text));
    // Without a thread nothing is printed; the log has the same.
    let _ = std::thread::Builder::new().name("ebb-announce".to_owned()).spawn(print);
}

/// Writes a line to standard error.
pub(crate) fn note(text: impl Display) {
    let _ = logging::write_all(&io::stderr(), format!("{text}\n").as_bytes());
}

/// Shows progress in place of what was shown before, at a screen only. Empty: clears it.
pub(crate) fn progress(text: impl Display) {
    if shows_progress() {
        let _ = logging::write_all(&io::stderr(), format!("\r\x1b[K{text}").as_bytes());
    }
}

/// Whether standard output is a screen, whose cursor can be moved.
pub(crate) fn is_screen() -> bool {
    logging::is_screen(&io::stdout())
}

/// Whether standard error is a screen.
pub(crate) fn shows_progress() -> bool {
    logging::is_screen(&io::stderr())
}

/// Standard output as a sink without a buffer; an error of it becomes an [`outcome`].
#[derive(Debug)]
pub(crate) struct Stdout;

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        logging::write_all(&io::stdout(), bytes).map(|()| bytes.len()).map_err(|(error, _)| error)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A table: the first column to the left, the others to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![header.into_iter().map(Into::into).collect()] }
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let mut text = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column == 0 {
                    text += &format!("{cell:<width$}");
                } else {
                    text += &format!("  {cell:>width$}");
                }
            }
            writeln!(f, "{}", text.trim_end())?;
            if i == 0 && row.iter().any(|cell| !cell.is_empty()) {
                writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(["name", "MB"]);
        table.row(["a long name", "1"]);
        table.row(["b", "1,234"]);
        let lines: Vec<String> = table.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "name            MB");
        assert_eq!(lines[1].chars().count(), 18);
        assert_eq!(lines[2], "a long name      1");
        assert_eq!(lines[3], "b            1,234");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        assert!(matches!(outcome(Err(ErrorKind::BrokenPipe.into())), Err(Failure::ReaderGone)));
        assert!(outcome(Ok(())).is_ok());
        let Err(Failure::Failed(sentence)) = outcome(Err(ErrorKind::StorageFull.into())) else { panic!("it failed") };
        assert!(sentence.starts_with("cannot write to standard output: "), "{sentence}");
    }
}
