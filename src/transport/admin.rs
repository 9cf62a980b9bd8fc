//! `ebb.v1.AdminService`: the account, the cleaner by hand, and what is wrong.

use crate::doctor;
use crate::history::History;
use crate::sources::Sources;
use crate::wall_clock;
use ebb_engine::cleaner::{self, Order, Reason, Run};
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

/// How often a run's progress is looked at.
const PROGRESS: Duration = Duration::from_millis(50);
/// How long ReleaseMemory tries when nothing is said, in milliseconds, and at most.
const RELEASE_MS: (u64, u64) = (10_000, 600_000);
/// How often stats are streamed when nothing is said, in milliseconds, and at most.
const WATCH_MS: (u64, u64) = (1_000, 100);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Admin {
    /// Over what it shows.
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
                    "`interval_ms` is {asked}; it must be 0 or at least {least}"
                )));
            }
            asked => asked,
        };
        let admin = self.clone();
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(interval_ms)));
        Ok(Response::new(Box::pin(ticks.map(move |_| Ok(proto::WatchStatsResponse { stats: Some(admin.stats()) })))))
    }

    async fn diagnose(&self, _: Request<proto::DiagnoseRequest>) -> Result<Response<proto::DiagnoseResponse>, Status> {
        let finding = |finding: doctor::Finding| proto::diagnose_response::Finding {
            code: finding.code.to_owned(),
            severity: finding.severity.name().to_owned(),
            link: finding.link(),
            evidence: finding.evidence,
            remedy: finding.remedy.to_owned(),
        };
        let findings = doctor::examine(&self.sources, &self.history).into_iter().map(finding);
        Ok(Response::new(proto::DiagnoseResponse { findings: findings.collect() }))
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
        let config = self.sources.config.load();
        let knobs = config.rows.iter().map(|row| proto::get_config_response::Knob {
            key: row.key.clone(),
            value: row.value.clone(),
            source: row.source.clone(),
        });
        Ok(Response::new(proto::GetConfigResponse {
            knobs: knobs.collect(),
            problem: config.problem.clone().unwrap_or_default(),
            generation: config.generation,
            applied_at_ms: config.applied_at_ms as i64,
        }))
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

    async fn compact(&self, request: Request<proto::CompactRequest>) -> Result<Response<Self::CompactStream>, Status> {
        let proto::CompactRequest { target_occupancy_percent, dry_run } = request.into_inner();
        let target = match target_occupancy_percent {
            0 => 100,
            1..=100 => target_occupancy_percent as u8,
            more => {
                return Err(Status::invalid_argument(format!(
                    "`target_occupancy_percent` is {more}; it must be 0 to 100"
                )));
            }
        };
        let order = Order::compact(target);
        if dry_run {
            let receipt = Update::Receipt(self.sources.dry_run());
            let only = proto::CompactResponse { update: Some(receipt) };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(only)))));
        }
        let (run, sources) = (self.sources.cleaner.run(order), self.sources.clone());
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
                return Err(Status::invalid_argument(format!("`timeout_ms` is {asked}; it must be at most {most}")));
            }
            asked => asked,
        };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        let mut last = None;
        // What the engine used when a run found nothing to give back: until it uses more, another would find nothing, too.
        let mut exhausted_at = None;
        loop {
            let used_bytes = self.sources.used_bytes();
            if used_bytes <= target_bytes && last.is_some() || tokio::time::Instant::now() >= deadline {
                let receipt = last.map(|receipt| self.sources.receipt(receipt));
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
                let order = Order {
                    reason: Reason::Requested,
                    target_occupancy_percent: 100,
                    evict_to_bytes: Some(engine.saturating_sub(used_bytes.saturating_sub(target_bytes))),
                };
                let run = self.sources.cleaner.run(order);
                while run.receipt().is_none() && tokio::time::Instant::now() < deadline {
                    ticks.tick().await;
                }
                let receipt = run.receipt();
                exhausted_at = receipt.as_ref().filter(|receipt| receipt.is_idle()).map(|_| engine);
                last = receipt.or(last);
            }
            ticks.tick().await; // the allocator and the kernel give back with a delay of their own
        }
    }
}

