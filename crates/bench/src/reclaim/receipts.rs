//! Collects receipts of the server's cleaner during a run, since the server keeps only the most recent ones.

use std::collections::BTreeMap;

use tonic::transport::Channel;

use ebb_proto::admin_service_client::AdminServiceClient;
use ebb_proto::client::{self, Address};
use ebb_proto::{GetStatsRequest, GetStatsResponse, Receipt};

/// The receipts of a server, if its admin address is known.
pub(super) struct Receipts {
    admin: Option<AdminServiceClient<Channel>>,
    seen: BTreeMap<u64, Receipt>,
    /// Receipts up to this ID are ignored.
    forgotten: u64,
}

/// Sum of receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) runs: u64,
    pub(super) cpu_us: u64,
    pub(super) longest_step_us: u64,
    /// From the run with the most steps.
    pub(super) step_p999_us: u64,
    steps: u64,
}

impl Receipts {
    pub(super) async fn of(at: Option<&Address>) -> Self {
        let admin = match at {
            Some(at) => client::connect(at, None).await.ok().map(AdminServiceClient::new),
            None => None,
        };
        Self { admin, seen: BTreeMap::new(), forgotten: 0 }
    }

    async fn stats(&mut self) -> Option<GetStatsResponse> {
        Some(self.admin.as_mut()?.get_stats(GetStatsRequest {}).await.ok()?.into_inner())
    }

    /// Collects new receipts.
    pub(super) async fn collect(&mut self) {
        let stats = self.stats().await.unwrap_or_default();
        self.seen.extend(stats.receipts.into_iter().map(|receipt| (receipt.id, receipt)));
    }

    /// Ignores all receipts so far.
    pub(super) async fn forget(&mut self) {
        self.collect().await;
        self.forgotten = self.seen.keys().next_back().copied().unwrap_or(0);
    }

    /// Bytes written by callers and copied by the cleaner so far; `None` if the server does not report them.
    pub(super) async fn written(&mut self) -> Option<(u64, u64)> {
        let stats = self.stats().await?;
        (stats.appended_bytes > 0).then_some((stats.appended_bytes, stats.copied_bytes))
    }

    /// The collected receipts.
    pub(super) fn sum(&self) -> Sum {
        self.seen.range(self.forgotten + 1..).fold(Sum::default(), |sum, (_, receipt)| Sum {
            runs: sum.runs + 1,
            cpu_us: sum.cpu_us + receipt.cpu_us,
            longest_step_us: sum.longest_step_us.max(receipt.longest_step_us),
            step_p999_us: if receipt.steps > sum.steps { receipt.step_p999_us } else { sum.step_p999_us },
            steps: sum.steps.max(receipt.steps),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn receipts_from_before_do_not_count_and_none_counts_twice() {
        let server = testing::Server::start();
        let mut receipts = Receipts::of(Some(&server.admin)).await;
        receipts.forget().await;
        assert_eq!(receipts.sum().runs, 0);
        let receipt = |id, longest_step_us, steps, step_p999_us| {
            (id, Receipt { id, cpu_us: 10, longest_step_us, steps, step_p999_us, ..Receipt::default() })
        };
        receipts.seen.extend([receipt(2, 70, 30, 69), receipt(3, 40, 5_000, 21)]);
        receipts.collect().await;
        assert_eq!(receipts.sum(), Sum { runs: 2, cpu_us: 20, longest_step_us: 70, step_p999_us: 21, steps: 5_000 });
        assert_eq!(receipts.written().await, None, "nothing was stored");
    }
}
