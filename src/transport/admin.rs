//! `ebb.v1.AdminService`: statistics, manual runs of the cleaner, and diagnostics.

use crate::history::History;
use crate::messages;
use crate::sources::Sources;
use ebb_engine::cleaner::{Reason, Run, Target};
use ebb_engine::store::{LogOccupancy, Store};
use ebb_proto::{self as proto, admin_service_server::AdminService, compact_response::Update};
use std::pin::Pin;
use std::time::Duration;
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub struct Admin {
    sources: Sources,
    history: History,
}

/// Interval between checks of a run's progress.
const PROGRESS: Duration = Duration::from_millis(50);
/// Default and maximum timeout of ReleaseMemory, in milliseconds.
const RELEASE_MS: (u64, u64) = (10_000, 600_000);
/// Default and minimum interval of streamed stats, in milliseconds.
const WATCH_MS: (u64, u64) = (1_000, 100);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Admin {
    /// A service that reports these sources.
    pub(crate) fn new(sources: Sources, history: History) -> Self {
        Self { sources, history }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type WatchStatsStream = Responses<proto::WatchStatsResponse>;
    type CompactStream = Responses<proto::CompactResponse>;

    async fn get_stats(&self, _: Request<proto::GetStatsRequest>) -> Result<Response<proto::GetStatsResponse>, Status> {
        Ok(Response::new(self.stats()))
    }

    async fn watch_stats(
        &self,
        request: Request<proto::WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let (default, least) = WATCH_MS;
        let interval_ms = match request.get_ref().interval_ms {
            0 => default,
            asked if asked < least => {
                return Err(Status::invalid_argument(format!(
                    "interval_ms: {asked} is out of range (0, or at least {least})"
                )));
            }
            asked => asked,
        };
        let admin = self.clone();
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(interval_ms)));
        Ok(Response::new(Box::pin(ticks.map(move |_| Ok(proto::WatchStatsResponse { stats: Some(admin.stats()) })))))
    }

    async fn diagnose(&self, _: Request<proto::DiagnoseRequest>) -> Result<Response<proto::DiagnoseResponse>, Status> {
        Ok(Response::new(messages::findings(&self.sources, &self.history)))
    }

    async fn get_memory_map(
        &self,
        _: Request<proto::GetMemoryMapRequest>,
    ) -> Result<Response<proto::GetMemoryMapResponse>, Status> {
        Ok(Response::new(memory_map(&self.sources.store)))
    }

    async fn get_config(
        &self,
        _: Request<proto::GetConfigRequest>,
    ) -> Result<Response<proto::GetConfigResponse>, Status> {
        Ok(Response::new(messages::config(&self.sources)))
    }

    async fn list_hot_keys(
        &self,
        request: Request<proto::ListHotKeysRequest>,
    ) -> Result<Response<proto::ListHotKeysResponse>, Status> {
        Ok(Response::new(self.sources.cache.hot_keys(request.get_ref())?))
    }

    async fn list_big_keys(
        &self,
        request: Request<proto::ListBigKeysRequest>,
    ) -> Result<Response<proto::ListBigKeysResponse>, Status> {
        let mut look = self.sources.cache.big_keys(request.get_ref())?;
        loop {
            match look.look_on(&self.sources.cache) {
                Some(answer) => return Ok(Response::new(answer)),
                None => tokio::task::yield_now().await,
            }
        }
    }

    async fn list_namespaces(
        &self,
        request: Request<proto::ListNamespacesRequest>,
    ) -> Result<Response<proto::ListNamespacesResponse>, Status> {
        Ok(Response::new(self.sources.cache.list_namespaces(request.get_ref())))
    }

    async fn compact(&self, request: Request<proto::CompactRequest>) -> Result<Response<Self::CompactStream>, Status> {
        let proto::CompactRequest { target_occupancy_percent, dry_run } = request.into_inner();
        let occupancy_percent = match target_occupancy_percent {
            0 => 100,
            1..=100 => target_occupancy_percent as u8,
            more => {
                return Err(Status::invalid_argument(format!(
                    "target_occupancy_percent: {more} is out of range (0 to 100)"
                )));
            }
        };
        if dry_run {
            let receipt = Update::Receipt(messages::dry_run(&self.sources));
            let only = proto::CompactResponse { update: Some(receipt) };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(only)))));
        }
        let (run, sources) = (self.sources.cleaner.run(Target::compact(occupancy_percent)), self.sources.clone());
        Ok(Response::new(Box::pin(progress(run, sources))))
    }

    async fn release_memory(
        &self,
        request: Request<proto::ReleaseMemoryRequest>,
    ) -> Result<Response<proto::ReleaseMemoryResponse>, Status> {
        let proto::ReleaseMemoryRequest { target_bytes, timeout_ms } = request.into_inner();
        let (default, most) = RELEASE_MS;
        let timeout_ms = match timeout_ms {
            0 => default,
            asked if asked > most => {
                return Err(Status::invalid_argument(format!("timeout_ms: {asked} is out of range (0 to {most})")));
            }
            asked => asked,
        };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        let mut last = None;
        // The engine's use when a run found nothing to free. Until it uses more, another run would find nothing either.
        let mut exhausted_at = None;
        loop {
            let used_bytes = self.sources.used_bytes();
            if used_bytes <= target_bytes && last.is_some() || tokio::time::Instant::now() >= deadline {
                let receipt = last.map(|report| messages::receipt(&self.sources, &report));
                return Ok(Response::new(proto::ReleaseMemoryResponse {
                    reached: used_bytes <= target_bytes,
                    receipt,
                }));
            }
            let account = self.sources.cleaner.account();
            let engine = account.segment_bytes + account.index_bytes + account.in_flight_bytes;
            let mut ticks = tokio::time::interval(PROGRESS);
            ticks.tick().await;
            if exhausted_at.is_none_or(|bytes| engine > bytes) {
                let target = Target {
                    reason: Reason::Requested,
                    occupancy_percent: 100,
                    evict_to_bytes: Some(engine.saturating_sub(used_bytes.saturating_sub(target_bytes))),
                };
                let run = self.sources.cleaner.run(target);
                while run.report().is_none() && tokio::time::Instant::now() < deadline {
                    ticks.tick().await;
                }
                let report = run.report();
                exhausted_at = report.as_ref().filter(|report| report.is_idle()).map(|_| engine);
                last = report.or(last);
            }
            ticks.tick().await; // the allocator and the kernel free memory with a delay
        }
    }
}

