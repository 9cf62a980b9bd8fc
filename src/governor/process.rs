//! Memory of the process, and the limit file.

use super::cgroup::text;
use std::io;
use std::path::Path;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Reads the resident set size of this process.
#[derive(Debug)]
pub(super) struct Process {
    system: System,
    pid: Pid,
}

impl Process {
    /// A reader for this process.
    pub(super) fn own() -> Self {
        Self { system: System::new(), pid: Pid::from_u32(std::process::id()) }
    }

    /// Resident set size, in bytes; 0 if /proc cannot be read.
    pub(super) fn rss_bytes(&mut self) -> u64 {
        let memory = ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, memory);
        self.system.process(self.pid).map_or(0, |process| process.memory())
    }
}

/// The number in a file of the downward API, in bytes. `None` if the file has no such number.
///
/// # Errors
/// If the process has no file descriptor left.
pub(super) fn limit_file(path: &Path) -> io::Result<Option<u64>> {
    Ok(text(path)?.and_then(|text| text.trim().parse().ok()).filter(|limit| *limit > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_size_matches_proc() {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        let rss = Process::own().rss_bytes();
        assert!(rss.abs_diff(pages * 4096) < 8 << 20, "{rss} against {pages} pages");
    }

    #[test]
    fn a_limit_file_holds_one_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limit");
        assert_eq!(limit_file(&path).unwrap(), None);
        let cases = [("67108864\n", Some(67_108_864)), ("0", None), ("64Mi", None), ("", None)];
        let found = cases.map(|(text, _)| {
            std::fs::write(&path, text).unwrap();
            (text, limit_file(&path).unwrap())
        });
        assert_eq!(found, cases);
    }
}
