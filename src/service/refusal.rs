//! Refusals. Every message names the field, the problem and the bound.

use ebb_engine::store;
use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};

/// A refused request, which had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A field is too short or too long.
    #[error("{field}: length {len} is out of range ({min} to {max} bytes)")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The shortest allowed.
        min: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A list is too long.
    #[error("{field}: {count} items are too many (at most {max})")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its number of items.
        count: usize,
        /// The maximum.
        max: usize,
    },
    /// A number is too large or too small.
    #[error("{field}: {value} is out of range ({min} to {max})")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// An enum has a value this server does not know.
    #[error("{field}: {value} is not a known value")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// A field that must be set is not.
    #[error("{field}: must be set")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Two fields exclude each other.
    #[error("{field}: cannot be set together with {with}")]
    Conflicting {
        /// The field.
        field: &'static str,
        /// The other one.
        with: &'static str,
    },
    /// The contract defines the field, but this server does not support it.
    #[error("{field}: not supported by this server (GetCapabilities lists what is)")]
    Unsupported {
        /// The field.
        field: &'static str,
    },
    /// The value is not a decimal number in the range of sint64.
    #[error("value: the stored {len} bytes are not a decimal number in the range of sint64")]
    NotACounter {
        /// The value's length in bytes.
        len: usize,
    },
    /// All namespaces are in use.
    #[error("namespace: cannot create another; all {max} namespaces hold entries")]
    TooManyNamespaces {
        /// Maximum number of namespaces.
        max: usize,
    },
    /// The response to a batch has no room for the value of this item.
    #[error("response: no room for this value (at most {max} bytes); read this key in another call")]
    ResponseFull {
        /// Maximum size of the response, in bytes.
        max: u64,
    },
    /// The token does not come from a scan of this server.
    #[error("page_token: not a token from a scan of this server")]
    PageToken,
    /// The in-flight quota is exhausted and did not become free in time.
    #[error("in-flight quota of {whose} exceeded: {need} bytes requested, {used} of {max} in use")]
    InFlight {
        /// Bytes that the message needs.
        need: u64,
        /// Bytes in use.
        used: u64,
        /// The quota, in bytes.
        max: u64,
        /// Whose quota it is.
        whose: &'static str,
    },
    /// The message is too long.
    #[error("message: {len} bytes are too many (at most {max})")]
    MessageTooLarge {
        /// Its length in bytes.
        len: u64,
        /// Maximum length, in bytes.
        max: u64,
    },
    /// The metadata of the call is too large.
    #[error("metadata: {len} bytes are too many (at most {max}, with 32 added for each entry)")]
    MetadataTooLarge {
        /// Their size in bytes, as HTTP/2 counts it.
        len: usize,
        /// Maximum size, in bytes.
        max: usize,
    },
    /// The message cannot be decoded.
    #[error("message: malformed: {0}")]
    Malformed(&'static str),
    /// The request did not arrive in time.
    #[error("request: stalled (no progress within {patience_ms} ms, or too slow while other calls waited)")]
    Stalled {
        /// Maximum time without progress, in milliseconds.
        patience_ms: u64,
    },
}

impl Refusal {
    /// Refuses a field that is too short or too long.
    ///
    /// # Errors
    /// [`Refusal::Length`].
    pub fn length(field: &'static str, len: usize, min: usize, max: usize) -> Result<(), Self> {
        if (min..=max).contains(&len) { Ok(()) } else { Err(Self::Length { field, len, min, max }) }
    }

    /// Refuses a list that is too long.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn too_many(field: &'static str, count: usize, max: usize) -> Result<(), Self> {
        if count <= max { Ok(()) } else { Err(Self::TooMany { field, count, max }) }
    }

    /// Refuses a number that is too large or too small.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`].
    pub fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Self> {
        if (min..=max).contains(&value) { Ok(()) } else { Err(Self::OutOfRange { field, value, min, max }) }
    }

    /// Refuses a number that is too large.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`].
    pub fn at_most(field: &'static str, value: u64, max: u64) -> Result<(), Self> {
        Self::within(field, value, 0, max)
    }
}

/// The stable reasons, as clients and metrics see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumString, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each is the reason of a variant of Refusal or of the store's error, which say it")]
pub enum Reason {
    KeyLength,
    ValueTooLarge,
    NoSpace,
    TooManyInvalidations,
    TooManyLeases,
    FieldLength,
    TooManyItems,
    OutOfRange,
    UnknownValue,
    FieldMissing,
    ConflictingFields,
    NotSupported,
    NotACounter,
    TooManyNamespaces,
    ResponseFull,
    PageToken,
    TooMuchInFlight,
    MessageTooLarge,
    MetadataTooLarge,
    MalformedMessage,
    RequestStalled,
}

impl Reason {
    /// The name, such as `VALUE_TOO_LARGE`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Refusal {
    /// Its stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Store(store::Error::KeyLength { .. }) => Reason::KeyLength,
            Self::Store(store::Error::ValueTooLarge { .. }) => Reason::ValueTooLarge,
            Self::Store(store::Error::NoSpace { .. }) => Reason::NoSpace,
            Self::Store(store::Error::TooManyInvalidations { .. }) => Reason::TooManyInvalidations,
            Self::Store(store::Error::TooManyLeases { .. }) => Reason::TooManyLeases,
            Self::Length { .. } => Reason::FieldLength,
            Self::TooMany { .. } => Reason::TooManyItems,
            Self::OutOfRange { .. } => Reason::OutOfRange,
            Self::UnknownValue { .. } => Reason::UnknownValue,
            Self::Missing { .. } => Reason::FieldMissing,
            Self::Conflicting { .. } => Reason::ConflictingFields,
            Self::Unsupported { .. } => Reason::NotSupported,
            Self::NotACounter { .. } => Reason::NotACounter,
            Self::TooManyNamespaces { .. } => Reason::TooManyNamespaces,
            Self::ResponseFull { .. } => Reason::ResponseFull,
            Self::PageToken => Reason::PageToken,
            Self::InFlight { .. } => Reason::TooMuchInFlight,
            Self::MessageTooLarge { .. } => Reason::MessageTooLarge,
            Self::MetadataTooLarge { .. } => Reason::MetadataTooLarge,
            Self::Malformed(_) => Reason::MalformedMessage,
            Self::Stalled { .. } => Reason::RequestStalled,
        }
    }
}
