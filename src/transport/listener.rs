//! Listeners: TCP and Unix sockets, bound before the server reports that it is ready.

use anyhow::{Context as _, bail};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A bound listener. The same socket is shared by every data-plane thread.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket, whose file is removed when the listener is dropped.
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
}

/// The file of a socket; removed on drop unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

impl Listener {
    /// Binds a listener.
    ///
    /// # Errors
    /// A message with the address and the cause.
    pub fn bind(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let listener = ebb_listener::bind(*address);
                listener.map(Self::Tcp).with_context(|| format!("cannot listen on {address}"))
            }
            Address::Unix(path) => bind_socket(path).with_context(|| format!("cannot listen on {}", path.display())),
        }
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, file) => Self::Unix(listener.try_clone()?, file.clone()),
        })
    }

    /// Whether clients can no longer find it, because the file of its socket was removed or replaced.
    pub fn has_lost_file(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(_, file) => inode(&file.path).map_or(true, |inode| inode != file.inode),
        }
    }

    /// The address, in the form that clients use.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

fn bind_socket(path: &Path) -> anyhow::Result<Listener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!("the existing file is not a socket");
        }
        is_dead(path)?;
        // A server that died has left this file.
        std::fs::remove_file(path).context("cannot remove the socket file of an ended server")?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).context("cannot set the mode of the socket file")?;
    let inode = inode(path)?;
    Ok(Listener::Unix(listener, Arc::new(SocketFile { path: path.to_owned(), inode })))
}

/// Checks that no server listens on the socket at a path. It connects without blocking: if the backlog of a live server
/// is full, a blocking connect would wait without bound.
fn is_dead(path: &Path) -> anyhow::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    match connect(&socket, &address) {
        Err(rustix::io::Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PROTOTYPE) => {
            bail!("another server listens there")
        }
        Err(error) => Err(error).context("cannot check whether a server listens there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &Address) -> String {
        format!("{:#}", Listener::bind(address).unwrap_err())
    }

    #[test]
    fn a_live_socket_with_a_full_backlog_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ebb.sock");
        let live =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&live, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&live, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap(); // the backlog is full
        assert!(is_dead(&path).unwrap_err().to_string().contains("another server listens there"));
        assert!(path.exists());
    }

    #[test]
    fn a_live_datagram_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("datagrams");
        let _live = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(refusal(&Address::Unix(path.clone())).contains("another server listens there"));
        assert!(path.exists(), "the file is not removed");
    }

    #[test]
    fn a_removed_or_replaced_socket_file_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ebb.sock");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address).unwrap();
        assert!(!first.has_lost_file());
        std::fs::remove_file(&path).unwrap();
        assert!(first.has_lost_file());
        let second = Listener::bind(&address).unwrap();
        assert!(first.has_lost_file() && !second.has_lost_file(), "the file belongs to the second listener");
        drop(first);
        assert!(path.exists(), "the first listener does not remove it");
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ebb.sock");
        let address = Address::Unix(path.clone());
        let live = Listener::bind(&address).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(refusal(&address).contains("another server listens there"));
        drop(live);
        assert!(!path.exists(), "removed on drop");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // dead: its file stays
        let replaced = Listener::bind(&address).unwrap();
        drop(replaced);

        std::fs::write(&path, "precious").unwrap();
        assert!(refusal(&address).contains("is not a socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_used_port_is_named_in_the_error() {
        let taken = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let error = refusal(&Address::Tcp(taken.name().parse().unwrap()));
        assert!(error.contains(&taken.name()), "{error}");
    }
}
