//! The data commands: calls of the data API.
//!
//! Keys and values are bytes. `get` prints the stored value without a newline, and escapes it on a terminal; `set` reads the value `-` from standard
//! input.

use std::io::{Read, Write as _};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;

use super::connect::{DataAt, refused};
use super::{lease, numbers};
use ebb_config::units::{Percent, Span};
use ebb_proto as proto;
use ebb_proto::json;
use ebb_terminal::escape::{escaped_bytes, escaped_lines};
use ebb_terminal::{Failure, Outcome, Output, output};

/// Arguments of commands on one key.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The key.
    pub(crate) key: String,
    /// The namespace; empty for the server's default.
    #[arg(long, short, env = "EBB_NAMESPACE", default_value = "", hide_default_value = true)]
    pub(crate) namespace: String,
    /// The server.
    #[command(flatten)]
    pub(crate) at: DataAt,
}

impl KeyArgs {
    fn key(&self) -> Bytes {
        Bytes::copy_from_slice(self.key.as_bytes())
    }
}

/// Print the value of a key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb get greeting
  ebb get greeting --output json       also print version, flags and time to live
  ebb get logo > logo.png              bytes are unchanged; on a terminal, control characters are
                                       escaped unless --raw is set
  ebb get report --lease 30s --wait 5s take the lease to fill the key, or wait for its holder")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Send the value only if its version differs from this one.
    #[arg(long, value_name = "VERSION", value_parser = numbers::version)]
    if_version_differs: Option<u64>,
    /// Set the time to live of the entry.
    #[arg(long, value_name = "TTL")]
    touch: Option<Span>,
    /// Maximum age of a stale value; 0: fresh values only.
    #[arg(long, value_name = "AGE")]
    max_stale: Option<Span>,
    /// Print the value unchanged, also on a terminal.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// Do not count this read as a use of the entry.
    #[arg(long)]
    peek: bool,
    /// If the key has no fresh entry, request a lease of this duration, to fill it.
    #[arg(long, value_name = "TTL")]
    lease: Option<Span>,
    /// How long to wait for the value if another caller holds the lease. Must be shorter than --timeout, which is 10s
    /// longer than the wait by default.
    #[arg(long, value_name = "TIME", requires = "lease")]
    wait: Option<Span>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Prints the value of a key.
pub(super) async fn get(args: GetArgs) -> Outcome {
    use proto::get_response::Outcome as Found;
    let request = proto::GetRequest {
        key: args.key.key(),
        namespace: args.key.namespace.clone(),
        if_version_differs: args.if_version_differs,
        touch_ttl_ms: args.touch.map(|ttl| ttl.0),
        max_stale_ms: args.max_stale.map(|age| age.0),
        peek: args.peek,
        lease: args.lease.map(|ttl| proto::LeaseRequest { ttl_ms: ttl.0, wait_ms: args.wait.map_or(0, |time| time.0) }),
    };
    let at = &args.key.at;
    let mut client = at.connect_for(args.wait.unwrap_or(Span(0))).await?;
    let answer = client.get(request).await.map_err(|s| refused("get", &at.addr, &s))?.into_inner();
    let found = answer.outcome();
    if args.output == Output::Json {
        let mut object = serde_json::json!({
            "outcome": short(found.as_str_name(), "OUTCOME_"),
            "size": json::number(answer.value.len()),
            "version": json::number(answer.version),
            "flags": answer.flags,
            "ttl_ms": json::number(answer.ttl_ms),
            "miss_reason": short(answer.miss_reason().as_str_name(), "MISS_REASON_"),
        });
        json::put_bytes(&mut object, "value", &answer.value);
        if let Some(lease) = &answer.lease {
            object["lease"] = lease::json(lease);
        }
        output::json(&object)?;
    } else if matches!(found, Found::Hit | Found::Stale) && output::value(&answer.value, args.raw)? {
        output::note("ebb: control characters are escaped; --raw prints the value unchanged");
    }
    if let Some(lease) = &answer.lease {
        with_note(args.output, &lease::sentence(lease), Ok(()))?;
    }
    match found {
        Found::Hit => Ok(()),
        Found::Stale => with_note(args.output, "the value is stale", Ok(())),
        Found::Unchanged => with_note(args.output, "unchanged", Ok(())),
        Found::Negative => with_note(args.output, "negative entry: the source has no value", Err(Failure::Printed)),
        Found::Miss | Found::Refused | Found::Unspecified => {
            let reason = short(answer.miss_reason().as_str_name(), "MISS_REASON_").replace('_', " ");
            with_note(args.output, &format!("no value: {reason}"), Err(Failure::Printed))
        }
    }
}

