//! tonic's prost codec with small buffers. The default reserves 8 KiB for each direction of every open call, which is
//! half the cost of a burst of small calls: 119 MB instead of 56 with 10,000 open calls (`ebb-bench serve`). A small
//! buffer grows when a message needs it, and a call costs the same CPU.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Initial size of a buffer, in bytes.
const BUFFER_BYTES: usize = 512;
/// Bytes that a stream collects before it writes them: tonic's default.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of every generated service.
#[derive(Clone, Debug)]
pub struct Small<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Small<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Small<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
