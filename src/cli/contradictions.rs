//! Arguments that contradict each other on a command line, or mean nothing without another.
//!
//! clap's `conflicts_with` also counts variables of the environment. A pod has `EBB_ADMIN_ADDR`, and a target that a user
//! types must win over it. So the pairs here count only if both are typed. clap's `requires` asks for the missing argument
//! even if another one rules it out, so needs are checked here, after the pairs.

use clap::ArgMatches;
use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;

/// Two arguments by ID, and the sentence that refuses both.
const PAIRS: [(&str, &str, &str); 6] = [
    ("target", "admin_addr", "TARGET and --admin-addr both name the server to ask; give one of them"),
    ("explain", "target", "--explain asks no server; leave out TARGET"),
    ("explain", "admin_addr", "--explain asks no server; leave out --admin-addr"),
    ("explain", "target_namespace", "--explain asks no server; leave out --namespace"),
    ("explain", "target_context", "--explain asks no server; leave out --context"),
    ("only_existing", "ttl", "--ttl is for a new counter, which --only-existing rules out; leave out one of them"),
];

/// An argument by ID, one that it needs, and the sentence that asks for it.
const NEEDS: [(&str, &str, &str); 2] = [
    ("target_namespace", "target", "--namespace is that of TARGET; add a TARGET such as pod/NAME"),
    ("target_context", "target", "--context is that of TARGET; add a TARGET such as pod/NAME"),
];

/// Refuses a command line with both arguments of a pair, or with an argument that lacks another.
pub(super) fn check(matches: &ArgMatches) -> Result<(), Error> {
    let is_typed = |wanted: &str| {
        let is_wanted = |id: &clap::Id| id.as_str() == wanted;
        matches.ids().any(is_wanted) && matches.value_source(wanted) == Some(ValueSource::CommandLine)
    };
    for (one, other, sentence) in PAIRS {
        if is_typed(one) && is_typed(other) {
            return Err(Error::raw(ErrorKind::ArgumentConflict, format!("{sentence}\n")));
        }
    }
    for (one, needed, sentence) in NEEDS {
        if is_typed(one) && !is_typed(needed) {
            return Err(Error::raw(ErrorKind::MissingRequiredArgument, format!("{sentence}\n")));
        }
    }
    matches.subcommand().map_or(Ok(()), |(_, inner)| check(inner))
}
