//! What a creator may ask for.

use std::cmp::Ordering;

use quorate_types::*;

use super::{NewSession, refresh};

/// Longest free text about a device, in bytes. Every view and event carries those of all parties.
const MAX_DEVICE_TEXT: usize = 256;

pub(super) fn check_participants(new: &NewSession) -> Result<()> {
    for (participant, _) in &new.participants {
        check_device(&participant.device)?;
    }
    let count = new.participants.len();
    let mut names: Vec<_> = new.participants.iter().map(|(p, _)| &p.party_id).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid_field("participants", format!("{} is named twice", twice[0])));
    }
    let threshold = new.ceremony.threshold();
    let (t, n) = (usize::from(threshold.signers()), usize::from(threshold.parties()));
    let too_few = |problem: String| {
        Err(Error::new(ErrorCode::ThresholdNotMet, problem).with_field("participants"))
    };
    match &new.ceremony {
        Ceremony::Keygen { .. } => {
            let problem = format!("a key of {n} parties is made by exactly {n}, not {count}");
            match count.cmp(&n) {
                Ordering::Less => too_few(problem),
                Ordering::Equal => Ok(()),
                Ordering::Greater => Err(Error::invalid_field("participants", problem)),
            }
        }
        Ceremony::Refresh { key } => {
            refresh::roster_ok(key, new.participants.iter().map(|(p, _)| &p.party_id))
        }
        Ceremony::Sign { .. } if count < t => {
            too_few(format!("{t} signers are needed, {count} take part"))
        }
        Ceremony::Sign { key, .. } => {
            let strangers: Vec<_> = names
                .iter()
                .filter(|name| !key.holders.contains(name))
                .map(|name| name.as_str())
                .collect();
            if strangers.is_empty() {
                return Ok(());
            }
            Err(Error::invalid_field(
                "participants",
                format!("no share of key {} is held by {}", key.key_id, strangers.join(", ")),
            ))
        }
    }
}

/// Refuses texts about a device that are out of proportion.
pub(super) fn check_device(device: &DeviceInfo) -> Result<()> {
    let texts = [
        ("device_type", &device.device_type),
        ("device_id", &device.device_id),
        ("platform", &device.platform),
        ("app_version", &device.app_version),
    ];
    match texts.iter().find(|(_, text)| text.len() > MAX_DEVICE_TEXT) {
        Some((field, _)) => {
            Err(Error::invalid_field(field, format!("{field} is at most {MAX_DEVICE_TEXT} bytes")))
        }
        None => Ok(()),
    }
}

/// Whether the key's scheme signs what the creator gave.
pub(super) fn check_input(ceremony: &Ceremony) -> Result<()> {
    match ceremony {
        Ceremony::Keygen { .. } | Ceremony::Refresh { .. } => Ok(()),
        Ceremony::Sign { key, input } => quorate_schemes::check_input(key.scheme, input),
    }
}
