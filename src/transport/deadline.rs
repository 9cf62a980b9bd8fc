//! The deadline of a call (`grpc-timeout`), which the server enforces too: it ends work for a caller that no longer
//! waits.

use http::HeaderValue;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline of a call.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    /// Created when the call first has to wait; most calls never do.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// The header with the timeout.
    pub(super) const HEADER: &str = "grpc-timeout";

    /// The deadline of a call that begins now with this header. An invalid timeout is ignored.
    pub(super) fn of(header: &HeaderValue) -> Self {
        let timeout = timeout(header.as_bytes());
        Self { at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), timer: None }
    }

    /// Time of the deadline, if there is one.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Ready when it has passed.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}

/// Parses a gRPC timeout: one to eight digits and a unit.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit() {
        let cases = [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("100000000m", None),
            ("m", None),
            ("-1S", None),
            ("1s", None),
            ("", None),
        ];
        assert_eq!(cases.map(|(text, _)| (text, timeout(text.as_bytes()))), cases);
    }
}
