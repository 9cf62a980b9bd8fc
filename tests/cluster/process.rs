//! Processes of a scenario: they end with it, and waiting for them has a timeout.

use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Timeout of a command, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let started = command.spawn();
        Self(started.unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Result of a command.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub said: String,
}

/// Runs a command to its end. Its output goes to files, since an unread pipe would block it.
pub fn run(command: &mut Command) -> Ended {
    let (out, said) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(said.try_clone().unwrap());
    let mut process = Process::start(command);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "not within {} s: the end of {command:?}", PATIENCE.as_secs());
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let text = |mut file: std::fs::File| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    Ended { code: status.code(), out: text(out), said: text(said) }
}
