//! The listeners of a plane. They recreate a socket file that was removed.

use crate::sources::Sockets;
use crate::transport::{Address, Listener};
use anyhow::anyhow;
use std::sync::Arc;
use tokio::sync::watch;

/// The listeners of a plane. Its threads accept from the listeners that were announced last.
#[derive(Debug)]
pub(super) struct Listeners {
    announced: watch::Sender<Arc<Vec<Listener>>>,
    /// The address of the Unix socket, if there is one.
    socket: Option<Address>,
    is_complained: bool,
}

impl Listeners {
    pub(super) fn new(listeners: Vec<Listener>, socket: &str) -> Self {
        let socket = Some(socket).filter(|path| !path.is_empty()).map(|path| Address::Unix(path.into()));
        Self { announced: watch::channel(Arc::new(listeners)).0, socket, is_complained: false }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Vec<Listener>>> {
        self.announced.subscribe()
    }

    /// Stops listening.
    pub(super) fn close(&self) {
        self.announced.send_replace(Arc::default());
    }

    /// Recreates the socket file if it was removed: without the file, clients cannot find the socket.
    pub(super) fn repair(&mut self, sockets: &Sockets, now_ms: u64) {
        let Some(address) = &self.socket else { return };
        if !self.announced.borrow().iter().any(Listener::has_lost_file) {
            if std::mem::take(&mut self.is_complained) {
                sockets.found();
            }
            return;
        }
        match Listener::bind(address) {
            Ok(listener) => {
                let socket = listener.name();
                let listeners = self.announced.borrow().clone();
                let kept = listeners.iter().filter(|listener| !listener.has_lost_file()).map(Listener::try_clone);
                let kept: std::io::Result<Vec<_>> = kept.chain([Ok(listener)]).collect();
                let Ok(all) = kept else { return };
                self.announced.send_replace(Arc::new(all));
                sockets.made_again(now_ms);
                self.is_complained = false;
                tracing::warn!(socket, "socket file was removed; recreated it");
            }
            Err(error) => {
                let why = format!("{error:#}");
                sockets.lost(&why);
                if !std::mem::replace(&mut self.is_complained, true) {
                    tracing::warn!(why, "socket file was removed; cannot recreate it");
                }
            }
        }
    }
}

pub(super) fn tcp(key: &str, text: &str) -> anyhow::Result<Address> {
    let address = text.parse().map(Address::Tcp);
    address.map_err(|_| anyhow!("{key}: {text:?} is not an address such as 127.0.0.1:7070"))
}
