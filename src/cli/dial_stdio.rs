//! `ebb dial-stdio`: standard input and output as a connection to the admin listener.

use super::connect::AtHere;
use clap::Args;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome, output};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// The line before the first byte of the connection. Without it the reader would take any message of a program that
/// could not start for an answer.
pub(crate) const GREETING: &[u8] = b"ebb admin\n";
/// Bytes that are copied at once.
const CHUNK: usize = 16 << 10;

/// Connect standard input and output to the admin listener.
#[derive(Args, Debug)]
#[command(after_help = "\
`ebb top pod/NAME` and its like run it in the sidecar's container, to reach an admin listener
that only the pod can reach. It prints one line when it is connected; from then on, both
directions are copied byte by byte.

Examples:
  kubectl exec --stdin POD --container ebb -- /ebb dial-stdio")]
pub(crate) struct DialStdioArgs {
    #[command(flatten)]
    at: AtHere,
}

/// Copies until the server closes the connection, or a write finds that the reader has gone.
///
/// Two threads without a runtime: the process is charged to the sidecar's own memory limit.
pub(super) fn run(args: &DialStdioArgs) -> Outcome {
    let at = &args.at.admin_addr;
    let unreachable = |error: io::Error| Failure::Failed(format!("cannot reach {at}: {error}"));
    match at {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address.as_str()).map_err(unreachable)?;
            stream.set_nodelay(true)?;
            let other = stream.try_clone()?;
            join(stream, other, |stream| stream.shutdown(Shutdown::Write))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(unreachable)?;
            let other = stream.try_clone()?;
            join(stream, other, |stream| stream.shutdown(Shutdown::Write))
        }
    }
}

fn join<S: Read + Write + Send + 'static>(
    mut reader: S,
    mut writer: S,
    close: impl FnOnce(&S) -> io::Result<()> + Send + 'static,
) -> Outcome {
    output::bytes(GREETING)?;
    std::thread::spawn(move || {
        // If the server has gone, the other direction ends as well and tells.
        let _ = copy(&mut io::stdin().lock(), &mut writer);
        let _ = close(&writer);
    });
    output::outcome(copy(&mut reader, &mut output::Stdout))
}

/// Copies what has arrived at once: an answer must not wait for a full buffer.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..read])?;
        to.flush()?;
    }
}
