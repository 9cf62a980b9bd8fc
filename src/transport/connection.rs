//! One connection: HTTP/2 by h2, direct calls of the services, and a check of its progress.
//!
//! h2 bounds neither the idle time of a connection nor the memory it may pin. A check once a second does: it ends
//! connections without a handshake, idle connections, and connections whose bytes in flight make no progress.

use super::Limits;
use super::call::{Calls, Watchers};
use super::connections::{Connections, Entry};
use super::dispatch::Dispatch;
use super::drain::{Stage, reached};
use super::guard::{Activity, Guarded, MAX_HEADER_LIST_BYTES, first_bytes, linger};
use super::http2::Accepting;
use super::quota::{HeaderBlock, InFlight, KEPT_REFUSED_CALLS, Quota};
use super::services::Services;
use super::unread::Unread;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, timeout};

/// HTTP/2's initial and maximum window of a connection, in bytes (RFC 9113, section 6.9).
const DEFAULT_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Minimum bytes of a handshake: the client's preface and an empty SETTINGS frame.
const HANDSHAKE_BYTES: u64 = 24 + 9;

/// The context shared by all connections of a plane.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) services: Services,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) limits: Limits,
    pub(super) watchers: Watchers,
    pub(super) connections: Arc<Connections>,
    pub(super) drain: watch::Receiver<Stage>,
}

/// Serves a connection until either side ends it. It rewrites authorities of Unix sockets, and pings only TCP
/// connections, because the end of a local peer is always detected.
pub(super) async fn serve<S>(mut stream: S, served: Served, is_local: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Served { services, in_flight, limits, watchers, connections, mut drain } = served;
    let opened = Instant::now();
    let activity = Arc::new(Activity::default());
    let quota = Quota::new(in_flight.clone(), watchers.traffic.clone());
    let calls = Calls::new(watchers, drain.clone());
    let progress = {
        let (activity, quota, calls) = (activity.clone(), quota.clone(), calls.clone());
        // Other bytes of the socket do not count as progress.
        move || activity.data_bytes() + quota.written() + calls.begun()
    };
    let entry = connections.enter(calls.clone(), progress);
    let known = tokio::select! {
        known = timeout(limits.handshake_timeout, first_bytes(&mut stream)) => known,
        () = reached(&mut drain, Stage::Draining) => return,
    };
    let Ok(Ok(Some((protocol, first)))) = known else { return };
    if let Some(rejection) = protocol.rejection() {
        calls.rejected(rejection, 1);
        let answer = async {
            stream.write_all(protocol.refusal()).await?;
            linger::close(&mut stream).await
        };
        let _ = timeout(limits.handshake_timeout, answer).await; // a client that is gone needs no answer
        return;
    }
    let streams = in_flight.streams(limits.streams);
    quota.set_streams(streams);
    let window = in_flight.window(streams, limits.stream_window);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(streams)
        // A client whose deadline ends resets all its calls at once, including those that wait to be accepted.
        .max_pending_accept_reset_streams(streams as usize)
        .max_concurrent_reset_streams(KEPT_REFUSED_CALLS)
        .initial_window_size(window)
        .initial_connection_window_size(window.saturating_mul(streams).clamp(DEFAULT_WINDOW, MAX_WINDOW))
        .data_frame_budget(SMALL_FRAMES * SMALL_FRAME_BYTES)
        // Larger than the served limit, so that a call with too much metadata gets an answer and its connection
        // survives.
        .max_header_list_size(MAX_HEADER_LIST_BYTES as u32)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let guarded = Guarded::new(stream, &first, is_local, activity.clone(), HeaderBlock::new(quota.clone()));
    let handshake = builder.handshake::<_, Bytes>(guarded);
    let Ok(Ok(mut h2)) = timeout(limits.handshake_timeout, handshake).await else { return };
    let pings = h2.ping_pong().filter(|_| !is_local);
    let dispatch = Dispatch {
        services,
        quota: quota.clone(),
        calls: calls.clone(),
        unread: Unread::new(quota.clone(), activity.clone()),
        max_message: limits.message as u64,
        max_header_list: limits.header_list as usize,
        patience: limits.write_timeout,
    };
    let connection = Accepting::new(h2, dispatch, activity.clone());
    let watched = Watched { opened, activity, quota, calls, limits };
    tokio::select! {
        () = watch_over(connection, watched, &entry, drain) => {}
        () = ping(pings) => {}
        () = entry.closed() => {}
    }
}

/// Minimum bytes of responses to write within the write timeout; fewer count as no progress.
const PROGRESS_BYTES: u64 = 16 << 10;

/// During a drain, a connection without open calls ends after this long without traffic.
const QUIET: Duration = Duration::from_millis(40);

/// Bytes that h2 buffers for one stream before it waits for the client.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Maximum unread small frames of a connection: far above the window of a pipe.
const SMALL_FRAMES: usize = 32 << 10;
/// Bytes that h2 counts for a small frame.
const SMALL_FRAME_BYTES: usize = 256;

/// Interval between pings, and timeout for their answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Pings periodically; returns if no answer arrives in time.
async fn ping(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        ticks.tick().await;
        let Ok(Ok(_)) = timeout(PONG_WITHIN, pings.ping(h2::Ping::opaque())).await else { return };
    }
}

/// The state that the check reads.
struct Watched {
    opened: Instant,
    activity: Arc<Activity>,
    quota: Arc<Quota>,
    calls: Arc<Calls>,
    limits: Limits,
}

async fn watch_over<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Accepting<S>,
    watched: Watched,
    entry: &Entry,
    mut drain: watch::Receiver<Stage>,
) {
    let Watched { opened, activity, quota, calls, limits } = &watched;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut last = (quota.written(), *opened);
    let mut last_call = (0, *opened);
    let mut drains_since = None;
    let mut looks = tokio::time::interval(QUIET / 4);
    loop {
        tokio::select! {
            () = &mut connection => return,
            () = reached(&mut drain, Stage::Draining), if drains_since.is_none() => {
                drains_since = Some((Instant::now(), activity.total_bytes()));
                connection.drain();
            }
            // Do not wait for a client that does not answer: without open calls and traffic, the connection ends.
            now = looks.tick(), if drains_since.is_some() => {
                let (since, before) = drains_since.get_or_insert((now, activity.total_bytes()));
                if calls.are_open() || activity.total_bytes() != *before {
                    (*since, *before) = (now, activity.total_bytes());
                }
                // A recent answer may still be on its way to a slow client.
                let is_recent = now.duration_since(last_call.1) < Duration::from_secs(2);
                if now.duration_since(*since) >= if is_recent { QUIET * 6 } else { QUIET } {
                    return;
                }
            }
            now = ticks.tick() => {
                // Each request checks its own progress.
                if quota.outgoing() == 0 || quota.written() >= last.0 + PROGRESS_BYTES {
                    last = (quota.written(), now);
                }
                entry.look();
                let still = now.duration_since(last.1);
                let unshaken =
                    activity.read_bytes() < HANDSHAKE_BYTES && now.duration_since(*opened) >= limits.handshake_timeout;
                let stands_still = still >= limits.write_timeout;
                if unshaken || stands_still {
                    return; // dropping the connection closes it and releases its quotas
                }
                if calls.are_open() || calls.begun() != last_call.0 {
                    last_call = (calls.begun(), now);
                }
                let idle = now.duration_since(last_call.1);
                if idle >= limits.idle_timeout.saturating_add(limits.write_timeout) {
                    return; // the client was asked to close, and does not answer
                }
                if idle >= limits.idle_timeout {
                    connection.drain();
                }
            }
        }
    }
}
