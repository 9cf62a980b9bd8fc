//! Where connections come from: TCP and Unix sockets, bound before anything is announced.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The file of a socket; removed at the end unless another has taken its place.
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
    /// Binds.
    ///
    /// # Errors
    /// A sentence that names the address and what is in its way.
    pub fn bind(address: &Address) -> Result<Self, String> {
        match address {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address);
                listener.map(Self::Tcp).map_err(|error| format!("cannot listen on {address}: {error}"))
            }
            Address::Unix(path) => {
                bind_socket(path).map_err(|why| format!("cannot listen on {}: {why}", path.display()))
            }
        }
    }

    /// Where it listens, as a client would name it.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

fn bind_socket(path: &Path) -> Result<Listener, String> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err("the file there is not a socket; it was left alone".to_owned());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err("a live server listens there".to_owned());
        }
        // Left behind by a server that died.
        std::fs::remove_file(path).map_err(|error| format!("a dead socket is in the way: {error}"))?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(|error| error.to_string())?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(|error| format!("its mode cannot be set: {error}"))?;
    let inode = inode(path).map_err(|error| error.to_string())?;
    Ok(Listener::Unix(listener, SocketFile { path: path.to_owned(), inode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_is_taken_only_from_the_dead() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ebb.sock");
        let address = Address::Unix(path.clone());
        let live = Listener::bind(&address).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(Listener::bind(&address).unwrap_err().contains("a live server listens there"));
        drop(live);
        assert!(!path.exists(), "removed at the end");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // dead: its file stays
        let replaced = Listener::bind(&address).unwrap();
        drop(replaced);

        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address).unwrap_err().contains("is not a socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let error = Listener::bind(&Address::Tcp(taken.name().parse().unwrap())).unwrap_err();
        assert!(error.contains(&taken.name()), "{error}");
    }
}
