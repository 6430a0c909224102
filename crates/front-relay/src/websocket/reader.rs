//! Reads a client's frames.
//!
//! Small frames are read many at a time into the stack and handed on from there. A frame that is
//! longer than that is read into a buffer of its own, which becomes the message without a copy.

use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::CHUNK;
use super::header::{BINARY, CLOSE, CONTINUATION, Header, PING, PONG, unmask};

/// Memory set aside on the word of a header alone; more comes with the bytes.
const FORETHOUGHT: usize = 256 << 10;

/// The bytes of a message, copied only if they are kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// In the bytes that were read together.
    Borrowed(&'a [u8]),
    /// In a buffer of its own.
    Owned(Bytes),
}

impl Payload<'_> {
    /// The payload, unmasked.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The bytes, to be kept.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A binary message.
    Binary(Payload<'a>),
    /// A text message, which is not looked at.
    Text,
    /// A ping, to be answered with the same bytes.
    Ping(Payload<'a>),
    /// The answer to a ping, or one that nobody asked for.
    Pong(Payload<'a>),
    /// The client closes the connection.
    Close,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub enum Fault {
    /// The peer is gone, or the connection is broken.
    Gone,
    /// The peer does not keep to the protocol.
    Protocol(&'static str),
    /// A message is longer than it may be.
    TooLarge,
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

struct Partial {
    header: Header,
    payload: BytesMut,
}

/// The reading half of a connection.
pub struct Reader {
    longest: usize,
    /// Read, and not yet handled.
    carry: Vec<u8>,
    /// The carry may hold whole frames, because their handler wanted no more.
    paused: bool,
    partial: Option<Partial>,
    /// A message in fragments: its opcode and what has come of it.
    fragments: Option<(u8, BytesMut)>,
}

impl Reader {
    /// A reader that takes messages of up to `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { longest, carry: Vec::new(), paused: false, partial: None, fragments: None }
    }

    /// Bytes of a message that has not come whole.
    pub fn held(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
        partial + self.fragments.as_ref().map_or(0, |(_, fragments)| fragments.len())
    }

    /// Reads once and hands on what is whole. `Break` from the handler leaves the rest for the
    /// next call. Answers with how many bytes were read.
    pub fn poll(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        handle: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<usize, Fault>> {
        if self.paused {
            let mut bytes = std::mem::take(&mut self.carry);
            self.take(&mut bytes, handle)?;
            return Poll::Ready(Ok(0));
        }
        if self.partial.is_some() {
            return self.poll_partial(io, cx, handle);
        }
        let mut room = [const { MaybeUninit::uninit() }; CHUNK];
        let mut chunk = ReadBuf::uninit(&mut room);
        chunk.put_slice(&self.carry);
        ready!(Pin::new(io).poll_read(cx, &mut chunk))?;
        let read = chunk.filled().len() - self.carry.len();
        if read == 0 {
            return Poll::Ready(Err(Fault::Gone));
        }
        self.carry = Vec::new();
        self.take(chunk.filled_mut(), handle)?;
        Poll::Ready(Ok(read))
    }

    /// Goes on with a long frame.
    fn poll_partial(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        handle: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<usize, Fault>> {
        let Some(Partial { header, payload }) = &mut self.partial else {
            return Poll::Ready(Ok(0));
        };
        let missing = header.length as usize - payload.len();
        let read = ready!(pin!(io.read_buf(&mut payload.limit(missing))).poll(cx))?;
        if read == 0 {
            return Poll::Ready(Err(Fault::Gone));
        }
        if read == missing
            && let Some(Partial { header, mut payload }) = self.partial.take()
        {
            unmask(&mut payload, header.mask);
            self.paused = self.whole(header, Payload::Owned(payload.freeze()), handle)?.is_break();
        }
        Poll::Ready(Ok(read))
    }

    /// Hands on the whole frames in `bytes` and keeps the rest.
    fn take(
        &mut self,
        mut bytes: &mut [u8],
        handle: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        self.paused = false;
        while !self.paused {
            let Some((head, header)) = Header::parse(bytes).map_err(Fault::Protocol)? else {
                break;
            };
            self.check(&header)?;
            let end = head + header.length as usize;
            if end > bytes.len() {
                if end > CHUNK {
                    let length = header.length as usize;
                    let mut payload = BytesMut::with_capacity(length.min(FORETHOUGHT));
                    payload.put_slice(&bytes[head..]);
                    self.partial = Some(Partial { header, payload });
                    return Ok(());
                }
                break;
            }
            let (frame, rest) = bytes.split_at_mut(end);
            let payload = &mut frame[head..];
            unmask(payload, header.mask);
            self.paused = self.whole(header, Payload::Borrowed(payload), handle)?.is_break();
            bytes = rest;
        }
        self.carry = bytes.to_vec();
        Ok(())
    }

    /// Bounds a message before its bytes are read.
    fn check(&self, header: &Header) -> Result<(), Fault> {
        let before = match (header.opcode, &self.fragments) {
            (CONTINUATION, Some((_, fragments))) => fragments.len(),
            _ => 0,
        };
        if header.length > (self.longest - before) as u64 { Err(Fault::TooLarge) } else { Ok(()) }
    }

    fn whole(
        &mut self,
        header: Header,
        payload: Payload<'_>,
        handle: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Fault> {
        Ok(match (header.opcode, &mut self.fragments) {
            (CLOSE, _) => handle(Incoming::Close),
            (PING, _) => handle(Incoming::Ping(payload)),
            (PONG, _) => handle(Incoming::Pong(payload)),
            (CONTINUATION, None) => return Err(Fault::Protocol("nothing to continue")),
            (CONTINUATION, Some((opcode, fragments))) => {
                fragments.put_slice(payload.as_slice());
                if !header.fin {
                    return Ok(ControlFlow::Continue(()));
                }
                let (opcode, message) = (*opcode, std::mem::take(fragments).freeze());
                self.fragments = None;
                handle(message_of(opcode, Payload::Owned(message)))
            }
            (_, Some(_)) => return Err(Fault::Protocol("a message within another")),
            (opcode, None) if header.fin => handle(message_of(opcode, payload)),
            (opcode, None) => {
                self.fragments = Some((opcode, BytesMut::from(payload.as_slice())));
                ControlFlow::Continue(())
            }
        })
    }
}

fn message_of(opcode: u8, payload: Payload<'_>) -> Incoming<'_> {
    if opcode == BINARY { Incoming::Binary(payload) } else { Incoming::Text }
}
