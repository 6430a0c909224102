//! What a creator may ask for.

use quorate_types::*;

use super::NewSession;

pub(super) fn check_participants(new: &NewSession) -> Result<()> {
    let count = new.participants.len();
    let mut names: Vec<_> = new.participants.iter().map(|(p, _)| &p.party_id).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid_field("participants", format!("{} is named twice", twice[0])));
    }
    let (t, n) = (usize::from(new.threshold.signers()), usize::from(new.threshold.parties()));
    match &new.key {
        None if count < n => Err(Error::new(
            ErrorCode::ThresholdNotMet,
            format!("a key of {n} parties is made by exactly {n}, not {count}"),
        )
        .with_field("participants")),
        None if count > n => Err(Error::invalid_field(
            "participants",
            format!("a key of {n} parties is made by exactly {n}, not {count}"),
        )),
        Some(_) if count < t => Err(Error::new(
            ErrorCode::ThresholdNotMet,
            format!("{t} signers are needed, {count} take part"),
        )
        .with_field("participants")),
        Some(key) => match names.iter().find(|name| !key.holders.contains(name)) {
            Some(stranger) => Err(Error::invalid_field(
                "participants",
                format!("{stranger} holds no share of key {}", key.key_id),
            )),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

pub(super) fn check_digest(new: &NewSession) -> Result<()> {
    let problem = match (new.kind, new.digest.is_some(), new.key.is_some()) {
        (SessionKind::Keygen, false, false) | (SessionKind::Sign, true, true) => return Ok(()),
        (SessionKind::Keygen, true, _) => "a keygen session signs nothing: leave message_hash out",
        (SessionKind::Sign, false, _) => "a sign session needs message_hash: 32 bytes in hex",
        (SessionKind::Keygen, ..) => "a keygen session makes a key: name none",
        (SessionKind::Sign, ..) => "a sign session needs a key",
    };
    Err(Error::invalid_field("message_hash", problem))
}
