//! Decides the next step of a rotation: a pure function, tested with scenarios.
//!
//! ```text
//!  CA ──two thirds of its life──► prepare a next one ──bundle seen by all──► promote it, sign a new serving certificate
//!                                                                                          │
//!  serving certificate ──two thirds of its life──► sign a new one                     drop the old one ◄──┘ after the grace
//! ```
//! R1. A certificate is served only if its CA has been in the API server's bundle for at least `settle`.
//! R2. A CA is removed from the bundle only when no replica can still serve a certificate of it.
//! R3. Missing, expired or unreadable certificates are issued again at once, since they could not be used anyway.

/// Validity, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Validity {
    fn holds(self, now: i64) -> bool {
        self.from <= now && now < self.to
    }

    /// Whether two thirds of the lifetime have passed.
    fn is_old(self, now: i64) -> bool {
        now >= self.from + (self.to - self.from) / 3 * 2
    }
}

/// The current certificates. `None` means missing or unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The signing CA.
    pub(super) ca: Option<Validity>,
    /// The next signing CA.
    pub(super) next: Option<Validity>,
    /// The previous signing CA.
    pub(super) old: Option<Validity>,
    /// The serving certificate, if its CA has signed it for the names of the webhook.
    pub(super) serving: Option<Validity>,
    /// Time since which the API server has the bundle with all CAs.
    pub(super) published: Option<i64>,
}

/// Durations, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Lifetime of a serving certificate.
    pub serving: i64,
    /// Lifetime of a CA.
    pub ca: i64,
    /// Maximum time until API servers use a new bundle.
    pub settle: i64,
    /// Maximum time until replicas use a new serving certificate.
    pub grace: i64,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Issue a CA and a serving certificate; remove all others.
    Begin,
    /// Sign a new serving certificate.
    SignServing,
    /// Issue the next CA for publication.
    PrepareNext,
    /// Make the next CA the signing one; keep the old one in the bundle.
    Promote,
    /// Remove the old CA.
    DropOld,
}

/// Decides the next step.
pub(super) fn decide(now: i64, state: &State, times: &Times) -> Step {
    let State { ca, next, old, serving, published } = *state;
    let Some(ca) = ca.filter(|ca| ca.holds(now)) else { return Step::Begin };
    let Some(serving) = serving.filter(|serving| serving.holds(now)) else { return Step::SignServing };
    if let Some(next) = next {
        let is_known = published.is_some_and(|since| now >= since + times.settle);
        return match () {
            () if !next.holds(now) => Step::PrepareNext,
            () if is_known => Step::Promote,
            () if serving.is_old(now) => Step::SignServing,
            () => Step::Rest,
        };
    }
    match () {
        () if old.is_some() && now >= serving.from + times.grace => Step::DropOld,
        // One rotation at a time: the next CA is issued after the old one is removed.
        () if ca.is_old(now) && old.is_none() => Step::PrepareNext,
        () if serving.is_old(now) => Step::SignServing,
        () => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { serving: 90, ca: 900, settle: 10, grace: 20 };

    fn valid(from: i64, length: i64) -> Option<Validity> {
        Some(Validity { from, to: from + length })
    }

    fn settled() -> State {
        State { ca: valid(0, 900), serving: valid(0, 90), published: Some(0), ..State::default() }
    }

    #[test]
    fn an_empty_secret_a_corrupted_one_and_an_expired_ca_begin_anew() {
        assert_eq!(decide(5, &State::default(), &TIMES), Step::Begin);
        assert_eq!(decide(900, &settled(), &TIMES), Step::Begin, "expired");
        assert_eq!(decide(-1, &settled(), &TIMES), Step::Begin, "a clock behind: not yet valid");
        assert_eq!(decide(5, &State { ca: None, ..settled() }, &TIMES), Step::Begin);
    }

    #[test]
    fn renews_after_two_thirds_or_if_another_ca_has_signed() {
        assert_eq!(decide(59, &settled(), &TIMES), Step::Rest);
        assert_eq!(decide(60, &settled(), &TIMES), Step::SignServing);
        assert_eq!(decide(5, &State { serving: None, ..settled() }, &TIMES), Step::SignServing);
    }

    #[test]
    fn rotates_a_ca_in_four_steps_at_their_times() {
        let mut state = State { serving: valid(590, 90), ..settled() };
        assert_eq!(decide(600, &state, &TIMES), Step::PrepareNext);
        state = State { next: valid(600, 900), published: None, ..state };
        assert_eq!(decide(601, &state, &TIMES), Step::Rest, "nobody trusts it yet");
        state.published = Some(605);
        assert_eq!(decide(614, &state, &TIMES), Step::Rest, "not every API server may have noticed");
        assert_eq!(decide(615, &state, &TIMES), Step::Promote);
        state = State { ca: state.next, old: state.ca, next: None, serving: valid(615, 90), ..state };
        assert_eq!(decide(634, &state, &TIMES), Step::Rest, "a replica may serve the old serving certificate yet");
        assert_eq!(decide(635, &state, &TIMES), Step::DropOld);
        state.old = None;
        assert_eq!(decide(636, &state, &TIMES), Step::Rest);
    }

    #[test]
    fn renews_with_the_trusted_ca_while_the_bundle_is_unpublished() {
        let state = State { next: valid(600, 900), published: None, serving: valid(560, 90), ..settled() };
        assert_eq!(decide(620, &state, &TIMES), Step::SignServing);
        assert_eq!(
            decide(
                1501,
                &State { next: valid(600, 900), ca: valid(1400, 900), serving: valid(1500, 90), ..state },
                &TIMES
            ),
            Step::PrepareNext,
            "a next one that nobody ever published is of no use"
        );
    }
}
