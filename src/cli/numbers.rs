//! Numbers that a user copies from the output of another command.

/// The largest number that a server gives as a version or token: every JSON reader reads it exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// Parses the token of a lease.
pub(super) fn token(text: &str) -> Result<u64, String> {
    let token = text.parse().ok().filter(|token| (1..=MAX_NUMBER).contains(token));
    token.ok_or_else(|| {
        format!("a token is a number, 1 to {MAX_NUMBER}; `ebb get KEY --lease TTL` prints it when it wins the lease")
    })
}

/// Parses a version of an entry.
pub(super) fn version(text: &str) -> Result<u64, String> {
    let version = text.parse().ok().filter(|version| *version <= MAX_NUMBER);
    version.ok_or_else(|| {
        format!("a version is a number, 0 to {MAX_NUMBER}; `ebb get KEY --output json` prints that of an entry")
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser as _;

    #[test]
    fn numbers_that_a_server_gives_are_refused_with_their_source() {
        let mut wrong = Vec::new();
        for (words, sentence) in [
            ("set k v --lease-token abc", "1 to 9007199254740991; `ebb get KEY --lease TTL` prints it"),
            ("set k v --lease-token 0", "a token is a number, 1 to"),
            ("set k v --lease-token=-1", "a token is a number, 1 to"),
            ("set k v --lease-token 9007199254740992", "a token is a number, 1 to"),
            ("set k v --if-version x", "`ebb get KEY --output json` prints that of an entry"),
            ("del k --if-version 1.5", "a version is a number, 0 to"),
            ("get k --if-version-differs v1", "a version is a number, 0 to"),
        ] {
            let read = Cli::try_parse_from(["ebb"].into_iter().chain(words.split(' ')));
            let said = read.map_or_else(|error| error.to_string(), |cli| format!("accepted: {:?}", cli.command));
            if !said.contains(sentence) {
                wrong.push(format!("{words}: {said}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
