//! `ebb-bench storm`: overloads a server with concurrent writers, scans that are not read, pipes that are written and
//! not read, and bursts of thousands of calls.
//!
//! It only checks that the server answers. The kernel shows whether it stayed within its limit (see `tests/storm.sh`).

use crate::wait;
use clap::Args;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::client::{self, Address};
use ebb_proto::pipe_request::Operation;
use ebb_proto::{GetRequest, PipeRequest, PipeResponse, ScanRequest, SetRequest};
use ebb_terminal::{Failure, Outcome, output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Overload a server with writes, stalled readers and bursts of calls.
#[derive(Args, Debug)]
pub(crate) struct StormArgs {
    /// The server: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADDR", default_value = "127.0.0.1:7070")]
    addr: Address,
    /// Duration, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Calls per burst, one burst per second.
    #[arg(long, default_value_t = CROWD_CALLS)]
    calls: usize,
    /// Percentage of values of up to 1 MiB.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    large: u32,
    /// Percentage of values of up to 64 KiB; all others have up to 2 KiB.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=100))]
    medium: u32,
    /// Number of stalled scans, and of stalled pipes.
    #[arg(long, default_value_t = STALLED_READERS)]
    stalled: usize,
    /// Seed of sizes and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const WRITERS: u64 = 64;
const STALLED_READERS: usize = 64;
const CROWD_CONNECTIONS: usize = 16;
const CROWD_CALLS: usize = 10_000;
const WAVE_EVERY: Duration = Duration::from_secs(1);
const STALLED_CONNECTIONS: usize = 4;
const LARGEST_BYTES: u64 = 1 << 20;

pub(super) fn run(args: StormArgs) -> Outcome {
    wait(storm(args))
}

#[derive(Clone, Copy)]
struct Sizes {
    large_percent: u32,
    medium_percent: u32,
}

impl Sizes {
    fn draw(self, random: &mut fastrand::Rng) -> u64 {
        let percent = random.u32(0..100);
        let largest = match percent {
            _ if percent < self.large_percent => LARGEST_BYTES,
            _ if percent < self.large_percent.saturating_add(self.medium_percent) => 64 << 10,
            _ => 2 << 10,
        };
        random.u64(1..=largest)
    }
}

#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

async fn storm(args: StormArgs) -> Result<(), Failure> {
    drop(client::connect(&args.addr, None).await?); // reports clearly that no server answers
    let endpoint = client::endpoint(&args.addr)?;
    let scans = stalled_scans(&endpoint, args.stalled).await?;
    let pipes = stalled_pipes(&endpoint, args.stalled, args.seed).await?;
    let counts = Arc::new(Counts::default());
    let mut noise = vec![0; LARGEST_BYTES as usize];
    fastrand::Rng::with_seed(args.seed).fill(&mut noise);
    let noise = bytes::Bytes::from(noise);
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(CacheServiceClient::new(endpoint.connect().await?).max_decoding_message_size(8 << 20));
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut writers = tokio::task::JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        let random = fastrand::Rng::with_seed(args.seed * 1_000 + number);
        let sizes = Sizes { large_percent: args.large, medium_percent: args.medium };
        writers.spawn(write(client, random, noise.clone(), sizes, end, counts.clone()));
    }
    writers.spawn(crowd(endpoint.clone(), args.calls, end));
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    drop((scans, pipes));
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    output::line(&format!(
        "{} sets of {} MiB in {} s, {} refused, no connection lost (seed {})",
        of(&counts.stored),
        of(&counts.bytes) >> 20,
        args.seconds,
        of(&counts.refused),
        args.seed
    ))
}

/// Whether a full or overloaded server refused a call: with a status, or by refusing its stream.
fn is_refusal(status: &Status) -> bool {
    let is_refused_stream = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<h2::Error>().is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
    };
    let mut sources = std::iter::successors(std::error::Error::source(status), |error| error.source());
    matches!(status.code(), Code::ResourceExhausted | Code::DeadlineExceeded) || sources.any(is_refused_stream)
}

/// Sends bursts of concurrent calls.
async fn crowd(endpoint: Endpoint, size: usize, end: Instant) -> Result<(), Failure> {
    let mut clients = Vec::new();
    for _ in 0..CROWD_CONNECTIONS {
        clients.push(CacheServiceClient::new(endpoint.connect().await?));
    }
    let mut waves = tokio::time::interval(WAVE_EVERY);
    while Instant::now() < end {
        waves.tick().await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..size {
            let mut client = clients[number % clients.len()].clone();
            let key = format!("{number:016}").into();
            calls.spawn(async move { client.get(GetRequest { key, ..GetRequest::default() }).await });
        }
        while let Some(call) = calls.join_next().await {
            match call? {
                Err(status) if !is_refusal(&status) => return Err(status.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens scans and never reads them.
async fn stalled_scans(
    endpoint: &Endpoint,
    number: usize,
) -> Result<Vec<tonic::Streaming<ebb_proto::ScanResponse>>, Failure> {
    let channel = endpoint.clone().initial_stream_window_size(65_535).connect().await?;
    let mut client = CacheServiceClient::new(channel);
    let mut streams = Vec::new();
    for _ in 0..number {
        let request = ScanRequest { with_values: true, ..ScanRequest::default() };
        streams.push(client.scan(request).await?.into_inner());
    }
    Ok(streams)
}

/// Writes to pipes endlessly and never reads them.
async fn stalled_pipes(
    endpoint: &Endpoint,
    number: usize,
    seed: u64,
) -> Result<Vec<tonic::Streaming<PipeResponse>>, Failure> {
    let mut channels = Vec::new();
    for _ in 0..STALLED_CONNECTIONS.min(number) {
        channels.push(endpoint.clone().initial_stream_window_size(65_535).connect().await?);
    }
    let value = bytes::Bytes::from(vec![7; 4 << 10]);
    let mut pipes = Vec::new();
    for pipe in 0..number {
        let value = value.clone();
        let set = move |id| {
            let key = format!("stalled {seed} {pipe} {}", id % 10_000).into();
            let set = SetRequest { key, value: value.clone(), ..SetRequest::default() };
            PipeRequest { id, operation: Some(Operation::Set(set)) }
        };
        let requests = tokio_stream::iter((0_u64..).map(set));
        let channel = channels[pipe % channels.len()].clone();
        pipes.push(CacheServiceClient::new(channel).pipe(requests).await?.into_inner());
    }
    Ok(pipes)
}

async fn write(
    mut client: CacheServiceClient<Channel>,
    mut random: fastrand::Rng,
    noise: bytes::Bytes,
    sizes: Sizes,
    end: Instant,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    while Instant::now() < end {
        let len = sizes.draw(&mut random);
        let key: bytes::Bytes = format!("{:016}", random.u64(0..2_000_000)).into();
        let value = noise.slice(..len as usize);
        let ttl_ms = if random.u32(0..4) == 0 { 500 } else { 0 };
        match client.set(SetRequest { key: key.clone(), value, ttl_ms, ..SetRequest::default() }).await {
            Ok(_) => {
                counts.stored.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(len, Ordering::Relaxed);
            }
            Err(status) if is_refusal(&status) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            Err(status) => return Err(status.into()),
        }
        if random.u32(0..8) == 0 {
            match client.get(GetRequest { key, ..GetRequest::default() }).await {
                Err(status) if !is_refusal(&status) => return Err(status.into()),
                _ => {}
            }
        }
    }
    Ok(())
}
