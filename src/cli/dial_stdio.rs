//! `ebb dial-stdio`: standard input and output as a connection to the admin listener.
//!
//! ```text
//!  standard input ──► request ──► socket
//!  standard output ◄── answer ◄──┘           one loop of `poll`: each side is watched although nothing moves
//! ```
//! It runs in the sidecar's container, where nothing would end it: neither its end nor that of its caller is a signal.
//!
//! S1. It ends when nobody reads standard output, also while the server sends nothing.
//! S2. It ends when standard input has ended. The bytes before its end are sent, and answers are copied until the server
//!     closes the connection, for at most [`GRACE`]; nor is a server waited for that takes no bytes for so long.
//! S3. It ends when the server closes the connection.

use super::connect::AtHere;
use clap::Args;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, output};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::net::{Shutdown, shutdown};
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The line before the first byte of the connection. Without it the reader would take any message of a program that
/// could not start for an answer.
pub(crate) const GREETING: &[u8] = b"ebb admin\n";
/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;
/// Bytes that are written to standard output at once: a pipe that `poll` calls writable takes as many without blocking
/// (PIPE_BUF).
const PIPE_CHUNK: usize = 4 << 10;
/// How long the server may take for its next step after standard input has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Connect standard input and output to the admin listener.
#[derive(Args, Debug)]
#[command(after_help = "\
`ebb top pod/NAME` and its like run it in the sidecar's container, to reach an admin listener
that only the pod can reach. It prints one line when it is connected; from then on, both
directions are copied byte by byte. It ends when standard output is closed, when standard
input ends, or when the server closes the connection.

Examples:
  kubectl exec --stdin POD --container ebb -- /ebb dial-stdio")]
pub(crate) struct DialStdioArgs {
    #[command(flatten)]
    at: AtHere,
}

/// Copies until one side has gone.
///
/// One thread without a runtime: the process is charged to the sidecar's own memory limit.
pub(super) fn run(args: &DialStdioArgs) -> Outcome {
    let at = &args.at.admin_addr;
    let unreachable = |error: io::Error| Failure::Failed(format!("cannot reach {at}: {error}"));
    let server: OwnedFd = match at {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address.as_str()).map_err(unreachable)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(unreachable)?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
    };
    output::bytes(GREETING)?;
    join(io::stdin().as_fd(), io::stdout().as_fd(), server.as_fd())
}

/// Bytes on their way in one direction.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    sent: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Reads what has arrived: an answer must not wait for a full buffer. Returns whether the other side has ended.
    fn read(&mut self, from: BorrowedFd<'_>) -> io::Result<bool> {
        self.bytes.resize(CHUNK, 0);
        self.sent = 0;
        let read = read(from, &mut self.bytes[..]);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(read) => Ok(read == 0),
            Err(Errno::INTR | Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn join(input: BorrowedFd<'_>, output: BorrowedFd<'_>, server: BorrowedFd<'_>) -> Outcome {
    const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);
    let (mut request, mut answer) = (Waiting::default(), Waiting::default());
    let (mut input_has_ended, mut is_shut) = (false, false);
    // From when on the server is no longer waited for; set when nobody writes to standard input any more.
    let mut until: Option<Instant> = None;
    loop {
        let wanted = |is_wanted: bool, flag| if is_wanted { flag } else { PollFlags::empty() };
        let from_server = wanted(answer.is_empty(), PollFlags::IN) | wanted(!request.is_empty(), PollFlags::OUT);
        let mut watched = vec![PollFd::from_borrowed_fd(output, wanted(!answer.is_empty(), PollFlags::OUT))];
        // The end of a side is reported again and again, so the others are watched only when they can be served. Whether
        // standard input has ended is asked once while the server takes nothing.
        let mut watch = |is_watched: bool, fd, flags| {
            is_watched.then(|| watched.push(PollFd::from_borrowed_fd(fd, flags))).map(|()| watched.len() - 1)
        };
        let server_at = watch(!from_server.is_empty(), server, from_server);
        let is_asked = !input_has_ended && (request.is_empty() || until.is_none());
        let input_at = watch(is_asked, input, wanted(request.is_empty(), PollFlags::IN));
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let happened = |at: Option<usize>| at.map_or(PollFlags::empty(), |at| watched[at].revents());
        let (of_output, of_server, of_input) = (happened(Some(0)), happened(server_at), happened(input_at));
        if of_output.intersects(GONE) {
            return Err(Failure::ReaderGone);
        }
        if of_output.contains(PollFlags::OUT) && !answer.is_empty() {
            let part = answer.rest();
            let part = &part[..part.len().min(PIPE_CHUNK)];
            output::outcome(output::Stdout.write_all(part))?;
            answer.sent += part.len();
        }
        if of_server.intersects(PollFlags::IN | GONE) && answer.is_empty() {
            // A connection that is reset has ended, too.
            if answer.read(server).unwrap_or(true) {
                return Ok(());
            }
        }
        if of_server.intersects(PollFlags::OUT | GONE) && !request.is_empty() {
            match rustix::io::write(server, request.rest()) {
                Ok(written) => {
                    request.sent += written;
                    until = until.map(|_| Instant::now() + GRACE);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // What the server has sent before it closed is read in the next round.
                Err(_) => request = Waiting::default(),
            }
        }
        if of_input.intersects(GONE) {
            until.get_or_insert_with(|| Instant::now() + GRACE);
        }
        if of_input.intersects(PollFlags::IN | GONE) && request.is_empty() {
            // A terminal that is gone reads as an error.
            input_has_ended = request.read(input).unwrap_or(true);
        }
        if input_has_ended && request.is_empty() && !is_shut {
            // If the server has gone, it says so in the other direction.
            let _ = shutdown(server, Shutdown::Write);
            is_shut = true;
            until = Some(Instant::now() + GRACE);
        }
    }
}
