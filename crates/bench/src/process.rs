//! The measured servers: starts and ends them, and reads their memory and CPU from /proc.
//!
//! Resident memory is from `statm`, CPU is the sum of `task/*/schedstat` in nanoseconds. Both are the same for every
//! program and independent of its own metrics.

use anyhow::{Context as _, anyhow, bail};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::wire::{Shape, System};
use ebb_proto::client::Address;

/// A program to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Redis,
    Valkey,
    Memcached,
    /// A hash map in its own process.
    Map,
    /// Another build of `ebb`.
    Ebb,
}

/// A peer to compare with: started by the benchmark, or already running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Against {
    pub(super) peer: Peer,
    running: Option<(Address, u32)>,
    /// The other build's file.
    program: Option<String>,
}

impl FromStr for Against {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, running) = match text.split_once('=') {
            Some((name, at)) => (name, Some(at)),
            None => (text, None),
        };
        let peer = match name {
            "redis" => Peer::Redis,
            "valkey" => Peer::Valkey,
            "memcached" => Peer::Memcached,
            "map" => Peer::Map,
            "ebb" => {
                let program = running.context("name another build as ebb=PROGRAM")?.to_owned();
                return Ok(Self { peer: Peer::Ebb, running: None, program: Some(program) });
            }
            _ => bail!("`{name}` is not a peer (redis, valkey, memcached, map or ebb=PROGRAM)"),
        };
        let running = running.map(|at| {
            let (at, pid) = at.rsplit_once('@').context("name a running server as redis=HOST:PORT@PID")?;
            anyhow::Ok((at.parse::<Address>()?, pid.parse().map_err(|_| anyhow!("`{pid}` is not a process id"))?))
        });
        Ok(Self { peer, running: running.transpose()?, program: None })
    }
}

impl Against {
    /// Describes the server: its options, or its address and process.
    pub(super) fn describe(&self, memory_mib: u64) -> String {
        let (name, _) = named(self.peer);
        if let Some(program) = &self.program {
            return format!("{name}: {program}");
        }
        match &self.running {
            Some((at, pid)) => format!("{name}: running at {at}, process {pid}"),
            None if self.peer == Peer::Map => {
                "map: HashMap<Box<[u8]>, Box<[u8]>> behind a mutex, on this program's jemalloc".to_owned()
            }
            None => {
                let quoted = |word: String| if word.is_empty() { "''".to_owned() } else { word };
                let options: Vec<String> = options(self.peer, memory_mib).into_iter().map(quoted).collect();
                format!("{name} {}", options.join(" "))
            }
        }
    }
}

/// A server. If the benchmark started it, dropping this value ends it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) system: System,
    pub(super) data: Address,
    pub(super) socket: Option<Address>,
    pub(super) admin: Option<Address>,
    pub(super) pid: u32,
    child: Option<Child>,
    folder: Option<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder); // sockets and logs of a run that is over
        }
    }
}

impl Server {
    /// A running Ebb server.
    pub(super) fn running(data: Address, admin: Option<Address>, pid: u32) -> Self {
        let system = System::Ebb(Shape::Pipe);
        Self { name: "ebb", system, data, socket: None, admin, pid, child: None, folder: None }
    }

    /// Resident memory in bytes.
    pub(super) fn rss_bytes(&self) -> anyhow::Result<u64> {
        rss_bytes(self.pid)
    }

    /// CPU time of all threads so far.
    pub(super) fn cpu(&self) -> Cpu {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let nanos = tasks.filter_map(|task| {
            let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, line.split(' ').next()?.parse().ok()?))
        });
        Cpu(nanos.collect())
    }
}

/// CPU time of threads, in nanoseconds, by thread ID.
#[derive(Debug)]
pub(super) struct Cpu(BTreeMap<u32, u64>);

impl Cpu {
    /// CPU time of the running threads since then. The time of threads that ended in between is not included.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let taken = self.0.iter().map(|(thread, now)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0)));
        Duration::from_nanos(taken.sum())
    }
}

/// Resident memory of a process in bytes.
pub(super) fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let gone = || format!("cannot read /proc of process {pid}; does it run on this machine?");
    let line = std::fs::read_to_string(format!("/proc/{pid}/statm")).map_err(|_| anyhow!(gone()))?;
    let pages: u64 = line.split(' ').nth(1).and_then(|pages| pages.parse().ok()).with_context(gone)?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// CPU time of this process's threads with the given name.
