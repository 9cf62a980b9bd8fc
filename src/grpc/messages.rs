//! The messages of a streamed request, decoded out of the frames that brought them.
//!
//! tonic's own stream copies them into a buffer that it keeps for as long as the call is open: an idle pipe that had once
//! carried a value of 200 KB kept 200 KB, in no account.

use super::request::{PREFIX_BYTES, RequestBody};
use super::status;
use crate::cache::Refusal;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use prost::Message;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// The messages of a request.
pub(super) struct Messages<T> {
    body: RequestBody,
    frames: Frames,
    /// Of the message that comes next, once it is known.
    length: Option<usize>,
    _message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Messages<T> {
    /// Those that `body` brings.
    pub(super) fn new(body: RequestBody) -> Self {
        Self { body, frames: Frames::default(), length: None, _message: PhantomData }
    }

    /// The next message, or why there is none. After an error there is no other.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Status>>> {
        loop {
            if let Some(message) = self.decode().transpose() {
                return Poll::Ready(Some(message));
            }
            if self.frames.left == 0 {
                self.frames = Frames::default(); // it may be a while until more comes
            }
            // Who asks for more has handled what came before: the body gives its room to others.
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().into_iter().for_each(|data| self.frames.push(data)),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Gives back the quota of messages that are not handled yet, while their reader waits for something else.
    pub(super) fn give_up_permit(&mut self) {
        self.body.give_up_permit();
    }

    /// The message that has come whole.
    fn decode(&mut self) -> Result<Option<T>, Status> {
        let length = match self.length {
            Some(length) => length,
            None if self.frames.remaining() < PREFIX_BYTES => return Ok(None),
            None => {
                if self.frames.get_u8() != 0 {
                    return Err(status::of(&Refusal::Malformed("the message is compressed")));
                }
                self.frames.get_u32() as usize
            }
        };
        self.length = Some(length);
        if self.frames.remaining() < length {
            return Ok(None);
        }
        self.length = None;
        let decoded = T::decode((&mut self.frames).take(length));
        decoded.map(Some).map_err(|_| status::of(&Refusal::Malformed("the message cannot be decoded")))
    }
}

/// Frames, read as one sequence of bytes.
#[derive(Default)]
struct Frames {
    frames: VecDeque<Bytes>,
    left: usize,
}

impl Frames {
    fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.left += frame.len();
            self.frames.push_back(frame);
        }
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |frame| frame)
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.left, "{n} bytes of {}", self.left);
        self.left -= n;
        while n > 0 {
            let Some(first) = self.frames.front_mut() else { return };
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if first.is_empty() {
                self.frames.pop_front();
            }
        }
    }

    /// A slice, if one frame holds all of it; otherwise a copy.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self.frames.front() {
            Some(first) if len <= first.len() => {
                let bytes = first.slice(..len);
                self.advance(len);
                bytes
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(len);
                bytes.put(self.take(len));
                bytes.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(texts: &[&'static str]) -> Frames {
        let mut frames = Frames::default();
        texts.iter().for_each(|text| frames.push(Bytes::from_static(text.as_bytes())));
        frames
    }

    #[test]
    fn frames_read_as_one_text() {
        let mut text = frames(&["ab", "", "cde", "f"]);
        assert_eq!((text.remaining(), text.chunk()), (6, &b"ab"[..]));
        text.advance(3);
        assert_eq!((text.remaining(), text.chunk()), (3, &b"de"[..]));
        assert_eq!(text.copy_to_bytes(3), "def");
        assert_eq!((text.remaining(), text.chunk(), text.frames.len()), (0, &b""[..], 0));
    }

    #[test]
    fn bytes_within_a_frame_are_not_copied() {
        let whole = Bytes::from(vec![7; 100]);
        let mut text = Frames::default();
        text.push(whole.clone());
        assert_eq!(text.copy_to_bytes(60).as_ptr(), whole.as_ptr());
        assert_eq!(text.copy_to_bytes(40).as_ptr(), whole[60..].as_ptr());
    }
}
