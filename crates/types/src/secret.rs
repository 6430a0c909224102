//! Values that must not be shown, logged or sent.

use zeroize::{Zeroize, Zeroizing};

/// A secret: no `Debug`, no `Display`, no `Serialize`; wiped when dropped.
///
/// Reading it takes a call that is easy to search for.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Shows the value to code that must have it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}
