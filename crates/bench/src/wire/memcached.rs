//! memcached: the text protocol, with replies in the order of requests. A batch of gets is one line; a batch of sets or
//! deletes is one command per key.

use anyhow::{Context as _, anyhow, bail};
use std::collections::VecDeque;
use std::io::Write as _;

use super::{Heard, Kind, Protocol, Reply, Request};

#[derive(Debug)]
struct Asked {
    slot: u32,
    kind: Kind,
    batch: bool,
    /// Remaining reply lines of a batch of sets or deletes.
    lines: usize,
    found: usize,
}

/// Requests without a reply, oldest first.
#[derive(Debug, Default)]
pub(super) struct Memcached {
    asked: VecDeque<Asked>,
}

impl Protocol for Memcached {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn window(&self) -> usize {
        usize::MAX
    }

    fn ask(&mut self, slot: u32, request: &Request, out: &mut Vec<u8>) {
        let Request { kind, batch, .. } = *request;
        self.asked.push_back(Asked { slot, kind, batch, lines: request.keys.len().max(1), found: 0 });
        match kind {
            Kind::Empty => out.extend_from_slice(b"mn\r\n"),
            Kind::Get => {
                out.extend_from_slice(b"get");
                for key in &request.keys {
                    out.push(b' ');
                    out.extend_from_slice(key);
                }
                out.extend_from_slice(b"\r\n");
            }
            Kind::Set => {
                for (key, value) in request.pairs() {
                    out.extend_from_slice(b"set ");
                    out.extend_from_slice(key);
                    let _ = write!(out, " 0 0 {}\r\n", value.len()); // writing to a Vec cannot fail
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Kind::Delete => {
                for key in &request.keys {
                    out.extend_from_slice(b"delete ");
                    out.extend_from_slice(key);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }

    fn flush(&mut self, _: &mut Vec<u8>) {}

    fn hear(&mut self, input: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some(asked) = self.asked.front_mut() {
            let (reply, len) = if asked.kind == Kind::Get {
                let Some((found, value, len)) = values(&input[at..])? else { break };
                let single = value.map_or(Reply::Miss, Reply::Value);
                (if asked.batch { Reply::Many { found } } else { single }, len)
            } else {
                let Some((text, len)) = line(&input[at..])? else { break };
                let done = match text {
                    b"STORED" | b"DELETED" | b"MN" => true,
                    b"NOT_FOUND" => false,
                    other => bail!("memcached answered `{}`", other.escape_ascii()),
                };
                asked.found += usize::from(done);
                asked.lines -= 1;
                if asked.lines > 0 {
                    at += len;
                    continue;
                }
                let single = if done { Reply::Done } else { Reply::Miss };
                (if asked.batch { Reply::Many { found: asked.found } } else { single }, len)
            };
            heard(asked.slot, reply);
            self.asked.pop_front();
            at += len;
        }
        Ok(at)
    }
}

/// The reply to a get: number of values, the last value, and length of the reply.
type Values<'a> = (usize, Option<&'a [u8]>, usize);

fn values(input: &[u8]) -> anyhow::Result<Option<Values<'_>>> {
    let (mut at, mut found, mut last) = (0, 0, None);
    loop {
        let Some((text, len)) = line(&input[at..])? else { return Ok(None) };
        at += len;
        if text == b"END" {
            return Ok(Some((found, last, at)));
        }
        let bad = || format!("memcached answered `{}`", text.escape_ascii());
        let bytes = text.strip_prefix(b"VALUE ").and_then(|rest| rest.rsplit(|&byte| byte == b' ').next());
        let bytes = bytes.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok()).with_context(bad)?;
        let Some(body) = input.get(at..at + bytes as usize + 2) else { return Ok(None) };
        last = Some(body.strip_suffix(b"\r\n").with_context(bad)?);
        found += 1;
        at += body.len();
    }
}

/// Reads a line; returns its text and its length with the line end.
fn line(input: &[u8]) -> anyhow::Result<Option<(&[u8], usize)>> {
    let Some(end) = input.iter().take(4096).position(|&byte| byte == b'\n') else {
        return if input.len() < 4096 { Ok(None) } else { Err(anyhow!("memcached sent a line without an end")) };
    };
    let text = input[..end].strip_suffix(b"\r").context("memcached ended a line without CR")?;
    Ok(Some((text, end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole_or_not_at_all() {
        let whole = b"VALUE kkkk 0 5\r\nhello\r\nVALUE jjjj 0 0\r\n\r\nEND\r\n";
        assert_eq!(values(whole).unwrap(), Some((2, Some(&b""[..]), whole.len())));
        for cut in 0..whole.len() {
            assert_eq!(values(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
        let taken: Vec<_> = ["ERROR\r\n", "VALUE k 0 x\r\n", "VALUE k 0 1\r\nabcd", "END\n"]
            .into_iter()
            .filter(|bad| values(bad.as_bytes()).is_ok())
            .collect();
        assert!(taken.is_empty(), "{taken:?}");
    }

    #[test]
    fn a_batch_of_deletes_is_one_answer() {
        let mut memcached = Memcached::default();
        let (mut request, mut out) = (Request::default(), Vec::new());
        request.begin(Kind::Delete, true, 0);
        request.key([b'a'; 16]);
        request.key([b'b'; 16]);
        memcached.ask(7, &request, &mut out);
        let mut heard = Vec::new();
        let mut hear =
            |input: &[u8]| memcached.hear(input, &mut |slot, reply| heard.push(format!("{slot} {reply:?}"))).unwrap();
        assert_eq!(hear(b"DELETED\r\nNOT_FO"), 9);
        assert_eq!(hear(b"NOT_FOUND\r\n"), 11);
        assert_eq!(heard, ["7 Many { found: 1 }"]);
    }
}