/// Both views come from one reading, so that they agree.
fn memory_map(store: &Store) -> proto::GetMemoryMapResponse {
    let logs = store.logs();
    let mut occupancy = vec![0; 10];
    for percent in logs.iter().flat_map(|log| &log.percent) {
        occupancy[usize::from(percent / 10).min(9)] += 1;
    }
    let log = |LogOccupancy { shard, log, percent }| proto::get_memory_map_response::Log {
        shard: shard as u32,
        name: log.to_owned(),
        occupancy_percent: percent.into_iter().map(u32::from).collect(),
    };
    let segment_bytes = store.new_segment_bytes() as u64;
    proto::GetMemoryMapResponse { segment_bytes, occupancy, logs: logs.into_iter().map(log).collect() }
}

fn progress(run: Run, sources: Sources) -> impl Stream<Item = Result<proto::CompactResponse, Status>> + Send {
    let mut ended = false;
    let ticks = IntervalStream::new(tokio::time::interval(PROGRESS));
    let updates = ticks.map(move |_| match run.report() {
        Some(report) => Update::Receipt(messages::receipt(&sources, &report)),
        None => Update::Percent(run.percent().into()),
    });
    updates.map_while(move |update| {
        let go_on = !ended;
        ended = matches!(update, Update::Receipt(_));
        go_on.then_some(Ok(proto::CompactResponse { update: Some(update) }))
    })
}

impl Admin {
    fn stats(&self) -> proto::GetStatsResponse {
        let Self { sources, history } = self;
        let reports = sources.cleaner.reports();
        proto::GetStatsResponse {
            receipts: reports.iter().map(|report| messages::receipt(sources, report)).collect(),
            ..messages::stats(sources, history)
        }
    }
}

impl Sources {
    /// Current memory charged against the limit.
    fn used_bytes(&self) -> u64 {
        let memory = self.memory.get();
        let process = self.memory.process();
        // The governor's sample is up to a tick old. RSS is current, and changes as the usage does.
        let unmapped_bytes = memory.used_bytes.saturating_sub(memory.rss_bytes);
        process.rss_bytes + unmapped_bytes
    }
}
