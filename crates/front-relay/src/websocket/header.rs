//! The header of a WebSocket frame.

/// The opcodes of RFC 6455, section 5.2.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The longest header a server writes: no mask.
pub(crate) const MAX_OUT: usize = 10;

/// Control frames carry at most this much.
const MAX_CONTROL: u64 = 125;

/// The header of a frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) mask: [u8; 4],
    pub(crate) length: u64,
}

impl Header {
    /// Reads a header: how long it is and what it says. `Ok(None)` when bytes are missing, an
    /// error in words when no client may send this.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(usize, Self)>, &'static str> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err("reserved bits are set");
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err("unknown opcode");
        }
        if second & 0x80 == 0 {
            return Err("a client's frames are masked");
        }
        let (short, rest) = (second & 0x7f, &bytes[2..]);
        let (length, rest) = match short {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if opcode >= CLOSE && (!fin || length > MAX_CONTROL) {
            return Err("a control frame is short and whole");
        }
        let Some((mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some((bytes.len() - rest.len(), Self { fin, opcode, mask: *mask, length })))
    }
}

/// Writes the header of a whole, unmasked frame and says how long it is.
pub(crate) fn write(opcode: u8, length: usize, to: &mut [u8; MAX_OUT]) -> usize {
    to[0] = 0x80 | opcode;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => {
            to[1] = short;
            2
        }
        (_, Ok(medium)) => {
            to[1] = 126;
            to[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            to[1] = 127;
            to[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    }
}

/// How long the header of such a frame is.
pub(crate) fn length_of(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Takes the mask off, or puts it on.
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from(u32::from_ne_bytes(mask));
    let wide = wide << 32 | wide;
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
