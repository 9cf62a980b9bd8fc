//! One connection: HTTP/2 by h2, our services called directly, and a watch on its progress.
//!
//! h2 bounds neither how long a connection may do nothing nor what it may pin. The watch does, once a second: a
//! handshake that does not come, a connection without calls, and one whose bytes in flight do not move are ended. Only
//! connections with a real problem pay for it.

use super::Limits;
use super::call::{Calls, Watchers};
use super::drain::{Stage, reached};
use super::http2::{Accepting, Dispatch};
use super::in_flight::{InFlight, Share};
use super::services::Services;
use super::stuck::Stuck;
use super::watched::{Moved, Watched};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, timeout};

/// The client's preface and an empty SETTINGS frame: less is no handshake.
const HANDSHAKE_BYTES: u64 = 24 + 9;

/// Serves a connection until either side ends it.
pub(super) async fn serve<S>(
    stream: S,
    services: Services,
    in_flight: Arc<InFlight>,
    limits: Limits,
    watchers: Watchers,
    keepalive: bool,
    mut drain: watch::Receiver<Stage>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opened = Instant::now();
    let moved = Arc::new(Moved::default());
    let share = Share::new(in_flight, watchers.lane.clone());
    let calls = Calls::new(watchers, drain.clone());
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        // A client whose deadline ends gives up all its calls at once, those that wait to be accepted among them.
        .max_pending_accept_reset_streams(limits.streams as usize)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .data_frame_budget(SMALL_FRAMES * SMALL_FRAME_BYTES)
        .max_header_list_size(limits.header_list)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let handshake = builder.handshake::<_, Bytes>(Watched::new(stream, moved.clone()));
    let shaken = tokio::select! {
        shaken = timeout(limits.handshake_timeout, handshake) => shaken,
        () = reached(&mut drain, Stage::Draining) => return,
    };
    let Ok(Ok(mut h2)) = shaken else { return };
    let pings = h2.ping_pong().filter(|_| keepalive);
    let stuck = Stuck::new(share.clone());
    let dispatch = Dispatch { services, share: share.clone(), calls: calls.clone(), stuck };
    let connection = Accepting::new(h2, dispatch, moved.clone());
    tokio::select! {
        () = watch_over(connection, opened, &moved, &share, &calls, limits, drain) => {}
        () = ping(pings) => {}
    }
}

/// Bytes in flight of which fewer move in the write timeout stand still: pings and single bytes are no progress.
const PROGRESS_BYTES: u64 = 16 << 10;

/// How long a connection without open calls moves nothing before its end, when the server drains.
const QUIET: Duration = Duration::from_millis(40);

/// What h2 takes for one stream before it waits for the client, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Small frames that a connection may have unread: far beyond what a pipe announces.
const SMALL_FRAMES: usize = 32 << 10;
/// What h2 counts for a small frame, in bytes.
const SMALL_FRAME_BYTES: usize = 256;

/// How long a connection may be silent before it is asked whether it is there, and how long for an answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Pings now and then; returns when no answer comes.
async fn ping(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        ticks.tick().await;
        let Ok(Ok(_)) = timeout(PONG_WITHIN, pings.ping(h2::Ping::opaque())).await else { return };
    }
}

async fn watch_over<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Accepting<S>,
    opened: Instant,
    moved: &Moved,
    share: &Share,
    calls: &Calls,
    limits: Limits,
    mut drain: watch::Receiver<Stage>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut last = (moved.total(), opened);
    let mut last_call = (0, opened);
    let mut drains_since = None;
    let mut looks = tokio::time::interval(QUIET / 4);
    loop {
        tokio::select! {
            () = &mut connection => return,
            () = reached(&mut drain, Stage::Draining), if drains_since.is_none() => {
                drains_since = Some((Instant::now(), moved.total()));
                connection.drain();
            }
            // A client that does not answer keeps nobody waiting: once nothing is open and nothing moves, it is over.
            now = looks.tick(), if drains_since.is_some() => {
                let (since, before) = drains_since.get_or_insert((now, moved.total()));
                if calls.are_open() || moved.total() != *before {
                    (*since, *before) = (now, moved.total());
                }
                // What was answered lately may still be on its way to a client that is slow.
                let is_recent = now.duration_since(last_call.1) < Duration::from_secs(2);
                if now.duration_since(*since) >= if is_recent { QUIET * 6 } else { QUIET } {
                    return;
                }
            }
            now = ticks.tick() => {
                if share.used() == 0 || moved.total() >= last.0 + PROGRESS_BYTES {
                    last = (moved.total(), now);
                }
                let still = now.duration_since(last.1);
                let unshaken = moved.read() < HANDSHAKE_BYTES && now.duration_since(opened) >= limits.handshake_timeout;
                let stands_still = still >= limits.write_timeout;
                if unshaken || stands_still {
                    return; // dropping the connection closes it and gives back what it held
                }
                if calls.are_open() || calls.begun() != last_call.0 {
                    last_call = (calls.begun(), now);
                }
                let idle = now.duration_since(last_call.1);
                if idle >= limits.idle_timeout.saturating_add(limits.write_timeout) {
                    return; // it was asked to end, and does not answer
                }
                if idle >= limits.idle_timeout {
                    connection.drain();
                }
            }
        }
    }
}
