//! Arguments that contradict each other on a command line.
//!
//! clap's `conflicts_with` also counts variables of the environment. A pod has `EBB_ADMIN_ADDR`, and a target that a user
//! types must win over it. So the pairs here count only if both are typed.

use clap::ArgMatches;
use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;

/// Two arguments by ID, and the sentence that refuses both.
const PAIRS: [(&str, &str, &str); 4] = [
    ("target", "admin_addr", "TARGET and --admin-addr both name the server to ask; give one of them"),
    ("explain", "target", "--explain asks no server; leave out TARGET"),
    ("explain", "admin_addr", "--explain asks no server; leave out --admin-addr"),
    ("only_existing", "ttl", "--ttl is for a new counter, which --only-existing rules out; leave out one of them"),
];

/// Refuses a command line with both arguments of a pair.
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
    matches.subcommand().map_or(Ok(()), |(_, inner)| check(inner))
}
