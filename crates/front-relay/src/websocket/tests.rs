//! Headers against golden bytes; reader and writer in pieces of any size.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::header::{CONTINUATION, Header, MAX_OUT, TEXT, length_of, unmask, write};
use super::*;

/// A socket that gives and takes a few bytes at a time, and says no every second time.
#[derive(Default)]
struct Trickle {
    input: Vec<u8>,
    output: Vec<u8>,
    piece: usize,
    refuses: bool,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.input.len()).min(to.remaining());
        let piece: Vec<u8> = self.input.drain(..length).collect();
        to.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.refuses = !self.refuses;
        if self.refuses {
            return Poll::Pending;
        }
        let length = self.piece.min(from.len());
        self.output.extend_from_slice(&from[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut head = [0; MAX_OUT];
    let length = write(opcode, payload.len(), &mut head);
    head[0] &= if fin { 0xff } else { 0x7f };
    head[1] |= 0x80;
    let mask = [1, 2, 3, 4];
    let mut body = payload.to_vec();
    unmask(&mut body, mask);
    [&head[..length], &mask, &body].concat()
}

/// What a reader makes of bytes, and why it stopped.
fn read(input: Vec<u8>, piece: usize, longest: usize, pause: bool) -> (Vec<Bytes>, Fault) {
    let mut io = Trickle { input, piece, ..Trickle::default() };
    let (mut reader, mut heard) = (Reader::new(longest), Vec::new());
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let read = reader.poll(&mut io, &mut cx, &mut |incoming| {
            heard.push(match incoming {
                Incoming::Binary(payload) => payload.into_bytes(),
                Incoming::Ping(payload) => Bytes::from([b"ping", payload.as_slice()].concat()),
                Incoming::Text => Bytes::from_static(b"text"),
                Incoming::Pong(_) => Bytes::from_static(b"pong"),
                Incoming::Close => Bytes::from_static(b"close"),
            });
            if pause { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Poll::Ready(Err(fault)) = read {
            return (heard, fault);
        }
    }
}

#[test]
fn headers_have_their_golden_bytes() {
    let rows: &[(u8, usize, &[u8])] = &[
        (BINARY, 0, &[0x82, 0]),
        (BINARY, 125, &[0x82, 125]),
        (BINARY, 126, &[0x82, 126, 0, 126]),
        (BINARY, 65_535, &[0x82, 126, 0xff, 0xff]),
        (BINARY, 65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (PING, 0, &[0x89, 0]),
        (CLOSE, 2, &[0x88, 2]),
    ];
    for (opcode, length, golden) in rows {
        let mut head = [0; MAX_OUT];
        let written = write(*opcode, *length, &mut head);
        assert_eq!(head[..written], **golden);
        assert_eq!(length_of(*length), written);
    }
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_how() {
    let rows: &[(&[u8], &str)] = &[
        (&[0x82, 0x01, 0], "a client's frames are masked"),
        (&[0xc2, 0x80], "reserved bits are set"),
        (&[0x83, 0x80], "unknown opcode"),
        (&[0x09, 0x80], "a control frame is short and whole"),
        (&[0x89, 0xfe, 0, 126], "a control frame is short and whole"),
        (&[0x80, 0x80, 0, 0, 0, 0], "nothing to continue"),
        (&[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0], "a message within another"),
    ];
    for (bytes, expected) in rows {
        match read(bytes.to_vec(), 100, 100, false).1 {
            Fault::Protocol(reason) => assert_eq!(reason, *expected),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
}

#[test]
fn a_message_over_the_bound_is_refused_by_its_header() {
    let whole = masked(true, BINARY, &[7; 101])[..8].to_vec();
    assert!(matches!(read(whole, 100, 100, false).1, Fault::TooLarge));
    let parts = [masked(false, BINARY, &[7; 60]), masked(true, CONTINUATION, &[7; 41])].concat();
    assert!(matches!(read(parts, 100, 100, false).1, Fault::TooLarge));
    let huge = vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert!(matches!(read(huge, 100, 100, false).1, Fault::TooLarge));
}

#[test]
fn control_frames_come_between_fragments() {
    let input = [
        masked(false, BINARY, b"ab"),
        masked(true, PING, b"!"),
        masked(false, CONTINUATION, b"cd"),
        masked(true, CONTINUATION, b"ef"),
        masked(true, TEXT, b"text"),
        masked(true, PONG, b""),
        masked(true, CLOSE, b""),
    ]
    .concat();
    for pause in [false, true] {
        let (heard, end) = read(input.clone(), 3, 100, pause);
        assert_eq!(heard, [&b"ping!"[..], b"abcdef", b"text", b"pong", b"close"]);
        assert!(matches!(end, Fault::Gone));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_pieces_the_messages_are_the_same(
        lengths in prop::collection::vec(prop_oneof![0_usize..300, 30_000_usize..80_000], 0..8),
        piece in prop_oneof![1_usize..50, 1_000_usize..100_000],
        pause: bool,
    ) {
        let piece = if lengths.iter().sum::<usize>() > 10_000 { piece.max(500) } else { piece };
        let sent: Vec<Bytes> = lengths.iter().enumerate()
            .map(|(n, length)| Bytes::from(vec![n as u8; *length]))
            .collect();
        let input: Vec<u8> =
            sent.iter().flat_map(|payload| masked(true, BINARY, payload)).collect();
        let (heard, _) = read(input, piece, 1 << 20, pause);
        prop_assert_eq!(heard, sent);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        input in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50,
    ) {
        read(input, piece, 1_000, false);
    }

    #[test]
    fn what_is_written_is_every_frame_in_order(
        lengths in prop::collection::vec(prop_oneof![0_usize..300, 8_000_usize..70_000], 0..20),
        piece in 500_usize..100_000,
    ) {
        let mut io = Trickle { piece, ..Trickle::default() };
        let mut writer = Writer::default();
        let mut expected = Vec::new();
        for (n, length) in lengths.iter().enumerate() {
            let payload = Bytes::from(vec![n as u8; *length]);
            let mut head = [0; MAX_OUT];
            let head_length = write(BINARY, payload.len(), &mut head);
            expected.extend_from_slice(&head[..head_length]);
            expected.extend_from_slice(&payload);
            writer.push(Out { opcode: BINARY, payload, since: None });
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut moved, mut left) = (false, 0);
        while writer.poll(&mut io, &mut cx, &mut moved, |_| left += 1).is_pending() {}
        prop_assert_eq!(io.output, expected);
        prop_assert_eq!(left, lengths.len());
        prop_assert_eq!(moved, !lengths.is_empty());
    }

    #[test]
    fn a_mask_taken_off_twice_is_no_mask(
        payload in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4],
    ) {
        let mut bytes = payload.clone();
        unmask(&mut bytes, mask);
        for (at, byte) in bytes.iter().enumerate() {
            prop_assert_eq!(*byte, payload[at] ^ mask[at % 4]);
        }
        unmask(&mut bytes, mask);
        prop_assert_eq!(bytes, payload);
    }

    #[test]
    fn a_header_is_read_back(opcode in prop_oneof![Just(TEXT), Just(BINARY)], length in 0_usize..200_000) {
        let head = masked(true, opcode, &vec![0; length]);
        let (read, header) = Header::parse(&head).unwrap().unwrap();
        prop_assert_eq!(read + length, head.len());
        prop_assert_eq!((header.length, header.opcode, header.fin), (length as u64, opcode, true));
        for cut in 0..read {
            prop_assert_eq!(Header::parse(&head[..cut]).unwrap(), None);
        }
    }
}
