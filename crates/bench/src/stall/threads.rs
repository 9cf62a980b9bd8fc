//! Threads that work until they are stopped.

use anyhow::anyhow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Threads that run until they are stopped, also if this value is dropped early.
pub(super) struct Threads<T> {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<T>>,
}

impl<T: Send + 'static> Threads<T> {
    pub(super) fn start(number: u64, work: impl Fn(&AtomicBool) -> T + Clone + Send + 'static) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let start = |_| {
            let (work, stopping) = (work.clone(), stopping.clone());
            std::thread::spawn(move || work(&stopping))
        };
        Self { threads: (0..number).map(start).collect(), stopping }
    }

    pub(super) fn stop(mut self) -> anyhow::Result<Vec<T>> {
        self.stopping.store(true, Ordering::Relaxed);
        let threads = self.threads.drain(..);
        threads.map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))).collect()
    }
}

impl<T> Drop for Threads<T> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
