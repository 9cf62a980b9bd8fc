//! The contract of the proto: limits, batches, versions, negative entries and leases.

#[path = "../common/mod.rs"]
mod common;
mod entries;
mod leases;
mod limits;
mod namespaces;
mod operators;

use bytes::Bytes;
use common::Ebb;
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::{GetRequest, SetRequest};
use tonic::transport::Channel;

type Client = CacheServiceClient<Channel>;

async fn connect(ebb: &Ebb) -> Client {
    let client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.expect("the server accepts");
    client.max_decoding_message_size(8 << 20).max_encoding_message_size(8 << 20)
}

fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> SetRequest {
    SetRequest { key: key.into(), value: value.into(), ..SetRequest::default() }
}

fn get(key: impl Into<Bytes>) -> GetRequest {
    GetRequest { key: key.into(), ..GetRequest::default() }
}
