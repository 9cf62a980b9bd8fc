//! Binding of TCP listeners, for IPv6 and IPv4 at once.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind as bind_socket, listen, socket_with, sockopt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Connections that wait to be accepted, as in the standard library.
const BACKLOG: i32 = 128;

/// Listens on an address; port 0 takes a free one. `[::]` accepts IPv4 connections, too, whatever
/// `net.ipv6.bindv6only` says; where the kernel has no IPv6, `0.0.0.0` takes its place, with a line in the log.
///
/// # Errors
/// If the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address != SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port())) {
        return TcpListener::bind(address);
    }
    match bind_both(address) {
        Ok(listener) => Ok(listener),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!(%address, %instead, "this kernel has no IPv6; listening for IPv4 only");
            TcpListener::bind(instead)
        }
        Err(error) => Err(error.into()),
    }
}

fn bind_both(address: SocketAddr) -> Result<TcpListener, Errno> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_socket(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn the_unspecified_address_of_ipv6_serves_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let peer = listener.accept().unwrap().1;
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
        assert_eq!(TcpStream::connect(("::1", port)).is_ok(), has_ipv6);
        assert_eq!(listener.local_addr().unwrap().is_ipv6(), has_ipv6 || peer.is_ipv6());
        let taken = bind(SocketAddr::new("::".parse().unwrap(), port)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn other_addresses_serve_their_own_family() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(listener.local_addr().unwrap().is_ipv4());
        let any = bind("0.0.0.0:0".parse().unwrap()).unwrap();
        assert!(any.local_addr().unwrap().is_ipv4());
    }
}