pub(super) fn cpu_of_thread(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        let line = read("schedstat").filter(|_| read("comm").is_some_and(|comm| comm.trim_end() == name))?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Options for starting a server: memory, and whether to bind it to the first core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) memory_mib: u64,
    pub(super) pinned: bool,
}

/// Starts the program as a server on free ports and a socket.
pub(super) fn start_ebb(program: &Path, start: Start) -> anyhow::Result<Server> {
    start_build("ebb", &program.to_string_lossy(), start)
}

/// Starts a build of `ebb`.
fn start_build(name: &'static str, program: &str, start: Start) -> anyhow::Result<Server> {
    let folder = new_folder()?;
    let socket = folder.join("ebb.sock");
    let mut command = command(program, start.pinned);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.arg("--socket").arg(&socket).arg(format!("--max-memory={}Mi", start.memory_mib)).arg("--cores=1");
    let log = std::fs::File::create(folder.join("log"))?;
    command.env_remove("EBB_PROGRAM"); // a variable of this program; the server would warn about it
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.with_context(|| {
        let _ = std::fs::remove_dir_all(&folder); // nothing else will
        format!("cannot start {program} serve")
    })?;
    let stdout = child.stdout.take();
    let mut server = Server {
        name,
        system: System::Ebb(Shape::Pipe),
        data: Address::Tcp(String::new()),
        socket: Some(Address::Unix(socket.to_string_lossy().into_owned())),
        admin: None,
        pid: child.id(),
        child: Some(child),
        folder: Some(folder.clone()),
    };
    let mut lines = BufReader::new(stdout.context("a child without output")?).lines();
    let said = lines.by_ref().map_while(Result::ok).find_map(|line| listening(&line));
    let Some((data, admin)) = said else {
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        bail!("{program} serve ended before it listened: {}", log.lines().last().unwrap_or("it printed nothing"));
    };
    // Drain its output from here on, so that it never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    server.data = data;
    server.admin = Some(admin);
    Ok(server)
}

/// Parses `listening data=ADDR admin=ADDR http=ADDR` anywhere in a line.
fn listening(line: &str) -> Option<(Address, Address)> {
    let (_, said) = line.split_once("listening ")?;
    let value = |name: &str| said.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    Some((value("data=")?, value("admin=")?))
}

/// Starts a peer, or uses the running one.
pub(super) fn peer(against: &Against, start: Start) -> anyhow::Result<Server> {
    if let Some(program) = &against.program {
        return start_build(named(against.peer).0, program, start);
    }
    let Some((data, pid)) = against.running.clone() else { return start_peer(against.peer, start) };
    let (name, system) = named(against.peer);
    Ok(Server { name, system, data, socket: None, admin: None, pid, child: None, folder: None })
}

fn named(peer: Peer) -> (&'static str, System) {
    match peer {
        Peer::Redis => ("redis", System::Redis),
        Peer::Valkey => ("valkey", System::Redis),
        Peer::Memcached => ("memcached", System::Memcached),
        Peer::Map => ("map", System::Redis),
        Peer::Ebb => ("other ebb", System::Ebb(Shape::Pipe)),
    }
}

/// A peer's options without its port: defaults, without persistence, one thread.
fn options(peer: Peer, memory_mib: u64) -> Vec<String> {
    let words = match peer {
        Peer::Redis | Peer::Valkey => "--save '' --appendonly no --bind 127.0.0.1".to_owned(),
        Peer::Memcached => format!("-l 127.0.0.1 -t 1 -m {memory_mib} -c 4096"),
        Peer::Map => "map".to_owned(),
        Peer::Ebb => String::new(), // started as `ebb` is
    };
    words.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
}

