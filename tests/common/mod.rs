//! A real server for a test: the program on free ports. It ends with the test.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running `ebb serve`.
pub struct Ebb {
    pub child: Child,
    pub data: String,
    pub admin: String,
    pub http: String,
    pub directory: tempfile::TempDir,
    log: Arc<Mutex<String>>,
}

/// The program under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebb"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EBB_")) {
        command.env_remove(name);
    }
    command
}

impl Ebb {
    /// Starts it with more arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(SERVE).args(arguments);
        Self::spawn(command)
    }

    /// Starts a command that ends in `ebb serve`.
    pub fn spawn(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let part = |name: &str| {
            let words = line.split_whitespace();
            words.filter_map(|word| word.strip_prefix(name)).next().map(str::to_owned)
        };
        match (part("data="), part("admin="), part("http=")) {
            (Some(data), Some(admin), Some(http)) => {
                // Read the log continuously, because the pipe would fill up otherwise.
                let log = Arc::new(Mutex::new(String::new()));
                let (lines, into) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
                std::thread::spawn(move || {
                    lines.map_while(Result::ok).for_each(|line| *into.lock().unwrap() += &(line + "\n"))
                });
                Self { child, data, admin, http, directory, log }
            }
            _ => {
                let mut error = String::new();
                let _ = child.stderr.take().unwrap().read_to_string(&mut error);
                panic!("no addresses in {line:?}: {error}");
            }
        }
    }

    /// Resident set size, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    /// The lines of its log with `text`.
    pub fn lines(&self, text: &str) -> Vec<String> {
        self.log.lock().unwrap().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Number of log lines with `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.lines(text).len()
    }

    /// The value of a metric, given by its name and labels and a space; 0 when it cannot be read.
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.http, name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Stops it; returns the duration and the exit code.
    pub fn terminate(&mut self) -> (Duration, Option<i32>) {
        let asked = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (asked.elapsed(), status.code())
    }
}

/// Bytes in flight of an open call.
pub const CALL_BYTES: u64 = 8 << 10;
/// Bytes in flight of the call that reads them: itself, and the five bytes of its message if these arrive with it.
pub const ASKING_BYTES: std::ops::RangeInclusive<u64> = CALL_BYTES..=CALL_BYTES + 5;

pub const SERVE: [&str; 7] =
    ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];

impl Drop for Ebb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fetches a page: status and text; empty if the server does not answer.
pub fn page(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
}

/// The stream of events, up to its second reading.
pub fn events(address: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut readings = 0;
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let until_second = lines.take_while(|line| {
        readings += usize::from(line == "event: now");
        readings < 2
    });
    until_second.collect::<Vec<_>>().join("\n")
}

/// The value of a metric, given by its name and labels and a space; 0 when it cannot be read.
pub fn metric(address: &str, name: &str) -> u64 {
    let Some((_, page)) = page(address, "/metrics") else { return 0 };
    page.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits for a condition, for at most half a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The same on a runtime.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    within(Duration::from_secs(30), what, condition).await;
}

/// The same, with the given timeout.
pub async fn within<F: Future<Output = bool>>(limit: Duration, what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + limit;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", limit.as_secs());
        ticks.tick().await;
    }
}
