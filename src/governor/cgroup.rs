//! Limits and usage of the container, read from cgroup files: v2, v1, and both at once.
//!
//! The memory controller belongs to one hierarchy: the one whose mount shows a limit file in the process's group or an
//! ancestor. Other mounts, and the names in /proc/self/cgroup, prove nothing. The effective limit is the smallest one
//! of all visible ancestors, and is compared with the usage of its own group. If the mount does not show the process's
//! group under its name (a namespace, a bind mount of the own group), the group at the mount point counts as the
//! process's own. Usage is the memory that the kernel cannot reclaim: anonymous and shared memory, sockets and kernel
//! memory without reclaimable slab. Page cache never counts: the kernel drops it before it kills.

use super::limit::LimitSource;
use super::mounts::{self, Mount, Paths, Version};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The memory controller this process is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    version: Version,
    /// The existing groups from the process's own to the root.
    groups: Vec<PathBuf>,
}

/// One reading of the controller's files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The smallest hard limit, and its source.
    pub limit: Option<(u64, LimitSource)>,
    /// The smallest `memory.high`.
    pub high: Option<u64>,
    /// Memory charged against the limit, in bytes: the usage of the group that has the limit.
    pub used: Option<u64>,
    /// Usage of the process's own group, in bytes.
    pub own_used: Option<u64>,
    /// Memory events counted by the kernel.
    pub events: Events,
    /// Memory pressure in the container.
    pub pressure: Pressure,
    /// Swapped-out memory, in bytes.
    pub swap_bytes: u64,
    /// Anonymous memory in huge pages, in bytes.
    pub huge_bytes: u64,
}

/// Memory events of the process's own group, counted by the kernel; v1 counts only kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Reclaims although the group was below `memory.low`.
    pub low: u64,
    /// Throttled at `memory.high`.
    pub high: u64,
    /// Usage was about to exceed `memory.max`.
    pub max: u64,
    /// Out of memory at the limit.
    pub oom: u64,
    /// OOM kills.
    pub oom_kills: u64,
}

/// Stalls on memory: the line `some` of a pressure file, zeros without such a file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Share of the last 10 s, in percent.
    pub percent: f64,
    /// Total since the creation of the group, in microseconds.
    pub total_micros: u64,
}

/// v1 shows a number of at least this size if there is no limit.
const NO_LIMIT: u64 = 1 << 60;

impl Cgroup {
    /// Finds the controller; `None` if none is visible.
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
        // min_by_key returns the first of several equal candidates.
        candidates.min_by_key(|candidate| candidate.rank()).map(|candidate| candidate.cgroup)
    }

    /// Reads all files once. Skips files that are unreadable or malformed.
    ///
    /// # Errors
    /// If the process has no file descriptor left, so that the content of a file is unknown.
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
        // The kernel's minimum over the hierarchy, and our own for trees without it.
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

    /// The nearest group with the controller: a group without it is charged to its ancestor.
    fn own(&self) -> &Path {
        self.groups.iter().find(|group| group.join("memory.stat").exists()).unwrap_or(&self.groups[0])
    }

    /// The group with the smallest limit; its usage includes sibling groups. Without a visible limit, the process's own
    /// group (v1 may show the limit of an invisible ancestor).
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

    /// The smallest number in this file over all groups.
    fn smallest(&self, file: &str) -> io::Result<Option<u64>> {
        let numbers = self.groups.iter().map(|group| number(&group.join(file)));
        Ok(numbers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().min())
    }
}

/// A mount that may belong to the controller.
struct Candidate {
    cgroup: Cgroup,
    /// Whether the mount shows the process's group under the name in /proc/self/cgroup.
    is_named: bool,
    has_limits: bool,
}

impl Candidate {
    /// `None` if the mount shows no memory file.
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

/// The text of a file; `None` if it cannot be read.
///
/// # Errors
/// If the process has no file descriptor left.
pub(super) fn text(path: &Path) -> io::Result<Option<String>> {
    use rustix::io::Errno;
    let text = fs::read_to_string(path);
    let exhausted = |error: &io::Error| [Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(error));
    match text {
        Err(error) if exhausted(&error) => Err(error),
        text => Ok(text.ok()),
    }
}

/// The number in a file; `None` for `max`.
fn number(path: &Path) -> io::Result<Option<u64>> {
    Ok(text(path)?.and_then(|text| text.trim().parse().ok()))
}

/// A file of names and numbers, one pair per line.
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
mod tests;
