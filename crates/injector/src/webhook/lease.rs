//! Leader election by a Lease. The leader rotates certificates and runs the watchdog.
//!
//! As in client-go, clocks are never compared: a lease has expired if *this* replica has not seen a renewal for its
//! duration. A replica that cannot renew stops leading before another may start.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use std::time::{Duration, Instant};

/// Duration of a lease without renewal.
const LENGTH: Duration = Duration::from_secs(15);

/// One replica's view of the Lease.
#[derive(Debug)]
pub(super) struct Candidate {
    name: String,
    identity: String,
    /// The last observed Lease, and the time of its change.
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    /// Another replica leads.
    Wait,
    /// Acquire or renew the Lease.
    Hold,
}

fn decide(spec: &LeaseSpec, unchanged_for: Duration, identity: &str) -> Move {
    match spec.holder_identity.as_deref() {
        None | Some("") => Move::Hold,
        Some(holder) if holder == identity => Move::Hold,
        Some(_) if unchanged_for >= LENGTH => Move::Hold,
        Some(_) => Move::Wait,
    }
}

impl Candidate {
    pub(super) fn new(name: String, identity: String) -> Self {
        Self { name, identity, seen: None, renewed: None }
    }

    /// Whether this replica is the leader now.
    pub(super) fn leads(&self) -> bool {
        self.renewed.is_some_and(|renewed| renewed.elapsed() < LENGTH * 2 / 3)
    }

    /// Reads the Lease and acquires or renews it if possible.
    ///
    /// # Errors
    /// The API server's error. A lost race is not an error.
    pub(super) async fn tick(&mut self, leases: &Api<Lease>) -> Result<(), kube::Error> {
        let mut lease = leases.get(&self.name).await?;
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let unchanged_for = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if decide(&spec, unchanged_for, &self.identity) == Move::Wait {
            self.renewed = None;
            return Ok(());
        }
        let asked = Instant::now();
        lease.spec = Some(self.held(&spec));
        match leases.replace(&self.name, &kube::api::PostParams::default(), &lease).await {
            Ok(_) => self.renewed = Some(asked),
            Err(kube::Error::Api(status)) if status.code == 409 => self.renewed = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let is_ours = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LENGTH.as_secs() as i32),
            renew_time: now.clone(),
            acquire_time: if is_ours { before.acquire_time.clone() } else { now },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            ..LeaseSpec::default()
        }
    }

    /// Releases the Lease, so that the next leader need not wait.
    pub(super) async fn release(&mut self, leases: &Api<Lease>) {
        if !self.leads() {
            return;
        }
        let Ok(mut lease) = leases.get(&self.name).await else { return };
        let ours = |spec: &&mut LeaseSpec| spec.holder_identity.as_deref() == Some(&self.identity);
        if let Some(spec) = lease.spec.as_mut().filter(ours) {
            spec.holder_identity = Some(String::new());
            let _ = leases.replace(&self.name, &kube::api::PostParams::default(), &lease).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_was_not_renewed() {
        let held = |holder: &str| LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        let short = Duration::from_secs(14);
        assert_eq!(decide(&LeaseSpec::default(), short, "a"), Move::Hold);
        assert_eq!(decide(&held(""), short, "a"), Move::Hold);
        assert_eq!(decide(&held("a"), short, "a"), Move::Hold);
        assert_eq!(decide(&held("b"), short, "a"), Move::Wait);
        assert_eq!(decide(&held("b"), LENGTH, "a"), Move::Hold);
        let candidate = Candidate::new("lease".to_owned(), "a".to_owned());
        assert_eq!(candidate.held(&held("b")).lease_transitions, Some(1));
        assert_eq!(candidate.held(&held("a")).lease_transitions, Some(0));
    }
}
