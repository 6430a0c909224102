//! The rules of a keygen: who takes part, and what may come out.

use std::cmp::Ordering;

use quorate_types::*;

/// As many take part as the key has holders.
///
/// # Errors
/// `threshold_not_met` where some are missing, `invalid_request` where there are too many.
pub(super) fn roster_ok(threshold: Threshold, parties: &[&PartyId]) -> Result<()> {
    let (n, count) = (usize::from(threshold.parties()), parties.len());
    let problem = format!("a key of {n} parties takes exactly {n} participants, not {count}");
    match count.cmp(&n) {
        Ordering::Less => {
            Err(Error::new(ErrorCode::ThresholdNotMet, problem).with_field("participants"))
        }
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(Error::invalid_field("participants", problem)),
    }
}

/// A key of the scheme, in canonical form.
///
/// # Errors
/// `invalid_request` naming `public_key`.
pub(super) fn check_result(scheme: Scheme, reported: &[u8]) -> Result<PublicKey> {
    quorate_schemes::normalize_public_key(scheme, reported)
}

/// A keygen makes the first epoch.
///
/// # Errors
/// `invalid_request` naming `epoch`.
pub(super) fn check_epoch(epoch: u32) -> Result<()> {
    if epoch == 0 { Ok(()) } else { Err(Error::invalid_field("epoch", "a keygen makes epoch 0")) }
}
