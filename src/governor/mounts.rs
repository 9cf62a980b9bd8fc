//! Where the memory controller's files are mounted, from `/proc/self/mountinfo` (see proc_pid_mountinfo(5)).

use std::fs;
use std::path::{Path, PathBuf};

/// Paths of the files. Tests use fixtures.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Directory of the mounted hierarchies: `memory` (v1), the directory itself and `unified` (v2). `None`: from
    /// `mountinfo`.
    pub root: Option<PathBuf>,
    /// Usually `/proc/self/cgroup`.
    pub own: PathBuf,
    /// Usually `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
}

impl Paths {
    /// The paths of the machine, with another root if `root` is set.
    pub fn new(root: Option<PathBuf>) -> Self {
        Self { root, own: "/proc/self/cgroup".into(), mountinfo: "/proc/self/mountinfo".into() }
    }
}

/// Version of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    /// The files that hold limits.
    pub(super) fn limits(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["memory.limit_in_bytes"],
            Self::V2 => &["memory.max", "memory.high"],
        }
    }
}

/// A mounted hierarchy that may hold the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) version: Version,
    pub(super) point: PathBuf,
    /// The group of the hierarchy that appears at the mount point.
    root: String,
}

impl Mount {
    fn new(version: Version, point: PathBuf) -> Self {
        Self { version, point, root: "/".to_owned() }
    }

    /// Path of a group relative to the mount point. `None` if the mount does not show it: it shows another part of the
    /// hierarchy, or a part that has another name in the cgroup namespace.
    pub(super) fn below(&self, group: &str) -> Option<PathBuf> {
        let relative = match self.root.as_str() {
            "/" => group,
            root => group.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        let relative = Path::new(relative.trim_start_matches('/'));
        let is_below = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        is_below.then(|| relative.to_owned())
    }
}

/// Every mount that may hold the controller, in the order of the table.
pub(super) fn find(paths: &Paths) -> Vec<Mount> {
    let usual = Path::new("/sys/fs/cgroup");
    match &paths.root {
        Some(root) => below(root),
        None => match fs::read_to_string(&paths.mountinfo) {
            Ok(table) => table.lines().filter_map(parse).collect(),
            Err(_) => below(usual),
        },
    }
}

/// The possible mounts below a directory.
fn below(root: &Path) -> Vec<Mount> {
    vec![
        Mount::new(Version::V1, root.join("memory")),
        Mount::new(Version::V2, root.to_owned()),
        Mount::new(Version::V2, root.join("unified")),
    ]
}

/// One line: `36 35 98:0 /root /point options tags - type source super-options`.
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescaped(mount.next()?), unescaped(mount.next()?));
    let mut file_system = file_system.split(' ');
    let (kind, options) = (file_system.next()?, file_system.nth(1).unwrap_or_default());
    let version = match kind {
        "cgroup2" => Version::V2,
        "cgroup" if options.split(',').any(|option| option == "memory") => Version::V1,
        _ => return None,
    };
    Some(Mount { version, point: point.into(), root })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_file_systems_and_incomplete_lines_are_skipped() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "31 23 0:27 /docker/ab /cg\\040v1/mem ro,relatime - cgroup cgroup rw,cpu,memory";
        assert_eq!(parse(v2), Some(Mount::new(Version::V2, "/sys/fs/cgroup".into())));
        let mount = parse(v1).unwrap();
        assert_eq!((mount.version, &*mount.point), (Version::V1, Path::new("/cg v1/mem")));
        let others = ["", "a - b", "31 23 0:27 / /x rw - cgroup cgroup rw,cpuset", "31 23 0:27 / /x rw - tmpfs t rw"];
        assert_eq!(others.map(|other| (other, parse(other))), others.map(|other| (other, None)));
    }

    #[test]
    fn the_path_of_a_group_is_relative_to_the_mount() {
        let mount = |root: &str| Mount { root: root.to_owned(), ..Mount::new(Version::V2, "/m".into()) };
        let below = |root: &str, group: &str| mount(root).below(group).map(|path| path.display().to_string());
        assert_eq!(below("/", "/pod/ebb").as_deref(), Some("pod/ebb"));
        assert_eq!(below("/pod", "/pod/ebb").as_deref(), Some("ebb"));
        assert_eq!(below("/pod", "/pod").as_deref(), Some(""));
        assert_eq!(below("/pod", "/pods/ebb"), None);
        assert_eq!(below("/", "/../other"), None, "outside the namespace");
        assert_eq!(below("/../..", "/"), None);
    }
}
