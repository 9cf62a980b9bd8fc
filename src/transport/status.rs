//! From a refusal to a status: one table, without a `_` arm, so that a new refusal does not compile until someone has
//! chosen its code.
//!
//! Every status carries an ErrorInfo (AIP-193). What may succeed later also carries a RetryInfo, which people read, and
//! the trailer `grpc-retry-pushback-ms`, which retry policies obey (gRFC A6).

use crate::service::Refusal;
use ebb_engine::store::Error;
use ebb_proto as proto;
use std::collections::HashMap;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every ErrorInfo.
pub const DOMAIN: &str = "ebb-cache.io";

/// How soon to come again, in milliseconds; 0: not at all, it can never succeed.
const NEVER: u64 = 0;

/// Code, reason, and how soon to come again, of a refusal.
pub fn table(refusal: &Refusal) -> (Code, &'static str, u64) {
    match refusal {
        Refusal::Store(Error::KeyLength { .. }) => (Code::InvalidArgument, "KEY_LENGTH", NEVER),
        Refusal::Store(Error::ValueTooLarge { .. }) => (Code::InvalidArgument, "VALUE_TOO_LARGE", NEVER),
        Refusal::Store(Error::NoSpace { .. }) => (Code::ResourceExhausted, "NO_SPACE", 100),
        Refusal::Store(Error::TooManyInvalidations { .. }) => (Code::ResourceExhausted, "TOO_MANY_INVALIDATIONS", 50),
        Refusal::Length { .. } => (Code::InvalidArgument, "FIELD_LENGTH", NEVER),
        Refusal::TooMany { .. } => (Code::InvalidArgument, "TOO_MANY_ITEMS", NEVER),
        Refusal::OutOfRange { .. } => (Code::InvalidArgument, "OUT_OF_RANGE", NEVER),
        Refusal::UnknownValue { .. } => (Code::InvalidArgument, "UNKNOWN_VALUE", NEVER),
        Refusal::Missing { .. } => (Code::InvalidArgument, "FIELD_MISSING", NEVER),
        Refusal::Conflicting { .. } => (Code::InvalidArgument, "CONFLICTING_FIELDS", NEVER),
        Refusal::Unsupported { .. } => (Code::Unimplemented, "NOT_SUPPORTED", NEVER),
        Refusal::NotACounter { .. } => (Code::FailedPrecondition, "NOT_A_COUNTER", NEVER),
        Refusal::TooManyNamespaces { .. } => (Code::ResourceExhausted, "TOO_MANY_NAMESPACES", 1_000),
        Refusal::ResponseFull { .. } => (Code::OutOfRange, "RESPONSE_FULL", NEVER),
        Refusal::PageToken => (Code::InvalidArgument, "PAGE_TOKEN", NEVER),
        Refusal::InFlight { .. } => (Code::ResourceExhausted, "TOO_MUCH_IN_FLIGHT", 20),
        Refusal::MessageTooLarge { .. } => (Code::InvalidArgument, "MESSAGE_TOO_LARGE", NEVER),
        Refusal::MetadataTooLarge { .. } => (Code::ResourceExhausted, "METADATA_TOO_LARGE", NEVER),
        Refusal::Malformed(_) => (Code::InvalidArgument, "MALFORMED_MESSAGE", NEVER),
        Refusal::Stalled { .. } => (Code::DeadlineExceeded, "REQUEST_STALLED", NEVER),
    }
}

/// The status of a refusal, with its details.
pub fn of(refusal: &Refusal) -> Status {
    let (code, reason, retry_ms) = table(refusal);
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
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

/// A refusal within a response that goes on: of an operation of a pipe, or of an item of a batch.
pub(super) fn within(refusal: &Refusal) -> proto::Refusal {
    let (code, reason, retry_after_ms) = table(refusal);
    proto::Refusal { code: code.into(), message: refusal.to_string(), retry_after_ms, reason: reason.to_owned() }
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
    fn every_reason_of_the_table_is_counted() {
        let source = include_str!("status.rs");
        let table = &source[source.find("pub fn table").unwrap()..source.find("/// The status of a refusal").unwrap()];
        let said: Vec<_> = table.split('"').skip(1).step_by(2).collect();
        assert_eq!(said, crate::traffic::REASONS);
    }

    #[test]
    fn what_can_never_succeed_is_not_retried_and_what_can_says_when() {
        let never = of(&Refusal::Length { field: "key", len: 0, min: 1, max: 1024 });
        assert_eq!(
            (never.code(), never.message()),
            (Code::InvalidArgument, "`key` has 0 bytes; it must have 1 to 1024")
        );
        assert_eq!(never.get_details_error_info().map(|info| info.reason), Some("FIELD_LENGTH".to_owned()));
        assert!(never.get_details_retry_info().is_none());
        let later = of(&Refusal::Store(Error::NoSpace { need: 1, used: 2, capacity: 2 }));
        assert_eq!(later.code(), Code::ResourceExhausted);
        assert_eq!(later.metadata().get("grpc-retry-pushback-ms").unwrap(), "100");
        let delay = later.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, Some(Duration::from_millis(100)));
    }
}
