//! Redis: RESP2, with replies in the order of requests.

use anyhow::{Context as _, anyhow, bail};
use std::collections::VecDeque;

use super::{Heard, Kind, Protocol, Reply, Request};

/// Requests without a reply, oldest first.
#[derive(Debug, Default)]
pub(super) struct Resp {
    asked: VecDeque<(u32, bool)>,
}

impl Protocol for Resp {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn window(&self) -> usize {
        usize::MAX
    }

    fn ask(&mut self, slot: u32, request: &Request, out: &mut Vec<u8>) {
        self.asked.push_back((slot, request.batch));
        let name: &[u8] = match (request.kind, request.batch) {
            (Kind::Empty, _) => b"PING",
            (Kind::Get, false) => b"GET",
            (Kind::Get, true) => b"MGET",
            (Kind::Set, false) => b"SET",
            (Kind::Set, true) => b"MSET",
            (Kind::Delete, _) => b"DEL",
        };
        let words = 1 + request.keys.len() + request.bounds.len();
        header(b'*', words, out);
        word(name, out);
        if request.kind == Kind::Set {
            for (key, value) in request.pairs() {
                word(key, out);
                word(value, out);
            }
        } else {
            request.keys.iter().for_each(|key| word(key, out));
        }
    }

    fn flush(&mut self, _: &mut Vec<u8>) {}

    fn hear(&mut self, input: &[u8], heard: &mut Heard<'_>) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some((value, len)) = parse(&input[at..], 0)? {
            let (slot, batch) = self.asked.pop_front().context("Redis sent an unexpected reply")?;
            at += len;
            heard(slot, reply(value, batch));
        }
        Ok(at)
    }
}

fn reply(value: Value<'_>, batch: bool) -> Reply<'_> {
    match value {
        Value::Text(_) if batch => Reply::Many { found: 0 }, // MSET's OK counts nothing
        Value::Text(_) => Reply::Done,
        Value::Bytes(bytes) => Reply::Value(bytes),
        Value::Nil => Reply::Miss,
        Value::Number(n) if batch => Reply::Many { found: n.max(0) as usize },
        Value::Number(0) => Reply::Miss,
        Value::Number(_) => Reply::Done,
        Value::Many { present } => Reply::Many { found: present },
        Value::Error(text) => Reply::Refused(String::from_utf8_lossy(text).into_owned()),
    }
}

/// A RESP2 value; for an array, only the number of non-nil elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Text(&'a [u8]),
    Error(&'a [u8]),
    Number(i64),
    Bytes(&'a [u8]),
    Many { present: usize },
    Nil,
}

/// Parses one value and returns its length; `None` if it is incomplete.
fn parse(input: &[u8], depth: usize) -> anyhow::Result<Option<(Value<'_>, usize)>> {
    let Some(end) = input.iter().take(64 << 10).position(|&byte| byte == b'\n') else { return Ok(None) };
    let line = input[..end].strip_suffix(b"\r").context("a line of RESP ends without CR")?;
    let (&kind, rest) = line.split_first().context("an empty line of RESP")?;
    let mut len = end + 1;
    let number = || -> anyhow::Result<i64> {
        let text = std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok());
        text.with_context(|| format!("`{}` is not a number of RESP", String::from_utf8_lossy(rest)))
    };
    let value = match kind {
        b'+' => Value::Text(rest),
        b'-' => Value::Error(rest),
        b':' => Value::Number(number()?),
        b'$' | b'*' if rest == b"-1" => Value::Nil,
        b'$' => {
            let bytes = usize::try_from(number()?).ok().filter(|&n| n <= 512 << 20).context("a bad length of RESP")?;
            let Some(body) = input.get(len..len + bytes + 2) else { return Ok(None) };
            len += bytes + 2;
            Value::Bytes(body.strip_suffix(b"\r\n").context("a RESP string ends without CRLF")?)
        }
        b'*' if depth < 4 => {
            let count = usize::try_from(number()?).map_err(|_| anyhow!("a bad count of RESP"))?;
            let mut present = 0;
            for _ in 0..count {
                let Some((element, element_len)) = parse(&input[len..], depth + 1)? else { return Ok(None) };
                present += usize::from(element != Value::Nil);
                len += element_len;
            }
            Value::Many { present }
        }
        _ => bail!("`{}` is not a RESP value", kind.escape_ascii()),
    };
    Ok(Some((value, len)))
}

fn word(bytes: &[u8], out: &mut Vec<u8>) {
    header(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn header(kind: u8, n: usize, out: &mut Vec<u8>) {
    use std::io::Write as _;
    out.push(kind);
    let _ = write!(out, "{n}\r\n"); // writing to a Vec cannot fail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole_or_not_at_all() {
        assert_eq!(parse(b"$5\r\nhello\r\n:1", 0).unwrap(), Some((Value::Bytes(b"hello"), 11)));
        assert_eq!(parse(b"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n", 0).unwrap(), Some((Value::Many { present: 2 }, 22)));
        let whole = b"*2\r\n$1\r\na\r\n:7\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], 0).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        for bad in
            [&b"$x\r\n"[..], b"?\r\n", b"\r\n", b"+OK\n", b"$2\r\nabcd", b"$-7\r\n", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"]
        {
            assert!(parse(bad, 0).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn answers_find_their_questions_in_order() {
        let mut resp = Resp::default();
        let (mut request, mut out) = (Request::default(), Vec::new());
        request.begin(Kind::Get, false, 0);
        request.key([b'k'; 16]);
        resp.ask(4, &request, &mut out);
        resp.ask(2, &request, &mut out);
        assert!(out.starts_with(b"*2\r\n$3\r\nGET\r\n$16\r\nkkkk"));
        let mut heard = Vec::new();
        let input = b"$1\r\nv\r\n-ERR no\r\n$1";
        let used = resp.hear(input, &mut |slot, reply| heard.push(format!("{slot} {reply:?}"))).unwrap();
        assert_eq!(used, input.len() - 2);
        assert_eq!(heard, ["4 Value([118])", "2 Refused(\"ERR no\")"]);
    }
}
