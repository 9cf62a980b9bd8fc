//! The open streams of the page, bounded in all and per peer.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of open streams.
const VIEWERS: usize = 16;
/// Maximum number of open streams of one address: no peer keeps all others out. Everyone who uses `kubectl
/// port-forward` has the loopback address.
const OF_A_PEER: usize = 8;

/// The open streams by peer. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Viewers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open stream; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Viewer {
    all: Viewers,
    peer: IpAddr,
}

impl Viewers {
    /// Adds a stream.
    ///
    /// # Errors
    /// Why there is no room for it.
    pub(super) fn admit(&self, peer: IpAddr) -> Result<Viewer, String> {
        let peer = peer.to_canonical();
        let mut open = self.0.lock();
        if open.values().sum::<usize>() >= VIEWERS {
            return Err(format!("too many pages are open (at most {VIEWERS}); close one\n"));
        }
        let of_peer = open.entry(peer).or_default();
        if *of_peer >= OF_A_PEER {
            return Err(format!("too many pages are open from {peer} (at most {OF_A_PEER}); close one\n"));
        }
        *of_peer += 1;
        Ok(Viewer { all: self.clone(), peer })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut open = self.all.0.lock();
        if let Some(of_peer) = open.get_mut(&self.peer) {
            *of_peer -= 1;
        }
        open.retain(|_, streams| *streams > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_leaves_room_for_others() {
        let viewers = Viewers::default();
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut of_one: Vec<_> = (0..OF_A_PEER).map(|_| viewers.admit(peer(1)).unwrap()).collect();
        assert!(viewers.admit(peer(1)).unwrap_err().contains("from 10.0.0.1 (at most 8)"));
        let of_another: Vec<_> = (0..VIEWERS - OF_A_PEER).map(|_| viewers.admit(peer(2)).unwrap()).collect();
        assert!(viewers.admit(peer(3)).unwrap_err().contains("are open (at most 16)"));
        of_one.pop();
        assert!(viewers.admit(peer(3)).is_ok(), "a closed stream makes room");
        drop((of_one, of_another));
        assert!(viewers.0.lock().is_empty());
    }
}
