//! Writes frames: what is small leaves together in one write, what is long leaves without a copy.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, ReadBuf};

use super::CHUNK;
use super::header::{self, MAX_OUT};

/// A payload that is at least this long is written from where it lies.
const LONG: usize = 8 << 10;

/// A queue with more room than this gives it back when it is empty.
const KEPT_ROOM: usize = 64;

/// A frame that is to leave.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) opcode: u8,
    pub(crate) payload: Bytes,
    /// When what led to it came in, for deliveries.
    pub(crate) since: Option<Duration>,
}

impl Out {
    fn length(&self) -> usize {
        header::length_of(self.payload.len()) + self.payload.len()
    }
}

/// The writing half of a connection.
#[derive(Default)]
pub(crate) struct Writer {
    queue: VecDeque<Out>,
    /// Bytes of the first frame that have left.
    done: usize,
    unflushed: bool,
}

impl Writer {
    /// Frames that have not left whole.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes and messages of the deliveries among them.
    pub(crate) fn deliveries(&self) -> (usize, usize) {
        let lengths = self.queue.iter().filter(|out| out.since.is_some());
        lengths.fold((0, 0), |(bytes, count), out| (bytes + out.payload.len(), count + 1))
    }

    /// Adds a frame behind all others.
    pub(crate) fn push(&mut self, frame: Out) {
        self.queue.push_back(frame);
    }

    /// Takes the frames of `from`. When there are none here, nothing is moved.
    pub(crate) fn take(&mut self, from: &mut VecDeque<Out>) {
        if self.queue.is_empty() {
            std::mem::swap(&mut self.queue, from);
        } else {
            self.queue.append(from);
        }
    }

    /// Forgets all frames but one that has left in part.
    pub(crate) fn cut(&mut self) {
        self.queue.truncate(usize::from(self.done > 0));
    }

    /// Writes until all has left (`Ready`) or the socket takes no more. `left` hears of each
    /// frame that has left whole. The flag says whether any byte has left.
    pub(crate) fn poll(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        moved: &mut bool,
        mut left: impl FnMut(&Out),
    ) -> Poll<io::Result<()>> {
        while let Some(first) = self.queue.front() {
            let long = first.payload.len() >= LONG;
            let written = if long {
                ready!(self.poll_long(io, cx))?
            } else {
                ready!(self.poll_small(io, cx))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *moved = true;
            self.unflushed = true;
            self.advance(written, &mut left);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.queue.capacity() > KEPT_ROOM {
            self.queue = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_long(
        &self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let first = &self.queue[0];
        let mut head = [0; MAX_OUT];
        let length = header::write(first.opcode, first.payload.len(), &mut head);
        match self.done.checked_sub(length) {
            Some(done) => Pin::new(io).poll_write(cx, &first.payload[done..]),
            None => {
                let parts = [&head[self.done..length], &first.payload].map(IoSlice::new);
                Pin::new(io).poll_write_vectored(cx, &parts)
            }
        }
    }

    fn poll_small(
        &self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::uninit() }; CHUNK];
        let mut chunk = ReadBuf::uninit(&mut room);
        for frame in &self.queue {
            if frame.payload.len() >= LONG || frame.length() > chunk.remaining() {
                break;
            }
            let mut head = [0; MAX_OUT];
            let length = header::write(frame.opcode, frame.payload.len(), &mut head);
            chunk.put_slice(&head[..length]);
            chunk.put_slice(&frame.payload);
        }
        Pin::new(io).poll_write(cx, &chunk.filled()[self.done..])
    }

    fn advance(&mut self, written: usize, left: &mut impl FnMut(&Out)) {
        self.done += written;
        while let Some(first) = self.queue.front() {
            let length = first.length();
            if self.done < length {
                return;
            }
            self.done -= length;
            left(first);
            self.queue.pop_front();
        }
    }
}
