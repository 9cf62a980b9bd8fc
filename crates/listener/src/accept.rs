//! The accept loop, which retries after system errors.

use crate::RateLimit;
use std::io;
use std::time::Duration;

/// How long a listener waits after it failed to accept: most likely no file descriptor is left.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Minimum interval between log lines about failures.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Accepts connections of one listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: &'static str,
    failures: RateLimit,
}

impl Acceptor {
    /// An acceptor that logs under this listener name.
    pub fn new(listener: &'static str) -> Self {
        Self { listener, failures: RateLimit::new(WARN_EVERY) }
    }

    /// Returns the next connection. Logs a failure to accept, and retries after a pause.
    pub async fn next<C, F>(&mut self, mut accept: impl FnMut() -> F) -> C
    where
        F: Future<Output = io::Result<C>>,
    {
        loop {
            match accept().await {
                Ok(connection) => return connection,
                Err(error) => {
                    if let Some(suppressed) = self.failures.due() {
                        tracing::warn!(listener = self.listener, %error, suppressed, "failed to accept connection");
                    }
                    back_off().await;
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "no event reports a free file descriptor")]
async fn back_off() {
    tokio::time::sleep(BACK_OFF).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accepts_again_after_failures() {
        let mut tries = 0;
        let accept = || {
            tries += 1;
            std::future::ready(if tries < 4 { Err(io::Error::other("too many open files")) } else { Ok(tries) })
        };
        let began = tokio::time::Instant::now();
        assert_eq!(Acceptor::new("test").next(accept).await, 4);
        assert_eq!(began.elapsed(), 3 * BACK_OFF, "a pause after each failure");
    }
}
