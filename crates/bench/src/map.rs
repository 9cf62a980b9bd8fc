//! `ebb-bench map`: a plain hash map, as an application would use without a cache, for comparison.
//!
//! ```text
//!   bench ──Redis's protocol, over TCP──► Mutex<HashMap<Box<[u8]>, Box<[u8]>>>, in its own process
//! ```
//! The measured memory is that of the map and its allocator: jemalloc, which returns free pages after a second. It uses
//! Redis's protocol, so that all systems are measured with the same client, and supports only the commands of the
//! benchmarks.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use clap::Args;

use ebb_terminal::{Outcome, output};

/// Maximum size of a word and number of words in a request, well above those of the benchmarks.
const WORD_BYTES: usize = 4 << 20;
const WORDS: usize = 4096;

/// Serve a hash map, as a peer of the other benchmarks.
#[derive(Args, Debug)]
#[command(after_help = "\
It is started by `ebb-bench reclaim --against map` and ends with it: when its standard input does.")]
pub(crate) struct MapArgs {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
}

type Map = HashMap<Box<[u8]>, Box<[u8]>>;

pub(super) fn run(args: MapArgs) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    std::thread::spawn(move || serve(&listener));
    io::copy(&mut io::stdin(), &mut io::sink())?; // until the parent process ends
    Ok(())
}

/// Serves each connection on its own thread.
pub(super) fn serve(listener: &TcpListener) {
    let map = Arc::new(Mutex::new(Map::new()));
    for socket in listener.incoming().flatten() {
        let map = map.clone();
        std::thread::spawn(move || {
            if let Err(error) = converse(socket, &map) {
                output::note(format_args!("map: {error}"));
            }
        });
    }
}

fn converse(socket: TcpStream, map: &Mutex<Map>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(64 << 10, socket.try_clone()?);
    let mut output = BufWriter::with_capacity(64 << 10, socket);
    let mut words = Vec::new();
    while read(&mut input, &mut words)? {
        answer(&words, &mut map.lock(), &mut output)?;
        // Replies to pipelined requests are written together.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    Ok(())
}

/// Reads a request, an array of strings; `false` at the end of the connection.
fn read(input: &mut impl BufRead, words: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    if input.fill_buf()?.is_empty() {
        return Ok(false);
    }
    words.resize_with(length(input, b'*', WORDS)?, Vec::new);
    for word in words {
        word.resize(length(input, b'$', WORD_BYTES)?, 0);
        input.read_exact(word)?;
        input.read_exact(&mut [0; 2])?; // CRLF
    }
    Ok(true)
}

/// Reads a line with a count or length.
fn length(input: &mut impl BufRead, kind: u8, most: usize) -> io::Result<usize> {
    let mut line = String::new();
    input.take(32).read_line(&mut line)?;
    let number = line.strip_prefix(kind as char).and_then(|rest| rest.trim_end().parse().ok());
    let bad = || io::Error::new(ErrorKind::InvalidData, format!("`{}` is not a length", line.escape_debug()));
    number.filter(|number| *number <= most).ok_or_else(bad)
}

fn answer(words: &[Vec<u8>], map: &mut Map, out: &mut impl Write) -> io::Result<()> {
    let (name, words) = words.split_first().map_or((&[][..], words), |(name, words)| (name, words));
    match (name, words) {
        (b"PING", []) => out.write_all(b"+PONG\r\n"),
        (b"GET", [key]) => get(map, key, out),
        (b"MGET", keys) => {
            write!(out, "*{}\r\n", keys.len())?;
            keys.iter().try_for_each(|key| get(map, key, out))
        }
        (b"SET" | b"MSET", pairs @ [_, ..]) if pairs.len().is_multiple_of(2) => {
            for pair in pairs.chunks_exact(2) {
                map.insert(pair[0].as_slice().into(), pair[1].as_slice().into());
            }
            out.write_all(b"+OK\r\n")
        }
        (b"DEL", keys) => {
            let deleted = keys.iter().filter(|key| map.remove(key.as_slice()).is_some()).count();
            write!(out, ":{deleted}\r\n")
        }
        _ => out.write_all(b"-ERR this is a map for benchmarks\r\n"),
    }
}

fn get(map: &Map, key: &[u8], out: &mut impl Write) -> io::Result<()> {
    let Some(value) = map.get(key) else { return out.write_all(b"$-1\r\n") };
    write!(out, "${}\r\n", value.len())?;
    out.write_all(value)?;
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_ends_the_connection_and_allocates_nothing() {
        let mut words = Vec::new();
        let taken: Vec<_> = ["GET k\r\n", "*5000\r\n", "*1\r\n$99999999999\r\n", "*1\r\n:3\r\n", "*1\r\n$3\r\nGE"]
            .into_iter()
            .filter(|bad| read(&mut bad.as_bytes(), &mut words).is_ok())
            .collect();
        assert!(taken.is_empty(), "{taken:?}");
        assert!(words.iter().all(|word| word.capacity() < 64));
        assert!(!read(&mut &b""[..], &mut words).unwrap());
    }

    #[test]
    fn what_it_does_not_know_is_refused_in_a_sentence() {
        let mut out = Vec::new();
        for words in [vec![], vec![b"FLUSHALL".to_vec()], vec![b"SET".to_vec(), b"k".to_vec()]] {
            answer(&words, &mut Map::new(), &mut out).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap().matches("-ERR this is a map").count(), 3);
    }
}
