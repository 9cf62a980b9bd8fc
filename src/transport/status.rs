//! The status of a refusal: one table, without a `_` arm, so that a new reason does not compile without a code.
//!
//! Every status contains an ErrorInfo (AIP-193). A status whose request may succeed later also contains a RetryInfo,
//! for people, and the trailer `grpc-retry-pushback-ms`, which retry policies obey (gRFC A6).

use crate::service::{Reason, Refusal};
use ebb_proto as proto;
use std::collections::HashMap;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every ErrorInfo.
pub const DOMAIN: &str = "ebb-cache.io";

/// Retry delay in milliseconds of a request that can never succeed: do not retry.
const NEVER: u64 = 0;

/// Code of a reason, and retry delay in milliseconds.
pub(super) fn code(reason: Reason) -> (Code, u64) {
    match reason {
        Reason::KeyLength => (Code::InvalidArgument, NEVER),
        Reason::ValueTooLarge => (Code::InvalidArgument, NEVER),
        Reason::NoSpace => (Code::ResourceExhausted, 100),
        Reason::TooManyInvalidations => (Code::ResourceExhausted, 50),
        Reason::TooManyLeases => (Code::ResourceExhausted, 100),
        Reason::FieldLength => (Code::InvalidArgument, NEVER),
        Reason::TooManyItems => (Code::InvalidArgument, NEVER),
        Reason::OutOfRange => (Code::InvalidArgument, NEVER),
        Reason::UnknownValue => (Code::InvalidArgument, NEVER),
        Reason::FieldMissing => (Code::InvalidArgument, NEVER),
        Reason::ConflictingFields => (Code::InvalidArgument, NEVER),
        Reason::NotSupported => (Code::Unimplemented, NEVER),
        Reason::NotACounter => (Code::FailedPrecondition, NEVER),
        Reason::TooManyNamespaces => (Code::ResourceExhausted, 1_000),
        Reason::ResponseFull => (Code::OutOfRange, NEVER),
        Reason::PageToken => (Code::InvalidArgument, NEVER),
        Reason::TooMuchInFlight => (Code::ResourceExhausted, 20),
        Reason::MessageTooLarge => (Code::InvalidArgument, NEVER),
        Reason::MetadataTooLarge => (Code::ResourceExhausted, NEVER),
        Reason::MalformedMessage => (Code::InvalidArgument, NEVER),
        Reason::RequestStalled => (Code::DeadlineExceeded, NEVER),
    }
}

/// The status of a refusal, with its details.
pub fn of(refusal: &Refusal) -> Status {
    let (code, retry_ms) = code(refusal.reason());
    let mut details = ErrorDetails::new();
    details.set_error_info(refusal.reason().name(), DOMAIN, HashMap::new());
    let pushback = match retry_ms {
        NEVER => -1,
        retry_ms => {
            details.set_retry_info(Some(Duration::from_millis(retry_ms)));
            retry_ms as i64
        }
    };
    let mut status = Status::with_error_details(code, refusal.to_string(), details);
    if code == Code::ResourceExhausted {
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(pushback));
    }
    status
}

/// The status of a call whose deadline has passed.
pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

/// A refusal within a response: of an operation of a pipe, or of an item of a batch.
pub(super) fn within(refusal: &Refusal) -> proto::Refusal {
    let (code, retry_after_ms) = code(refusal.reason());
    let reason = refusal.reason().name().to_owned();
    proto::Refusal { code: code.into(), message: refusal.to_string(), retry_after_ms, reason }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        of(&refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_that_may_succeed_later_have_a_retry_delay() {
        let never = of(&Refusal::Length { field: "key", len: 0, min: 1, max: 1024 });
        assert_eq!(
            (never.code(), never.message()),
            (Code::InvalidArgument, "key: length 0 is out of range (1 to 1024 bytes)")
        );
        assert_eq!(never.get_details_error_info().map(|info| info.reason), Some("FIELD_LENGTH".to_owned()));
        assert!(never.get_details_retry_info().is_none());
        let later = of(&Refusal::Store(ebb_engine::store::Error::NoSpace { need: 1, used: 2, capacity: 2 }));
        assert_eq!(later.code(), Code::ResourceExhausted);
        assert_eq!(later.metadata().get("grpc-retry-pushback-ms").unwrap(), "100");
        let delay = later.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, Some(Duration::from_millis(100)));
    }
}
