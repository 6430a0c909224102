//! The canonical form: a domain with its version, then fields in rising order of their tags, each
//! as tag, length in four bytes and contents. There is one encoding of each value, and reading
//! takes no other.

use crate::rule::{Denial, Rule};

/// What every request begins with: it is signed, so it keeps the signature from other uses.
const DOMAIN: &[u8] = b"quorate/request/v1";

pub(crate) fn malformed(why: &str) -> Denial {
    Denial::new(Rule::Malformed, format!("the signed request cannot be read: {why}"))
}

/// Appends fields in the canonical encoding.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(DOMAIN);
        Self(bytes)
    }

    pub(crate) fn field(&mut self, tag: u8, contents: &[u8]) {
        let length = u32::try_from(contents.len()).expect("a field is far below 4 GiB");
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(contents);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields in the order in which they were written.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Denial> {
        let rest = bytes.strip_prefix(DOMAIN);
        rest.map(Self).ok_or_else(|| {
            malformed("it does not begin with quorate/request/v1: another version, or no request")
        })
    }

    /// The next field, which must have this tag.
    pub(crate) fn field(&mut self, tag: u8) -> Result<&'a [u8], Denial> {
        let cut_off = || malformed("it is cut off");
        let ([found, a, b, c, d], rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        if *found != tag {
            return Err(malformed("a field is missing or out of order"));
        }
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (contents, rest) = rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(contents)
    }

    pub(crate) fn array<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], Denial> {
        let wrong = |_| malformed("a field has another length than it should");
        self.field(tag)?.try_into().map_err(wrong)
    }

    pub(crate) fn text(&mut self, tag: u8) -> Result<&'a str, Denial> {
        std::str::from_utf8(self.field(tag)?).map_err(|_| malformed("a text is no UTF-8"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(self) -> Result<(), Denial> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("something follows its last field")) }
    }
}
