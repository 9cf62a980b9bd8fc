//! Limits and usage of the container, read from cgroup files: v2, v1, and both at once.
//!
//! The limit that holds is the smallest of all ancestors that can be seen; inside a container that is often the root of
//! what is mounted, whatever /proc/self/cgroup says. What counts as used is what the kernel cannot take back: anonymous
//! and shared memory, sockets and kernel memory, less the slab it can reclaim. Page cache never counts: the kernel drops
//! it before it kills.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are. A test points it at fixtures.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Usually `/sys/fs/cgroup`.
    pub root: PathBuf,
    /// Usually `/proc/self/cgroup`.
    pub own: PathBuf,
}

impl Paths {
    /// The machine's, with another root if one is given.
    pub fn new(root: PathBuf) -> Self {
        Self { root, own: PathBuf::from("/proc/self/cgroup") }
    }
}

/// The memory controller this process is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    version: Version,
    /// From the process's own group to the root, those that exist.
    groups: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The smallest hard limit, and the file it stands in.
    pub limit: Option<(u64, &'static str)>,
    /// The smallest `memory.high`.
    pub high: Option<u64>,
    /// What counts against the limit, in bytes.
    pub used: Option<u64>,
    /// What the kernel counted.
    pub events: Events,
    /// How long somebody in the container waited for memory.
    pub pressure: Pressure,
    /// What is swapped out, in bytes.
    pub swap_bytes: u64,
    /// What is anonymous memory in huge pages, in bytes.
    pub huge_bytes: u64,
}

/// What the kernel counted in the process's own group; v1 counts kills alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Reclaimed although the group was below `memory.low`.
    pub low: u64,
    /// Held up at `memory.high`.
    pub high: u64,
    /// About to pass `memory.max`.
    pub max: u64,
    /// Out of memory at the limit.
    pub oom: u64,
    /// Killed for want of memory.
    pub oom_kills: u64,
}

/// How long somebody waited for memory: the line `some` of a pressure file, zeros where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// The share of the last 10 s, in percent.
    pub percent: f64,
    /// Since the group exists, in microseconds.
    pub total_micros: u64,
}

/// v1 writes a number of this size where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