/// Both views are of one look, so that they agree.
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
    let updates = ticks.map(move |_| match run.receipt() {
        Some(receipt) => Update::Receipt(sources.receipt(receipt)),
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
        let (stats, memory, now) = (sources.store.stats(), sources.memory.get(), history.now());
        let receipts = sources.cleaner.receipts().into_iter().map(|receipt| sources.receipt(receipt));
        proto::GetStatsResponse {
            memory: Some(sources.account(&sources.cleaner.account())),
            entries: stats.entries,
            hits: stats.hits,
            misses: stats.misses,
            sets: stats.sets,
            deletes: stats.deletes,
            evictions: stats.evictions,
            expirations: stats.expirations,
            refusals: stats.refusals,
            regime: memory.regime.name().to_owned(),
            uptime_ms: sources.clock.now_ms(),
            receipts: receipts.collect(),
            appended_bytes: stats.appended_bytes,
            copied_bytes: stats.copied_bytes,
            requests: now.requests,
            p50_us: now.p50_micros,
            p99_us: now.p99_micros,
            open_connections: sources.traffic.totals().open_connections,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at_ms: wall_clock::unix_ms() as i64,
        }
    }
}

impl Sources {
    /// What counts against the limit now, read afresh.
    fn used_bytes(&self) -> u64 {
        let memory = self.memory.get();
        let outside = self.memory.outside();
        // The governor's reading is up to a tick old; RSS is of now, and moves as the usage does.
        let beside = memory.used_bytes.saturating_sub(memory.rss_bytes);
        outside.rss_bytes + beside
    }

    fn account(&self, account: &cleaner::Account) -> proto::MemoryAccount {
        proto::MemoryAccount {
            limit_bytes: account.outside.limit_bytes,
            limit_source: self.memory.get().limit_source.name().to_owned(),
            used_bytes: account.outside.used_bytes,
            rss_bytes: account.outside.rss_bytes,
            live_bytes: account.live_bytes,
            dead_bytes: account.dead_bytes,
            expired_bytes: account.expired_bytes,
            segment_bytes: account.segment_bytes,
            index_bytes: account.index_bytes,
            in_flight_bytes: account.in_flight_bytes,
            budget_bytes: account.budget_bytes,
        }
    }

    fn receipt(&self, receipt: cleaner::Receipt) -> proto::Receipt {
        proto::Receipt {
            id: receipt.id,
            reason: receipt.reason.name().to_owned(),
            started_at_ms: (self.zero_unix_ms() + receipt.started_ms) as i64,
            duration_us: receipt.duration_us,
            cpu_us: receipt.cpu_us,
            longest_step_us: receipt.longest_step_us,
            longest_wait_us: receipt.longest_wait_us,
            steps: receipt.steps,
            step_p999_us: receipt.step_p999_us,
            moved_bytes: receipt.moved_bytes,
            moved_items: receipt.moved_items,
            evicted_items: receipt.evicted_items,
            expired_items: receipt.expired_items,
            freed_segments: receipt.freed_segments,
            migrated_shards: receipt.migrated_shards,
            before: Some(self.account(&receipt.before)),
            after: Some(self.account(&receipt.after)),
        }
    }

    /// What a compaction would do: free the dead bytes, in whole segments.
    fn dry_run(&self) -> proto::Receipt {
        let before = self.cleaner.account();
        let freed = before.dead_bytes;
        let after =
            cleaner::Account { dead_bytes: 0, segment_bytes: before.segment_bytes.saturating_sub(freed), ..before };
        proto::Receipt {
            reason: Reason::Requested.name().to_owned(),
            freed_segments: freed / self.store.segment_bytes() as u64,
            before: Some(self.account(&before)),
            after: Some(self.account(&after)),
            ..proto::Receipt::default()
        }
    }
}
