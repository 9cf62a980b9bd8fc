//! A minimal server for testing clients: a map behind Get, Set, Delete, the batches and Pipe, and an admin API with
//! fixed answers, served by stock tonic over TCP.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use ebb_proto::admin_service_server::{AdminService, AdminServiceServer};
use ebb_proto::cache_service_server::{CacheService, CacheServiceServer};
use ebb_proto::client::Address;
use ebb_proto::{self as proto, pipe_request::Operation, pipe_response::Result as PipeResult};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone, Default)]
struct Rows(Arc<Mutex<HashMap<Bytes, Bytes>>>);

impl Rows {
    fn get(&self, key: &Bytes) -> proto::GetResponse {
        use proto::get_response::Outcome;
        match self.0.lock().unwrap().get(key) {
            Some(value) => proto::GetResponse {
                outcome: Outcome::Hit.into(),
                value: value.clone(),
                version: 1,
                ..Default::default()
            },
            None => proto::GetResponse { outcome: Outcome::Miss.into(), ..Default::default() },
        }
    }

    fn set(&self, item: proto::SetRequest) -> proto::SetResponse {
        self.0.lock().unwrap().insert(item.key, item.value);
        proto::SetResponse { outcome: proto::set_response::Outcome::Stored.into(), version: 1, refusal: None }
    }

    fn delete(&self, key: &Bytes) -> proto::DeleteResponse {
        use proto::delete_response::Outcome;
        let there = self.0.lock().unwrap().remove(key).is_some();
        let outcome = if there { Outcome::Deleted } else { Outcome::NotFound }.into();
        proto::DeleteResponse { outcome, version: 0, refusal: None }
    }
}

fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented("this server is for tests"))
}

#[tonic::async_trait]
impl CacheService for Rows {
    type ScanStream = Pin<Box<dyn Stream<Item = Result<proto::ScanResponse, Status>> + Send>>;
    type PipeStream = Pin<Box<dyn Stream<Item = Result<proto::PipeResponse, Status>> + Send>>;

    async fn get(&self, request: Request<proto::GetRequest>) -> Answer<proto::GetResponse> {
        match request.into_inner().key {
            key if key.is_empty() => Err(Status::invalid_argument("key has 0 bytes")),
            key => Ok(Response::new(Self::get(self, &key))),
        }
    }

    async fn set(&self, request: Request<proto::SetRequest>) -> Answer<proto::SetResponse> {
        Ok(Response::new(Self::set(self, request.into_inner())))
    }

    async fn delete(&self, request: Request<proto::DeleteRequest>) -> Answer<proto::DeleteResponse> {
        Ok(Response::new(Self::delete(self, &request.into_inner().key)))
    }

    async fn touch(&self, _: Request<proto::TouchRequest>) -> Answer<proto::TouchResponse> {
        absent()
    }

    async fn increment(&self, _: Request<proto::IncrementRequest>) -> Answer<proto::IncrementResponse> {
        absent()
    }

    async fn append(&self, _: Request<proto::AppendRequest>) -> Answer<proto::AppendResponse> {
        absent()
    }

    async fn batch_get(&self, request: Request<proto::BatchGetRequest>) -> Answer<proto::BatchGetResponse> {
        let results = request.into_inner().keys.iter().map(|key| Self::get(self, key)).collect();
        Ok(Response::new(proto::BatchGetResponse { results }))
    }

    async fn batch_set(&self, request: Request<proto::BatchSetRequest>) -> Answer<proto::BatchSetResponse> {
        let results = request.into_inner().items.into_iter().map(|item| Self::set(self, item)).collect();
        Ok(Response::new(proto::BatchSetResponse { results }))
    }

    async fn batch_delete(&self, request: Request<proto::BatchDeleteRequest>) -> Answer<proto::BatchDeleteResponse> {
        let results = request.into_inner().keys.iter().map(|key| Self::delete(self, key)).collect();
        Ok(Response::new(proto::BatchDeleteResponse { results }))
    }

    async fn invalidate(&self, _: Request<proto::InvalidateRequest>) -> Answer<proto::InvalidateResponse> {
        absent()
    }

    async fn scan(&self, _: Request<proto::ScanRequest>) -> Answer<Self::ScanStream> {
        absent()
    }

