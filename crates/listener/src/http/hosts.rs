//! The names by which clients may call a server, against DNS rebinding: a page of another site whose name resolves to
//! this server would be of the same origin, and could read everything. Its name is in `Host`.

use super::Ends;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// The names of a server, besides those of the loopback and the addresses on which clients reach it.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// From a list of names separated by commas.
    pub fn new(names: &str) -> Self {
        let names = names.split(',').map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// Whether a request is for this server: its URI or its only `Host` has a known name or address.
    ///
    /// # Errors
    /// The name that is not known; empty without one.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, ends: Ends) -> Result<(), String> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        if hosts.next().is_some() {
            return Err("two names".to_owned());
        }
        // With both, each must be known: which one a client meant is open.
        let given = [uri.authority().map(|authority| authority.as_str().to_owned()), host];
        let mut given = given.into_iter().flatten().peekable();
        if given.peek().is_none() {
            return Err(String::new());
        }
        given.find(|host| !self.knows(host, ends)).map_or(Ok(()), Err)
    }

    fn knows(&self, host: &str, ends: Ends) -> bool {
        let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        match address.parse::<IpAddr>() {
            Ok(address) => {
                address.to_canonical().is_loopback() || address.to_canonical() == ends.local.ip().to_canonical()
            }
            Err(_) => name == "localhost" || name.ends_with(".localhost") || self.0.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, hosts: &[&str], local: &str) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        let ends = Ends { peer: "10.0.0.1:9".parse().unwrap(), local: local.parse().unwrap() };
        Hosts::new("ebb.example.com, Cache.shop.svc.").check(&uri.parse().unwrap(), &headers, ends)
    }

    #[test]
    fn known_names_and_own_addresses_are_served() {
        let known = [
            "localhost",
            "localhost:7072",
            "LOCALHOST.",
            "ebb.localhost",
            "127.0.0.1:7072",
            "127.9.9.9",
            "[::1]:7072",
            "10.1.2.3:7072",
            "10.1.2.3",
            "ebb.example.com:80",
            "EBB.example.com",
            "cache.shop.svc",
        ];
        let found = known.map(|host| (host, check("/", &[host], "10.1.2.3:7072")));
        assert_eq!(found, known.map(|host| (host, Ok(()))));
        assert_eq!(check("/", &["[fd00::7]:7072"], "[fd00::7]:7072"), Ok(()));
        assert_eq!(check("/", &["10.1.2.3"], "[::ffff:10.1.2.3]:7072"), Ok(()));
        assert_eq!(check("http://localhost/", &["localhost"], "10.1.2.3:7072"), Ok(()));
    }

    #[test]
    fn other_names_are_refused() {
        let unknown = [
            "evil.example",
            "evil.example:7072",
            "10.1.2.4",
            "[fd00::7]",
            "localhost.evil.example",
            "xlocalhost",
            "",
            "127.0.0.1.evil.example",
            "u@localhost",
            "evil.ebb.example.com",
            "localhost:7072:1",
            "a b",
        ];
        let found = unknown.map(|host| (host, check("/", &[host], "10.1.2.3:7072").is_err()));
        assert_eq!(found, unknown.map(|host| (host, true)));
        let others: [(&str, &[&str]); 4] = [
            ("/", &[]),
            ("/", &["localhost", "evil.example"]),
            ("http://evil.example/", &["localhost"]),
            ("http://localhost/", &["evil.example"]),
        ];
        assert_eq!(others.map(|(uri, hosts)| check(uri, hosts, "10.1.2.3:7072").is_err()), [true; 4]);
    }
}
