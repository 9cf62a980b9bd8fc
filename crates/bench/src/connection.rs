//! One connection in a closed loop: a fixed number of requests in flight, and a new one for each reply.
//!
//! The requests that follow the replies of one read are sent in one write, like a pipelining client. The clock is read
//! twice per iteration, not per request: all requests of a write start at the same time.

use anyhow::{Context as _, anyhow, bail};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::wire::{Protocol, Reply, Request, System, protocol};
use ebb_proto::client::Address;

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// A connection to a server.
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    protocol: Box<dyn Protocol>,
    input: Vec<u8>,
    /// `input[begin..end]` is received and not yet parsed.
    begin: usize,
    end: usize,
    output: Vec<u8>,
}

/// The load of a closed loop: creates requests and receives replies.
pub(super) trait Load {
    /// Fills in the next request; returns whether there is one.
    fn next(&mut self, now: Instant, request: &mut Request) -> bool;
    /// Receives the reply to the request with this mark.
    fn take(&mut self, mark: u64, took: Duration, reply: Reply<'_>);
}

impl Connection {
    pub(super) async fn open(at: &Address, system: System) -> anyhow::Result<Self> {
        let failed = || format!("cannot reach {at}");
        let socket: Box<dyn Socket> = match at {
            Address::Tcp(at) => {
                let socket = TcpStream::connect(at).await.with_context(failed)?;
                socket.set_nodelay(true).with_context(failed)?;
                Box::new(socket)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.with_context(failed)?),
        };
        let mut protocol = protocol(system);
        let mut output = Vec::new();
        protocol.greet(&mut output);
        Ok(Self { socket, protocol, input: vec![0; 256 << 10], begin: 0, end: 0, output })
    }