/// Starts a peer that is installed here, on a free port.
pub(super) fn start_peer(peer: Peer, start: Start) -> anyhow::Result<Server> {
    let port = free_port()?;
    let folder = new_folder()?;
    let socket = folder.join("peer.sock");
    let (name, system) = named(peer);
    let this = std::env::current_exe()?;
    let program = match peer {
        Peer::Redis => "redis-server",
        Peer::Valkey => "valkey-server",
        Peer::Memcached => "memcached",
        Peer::Map => &*this.to_string_lossy(),
        Peer::Ebb => unreachable!("start_build starts other builds"),
    };
    let mut command = command(program, start.pinned);
    command.args(options(peer, start.memory_mib));
    match peer {
        Peer::Redis | Peer::Valkey => {
            command.args(["--port", &port.to_string()]).arg("--unixsocket").arg(&socket);
            command.arg("--dir").arg(&folder);
        }
        Peer::Memcached => {
            command.args(["-p", &port.to_string()]);
            if rustix::process::geteuid().is_root() {
                command.args(["-u", "root"]); // it refuses to run as root otherwise
            }
        }
        Peer::Map => {
            command.args(["--port", &port.to_string()]);
        }
        Peer::Ebb => {}
    }
    // The map ends when its standard input closes, so it always ends with this process.
    let stdin = if peer == Peer::Map { Stdio::piped() } else { Stdio::null() };
    let child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.map_err(|error| {
        let _ = std::fs::remove_dir_all(&folder); // nothing else will
        anyhow!("cannot start {name}: {error}; is it installed?")
    })?;
    let at = format!("127.0.0.1:{port}");
    let mut server = Server {
        name,
        system,
        data: Address::Tcp(at.clone()),
        socket: matches!(peer, Peer::Redis | Peer::Valkey)
            .then(|| Address::Unix(socket.to_string_lossy().into_owned())),
        admin: None,
        pid: child.id(),
        child: Some(child),
        folder: Some(folder),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(&at).is_err() {
        let ended = server.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended || Instant::now() > deadline {
            bail!("{name} did not listen on port {port}");
        }
        pause(Duration::from_millis(10));
    }
    Ok(server)
}

fn command(program: &str, pinned: bool) -> Command {
    if !(pinned && two_cores() && installed("taskset")) {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Binds the calling thread (the client) to the second core; returns whether it succeeded.
pub(super) fn pin_client() -> bool {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(1);
    two_cores() && rustix::thread::sched_setaffinity(None, &cores).is_ok() // some containers do not allow it
}

fn two_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2)
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.context("no free port")?.port())
}

fn new_folder() -> anyhow::Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("ebb-bench-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Sleeps between two readings of a process that cannot signal changes.
#[expect(clippy::disallowed_methods, reason = "changes in /proc cannot be awaited")]
pub(super) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_a_server_announces_itself_with_is_understood() {
        let line = "2026 INFO listening data=127.0.0.1:40001 admin=unix:/run/a.sock http=127.0.0.1:40003";
        let at = (Address::Tcp("127.0.0.1:40001".into()), Address::Unix("/run/a.sock".into()));
        assert_eq!(listening(line), Some(at));
        assert_eq!(listening("listening data=127.0.0.1:1"), None);
        assert_eq!(listening("starting"), None);
    }

    #[test]
    fn a_peer_is_started_or_taken_where_it_runs() {
        assert_eq!("redis".parse::<Against>().unwrap(), Against { peer: Peer::Redis, running: None, program: None });
        let running: Against = "memcached=127.0.0.1:11211@42".parse().unwrap();
        assert_eq!(running.running, Some((Address::Tcp("127.0.0.1:11211".into()), 42)));
        assert_eq!(running.describe(64), "memcached: running at 127.0.0.1:11211, process 42");
        let started: Against = "redis".parse().unwrap();
        let valkey: Against = "valkey".parse().unwrap();
        assert_eq!(valkey.describe(64), "valkey --save '' --appendonly no --bind 127.0.0.1");
        assert!("map".parse::<Against>().unwrap().describe(64).contains("jemalloc"));
        assert_eq!(started.describe(64), "redis --save '' --appendonly no --bind 127.0.0.1");
        let other: Against = "ebb=/tmp/ebb-before".parse().unwrap();
        assert_eq!(other.describe(64), "other ebb: /tmp/ebb-before");
        let taken: Vec<_> = ["keydb", "ebb", "redis=127.0.0.1:1", "redis=127.0.0.1:1@x"]
            .into_iter()
            .filter(|bad| bad.parse::<Against>().is_ok())
            .collect();
        assert!(taken.is_empty(), "{taken:?}");
    }

    #[test]
    fn this_process_can_be_observed_and_an_absent_one_is_named() {
        assert!(rss_bytes(std::process::id()).unwrap() > 1 << 20);
        assert!(rss_bytes(u32::MAX).unwrap_err().to_string().contains("4294967295"));
    }

    #[test]
    fn cpu_time_is_that_of_the_named_thread() {
        let busy = std::thread::Builder::new()
            .name("busy-for-a-test".to_owned())
            .spawn(|| while cpu_of_thread("busy-for-a-test") < Duration::from_millis(5) {});
        busy.unwrap().join().unwrap();
        assert_eq!(cpu_of_thread("no such thread"), Duration::ZERO);
    }
}
