//! Where a limit comes from.

/// Where the limit that is obeyed comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSource {
    /// Nowhere: no limit was found.
    #[default]
    Default,
    /// The hard limit of cgroup v2.
    MemoryMax,
    /// The threshold of cgroup v2 above which the kernel throttles.
    MemoryHigh,
    /// The hard limit of cgroup v1.
    LimitInBytes,
    /// The file of the downward API that holds the limit.
    LimitFile,
    /// The memory request, while the node is short of memory.
    Request,
    /// The configuration.
    MaxMemory,
    /// The machine's memory: every limit that was found is larger.
    Machine,
}

impl LimitSource {
    /// The stable name, as in metrics.
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

    /// Whether it holds for everything in the container, and not for this process alone.
    pub fn is_of_container(self) -> bool {
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::LimitInBytes | Self::LimitFile | Self::Request => true,
            Self::Default | Self::MaxMemory | Self::Machine => false,
        }
    }
}
