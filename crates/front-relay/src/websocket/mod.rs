//! The server's side of RFC 6455, without extensions: headers, a reader and a writer.

mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use header::{BINARY, CLOSE, PING, PONG};
pub use reader::{Fault, Incoming, Payload, Reader};
pub(crate) use writer::{Out, Writer};

/// Bytes read or gathered for one system call. They lie on the stack, so they cost nothing while
/// a connection is idle; a few hundred small frames fit.
const CHUNK: usize = 32 << 10;
