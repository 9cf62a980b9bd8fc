//! Replays a trace through a server, with its own memory limit.
//!
//! Requests are sent in batches of 64 over one Pipe: the gets of a batch, then sets of the missed keys. An object
//! requested twice in one batch may miss twice; misses are counted as the server reports them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::connection::{Connection, Load};
use super::super::wire::{Kind, Reply, Request, Shape, System};
use super::super::workload::key;
use super::format::{self, Trace};
use crate::wait;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, Output, Table, output};

const PORTION: usize = 64;

/// A batch of gets or sets.
struct Portion<'a> {
    kind: Kind,
    requests: std::slice::Iter<'a, format::Request>,
    value_bytes: u32,
    missed: Vec<u32>,
    refused: u64,
}

impl Load for Portion<'_> {
    fn next(&mut self, _: Instant, request: &mut Request) -> bool {
        let Some(asked) = self.requests.next() else { return false };
        request.begin(self.kind, false, asked.id.into());
        let name = key(asked.id.into());
        let size = if asked.size == 0 { self.value_bytes } else { asked.size.saturating_sub(name.len() as u32) };
        match self.kind {
            Kind::Set => request.pair(name, |value| value.resize(size as usize, 0)),
            _ => request.key(name),
        }
        true
    }

    fn take(&mut self, id: u64, _: Duration, reply: Reply<'_>) {
        match reply {
            Reply::Value(_) | Reply::Done => {}
            Reply::Miss | Reply::Many { .. } => self.missed.push(id as u32),
            Reply::Refused(_) => self.refused += 1,
        }
    }
}

pub(super) fn run(files: &[PathBuf], at: &Address, value_bytes: u32, output: Output) -> Outcome {
    let mut table = Table::new(["trace", "requests", "misses", "miss ratio", "refused"]);
    let mut rows = Vec::new();
    for path in files {
        let (trace, name) = (super::open(path)?, super::name(path));
        output::note(format_args!("{name}: {} requests", trace.requests.len()));
        let (misses, refused) = wait(async { Ok::<_, Failure>(replay(&trace, at, value_bytes).await?) })?;
        let requests = trace.requests.len() as u64;
        let ratio = misses as f64 / requests as f64;
        table.row([name.clone(), requests.to_string(), misses.to_string(), format!("{ratio:.4}"), refused.to_string()]);
        let row =
            json!({ "trace": name, "requests": requests, "misses": misses, "miss_ratio": ratio, "refused": refused });
        rows.push(row);
    }
    match output {
        Output::Json => output::json(&json!({ "through": at.to_string(), "rows": rows })),
        Output::Text => output::line(table.to_string().trim_end()),
    }
}

async fn replay(trace: &Trace, at: &Address, value_bytes: u32) -> anyhow::Result<(u64, u64)> {
    let mut connection = Connection::open(at, System::Ebb(Shape::Pipe)).await?;
    let (mut misses, mut refused) = (0, 0);
    let mut absent: Vec<format::Request> = Vec::with_capacity(PORTION);
    for portion in trace.requests.chunks(PORTION) {
        let load = |kind, requests| Portion { kind, requests, value_bytes, missed: Vec::new(), refused: 0 };
        let mut gets = load(Kind::Get, portion.iter());
        connection.drive(PORTION, &mut gets).await?;
        misses += gets.missed.len() as u64;
        absent.clear();
        absent.extend(portion.iter().filter(|request| gets.missed.contains(&request.id)));
        absent.sort_by_key(|request| request.id);
        absent.dedup_by_key(|request| request.id);
        let mut sets = load(Kind::Set, absent.iter());
        connection.drive(PORTION, &mut sets).await?;
        refused += gets.refused + sets.refused;
    }
    Ok((misses, refused))
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::encode;
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_server_that_forgets_nothing_misses_each_object_once() {
        let server = testing::Server::start();
        let ids: Vec<u32> = (0..1000).map(|at| at % 100).collect();
        let trace = Trace::parse(&encode(&ids, 100)).unwrap();
        assert_eq!(replay(&trace, &server.address, 128).await.unwrap(), (100, 0));
    }
}