/// Store a value.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb set greeting hello --ttl 30s
  ebb set logo - < logo.png            read the value from standard input
  ebb set lock me --if-absent --ttl 10s
  ebb set greeting hi --if-version 17  only if the stored version is 17")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The value; `-` reads standard input.
    #[arg(required_unless_present = "negative", allow_negative_numbers = true)]
    value: Option<String>,
    /// Time to live, such as 30s.
    #[arg(long)]
    pub(super) ttl: Option<Span>,
    /// Time after which the value is stale.
    #[arg(long, value_name = "TTL")]
    soft_ttl: Option<Span>,
    /// Random spread of both deadlines, in percent; at most 50.
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    jitter: Percent,
    /// Number stored with the value.
    #[arg(long, default_value_t = 0)]
    flags: u32,
    /// Store only if the key has no value.
    #[arg(long, group = "condition")]
    pub(super) if_absent: bool,
    /// Store only if the key has a value.
    #[arg(long, group = "condition")]
    if_present: bool,
    /// Act only if the stored version is this one.
    #[arg(long, value_name = "VERSION", group = "condition", value_parser = numbers::version)]
    if_version: Option<u64>,
    /// Store only while the lease with this token is held. `get --lease` prints the token.
    #[arg(long, value_name = "TOKEN", group = "condition", value_parser = numbers::token)]
    lease_token: Option<u64>,
    /// Keep the entry's time to live.
    #[arg(long, conflicts_with = "ttl")]
    keep_ttl: bool,
    /// Store a negative entry: the key has no value at its source.
    #[arg(long, conflicts_with = "value")]
    negative: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Stores a value.
pub(super) async fn set(args: SetArgs) -> Outcome {
    use proto::set_request::Condition;
    use proto::set_response::Outcome as Stored;
    let at = &args.key.at;
    let mut client = at.connect().await?;
    let value = match args.value.as_deref() {
        Some("-") => {
            let limits = client.get_capabilities(proto::GetCapabilitiesRequest {}).await;
            // A server without this call refuses a large value itself.
            let told = limits.map_or(0, |limits| limits.into_inner().max_value_bytes);
            let max = if told == 0 { ebb_engine::store::MAX_VALUE_BYTES as u64 } else { told };
            value_from(std::io::stdin().lock(), max)?
        }
        value => Bytes::copy_from_slice(value.unwrap_or_default().as_bytes()),
    };
    let condition = match (args.if_absent, args.if_present, args.if_version, args.lease_token) {
        (true, ..) => Some(Condition::IfAbsent(true)),
        (_, true, ..) => Some(Condition::IfPresent(true)),
        (_, _, Some(version), _) => Some(Condition::IfVersion(version)),
        (.., token) => token.map(Condition::LeaseToken),
    };
    let request = proto::SetRequest {
        key: args.key.key(),
        value,
        namespace: args.key.namespace.clone(),
        ttl_ms: args.ttl.map_or(0, |ttl| ttl.0),
        soft_ttl_ms: args.soft_ttl.map_or(0, |ttl| ttl.0),
        jitter_percent: args.jitter.0.into(),
        flags: args.flags,
        condition,
        keep_ttl: args.keep_ttl,
        negative: args.negative,
        ..Default::default()
    };
    let answer = client.set(request).await.map_err(|s| refused("set", &at.addr, &s))?.into_inner();
    let stored = answer.outcome();
    if args.output == Output::Json {
        output::json(&serde_json::json!({
            "outcome": short(stored.as_str_name(), "OUTCOME_"),
            "version": json::number(answer.version),
        }))?;
    }
    match stored {
        Stored::Stored => Ok(()),
        Stored::Conflict => {
            with_note(args.output, &format!("not stored: the version is {}", answer.version), Err(Failure::Printed))
        }
        Stored::LeaseLost => with_note(args.output, "not stored: the lease has ended", Err(Failure::Printed)),
        Stored::NotStored | Stored::Refused | Stored::Unspecified => {
            with_note(args.output, "not stored: the condition does not hold", Err(Failure::Printed))
        }
    }
}

/// Reads a value, up to one byte beyond the maximum.
fn value_from(input: impl Read, max: u64) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    input.take(max + 1).read_to_end(&mut value).context("cannot read standard input")?;
    if value.len() as u64 > max {
        return Err(Failure::Failed(format!("value: standard input is too large (at most {max} bytes)")));
    }
    Ok(value.into())
}