    async fn pipe(&self, request: Request<Streaming<proto::PipeRequest>>) -> Answer<Self::PipeStream> {
        let rows = self.clone();
        let answers = request.into_inner().map(move |asked| {
            let asked = asked?;
            let result = match asked.operation {
                Some(Operation::Get(get)) => PipeResult::Get(rows.get(&get.key)),
                Some(Operation::Set(set)) => PipeResult::Set(rows.set(set)),
                Some(Operation::Delete(delete)) => PipeResult::Delete(rows.delete(&delete.key)),
                _ => PipeResult::Error(proto::Refusal { code: 12, message: "not here".into(), ..Default::default() }),
            };
            Ok(proto::PipeResponse { id: asked.id, result: Some(result), window: 128 })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_capabilities(
        &self,
        _: Request<proto::GetCapabilitiesRequest>,
    ) -> Answer<proto::GetCapabilitiesResponse> {
        Ok(Response::new(proto::GetCapabilitiesResponse { version: "test".into(), ..Default::default() }))
    }
}

/// An admin API with one receipt and two findings. It releases memory down to 32 MiB only.
struct Constant;

fn receipt() -> proto::Receipt {
    let after = proto::MemoryAccount { used_bytes: 32 << 20, rss_bytes: 30 << 20, ..Default::default() };
    proto::Receipt { id: 1, reason: "requested".into(), after: Some(after), ..Default::default() }
}

#[tonic::async_trait]
impl AdminService for Constant {
    type WatchStatsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchStatsResponse, Status>> + Send>>;
    type CompactStream = Pin<Box<dyn Stream<Item = Result<proto::CompactResponse, Status>> + Send>>;

    async fn get_stats(&self, _: Request<proto::GetStatsRequest>) -> Answer<proto::GetStatsResponse> {
        Ok(Response::new(proto::GetStatsResponse { receipts: vec![receipt()], ..Default::default() }))
    }

    async fn watch_stats(&self, _: Request<proto::WatchStatsRequest>) -> Answer<Self::WatchStatsStream> {
        let update = || Ok(proto::WatchStatsResponse { stats: Some(Default::default()) });
        Ok(Response::new(Box::pin(tokio_stream::iter([update(), update()]))))
    }

    async fn diagnose(&self, _: Request<proto::DiagnoseRequest>) -> Answer<proto::DiagnoseResponse> {
        let finding = |severity: &str| proto::diagnose_response::Finding {
            code: "no_memory_limit".into(),
            severity: severity.into(),
            ..Default::default()
        };
        Ok(Response::new(proto::DiagnoseResponse { findings: vec![finding("info"), finding("error")] }))
    }

    async fn compact(&self, request: Request<proto::CompactRequest>) -> Answer<Self::CompactStream> {
        use proto::compact_response::Update;
        let mut updates = vec![Update::Percent(50), Update::Receipt(receipt())];
        updates.truncate(if request.into_inner().dry_run { 1 } else { 2 }); // a dry run here breaks off
        let updates = updates.into_iter().map(|update| Ok(proto::CompactResponse { update: Some(update) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(updates))))
    }

    async fn get_memory_map(&self, _: Request<proto::GetMemoryMapRequest>) -> Answer<proto::GetMemoryMapResponse> {
        Ok(Response::new(proto::GetMemoryMapResponse::default()))
    }

    async fn get_config(&self, _: Request<proto::GetConfigRequest>) -> Answer<proto::GetConfigResponse> {
        absent()
    }

    async fn list_hot_keys(&self, _: Request<proto::ListHotKeysRequest>) -> Answer<proto::ListHotKeysResponse> {
        absent()
    }

    async fn list_big_keys(&self, _: Request<proto::ListBigKeysRequest>) -> Answer<proto::ListBigKeysResponse> {
        absent()
    }

    async fn list_namespaces(&self, _: Request<proto::ListNamespacesRequest>) -> Answer<proto::ListNamespacesResponse> {
        absent()
    }

    async fn release_memory(
        &self,
        request: Request<proto::ReleaseMemoryRequest>,
    ) -> Answer<proto::ReleaseMemoryResponse> {
        let reached = request.into_inner().target_bytes >= 32 << 20;
        Ok(Response::new(proto::ReleaseMemoryResponse { reached, receipt: Some(receipt()) }))
    }
}

/// Starts the server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: Address,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let nodelay = |socket: std::io::Result<TcpStream>| socket.and_then(|s| s.set_nodelay(true).map(|()| s));
        let incoming = TcpListenerStream::new(listener).map(nodelay);
        let service = CacheServiceServer::new(Rows::default()).max_decoding_message_size(usize::MAX);
        let admin = AdminServiceServer::new(Constant);
        let server = tonic::transport::Server::builder().add_service(service).add_service(admin);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { address }
    }
}
