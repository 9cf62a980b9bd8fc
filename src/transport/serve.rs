//! The data plane: threads that accept connections.

use super::Limits;
use super::call::{Complaints, Watchers};
use super::connection::{self, Served};
use super::connections::Connections;
use super::drain::{Stage, reached};
use super::listener::Listener;
use super::quota::InFlight;
use super::services::Services;
use crate::spans::Tracer;
use crate::traffic::{Rejection, Traffic};
use ebb_listener::{Acceptor, RateLimit};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// State shared by the accept loops of a plane.
#[derive(Clone, Debug)]
pub struct Plane {
    /// The listener's name in log lines.
    pub name: &'static str,
    /// The services.
    pub services: Services,
    /// The limits of the plane.
    pub limits: Limits,
    /// The account of bytes in flight.
    pub in_flight: Arc<InFlight>,
    /// Counters of requests.
    pub traffic: Traffic,
    /// Traces sampled calls.
    pub tracer: Tracer,
    /// The open connections, up to the cap.
    pub connections: Arc<Connections>,
    /// The listeners. A socket whose file was recreated replaces the previous one.
    pub listeners: watch::Receiver<Arc<Vec<Listener>>>,
    /// The stage of the server's shutdown.
    pub drain: watch::Receiver<Stage>,
}

/// The running data-plane threads.
#[derive(Debug)]
pub struct Running(Vec<std::thread::JoinHandle<()>>);

impl Running {
    /// Waits for the threads, which end after the drain.
    pub fn join(self) {
        for thread in self.0 {
            thread.join().expect("a data-plane thread does not panic");
        }
    }
}

/// Task polls between two polls of the sockets while tasks are ready. A connection runs up to 32 calls in one poll.
const TURNS_BETWEEN_LOOKS: u32 = 32;

impl Plane {
    /// Starts `threads` threads, each with its own runtime, which all accept from the same listeners.
    ///
    /// # Errors
    /// If the system cannot create a thread, a runtime or a socket.
    pub fn spawn(self, threads: usize, drain: Duration) -> io::Result<Running> {
        let thread = |number: usize| {
            let sockets = self.sockets()?;
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().event_interval(TURNS_BETWEEN_LOOKS).build()?;
            let plane = self.clone();
            let name = format!("ebb-data-{number}");
            std::thread::Builder::new().name(name).spawn(move || runtime.block_on(plane.run(sockets, drain)))
        };
        (0..threads.max(1)).map(thread).collect::<io::Result<_>>().map(Running)
    }

    /// Accepts on the caller's runtime until the server has drained.
    ///
    /// # Errors
    /// When a socket cannot be registered.
    pub async fn serve(self, drain: Duration) -> io::Result<()> {
        let sockets = self.sockets()?;
        self.run(sockets, drain).await;
        Ok(())
    }

    fn sockets(&self) -> io::Result<Vec<Socket>> {
        self.listeners.borrow().iter().map(Socket::clone_of).collect()
    }

    async fn run(self, sockets: Vec<Socket>, drain: Duration) {
        let mut connections = tokio::task::JoinSet::new();
        let mut accepting = tokio::task::JoinSet::new();
        let (opened, mut arriving) = tokio::sync::mpsc::unbounded_channel();
        let accept = |accepting: &mut tokio::task::JoinSet<()>, sockets: Vec<Socket>| {
            for socket in sockets {
                accepting.spawn(self.clone().accept(socket, opened.clone()));
            }
        };
        accept(&mut accepting, sockets);
        let (mut listeners, mut draining) = (self.listeners.clone(), self.drain.clone());
        loop {
            tokio::select! {
                Some(connection) = arriving.recv() => { connections.spawn(connection); }
                Some(_) = connections.join_next() => {}
                Ok(()) = listeners.changed() => match self.sockets() {
                    Ok(sockets) => {
                        accepting.shutdown().await;
                        accept(&mut accepting, sockets);
                    }
                    Err(error) => tracing::warn!(%error, "cannot accept from the recreated socket"),
                },
                () = reached(&mut draining, Stage::Draining) => break,
            }
        }
        accepting.shutdown().await;
        // Connections that do not end in time end with the runtime.
        let _ = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
    }

    async fn accept(self, socket: Socket, opened: tokio::sync::mpsc::UnboundedSender<Connection>) {
        let mut acceptor = Acceptor::new(self.name);
        let complaints = Arc::new(Complaints::default());
        let mut at_the_cap = RateLimit::new(Duration::from_secs(60));
        loop {
            let stream = acceptor.next(|| socket.accept()).await;
            // Acquire the permit after accepting: a loop that waits for a client must not block the other loops.
            let place = self.connections.place(|| {
                self.traffic.rejected(Rejection::ConnectionCap, 1);
                if let Some(suppressed) = at_the_cap.due() {
                    let cap = self.limits.connections;
                    tracing::warn!(cap, suppressed, "connection cap reached; closing the longest idle connection");
                }
            });
            let place = place.await;
            let served = Served {
                services: self.services.clone(),
                in_flight: self.in_flight.clone(),
                limits: self.limits,
                watchers: Watchers {
                    traffic: self.traffic.clone(),
                    tracer: self.tracer.clone(),
                    complaints: complaints.clone(),
                },
                connections: self.connections.clone(),
                drain: self.drain.clone(),
            };
            let connection = Box::pin(async move {
                match stream {
                    Stream::Tcp(stream) => connection::serve(stream, served, false).await,
                    Stream::Unix(stream) => connection::serve(stream, served, true).await,
                }
                drop(place);
            });
            if opened.send(connection).is_err() {
                return;
            }
            tokio::task::yield_now().await; // so that many new connections do not delay the open ones
        }
    }
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A listening socket, registered with a runtime when it first accepts.
enum Socket {
    Tcp(std::net::TcpListener, std::sync::OnceLock<tokio::net::TcpListener>),
    Unix(std::os::unix::net::UnixListener, std::sync::OnceLock<tokio::net::UnixListener>),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    fn clone_of(listener: &Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener.try_clone()?, std::sync::OnceLock::new()))
            }
            Listener::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener.try_clone()?, std::sync::OnceLock::new()))
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket, registered) => {
                if registered.get().is_none() {
                    let _ = registered.set(tokio::net::TcpListener::from_std(socket.try_clone()?)?);
                }
                let (stream, _) = registered.get().expect("the socket was just registered").accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket, registered) => {
                if registered.get().is_none() {
                    let _ = registered.set(tokio::net::UnixListener::from_std(socket.try_clone()?)?);
                }
                let (stream, _) = registered.get().expect("the socket was just registered").accept().await?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}