/// Delete keys.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb del greeting
  ebb del a b c                        print the number of deleted keys
  ebb del greeting --if-version 17     only if the stored version is 17
  ebb del greeting --mark-stale        keep it, to be served only as stale
  ebb del greeting --hold-off 2s       grant no lease to fill it meanwhile")]
pub(crate) struct DelArgs {
    /// The keys.
    #[arg(required = true)]
    keys: Vec<String>,
    /// The namespace; empty for the server's default.
    #[arg(long, short, env = "EBB_NAMESPACE", default_value = "", hide_default_value = true)]
    namespace: String,
    /// Act only if the stored version is this one.
    #[arg(long, value_name = "VERSION", value_parser = numbers::version)]
    if_version: Option<u64>,
    /// Keep the entries and mark them stale.
    #[arg(long)]
    mark_stale: bool,
    /// Grant no lease of the keys for this time.
    #[arg(long, value_name = "TIME", conflicts_with = "mark_stale")]
    hold_off: Option<Span>,
    #[command(flatten)]
    at: DataAt,
}

/// Deletes keys and prints the number of deleted entries.
pub(super) async fn del(args: DelArgs) -> Outcome {
    use proto::delete_request::Mode;
    use proto::delete_response::Outcome as Deleted;
    let mode = match (args.mark_stale, args.hold_off) {
        (true, _) => Mode::MarkStale,
        (false, Some(_)) => Mode::Tombstone,
        (false, None) => Mode::Unspecified,
    };
    let mut client = args.at.connect().await?;
    let (mut deleted, mut conflict) = (0, None);
    for key in &args.keys {
        let request = proto::DeleteRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            namespace: args.namespace.clone(),
            if_version: args.if_version,
            mode: mode.into(),
            hold_off_ms: args.hold_off.map_or(0, |time| time.0),
        };
        let answer = client.delete(request).await.map_err(|s| refused("del", &args.at.addr, &s))?.into_inner();
        match answer.outcome() {
            Deleted::Deleted => deleted += 1,
            Deleted::Conflict => conflict = Some(answer.version),
            Deleted::NotFound | Deleted::Refused | Deleted::Unspecified => {}
        }
    }
    output::line(&deleted.to_string())?;
    if let Some(version) = conflict {
        return Err(Failure::Failed(format!("not deleted: the version is {version}")));
    }
    // A hold-off is set for a key without an entry, too.
    if deleted == 0 && args.hold_off.is_none() { Err(Failure::Printed) } else { Ok(()) }
}

/// Set the time to live of a key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb touch session:17 --ttl 30m
  ebb touch session:17                 never expires")]
pub(crate) struct TouchArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Time to live from now [default: unlimited].
    #[arg(long)]
    ttl: Option<Span>,
}

/// Sets the time to live of a key.
pub(super) async fn touch(args: TouchArgs) -> Outcome {
    let request = proto::TouchRequest {
        key: args.key.key(),
        namespace: args.key.namespace.clone(),
        ttl_ms: args.ttl.map_or(0, |ttl| ttl.0),
    };
    let at = &args.key.at;
    let answer = at.connect().await?.touch(request).await.map_err(|s| refused("touch", &at.addr, &s))?.into_inner();
    if answer.found { Ok(()) } else { Err(Failure::Failed("no value".into())) }
}

/// Add to a counter and print its value.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb incr visits                      add 1; a new counter begins at 0
  ebb incr stock --by -3 --initial 100 --ttl 1h
  ebb incr visits --only-existing      exit with 1 if there is no counter")]
pub(crate) struct IncrArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Amount to add; may be negative.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    /// Initial value of a new counter.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    initial: i64,
    /// Do not create the counter.
    #[arg(long, conflicts_with = "initial")]
    only_existing: bool,
    /// Time to live of a new counter.
    #[arg(long)]
    ttl: Option<Span>,
    /// ID of the request; calls with the same ID within a minute count once.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
}

/// Adds to a counter and prints it.
pub(super) async fn incr(args: IncrArgs) -> Outcome {
    let request = proto::IncrementRequest {
        key: args.key.key(),
        namespace: args.key.namespace.clone(),
        delta: args.by,
        initial: (!args.only_existing).then_some(args.initial),
        ttl_ms: args.ttl.map_or(0, |ttl| ttl.0),
        request_id: args.request_id.clone(),
    };
    let at = &args.key.at;
    let answer = at.connect().await?.increment(request).await.map_err(|s| refused("incr", &at.addr, &s))?.into_inner();
    if !answer.found {
        return Err(Failure::Failed("no counter".into()));
    }
    output::line(&answer.value.to_string())
}