impl Cgroup {
    /// Finds the controller; `None` when there is none to be seen.
    pub fn find(paths: &Paths) -> Option<Self> {
        let own = fs::read_to_string(&paths.own).unwrap_or_default();
        let entry = |wanted: &str| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                controllers.split(',').any(|controller| controller == wanted).then(|| path.to_owned())
            })
        };
        // A v1 memory controller, alone or beside an empty v2 tree, is the one that enforces.
        let v1 = entry("memory").map(|path| (Version::V1, paths.root.join("memory"), path, "memory.limit_in_bytes"));
        let v2 = entry("").map(|path| (Version::V2, paths.root.clone(), path, "memory.stat"));
        v1.into_iter().chain(v2).find_map(|(version, root, path, probe)| {
            let groups: Vec<_> =
                ancestors(&root, &path).into_iter().filter(|group| group.join(probe).exists()).collect();
            (!groups.is_empty()).then_some(Self { version, groups })
        })
    }

    /// Reads everything once. What cannot be read is left out; a file that holds nonsense counts as unreadable.
    ///
    /// # Errors
    /// When the process has no descriptor left to read with: then what a file says is unknown.
    pub fn read(&self) -> io::Result<Reading> {
        match self.version {
            Version::V1 => self.read_v1(),
            Version::V2 => self.read_v2(),
        }
    }

    fn read_v2(&self) -> io::Result<Reading> {
        let own = &self.groups[0];
        let stat = Fields::read(&own.join("memory.stat"))?;
        let reclaimable = stat.get("slab_reclaimable");
        let events = Fields::read(&own.join("memory.events"))?;
        Ok(Reading {
            limit: self.smallest("memory.max")?.map(|limit| (limit, "cgroup memory.max")),
            high: self.smallest("memory.high")?,
            used: stat.found.then(|| {
                let kernel =
                    stat.get("kernel").max(stat.get("slab") + stat.get("kernel_stack") + stat.get("pagetables"));
                stat.get("anon") + stat.get("shmem") + stat.get("sock") + kernel.saturating_sub(reclaimable)
            }),
            events: Events {
                low: events.get("low"),
                high: events.get("high"),
                max: events.get("max"),
                oom: events.get("oom"),
                oom_kills: events.get("oom_kill"),
            },
            pressure: pressure(&own.join("memory.pressure")),
            swap_bytes: number(&own.join("memory.swap.current"))?.unwrap_or(0),
            huge_bytes: stat.get("anon_thp"),
        })
    }

    fn read_v1(&self) -> io::Result<Reading> {
        let own = &self.groups[0];
        let stat = Fields::read(&own.join("memory.stat"))?;
        // The kernel's own minimum over the hierarchy, and ours for trees where it is missing.
        let hierarchical = Some(stat.get("hierarchical_memory_limit")).filter(|limit| *limit > 0 && *limit < NO_LIMIT);
        let limit = self.smallest("memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
        let smallest = limit.into_iter().chain(hierarchical).min();
        let kernel = number(&own.join("memory.kmem.usage_in_bytes"))?.unwrap_or(0);
        let or = |total: u64, own: u64| if total > 0 { total } else { own };
        let anonymous = or(stat.get("total_rss"), stat.get("rss"));
        let shared = or(stat.get("total_shmem"), stat.get("shmem"));
        Ok(Reading {
            limit: smallest.map(|limit| (limit, "cgroup memory.limit_in_bytes")),
            high: None,
            used: stat.found.then(|| anonymous + shared + kernel),
            events: Events {
                oom_kills: Fields::read(&own.join("memory.oom_control"))?.get("oom_kill"),
                ..Events::default()
            },
            pressure: pressure(&own.join("memory.pressure")),
            swap_bytes: or(stat.get("total_swap"), stat.get("swap")),
            huge_bytes: or(stat.get("total_rss_huge"), stat.get("rss_huge")),
        })
    }

    /// The smallest number that a file holds in any of the groups.
    fn smallest(&self, file: &str) -> io::Result<Option<u64>> {
        let numbers = self.groups.iter().map(|group| number(&group.join(file)));
        Ok(numbers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().min())
    }
}

/// The group and its ancestors, as far as they can be seen below the mount: a path that is not there (a namespace, a
/// bind mount of the own group) leaves the root.
fn ancestors(root: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let safe = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let mut groups: Vec<PathBuf> = match safe {
        true => relative.ancestors().map(|ancestor| root.join(ancestor)).collect(),
        false => Vec::new(),
    };
    if !groups.iter().any(|group| group == root) {
        groups.push(root.to_owned());
    }
    groups
}

/// The text of a file; `None` when it cannot be read.
///
/// # Errors
/// When there is no descriptor left to read it with.
pub(super) fn text(path: &Path) -> io::Result<Option<String>> {
    use rustix::io::Errno;
    let text = fs::read_to_string(path);
    let exhausted = |error: &io::Error| [Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(error));
    match text {
        Err(error) if exhausted(&error) => Err(error),
        text => Ok(text.ok()),
    }
}

/// A file with one number; `max` is none.
fn number(path: &Path) -> io::Result<Option<u64>> {
    Ok(text(path)?.and_then(|text| text.trim().parse().ok()))
}

/// A file of names and numbers, a pair a line.
#[derive(Debug, Default)]
struct Fields {
    found: bool,
    text: String,
}

impl Fields {
    fn read(path: &Path) -> io::Result<Self> {
        let text = text(path)?;
        Ok(Self { found: text.is_some(), text: text.unwrap_or_default() })
    }

    fn get(&self, name: &str) -> u64 {
        let pairs = self.text.lines().filter_map(|line| line.split_once(' '));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    }
}

