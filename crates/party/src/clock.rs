//! The wall clock in the wires' unit.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_types::Timestamp;

/// Now; 1970 on a machine whose clock is before it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
