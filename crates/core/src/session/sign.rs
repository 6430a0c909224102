//! The rules of a signature: who takes part, and what may come out.

use quorate_types::*;

/// Holders of the key take part, as many as it needs at least.
///
/// # Errors
/// `threshold_not_met` where there are too few, `invalid_request` naming who holds no share.
pub(super) fn roster_ok(key: &KeyEpoch, parties: &[&PartyId]) -> Result<()> {
    let (needed, count) = (usize::from(key.threshold.signers()), parties.len());
    if count < needed {
        let problem = format!("{needed} signers are needed, {count} take part");
        return Err(Error::new(ErrorCode::ThresholdNotMet, problem).with_field("participants"));
    }
    let strangers = parties.iter().filter(|party| !key.holders.contains(party));
    let mut strangers: Vec<_> = strangers.map(|party| party.as_str()).collect();
    strangers.sort_unstable();
    if strangers.is_empty() {
        return Ok(());
    }
    let problem = format!("{} holds no share of key {}", strangers.join(", "), key.key_id);
    Err(Error::invalid_field("participants", problem))
}

/// A signature that verifies, in canonical form; one that repeats the `known` one has done so.
///
/// # Errors
/// `invalid_request` naming `signature`.
pub(super) fn check_result(
    key: &KeyEpoch,
    input: &SignInput,
    known: Option<&Outcome>,
    (bytes, recovery_id): (&[u8], Option<u8>),
) -> Result<Signature> {
    let signature = quorate_schemes::parse_signature(key.scheme, bytes, recovery_id)?;
    if let Some(Outcome::Signature(known)) = known
        && signature.repeats(known)
    {
        return Ok(known.clone());
    }
    quorate_schemes::complete_signature(key.scheme, &key.public_key, input, signature)
}
