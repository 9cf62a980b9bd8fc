//! Limits and usage of the container, read from cgroup files: v2, v1, and both at once.
//!
//! The memory controller belongs to one hierarchy. It is the one whose mount shows the limit's own file, in the process's
//! group or an ancestor: what else is mounted, or named in /proc/self/cgroup, proves nothing. The limit that holds is the
//! smallest of all ancestors that can be seen, and is held against what is used in the group it stands at; where a mount
//! does not show the process's group under its name (a namespace, a bind mount of the own group), that is the group at the
//! mount point. What counts as used is what the kernel cannot take back: anonymous and shared memory, sockets and kernel
//! memory, less the slab it can reclaim. Page cache never counts: the kernel drops it before it kills.

use super::limit::LimitSource;
use super::mounts::{self, Mount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are. A test points it at fixtures.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where the hierarchies are mounted: `memory` (v1), the directory itself and `unified` (v2). `None`: as `mountinfo` says.
    pub root: Option<PathBuf>,
    /// Usually `/proc/self/cgroup`.
    pub own: PathBuf,
    /// Usually `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
}

impl Paths {
    /// The machine's, with another root if one is given.
    pub fn new(root: Option<PathBuf>) -> Self {
        Self { root, own: "/proc/self/cgroup".into(), mountinfo: "/proc/self/mountinfo".into() }
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
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    /// The files that hold limits.
    fn limits(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["memory.limit_in_bytes"],
            Self::V2 => &["memory.max", "memory.high"],
        }
    }
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The smallest hard limit, and where it stands.
    pub limit: Option<(u64, LimitSource)>,
    /// The smallest `memory.high`.
    pub high: Option<u64>,
    /// What counts against the limit, in bytes: what the group uses that it stands at.
    pub used: Option<u64>,
    /// What the process's own group uses, in bytes.
    pub own_used: Option<u64>,
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
        let group = |wanted: &str| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                id.parse::<u32>().ok()?;
                controllers.split(',').any(|controller| controller == wanted).then_some(path)
            })
        };
        let candidates = mounts::find(paths).into_iter().filter_map(|mount| {
            let group = match mount.version {
                Version::V1 => group("memory")?,
                Version::V2 => group("")?,
            };
            Candidate::new(&mount, group)
        });
        // The first of the best.
        candidates.min_by_key(|candidate| candidate.rank()).map(|candidate| candidate.cgroup)
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
        let own = self.own();
        let stat = Fields::read(&own.join("memory.stat"))?;
        let used = |stat: &Fields| {
            let kernel = stat.get("kernel").max(stat.get("slab") + stat.get("kernel_stack") + stat.get("pagetables"));
            let kernel = kernel.saturating_sub(stat.get("slab_reclaimable"));
            stat.found.then(|| stat.get("anon") + stat.get("shmem") + stat.get("sock") + kernel)
        };
        let events = Fields::read(&own.join("memory.events"))?;
        Ok(Reading {
            limit: self.smallest("memory.max")?.map(|limit| (limit, LimitSource::MemoryMax)),
            high: self.smallest("memory.high")?,
            used: used(&Fields::read(&self.limiting()?.join("memory.stat"))?),
            own_used: used(&stat),
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
        let (own, limiting) = (self.own(), self.limiting()?);
        let stat = Fields::read(&own.join("memory.stat"))?;
        // The kernel's own minimum over the hierarchy, and ours for trees where it is missing.
        let hierarchical = Some(stat.get("hierarchical_memory_limit")).filter(|limit| *limit > 0 && *limit < NO_LIMIT);
        let limit = self.smallest("memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
        let smallest = limit.into_iter().chain(hierarchical).min();
        let or = |total: u64, own: u64| if total > 0 { total } else { own };
        let used = |group: &Path| -> io::Result<Option<u64>> {
            let stat = Fields::read(&group.join("memory.stat"))?;
            let kernel = number(&group.join("memory.kmem.usage_in_bytes"))?.unwrap_or(0);
            let anonymous = or(stat.get("total_rss"), stat.get("rss"));
            let shared = or(stat.get("total_shmem"), stat.get("shmem"));
            Ok(stat.found.then(|| anonymous + shared + kernel))
        };
        Ok(Reading {
            limit: smallest.map(|limit| (limit, LimitSource::LimitInBytes)),
            high: None,
            used: used(limiting)?,
            own_used: used(own)?,
            events: Events {
                oom_kills: Fields::read(&own.join("memory.oom_control"))?.get("oom_kill"),
                ..Events::default()
            },
            pressure: pressure(&own.join("memory.pressure")),
            swap_bytes: or(stat.get("total_swap"), stat.get("swap")),
            huge_bytes: or(stat.get("total_rss_huge"), stat.get("rss_huge")),
        })
    }

    /// The nearest group that is accounted for: a group without the controller is charged to its ancestor.
    fn own(&self) -> &Path {
        self.groups.iter().find(|group| group.join("memory.stat").exists()).unwrap_or(&self.groups[0])
    }

    /// The group with the smallest limit; its usage includes that of sibling groups. The process's own without a limit that
    /// can be seen (v1 may tell of one that an invisible ancestor has).
    fn limiting(&self) -> io::Result<&Path> {
        let mut smallest = (NO_LIMIT, self.own());
        for group in self.groups.iter().filter(|group| group.join("memory.stat").exists()) {
            for file in self.version.limits() {
                let limit = number(&group.join(file))?.unwrap_or(NO_LIMIT);
                if limit < smallest.0 {
                    smallest = (limit, group);
                }
            }
        }
        Ok(smallest.1)
    }

    /// The smallest number that a file holds in any of the groups.
    fn smallest(&self, file: &str) -> io::Result<Option<u64>> {
        let numbers = self.groups.iter().map(|group| number(&group.join(file)));
        Ok(numbers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().min())
    }
}

/// A mount that may be the controller's.
struct Candidate {
    cgroup: Cgroup,
    /// The mount shows the process's group under the name that the process knows it by.
    is_named: bool,
    has_limits: bool,
}

impl Candidate {
    /// `None` when the mount shows no memory file.
    fn new(mount: &Mount, group: &str) -> Option<Self> {
        let version = mount.version;
        let below = mount.below(group);
        let is_named = below.is_some();
        let below = below.unwrap_or_default();
        let has = |group: &Path, files: &[&str]| files.iter().any(|file| group.join(file).exists());
        let is_group = |group: &PathBuf| has(group, version.limits()) || has(group, &["memory.stat"]);
        let ancestors = below.ancestors().map(|ancestor| mount.point.join(ancestor));
        let groups: Vec<PathBuf> = ancestors.filter(is_group).collect();
        let has_limits = groups.iter().any(|group| has(group, version.limits()));
        (!groups.is_empty()).then_some(Self { cgroup: Cgroup { version, groups }, is_named, has_limits })
    }

    fn rank(&self) -> (bool, bool) {
        (!self.has_limits, !self.is_named)
    }
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

        fn paths(&self) -> Paths {
            let path = |name: &str| self.0.path().join(name);
            Paths { root: Some(path("")), own: path("own"), mountinfo: path("mountinfo") }
        }

        fn read(&self) -> Option<Reading> {
            Cgroup::find(&self.paths()).map(|cgroup| cgroup.read().unwrap())
        }

        /// What is found through a table of mounts, given as root, mount point and type with its options.
        fn mounted(&self, mounts: &[(&str, &str, &str)]) -> Option<Reading> {
            let directory = self.0.path().display();
            let line = |(root, point, kind): &(&str, &str, &str)| {
                format!("30 23 0:26 {root} {directory}{point} ro - {kind}\n")
            };
            let other = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
            fs::write(self.0.path().join("mountinfo"), other + &mounts.iter().map(line).collect::<String>()).unwrap();
            Cgroup::find(&Paths { root: None, ..self.paths() }).map(|cgroup| cgroup.read().unwrap())
        }
    }

    const V2: &str = "cgroup2 cgroup2 rw";
    const MEMORY: &str = "cgroup cgroup rw,memory";
    const SYSTEMD: &str = "cgroup cgroup rw,xattr,name=systemd";
    const NONE: &str = "9223372036854771712\n";

    /// A real layout: /proc/self/cgroup, the mounts, the files, and what is to be found.
    struct Layout {
        name: &'static str,
        own: &'static str,
        mounts: &'static [(&'static str, &'static str, &'static str)],
        files: &'static [(&'static str, &'static str)],
        limit: Option<(u64, LimitSource)>,
        high: Option<u64>,
        used: Option<u64>,
    }

    const LAYOUTS: &[Layout] = &[
        Layout {
            name: "v2, a container with a namespace of its own",
            own: "0::/\n",
            mounts: &[("/", "/cg", V2)],
            files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v2, a container without a namespace: its group is mounted",
            own: "0::/kubepods/pod7/c1\n",
            mounts: &[("/kubepods/pod7/c1", "/cg", V2)],
            files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v2, nested groups in a container whose group is mounted",
            own: "0::/kubepods/pod7/c1/inner\n",
            mounts: &[("/kubepods/pod7/c1", "/cg", V2)],
            files: &[
                ("cg/memory.max", "4096\n"),
                ("cg/memory.stat", "anon 9\n"),
                ("cg/inner/memory.max", "max\n"),
                ("cg/inner/memory.high", "2048\n"),
                ("cg/inner/memory.stat", "anon 5\n"),
            ],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: Some(2048),
            used: Some(5),
        },
        Layout {
            name: "v2, a service of systemd under a slice with the limit",
            own: "0::/system.slice/ebb.service\n",
            mounts: &[("/", "/cg", V2)],
            files: &[
                ("cg/memory.stat", "anon 1\n"),
                ("cg/system.slice/memory.max", "8192\n"),
                ("cg/system.slice/memory.stat", "anon 3\n"),
                ("cg/system.slice/ebb.service/memory.max", "max\n"),
                ("cg/system.slice/ebb.service/memory.stat", "anon 2\n"),
            ],
            limit: Some((8192, LimitSource::MemoryMax)),
            high: None,
            used: Some(3),
        },
        Layout {
            name: "v2, a group without the controller is charged to its ancestor",
            own: "0::/pod/leaf\n",
            mounts: &[("/", "/cg", V2)],
            files: &[
                ("cg/pod/memory.max", "4096\n"),
                ("cg/pod/memory.stat", "anon 7\n"),
                ("cg/pod/leaf/cgroup.procs", "1\n"),
            ],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(7),
        },
        Layout {
            name: "v2, memory.stat is hidden and the limit is not",
            own: "0::/\n",
            mounts: &[("/", "/cg", V2)],
            files: &[("cg/memory.max", "4096\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: None,
        },
        Layout {
            name: "v2, the root group of a machine has no limit",
            own: "0::/\n",
            mounts: &[("/", "/cg", V2)],
            files: &[("cg/memory.stat", "anon 9\n")],
            limit: None,
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v2 at another place, with a space in its name",
            own: "0::/\n",
            mounts: &[("/", "/c\\040g", V2)],
            files: &[("c g/memory.max", "4096\n"), ("c g/memory.stat", "anon 9\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v2, the node's tree is mounted beside the container's",
            own: "0::/\n",
            mounts: &[("/../..", "/host", V2), ("/", "/cg", V2)],
            files: &[("host/memory.stat", "anon 1000\n"), ("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v2, the group of another container is mounted first",
            own: "0::/pod/own\n",
            mounts: &[("/pod/other", "/other", V2), ("/pod/own", "/cg", V2)],
            files: &[
                ("other/memory.max", "64\n"),
                ("other/memory.stat", "anon 1\n"),
                ("cg/memory.max", "4096\n"),
                ("cg/memory.stat", "anon 9\n"),
            ],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v1, a container without a namespace",
            own: "12:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n",
            mounts: &[("/docker/ab", "/cg/cpu", "cgroup cgroup rw,cpu"), ("/docker/ab", "/cg/memory", MEMORY)],
            files: &[("cg/memory/memory.limit_in_bytes", "4096\n"), ("cg/memory/memory.stat", "total_rss 9\n")],
            limit: Some((4096, LimitSource::LimitInBytes)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "v1, memory is mounted together with other controllers",
            own: "4:cpu,memory:/a/b\n",
            mounts: &[("/", "/cg/both", "cgroup cgroup rw,cpu,memory")],
            files: &[
                ("cg/both/memory.limit_in_bytes", NONE),
                ("cg/both/memory.stat", "total_rss 100\n"),
                ("cg/both/a/memory.limit_in_bytes", "4096\n"),
                ("cg/both/a/memory.stat", "total_rss 10\n"),
                ("cg/both/a/b/memory.limit_in_bytes", NONE),
                ("cg/both/a/b/memory.stat", "total_rss 9\n"),
            ],
            limit: Some((4096, LimitSource::LimitInBytes)),
            high: None,
            used: Some(10),
        },
        Layout {
            name: "hybrid, memory on v1 beside an empty v2 tree",
            own: "4:memory:/docker/ab\n1:name=systemd:/docker/ab\n0::/docker/ab\n",
            mounts: &[("/", "/cg/unified", V2), ("/", "/cg/systemd", SYSTEMD), ("/", "/cg/memory", MEMORY)],
            files: &[
                ("cg/unified/docker/ab/cgroup.procs", "1\n"),
                ("cg/memory/docker/ab/memory.limit_in_bytes", "4096\n"),
                ("cg/memory/docker/ab/memory.stat", "total_rss 9\n"),
            ],
            limit: Some((4096, LimitSource::LimitInBytes)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "hybrid, memory on v2 beside v1 controllers",
            own: "2:cpu:/pod\n1:name=systemd:/pod\n0::/pod\n",
            mounts: &[("/", "/cg/cpu", "cgroup cgroup rw,cpu"), ("/", "/cg/unified", V2)],
            files: &[("cg/unified/pod/memory.max", "4096\n"), ("cg/unified/pod/memory.stat", "anon 9\n")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "hybrid, the v1 controller is named and hidden, v2 has the files",
            own: "4:memory:/pod\n0::/\n",
            mounts: &[("/", "/cg", V2), ("/pod", "/cg/memory", MEMORY)],
            files: &[("cg/memory.max", "4096\n"), ("cg/memory.stat", "anon 9\n"), ("cg/memory/cgroup.procs", "")],
            limit: Some((4096, LimitSource::MemoryMax)),
            high: None,
            used: Some(9),
        },
        Layout {
            name: "no cgroups are mounted",
            own: "0::/\n",
            mounts: &[],
            files: &[("cg/memory.max", "4096\n")],
            limit: None,
            high: None,
            used: None,
        },
    ];

    #[test]
    fn the_limit_is_found_in_every_layout() {
        for Layout { name, own, mounts, files, limit, high, used } in LAYOUTS {
            let found = Tree::new(own, files).mounted(mounts).unwrap_or_default();
            assert_eq!((found.limit, found.high, found.used), (*limit, *high, *used), "{name}");
        }
    }

    #[test]
    fn without_a_table_of_mounts_the_usual_place_is_read() {
        let tree = Tree::new("0::/\n", &[]);
        let paths = Paths { root: None, mountinfo: "/does/not/exist".into(), ..tree.paths() };
        assert!(mounts::find(&paths).iter().any(|mount| mount.point == Path::new("/sys/fs/cgroup")));
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
            limit: Some((1000, LimitSource::MemoryMax)),
            high: Some(900),
            used: Some(140),
            own_used: Some(140),
            events: Events { oom: 1, oom_kills: 2, ..Events::default() },
            pressure: Pressure { percent: 1.5, total_micros: 9 },
            swap_bytes: 5,
            huge_bytes: 64,
        };
        assert_eq!(tree.read(), Some(expected), "page cache (5000) does not count");
    }

    #[test]
    fn the_limit_of_an_ancestor_is_held_against_what_all_below_it_use() {
        let v2 = [
            ("pod/ebb/memory.max", "max\n"),
            ("pod/ebb/memory.stat", "anon 100\n"),
            ("pod/memory.max", "1000\n"),
            ("pod/memory.stat", "anon 700\nfile 5000\n"),
            ("memory.stat", "anon 9000\n"),
        ];
        let found = Tree::new("0::/pod/ebb\n", &v2).read().unwrap();
        assert_eq!((found.limit, found.used), (Some((1000, LimitSource::MemoryMax)), Some(700)));
        let v1 = [
            ("memory/pod/ebb/memory.limit_in_bytes", "2000\n"),
            ("memory/pod/ebb/memory.stat", "total_rss 100\nhierarchical_memory_limit 1000\n"),
            ("memory/pod/memory.limit_in_bytes", "1000\n"),
            ("memory/pod/memory.stat", "rss 1\ntotal_rss 700\nhierarchical_memory_limit 1000\n"),
        ];
        let found = Tree::new("4:memory:/pod/ebb\n", &v1).read().unwrap();
        assert_eq!((found.limit, found.used), (Some((1000, LimitSource::LimitInBytes)), Some(700)));
    }

    #[test]
    fn v2_inside_a_namespace_the_root_is_the_own_group() {
        let tree = Tree::new("0::/\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
        assert_eq!(tree.read().unwrap().limit, Some((4096, LimitSource::MemoryMax)));
        let outside = Tree::new("0::/../other\n", &[("memory.max", "4096\n"), ("memory.stat", "anon 9\n")]);
        assert_eq!(outside.read().unwrap().limit, Some((4096, LimitSource::MemoryMax)));
    }

    #[test]
    fn v1_no_limit_is_a_huge_number() {
        let none = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.stat", "rss 10\ncache 99\nhierarchical_memory_limit 9223372036854771712\n"),
        ];
        let tree = Tree::new("4:memory:/\n0::/\n", &none);
        assert_eq!(tree.read(), Some(Reading { used: Some(10), own_used: Some(10), ..Reading::default() }));
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
        assert_eq!(reading.limit, Some((33_554_432, LimitSource::LimitInBytes)), "the hierarchy's");
        assert_eq!((reading.used, reading.events.oom_kills), (Some(1024), 3));
    }

    #[test]
    fn absent_unreadable_or_nonsense_is_none_and_never_a_panic() {
        assert_eq!(Tree::new("", &[]).read(), None);
        assert_eq!(Tree::new("0::/a\n", &[]).read(), None);
        assert_eq!(Tree::new("garbage\n::\n", &[("memory.max", "1")]).read(), None);
        let nonsense = Tree::new("0::/\n", &[("memory.max", "lots\n"), ("memory.stat", "anon many\n\n x\n")]);
        assert_eq!(nonsense.read(), Some(Reading { used: Some(0), own_used: Some(0), ..Reading::default() }));
    }

    #[test]
    fn the_machine_this_runs_on_can_be_read() {
        if let Some(cgroup) = Cgroup::find(&Paths::new(None)) {
            let reading = cgroup.read().unwrap();
            assert!(reading.used.is_some(), "{cgroup:?} {reading:?}");
        }
    }
}