/// The line `some` of a pressure file.
fn pressure(path: &Path) -> Pressure {
    let text = fs::read_to_string(path).unwrap_or_default();
    let some = text.lines().find(|line| line.starts_with("some")).unwrap_or_default();
    let word = |name: &str| some.split_whitespace().find_map(|word| word.strip_prefix(name));
    Pressure {
        percent: word("avg10=").and_then(|average| average.parse().ok()).unwrap_or(0.0),
        total_micros: word("total=").and_then(|total| total.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(own: &str, files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (name, text) in files.iter().chain([&("own", own)]) {
                let path = tree.0.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn read(&self) -> Option<Reading> {
            let root = self.0.path().to_owned();
            Cgroup::find(&Paths { own: root.join("own"), root }).map(|cgroup| cgroup.read().unwrap())
        }
    }

    #[test]
    fn v2_the_smallest_limit_of_all_ancestors_holds() {
        let tree = Tree::new(
            "0::/pod/ebb\n",
            &[
                ("pod/ebb/memory.max", "max\n"),
                ("pod/ebb/memory.high", "900\n"),
                (
                    "pod/ebb/memory.stat",
                    "anon 100\nanon_thp 64\nfile 5000\nkernel 50\nshmem 7\nsock 3\nslab_reclaimable 20\n",
                ),
                ("pod/ebb/memory.events", "low 0\noom 1\noom_kill 2\n"),
                ("pod/ebb/memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00\n"),
                ("pod/ebb/memory.swap.current", "5\n"),
                ("pod/memory.max", "1000\n"),
                ("pod/memory.stat", "anon 1\n"),
                ("memory.stat", "anon 1\n"),
            ],
        );
        let expected = Reading {
            limit: Some((1000, "cgroup memory.max")),
            high: Some(900),
            used: Some(140),
            events: Events { oom: 1, oom_kills: 2, ..Events::default() },
            pressure: Pressure { percent: 1.5, total_micros: 9 },
            swap_bytes: 5,
            huge_bytes: 64,
        };
        assert_eq!(tree.read(), Some(expected), "page cache (5000) does not count");
    }

    #[test]
    fn v2_inside_a_namespace_the_root_is_the_own_group() {
        let tree = Tree::new("0::/\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
        assert_eq!(tree.read().unwrap().limit, Some((4096, "cgroup memory.max")));
        let outside = Tree::new("0::/../other\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
        assert_eq!(outside.read().unwrap().limit, Some((4096, "cgroup memory.max")));
    }

    #[test]
    fn v1_no_limit_is_a_huge_number() {
        let none = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.stat", "rss 10\ncache 99\nhierarchical_memory_limit 9223372036854771712\n"),
        ];
        let tree = Tree::new("4:memory:/\n0::/\n", &none);
        assert_eq!(tree.read(), Some(Reading { used: Some(10), ..Reading::default() }));
    }

    #[test]
    fn v1_beside_an_empty_v2_tree_is_the_one_that_counts() {
        let tree = Tree::new(
            "12:cpu,cpuacct:/x\n4:memory:/docker/ab\n0::/docker/ab\n",
            &[
                ("memory/docker/ab/memory.limit_in_bytes", "67108864\n"),
                (
                    "memory/docker/ab/memory.stat",
                    "total_rss 1000\ntotal_cache 77\nhierarchical_memory_limit 33554432\n",
                ),
                ("memory/docker/ab/memory.kmem.usage_in_bytes", "24\n"),
                ("memory/docker/ab/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("unified/cgroup.procs", ""),
            ],
        );
        let reading = tree.read().unwrap();
        assert_eq!(reading.limit, Some((33_554_432, "cgroup memory.limit_in_bytes")), "the hierarchy's");
        assert_eq!((reading.used, reading.events.oom_kills), (Some(1024), 3));
    }

    #[test]
    fn absent_unreadable_or_nonsense_is_none_and_never_a_panic() {
        assert_eq!(Tree::new("", &[]).read(), None);
        assert_eq!(Tree::new("0::/a\n", &[]).read(), None);
        assert_eq!(Tree::new("garbage\n::\n0::", &[("memory.max", "1")]).read(), None);
        let nonsense = Tree::new("0::/\n", &[("memory.max", "lots\n"), ("memory.stat", "anon many\n\n x\n")]);
        assert_eq!(nonsense.read(), Some(Reading { used: Some(0), ..Reading::default() }));
    }

    #[test]
    fn the_machine_this_runs_on_can_be_read() {
        if let Some(cgroup) = Cgroup::find(&Paths::new("/sys/fs/cgroup".into())) {
            let reading = cgroup.read().unwrap();
            assert!(reading.used.is_some(), "{cgroup:?} {reading:?}");
        }
    }
}
