//! Lingering close. If a socket is closed with unread bytes, the kernel resets the connection, and the client loses
//! answers that it has not read yet. So the socket is first shut down for writing, then read and discarded for a
//! moment.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may take to close its side, and how much it may send meanwhile, in bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 128 << 10;

/// Closes a socket with a lingering close.
///
/// # Errors
/// When the socket fails.
pub(in crate::transport) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut linger = Linger::new();
    poll_fn(|cx| linger.poll_close(stream, cx)).await
}

/// State of a lingering close.
#[derive(Debug)]
pub(super) struct Linger {
    over: Pin<Box<Sleep>>,
    left: usize,
    is_shut: bool,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self { over: Box::pin(sleep_until(Instant::now() + LINGER)), left: LINGER_BYTES, is_shut: false }
    }

    /// Ready when writing is shut down, and the client has closed its side or exhausted its time or bytes.
    pub(super) fn poll_close<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        while self.left > 0 {
            let mut space = [0; 16 << 10];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => return self.over.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a TCP connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_client_that_still_sends_reads_the_last_answer() {
        let (mut client, mut server) = connected().await;
        client.write_all(&[7; 1_000]).await.unwrap();
        server.readable().await.unwrap();
        server.write_all(b"the end").await.unwrap();
        let close = tokio::spawn(async move { close(&mut server).await });
        client.write_all(&[7; 1_000]).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("the connection is not reset");
        assert_eq!(answer, b"the end");
        drop(client);
        close.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_never_stops_sending_is_cut_off() {
        let (mut client, mut server) = connected().await;
        let sends = tokio::spawn(async move { while client.write_all(&[7; 4 << 10]).await.is_ok() {} });
        let mut linger = Linger::new();
        poll_fn(|cx| linger.poll_close(&mut server, cx)).await.unwrap();
        assert_eq!(linger.left, 0, "ended by bytes, not by time");
        drop(server);
        sends.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off() {
        let (client, mut server) = connected().await;
        let began = Instant::now();
        close(&mut server).await.unwrap();
        assert!(began.elapsed() < LINGER * 2, "{:?}", began.elapsed());
        drop(client);
    }
}
