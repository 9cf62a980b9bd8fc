//! What to do about the certificates next: a pure function, so that it can be told as stories.
//!
//! ```text
//!  authority ──two thirds of its life──► prepare a next one ──bundle seen by all──► promote it, sign a new leaf
//!                                                                                          │
//!  leaf ──two thirds of its life──► sign a new one                     drop the old one ◄──┘ after the grace
//! ```
//! R1. A leaf is served only while its authority is in the bundle that the API server was given at least `settle` ago.
//! R2. An authority leaves the bundle only when no replica can still serve a leaf of it.
//! R3. Whatever is missing, expired or not to be understood is made anew at once: nothing could be refused by that.

/// When something is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Validity {
    fn holds(self, now: i64) -> bool {
        self.from <= now && now < self.to
    }

    /// Two thirds of its life have passed.
    fn is_old(self, now: i64) -> bool {
        now >= self.from + (self.to - self.from) / 3 * 2
    }
}

/// The certificates as they are. `None` stands for missing and for unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The authority that signs.
    pub(super) authority: Option<Validity>,
    /// The authority that will.
    pub(super) next: Option<Validity>,
    /// The authority that did.
    pub(super) old: Option<Validity>,
    /// The leaf, if its authority has signed it for the names that are served.
    pub(super) leaf: Option<Validity>,
    /// Since when the bundle with every authority is known to the API server.
    pub(super) published: Option<i64>,
}

/// Lengths of time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a leaf is valid.
    pub leaf: i64,
    /// How long an authority is valid.
    pub authority: i64,
    /// How long API servers may take to notice a new bundle.
    pub settle: i64,
    /// How long replicas may take to notice a new leaf.
    pub grace: i64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Make an authority and a leaf; forget all others.
    Begin,
    /// Sign a new leaf.
    SignLeaf,
    /// Make the next authority, so that it can be published.
    PrepareNext,
    /// Let the next authority sign from now on; keep the old one in the bundle.
    Promote,
    /// Forget the old authority.
    DropOld,
}

/// Decides.
pub(super) fn decide(now: i64, state: &State, times: &Times) -> Step {
    let State { authority, next, old, leaf, published } = *state;
    let Some(authority) = authority.filter(|authority| authority.holds(now)) else { return Step::Begin };
    let Some(leaf) = leaf.filter(|leaf| leaf.holds(now)) else { return Step::SignLeaf };
    if let Some(next) = next {
        let is_known = published.is_some_and(|since| now >= since + times.settle);
        return match () {
            () if !next.holds(now) => Step::PrepareNext,
            () if is_known => Step::Promote,
            () if leaf.is_old(now) => Step::SignLeaf,
            () => Step::Rest,
        };
    }
    match () {
        () if old.is_some() && now >= leaf.from + times.grace => Step::DropOld,
        // One at a time: a next authority is prepared when the old one is gone.
        () if authority.is_old(now) && old.is_none() => Step::PrepareNext,
        () if leaf.is_old(now) => Step::SignLeaf,
        () => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { leaf: 90, authority: 900, settle: 10, grace: 20 };

    fn valid(from: i64, length: i64) -> Option<Validity> {
        Some(Validity { from, to: from + length })
    }

    fn settled() -> State {
        State { authority: valid(0, 900), leaf: valid(0, 90), published: Some(0), ..State::default() }
    }

    #[test]
    fn an_empty_secret_a_corrupted_one_and_an_expired_authority_begin_anew() {
        assert_eq!(decide(5, &State::default(), &TIMES), Step::Begin);
        assert_eq!(decide(900, &settled(), &TIMES), Step::Begin, "expired");
        assert_eq!(decide(-1, &settled(), &TIMES), Step::Begin, "a clock behind: not yet valid");
        assert_eq!(decide(5, &State { authority: None, ..settled() }, &TIMES), Step::Begin);
    }

    #[test]
    fn a_leaf_is_signed_anew_at_two_thirds_of_its_life_or_when_it_is_of_another_authority() {
        assert_eq!(decide(59, &settled(), &TIMES), Step::Rest);
        assert_eq!(decide(60, &settled(), &TIMES), Step::SignLeaf);
        assert_eq!(decide(5, &State { leaf: None, ..settled() }, &TIMES), Step::SignLeaf);
    }

    #[test]
    fn an_authority_is_changed_in_four_steps_and_none_is_taken_before_its_time() {
        let mut state = State { leaf: valid(590, 90), ..settled() };
        assert_eq!(decide(600, &state, &TIMES), Step::PrepareNext);
        state = State { next: valid(600, 900), published: None, ..state };
        assert_eq!(decide(601, &state, &TIMES), Step::Rest, "nobody trusts it yet");
        state.published = Some(605);
        assert_eq!(decide(614, &state, &TIMES), Step::Rest, "not every API server may have noticed");
        assert_eq!(decide(615, &state, &TIMES), Step::Promote);
        state = State { authority: state.next, old: state.authority, next: None, leaf: valid(615, 90), ..state };
        assert_eq!(decide(634, &state, &TIMES), Step::Rest, "a replica may serve the old leaf yet");
        assert_eq!(decide(635, &state, &TIMES), Step::DropOld);
        state.old = None;
        assert_eq!(decide(636, &state, &TIMES), Step::Rest);
    }

    #[test]
    fn a_leaf_that_ends_while_the_bundle_is_not_published_is_signed_by_the_authority_that_is_trusted() {
        let state = State { next: valid(600, 900), published: None, leaf: valid(560, 90), ..settled() };
        assert_eq!(decide(620, &state, &TIMES), Step::SignLeaf);
        assert_eq!(
            decide(
                1501,
                &State { next: valid(600, 900), authority: valid(1400, 900), leaf: valid(1500, 90), ..state },
                &TIMES
            ),
            Step::PrepareNext,
            "a next one that nobody ever published is of no use"
        );
    }
}
