//! The ports that the sidecar listens on.
//!
//! A template whose applications get a Unix socket has no data port (`EBB_LISTEN` is `off`), so an application may use
//! its number. The annotations `bind-address` and `grpc-port` open it. Which port that is, if `grpc-port` does not say so,
//! is in an annotation of the template, since the address has none.

use super::pod::list;
use super::values::{address, host_and_port, port};
use super::wish::{Ignored, Wishes};
use ebb_config::OFF;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Annotations of ports, with the variable that has the port.
const PORTS: [(&str, &str); 3] =
    [("grpc-port", "EBB_LISTEN"), ("admin-port", "EBB_ADMIN_LISTEN"), ("http-port", "EBB_HTTP_LISTEN")];
/// Data port of templates without [`OPENED_PORT`].
const DATA_PORT: u64 = 7070;
/// Annotation of a template: the data port of pods whose annotations open it.
pub(super) const OPENED_PORT: &str = "ebb-cache.io/data-port";
/// Host of the data port if only the port is asked for.
const HOST: &str = "127.0.0.1";

/// The data port of pods whose annotations open it, by the template's own annotation; `None` if that is no port.
pub(super) fn opened_port(annotation: &Value) -> Option<u64> {
    if annotation.is_null() { Some(DATA_PORT) } else { port(annotation.as_str()?) }
}

/// Leaves out the annotations of ports if the sidecar's ports would collide; returns those.
pub(super) fn without_collisions<'a>(
    sidecar: &Value,
    opened: u64,
    all: Vec<(&'a str, &'a str)>,
) -> (Vec<(&'a str, &'a str)>, Option<Ignored>) {
    let of = |text: &str| text.rsplit_once(':').and_then(|(_, port)| port.parse::<u64>().ok());
    let variable = |name: &str| {
        let own = list(&sidecar["env"]).find(|known| known["name"] == name);
        own.and_then(|known| known["value"].as_str())
    };
    let is_off = variable("EBB_LISTEN") == Some(OFF);
    let asked = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let wanted = |name: &str| asked(name).and_then(port);
    let [data, admin, http] = PORTS.map(|(name, of_port)| wanted(name).or_else(|| variable(of_port).and_then(of)));
    let opens = is_off && asked("bind-address").and_then(address).is_some();
    let data = data.or_else(|| opens.then_some(opened));
    let (Some(admin), Some(http)) = (admin, http) else { return (all, None) };
    if admin != http && data.is_none_or(|data| data != admin && data != http) {
        return (all, None);
    }
    let is_port = |name: &str| PORTS.iter().any(|(known, _)| *known == name) || is_off && name == "bind-address";
    let (ports, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| is_port(name));
    let names = ports.iter().map(|(name, _)| (*name).to_owned()).collect();
    let data = data.map_or_else(String::new, |data| format!("data {data}, "));
    let why = format!("the ports must differ ({data}admin {admin}, http {http})");
    (others, Some(Ignored { names, value: None, why }))
}

impl Wishes {
    /// The TCP ports that the sidecar listens on.
    pub(super) fn ports(&self) -> Vec<u64> {
        let listening = list(&self.container["env"]).filter(|variable| {
            variable["name"].as_str().is_some_and(|name| name.starts_with("EBB_") && name.ends_with("LISTEN"))
        });
        listening.filter_map(|variable| variable["value"].as_str()?.rsplit_once(':')?.1.parse().ok()).collect()
    }

    /// Sets the port in the addresses of these variables; Unix sockets are unchanged.
    pub(super) fn set_port(&mut self, text: &str, variables: &[&str]) -> Option<()> {
        let port = port(text)?;
        for name in variables {
            self.move_address(name, |address| {
                let host = if address == OFF { HOST } else { host_and_port(address)?.0 };
                Some(format!("{host}:{port}"))
            });
        }
        if variables.contains(&"EBB_HTTP_LISTEN") {
            self.container["ports"][0]["containerPort"] = port.into();
        }
        Some(())
    }

    /// Sets the listen address. For an unspecified address, applications connect to IPv4's loopback
    /// address, which every pod has: a listener of `[::]` serves both families.
    pub(super) fn set_bind_address(&mut self, address: IpAddr) {
        let opened = u16::try_from(self.opened_port).expect("a port");
        let near = if address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address };
        for (name, address) in [("EBB_LISTEN", address), ("EBB_ADDR", near)] {
            self.move_address(name, |there| {
                let port = if there == OFF { opened } else { host_and_port(there)?.1.parse().ok()? };
                Some(SocketAddr::new(address, port).to_string())
            });
        }
    }
}