/// List the keys of a namespace.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ebb scan                             one key per line, with control characters escaped
  ebb scan user: --limit 10 --output json
  ebb scan user: --values --output json")]
pub(crate) struct ScanArgs {
    /// List only keys with this prefix.
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The namespace; empty for the server's default.
    #[arg(long, short, env = "EBB_NAMESPACE", default_value = "", hide_default_value = true)]
    namespace: String,
    /// Maximum number of keys; 0 for unlimited.
    #[arg(long, default_value_t = 0)]
    limit: u64,
    /// Also print values.
    #[arg(long)]
    values: bool,
    /// Print keys and values unchanged.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// Output format; JSON is one object per line.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    at: DataAt,
}

/// Lists the keys of a namespace.
pub(super) async fn scan(args: ScanArgs) -> Outcome {
    let request = proto::ScanRequest {
        namespace: args.namespace,
        prefix: args.prefix.into(),
        with_values: args.values,
        limit: args.limit,
        ..Default::default()
    };
    let refuse = |s: tonic::Status| refused("scan", &args.at.addr, &s);
    let mut stream = args.at.connect().await?.scan(request).await.map_err(refuse)?.into_inner();
    let mut out = std::io::BufWriter::new(output::Stdout);
    while let Some(portion) = stream.message().await.map_err(refuse)? {
        for entry in portion.entries {
            let written = if args.output == Output::Json {
                let mut row = serde_json::json!({
                    "version": json::number(entry.version),
                    "ttl_ms": json::number(entry.ttl_ms),
                    "size": json::number(entry.size),
                });
                json::put_bytes(&mut row, "key", &entry.key);
                if args.values {
                    json::put_bytes(&mut row, "value", &entry.value);
                }
                writeln!(out, "{}", escaped_lines(&row.to_string()))
            } else {
                let tab: &[u8] = if args.values { b"\t" } else { b"" };
                // A key with a line break would look like two keys.
                let shown = |bytes: Bytes| if args.raw { bytes } else { escaped_bytes(&bytes).into() };
                let (key, value) = (shown(entry.key), shown(entry.value));
                [&key[..], tab, &value, b"\n"].iter().try_for_each(|part| out.write_all(part))
            };
            output::outcome(written)?;
        }
    }
    output::outcome(out.flush())
}

/// `OUTCOME_NOT_STORED` becomes `not_stored`.
pub(super) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// Prints the message to standard error for text output; JSON output already contains it.
fn with_note(output: Output, sentence: &str, outcome: Outcome) -> Outcome {
    if output == Output::Text {
        output::note(format_args!("ebb: {sentence}"));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, testing};
    use clap::Parser as _;

    #[test]
    fn a_value_is_read_no_further_than_the_largest() {
        let Ok(value) = value_from(&b"four"[..], 4) else { panic!("the value has the maximum size") };
        assert_eq!(value, "four");
        let Err(Failure::Failed(sentence)) = value_from(std::io::repeat(7), 1 << 20) else {
            panic!("the input is endless")
        };
        assert_eq!(sentence, "value: standard input is too large (at most 1048576 bytes)");
    }

    #[test]
    fn names_on_the_wire_become_words() {
        assert_eq!(short("OUTCOME_NOT_STORED", "OUTCOME_"), "not_stored");
        assert_eq!(short("MISS_REASON_EXPIRED", "MISS_REASON_"), "expired");
    }

    async fn did(server: &testing::Server, words: &[&str]) -> Outcome {
        let at = server.address.to_string();
        let cli = Cli::try_parse_from(["ebb"].iter().chain(words).chain(&["--addr", &at])).unwrap();
        match cli.command {
            Command::Get(args) => get(args).await,
            Command::Set(args) => set(args).await,
            Command::Incr(args) => incr(args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_miss_is_an_exit_code_and_a_refusal_is_a_sentence() {
        let server = testing::Server::start().await;
        assert!(matches!(did(&server, &["get", "k"]).await, Err(Failure::Printed)));
        did(&server, &["set", "k", "v"]).await.unwrap();
        did(&server, &["get", "k", "--output", "json"]).await.unwrap();
        let Err(Failure::Failed(said)) = did(&server, &["incr", "k"]).await else { panic!("not implemented there") };
        assert!(said.starts_with("incr at 127.0.0.1:") && said.contains("unknown to this server"), "{said}");
    }
}
