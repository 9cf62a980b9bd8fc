//! A server in process, for tests of the clients.

use ebb::server::{self, Server as Bound};
use ebb_config::{Flags, Live, Source};
use ebb_proto::client::Address;
use std::sync::mpsc;

/// The addresses of a server that runs until the test ends.
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) admin: Address,
}

impl Server {
    /// Starts one on free ports.
    pub(crate) fn start() -> Self {
        let flag = |(key, value): (&str, &str)| (key.to_owned(), (value.to_owned(), "a test"));
        let anywhere = ["listen", "adminListen", "httpListen"].map(|key| (key, "127.0.0.1:0"));
        let flags: Flags = anywhere.into_iter().chain([("maxMemory", "256Mi")]).map(flag).collect();
        let server = Bound::bind(Live::start(Source::Nothing, Vec::new(), flags).unwrap()).unwrap();
        let at = server.addresses();
        let (started, is_started) = mpsc::channel();
        std::thread::spawn(move || {
            let announce = |_: &server::Addresses| started.send(()).unwrap();
            server.run(server::runtime().unwrap(), announce, async || std::future::pending().await).unwrap();
        });
        is_started.recv().unwrap();
        Self { address: at.data.parse().unwrap(), admin: at.admin.parse().unwrap() }
    }
}

/// Asserts that a command refuses each pair of words with a message that contains both parts.
pub(crate) fn assert_refused(command: &str, cases: &[([&str; 2], [&str; 2])]) {
    let refused = |words: &[&str]| crate::parsed(&[&[command], words].concat()).map_err(|error| error.to_string());
    let wrong: Vec<_> = cases
        .iter()
        .map(|(words, parts)| (words, parts, refused(words)))
        .filter(|(_, parts, found)| !found.as_ref().is_err_and(|error| parts.iter().all(|part| error.contains(part))))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
