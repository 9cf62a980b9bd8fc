//! The allocator of Ebb's programs and its settings.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings: the variable that it reads before its first allocation, a C string. Freed request memory goes
/// back to the operating system after one second, from a background thread, so that a burst of calls is not mistaken
/// for drift: 10 s after 10,000 calls in flight, 4 MB of it remain; with the defaults (10 s, no thread) 92 MB
/// (`ebb-bench serve`). Until then any freed extent may serve a smaller request. By default, an extent of some
/// megabytes serves none of the 32 KiB buffers in which requests arrive, and each large request maps new pages in
/// addition to the freed ones. Huge pages are off, too: the allocator maps memory before `main` can turn them off for
/// the process. The settings are in the source and not in the build's environment, so they apply to every build.
#[used]
#[expect(unsafe_code, reason = "the name is jemalloc's own, and the type is its `const char *`")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 108] =
    b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2,lg_extent_max_active_fit:40,thp:never\0";