    /// Keeps `in_flight` requests in flight until the load has no more, and every one is answered.
    pub(super) async fn drive(&mut self, in_flight: usize, load: &mut impl Load) -> anyhow::Result<()> {
        let mut slots = vec![(0_u64, Instant::now()); in_flight];
        let mut free: Vec<u32> = (0..in_flight as u32).rev().collect();
        let mut request = Request::default();
        let mut more = true;
        loop {
            let now = Instant::now();
            while more && in_flight - free.len() < self.protocol.window() {
                let Some(slot) = free.pop() else { break };
                more = load.next(now, &mut request);
                if more {
                    slots[slot as usize] = (request.mark, now);
                    self.protocol.ask(slot, &request, &mut self.output);
                } else {
                    free.push(slot);
                }
            }
            self.protocol.flush(&mut self.output);
            if !self.output.is_empty() {
                self.socket.write_all(&self.output).await?;
                self.output.clear();
            }
            if !more && free.len() == in_flight {
                return Ok(());
            }
            self.receive().await?;
            let now = Instant::now();
            let mut stray = false;
            let used = self.protocol.hear(&self.input[self.begin..self.end], &mut |slot, reply| {
                let Some(&(mark, asked)) = slots.get(slot as usize) else {
                    stray = true;
                    return;
                };
                free.push(slot);
                load.take(mark, now - asked, reply);
            })?;
            if stray || free.len() > in_flight {
                bail!("the server sent an unexpected reply");
            }
            self.begin += used;
        }
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            self.input.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.end == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        match self.socket.read(&mut self.input[self.end..]).await? {
            0 => Err(anyhow!("the server closed the connection")),
            n => {
                self.end += n;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Kind, Shape};
    use super::super::workload::key;
    use super::*;
    use crate::testing;

    /// Sets 500 keys and gets 600, one by one or in batches of ten, and records the replies.
    struct Script {
        kind: Kind,
        batch: u64,
        at: u64,
        until: u64,
        hits: usize,
        misses: usize,
        done: usize,
        refused: Vec<String>,
    }

    impl Script {
        fn new(kind: Kind, batch: u64, until: u64) -> Self {
            Self { kind, batch, at: 0, until, hits: 0, misses: 0, done: 0, refused: Vec::new() }
        }
    }

    impl Load for Script {
        fn next(&mut self, _: Instant, request: &mut Request) -> bool {
            if self.at == self.until {
                return false;
            }
            request.begin(self.kind, self.batch > 1, self.at);
            for n in self.at..self.at + self.batch {
                match self.kind {
                    Kind::Empty => {}
                    Kind::Set => request.pair(key(n), |value| value.extend(vec![n as u8; n as usize % 900])),
                    _ => request.key(key(n)),
                }
            }
            self.at += self.batch;
            true
        }

        fn take(&mut self, mark: u64, _: Duration, reply: Reply<'_>) {
            match reply {
                Reply::Value(value) => {
                    assert_eq!(
                        (value.len(), value.last().copied().unwrap_or(mark as u8)),
                        (mark as usize % 900, mark as u8)
                    );
                    self.hits += 1;
                }
                Reply::Many { found } => self.hits += found,
                Reply::Miss => self.misses += 1,
                Reply::Done => self.done += 1,
                Reply::Refused(why) => self.refused.push(why),
            }
        }
    }

    async fn round_trip(at: &Address, system: System) {
        let mut connection = Connection::open(at, system).await.unwrap();
        let mut run = async |mut script: Script, in_flight| {
            let driven = connection.drive(in_flight, &mut script);
            tokio::time::timeout(Duration::from_secs(20), driven).await.unwrap().unwrap();
            script
        };
        if system != System::Ebb(Shape::Pipe) {
            assert_eq!(run(Script::new(Kind::Empty, 1, 100), 8).await.done, 100);
        }
        assert_eq!(run(Script::new(Kind::Set, 1, 500), 64).await.done, 500);
        let got = run(Script::new(Kind::Get, 1, 600), 64).await;
        assert_eq!((got.hits, got.misses, got.refused.len()), (500, 100, 0));
        if system != System::Ebb(Shape::Pipe) {
            run(Script::new(Kind::Set, 10, 800), 4).await;
            assert_eq!(run(Script::new(Kind::Get, 10, 900), 4).await.hits, 800);
            assert_eq!(run(Script::new(Kind::Delete, 10, 500), 4).await.hits, 500);
            assert_eq!(run(Script::new(Kind::Get, 10, 900), 4).await.hits, 300);
        }
        assert_eq!(run(Script::new(Kind::Delete, 1, 800), 1).await.refused.len(), 0);
        assert_eq!(run(Script::new(Kind::Get, 1, 800), 64).await.misses, 800);
    }

    #[tokio::test]
    async fn stock_tonic_accepts_the_lean_client() {
        let server = testing::Server::start();
        round_trip(&server.address, System::Ebb(Shape::Unary)).await;
        round_trip(&server.address, System::Ebb(Shape::Pipe)).await;
    }

    #[tokio::test]
    async fn the_lean_client_and_stock_tonic_see_the_same_values() {
        let server = testing::Server::start();
        let mut connection = Connection::open(&server.address, System::Ebb(Shape::Pipe)).await.unwrap();
        connection.drive(16, &mut Script::new(Kind::Set, 1, 50)).await.unwrap();
        let channel = ebb_proto::client::connect(&server.address, None).await.ok().unwrap();
        let mut stock = ebb_proto::cache_service_client::CacheServiceClient::new(channel);
        for n in 0..50 {
            let asked = ebb_proto::GetRequest { key: key(n).to_vec().into(), ..Default::default() };
            assert_eq!(stock.get(asked).await.unwrap().into_inner().value, vec![n as u8; n as usize]);
        }
    }

    #[tokio::test]
    async fn a_refused_call_is_told_from_an_answered_one() {
        let server = testing::Server::start();
        let mut connection = Connection::open(&server.address, System::Ebb(Shape::Unary)).await.unwrap();
        let mut script = Script::new(Kind::Get, 1, 1);
        script.batch = 0; // a get without a key
        let mut once = Once(script);
        connection.drive(1, &mut once).await.unwrap();
        assert_eq!(once.0.refused, ["the server refused a call"]);
    }

    struct Once(Script);

    impl Load for Once {
        fn next(&mut self, now: Instant, request: &mut Request) -> bool {
            let more = self.0.next(now, request);
            self.0.until = 0;
            more
        }

        fn take(&mut self, mark: u64, took: Duration, reply: Reply<'_>) {
            self.0.take(mark, took, reply);
        }
    }

    #[tokio::test]
    async fn a_map_is_spoken_to_as_redis_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = Address::Tcp(listener.local_addr().unwrap().to_string());
        std::thread::spawn(move || super::super::map::serve(&listener));
        round_trip(&at, System::Redis).await;
    }

    #[tokio::test]
    async fn redis_and_memcached_are_spoken_to_where_they_are_installed() {
        for peer in [super::super::process::Peer::Redis, super::super::process::Peer::Memcached] {
            if let Ok(server) =
                super::super::process::start_peer(peer, super::super::process::Start { memory_mib: 64, pinned: false })
            {
                round_trip(&server.data, server.system).await;
            }
        }
    }
}
