//! The sources of a memory limit.

/// The source of the effective memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSource {
    /// No limit was found; the default applies.
    #[default]
    Default,
    /// The hard limit of cgroup v2.
    MemoryMax,
    /// `memory.high` of cgroup v2, above which the kernel throttles.
    MemoryHigh,
    /// The hard limit of cgroup v1.
    LimitInBytes,
    /// The downward API's file with the limit.
    LimitFile,
    /// The memory request, while the node is short of memory.
    Request,
    /// The configuration.
    MaxMemory,
    /// The machine's memory, which is smaller than every limit found.
    Machine,
}

impl LimitSource {
    /// Name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default_memory",
            Self::MemoryMax => "cgroup memory.max",
            Self::MemoryHigh => "cgroup memory.high",
            Self::LimitInBytes => "cgroup memory.limit_in_bytes",
            Self::LimitFile => "limit file",
            Self::Request => "memory request",
            Self::MaxMemory => "max_memory",
            Self::Machine => "machine memory",
        }
    }

    /// Whether the limit applies to the whole container rather than to this process alone.
    pub fn is_of_container(self) -> bool {
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::LimitInBytes | Self::LimitFile | Self::Request => true,
            Self::Default | Self::MaxMemory | Self::Machine => false,
        }
    }
}
