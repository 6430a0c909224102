//! A client's WebSocket frames as the binary relay reads them: whole and in pieces, which must come
//! to the same.
//!
//! The first byte of an input is the size of the pieces; the rest is what the client sends.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use quorate_front_relay::websocket::{Fault, Incoming, Reader};
use tokio::io::{AsyncRead, ReadBuf};

use super::Notes;

/// Headers: a binary message, its parts, text, a ping, a close, lengths in two and in eight bytes.
pub(crate) const WORDS: &[&str] =
    &["\u{1}", "\u{2}", "\u{8}", "\u{9}", "\0\0\0\0", "~", "\u{7f}", "~\0\u{7f}", "aaaaaaaa"];

/// The longest message taken.
const LONGEST: usize = 1_000;

/// Gives a few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(to.remaining()));
        to.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// What was read, and why no more.
fn read(input: &[u8], piece: usize) -> (Vec<(u8, Vec<u8>)>, u8) {
    let (mut io, mut reader) = (Pieces(input, piece), Reader::new(LONGEST));
    let mut seen = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut handle = |incoming: Incoming<'_>| {
            let (kind, bytes) = match &incoming {
                Incoming::Binary(payload) => (0, payload.as_slice().to_vec()),
                Incoming::Text => (1, Vec::new()),
                Incoming::Ping(payload) => (2, payload.as_slice().to_vec()),
                Incoming::Pong(payload) => (3, payload.as_slice().to_vec()),
                Incoming::Close => (4, Vec::new()),
            };
            assert!(bytes.len() <= LONGEST, "a message over the bound");
            seen.push((kind, bytes));
            // Every third frame is more than the handler wants for now.
            if seen.len() % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let polled = reader.poll(&mut io, &mut context, &mut handle);
        assert!(reader.held() <= LONGEST, "more is held than a message may have");
        match polled {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(Fault::Gone)) => return (seen, 0),
            Poll::Ready(Err(Fault::Protocol(_))) => return (seen, 1),
            Poll::Ready(Err(Fault::TooLarge)) => return (seen, 2),
            Poll::Pending => panic!("the input never pends"),
        }
    }
}

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let mut notes = Notes::default();
    let Some((&piece, frames)) = input.split_first() else { return notes.end() };
    let whole = read(frames, usize::MAX);
    assert_eq!(whole, read(frames, usize::from(piece).max(1)));
    for (kind, bytes) in &whole.0 {
        notes.note((kind, bytes.len().min(3)));
    }
    notes.note(whole.1);
    notes.end()
}
