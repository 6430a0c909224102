//! What bans and a freeze leave of a key.

use quorate_types::*;

/// Refuses what would use a key that its owner has frozen: a refresh too, so that what the key was
/// frozen for can be looked at before anything changes.
///
/// # Errors
/// `key_frozen`, with the reason that was given.
pub fn refuse_frozen(key: &KeyRecord) -> Result<()> {
    let Some(Freeze { by, reason, .. }) = &key.frozen else { return Ok(()) };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let id = key.key_id;
    let message = format!(
        "key {id} was frozen by {by}{why}; signatures and refreshes are refused until `quorate keys \
         unfreeze {id}`"
    );
    Err(Error::new(ErrorCode::KeyFrozen, message).with_field("key_id"))
}

/// Whether a key still signs, given what its holders have reported: it does while there are as many
/// holders as it needs of whom no two are banned from signing together in its epoch.
pub fn state(key: &KeyRecord, bans: &[ReportedBan]) -> KeyState {
    if key.frozen.is_some() {
        return KeyState::Frozen;
    }
    let place = |party: &PartyId| key.holders.iter().position(|holder| holder == party);
    let pairs: Vec<_> = bans
        .iter()
        .filter(|ban| ban.epoch == key.epoch)
        .filter_map(|ban| Some(1_u32 << place(&ban.reporter)? | 1 << place(&ban.peer)?))
        .collect();
    let needed = u32::from(key.threshold.signers());
    // At most 16 holders: 65 536 sets.
    let signs =
        |set: u32| set.count_ones() == needed && pairs.iter().all(|pair| set & pair != *pair);
    if (0..1_u32 << key.holders.len()).any(signs) { KeyState::Active } else { KeyState::Locked }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(signers: i64, holders: &[&str]) -> KeyRecord {
        let parties = i64::try_from(holders.len()).unwrap();
        let key = KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 1,
            scheme: Scheme::default(),
            threshold: Threshold::new(signers, parties).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: holders.iter().map(|name| name.parse().unwrap()).collect(),
        };
        let (tenant, created_at) = (Tenant::default(), Timestamp(0));
        KeyRecord { key: key.into(), tenant, created_at, label: None, frozen: None }
    }

    fn ban(epoch: u32, reporter: &str, peer: &str) -> ReportedBan {
        ReportedBan {
            key_id: key(2, &["a", "b"]).key_id,
            epoch,
            reporter: reporter.parse().unwrap(),
            peer: peer.parse().unwrap(),
            reason: String::new(),
            session_id: SessionId(Default::default()),
            at: Timestamp(0),
        }
    }

    #[test]
    fn a_key_is_locked_when_no_quorum_is_left() {
        let (active, locked) = (KeyState::Active, KeyState::Locked);
        let pair = key(2, &["a", "b"]);
        assert_eq!(state(&pair, &[]), active);
        assert_eq!(state(&pair, &[ban(1, "b", "a")]), locked);
        assert_eq!(state(&pair, &[ban(0, "b", "a")]), active, "of the epoch before");
        let three = key(2, &["a", "b", "c"]);
        let mut bans = vec![ban(1, "a", "b"), ban(1, "c", "b")];
        assert_eq!(state(&three, &bans), active, "a and c sign");
        bans.push(ban(1, "a", "c"));
        assert_eq!(state(&three, &bans), locked);
        assert_eq!(state(&key(3, &["a", "b", "c"]), &bans[..1]), locked);
        assert_eq!(state(&three, &[ban(1, "a", "stranger")]), active);
    }

    #[test]
    fn a_frozen_key_is_frozen_also_where_it_is_locked() {
        let free = key(2, &["a", "b"]);
        refuse_frozen(&free).unwrap();
        let (by, reason) = ("api key of acme".to_owned(), "a phone is lost".to_owned());
        let frozen = KeyRecord { frozen: Some(Freeze { by, at: Timestamp(1), reason }), ..free };
        assert_eq!(state(&frozen, &[ban(1, "a", "b")]), KeyState::Frozen);
        let refused = refuse_frozen(&frozen).unwrap_err();
        assert_eq!(refused.code, ErrorCode::KeyFrozen);
        assert!(refused.message.contains("a phone is lost"), "{refused}");
        assert!(refused.message.contains("quorate keys unfreeze"), "{refused}");
    }
}
