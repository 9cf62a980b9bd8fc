//! `ebb bench storm`: everything at once that drives memory up, for as long as asked: writers that do not wait for each
//! other, scans that are not read, pipes that are written and not read, and thousands of calls in one moment.
//!
//! It checks nothing about the server but that it answers: whether it lived within its limit is seen from outside, by
//! the kernel (see `tests/storm.sh`).

use crate::cli::connect::{self, Address};
use crate::cli::{Failure, Outcome, output, wait};
use crate::proto::cache_service_client::CacheServiceClient;
use crate::proto::pipe_request::Operation;
use crate::proto::{GetRequest, PipeRequest, PipeResponse, ScanRequest, SetRequest};
use clap::Args;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Write as fast as a server takes it, beside clients that do not read and thousands of calls at once.
#[derive(Args, Debug)]
pub(crate) struct StormArgs {
    /// The server: HOST:PORT or unix:/path.
    #[arg(long, env = "EBB_ADDR", default_value = "127.0.0.1:7070")]
    addr: Address,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Calls of each wave, one a second
    #[arg(long, default_value_t = CROWD_CALLS)]
    calls: usize,
    /// Percent of values with up to 1 MiB; others are small
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    large: u32,
    /// The seed of sizes and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const WRITERS: u64 = 64;
const SLOW_STREAMS: usize = 64;
const CROWD_CONNECTIONS: usize = 16;
const CROWD_CALLS: usize = 10_000;
const WAVE_EVERY: Duration = Duration::from_secs(1);
const DEAF_CONNECTIONS: usize = 4;
const DEAF_PIPES: usize = 16;
const LARGEST_BYTES: u64 = 1 << 20;

pub(super) fn run(args: StormArgs) -> Outcome {
    wait(storm(args))
}

#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

async fn storm(args: StormArgs) -> Result<(), Failure> {
    drop(connect::channel(&args.addr, None).await?); // says it well if nobody is there
    let endpoint = connect::endpoint(&args.addr)?;
    let slow = slow_readers(&endpoint).await?;
    let deaf = deaf_pipes(&endpoint).await?;
    let counts = Arc::new(Counts::default());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        // Eight writers a connection.
        let channel = endpoint.connect().await?;
        let client = CacheServiceClient::new(channel).max_decoding_message_size(8 << 20);
        let random = fastrand::Rng::with_seed(args.seed * 1_000 + number);
        writers.spawn(write(client, random, args.large, end, counts.clone()));
    }
    writers.spawn(crowd(endpoint.clone(), args.calls, end));
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    drop((slow, deaf));
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    output::line(&format!(
        "{} sets of {} MiB in {} s, {} refused, nobody dropped (seed {})",
        of(&counts.stored),
        of(&counts.bytes) >> 20,
        args.seconds,
        of(&counts.refused),
        args.seed
    ))
}

/// Calls in waves, all of a wave at once.
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
                Err(status) if status.code() != Code::ResourceExhausted => return Err(status.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Streams that are opened and never read.
async fn slow_readers(endpoint: &Endpoint) -> Result<Vec<tonic::Streaming<crate::proto::ScanResponse>>, Failure> {
    let channel = endpoint.clone().initial_stream_window_size(65_535).connect().await?;
    let mut client = CacheServiceClient::new(channel);
    let mut streams = Vec::new();
    for _ in 0..SLOW_STREAMS {
        let request = ScanRequest { with_values: true, ..ScanRequest::default() };
        streams.push(client.scan(request).await?.into_inner());
    }
    Ok(streams)
}

/// Pipes into which is written without an end, and from which nothing is read.
async fn deaf_pipes(endpoint: &Endpoint) -> Result<Vec<tonic::Streaming<PipeResponse>>, Failure> {
    let mut pipes = Vec::new();
    for _ in 0..DEAF_CONNECTIONS {
        let channel = endpoint.clone().initial_stream_window_size(65_535).connect().await?;
        for pipe in 0..DEAF_PIPES {
            let value = bytes::Bytes::from(vec![7; 4 << 10]);
            let set = move |id| {
                let key = format!("deaf {pipe} {}", id % 100).into();
                let set = SetRequest { key, value: value.clone(), ..SetRequest::default() };
                PipeRequest { id, operation: Some(Operation::Set(set)) }
            };
            let requests = tokio_stream::iter((0_u64..).map(set));
            pipes.push(CacheServiceClient::new(channel.clone()).pipe(requests).await?.into_inner());
        }
    }
    Ok(pipes)
}

async fn write(
    mut client: CacheServiceClient<Channel>,
    mut random: fastrand::Rng,
    large: u32,
    end: Instant,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    let noise: bytes::Bytes = std::iter::repeat_with(|| random.u8(..)).take(LARGEST_BYTES as usize).collect();
    while Instant::now() < end {
        // Mostly small, sometimes as large as can be.
        let len = match random.u32(0..100) {
            share if share < large => random.u64(1..=LARGEST_BYTES),
            0..10 => random.u64(1..=64 << 10),
            _ => random.u64(1..=2 << 10),
        };
        let key: bytes::Bytes = format!("{:016}", random.u64(0..2_000_000)).into();
        let value = noise.slice(..len as usize);
        let ttl_ms = if random.u32(0..4) == 0 { 500 } else { 0 };
        match client.set(SetRequest { key: key.clone(), value, ttl_ms, ..SetRequest::default() }).await {
            Ok(_) => {
                counts.stored.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(len, Ordering::Relaxed);
            }
            Err(status) if status.code() == Code::ResourceExhausted => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            Err(status) => return Err(status.into()),
        }
        if random.u32(0..8) == 0 {
            match client.get(GetRequest { key, ..GetRequest::default() }).await {
                Err(status) if status.code() != Code::ResourceExhausted => return Err(status.into()),
                _ => {}
            }
        }
    }
    Ok(())
}
