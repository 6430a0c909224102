//! What bans leave of a key.

use quorate_types::*;

/// Whether a key still signs, given what its holders have reported: it does while there are as many
/// holders as it needs of whom no two are banned from signing together in its epoch.
pub fn state(key: &KeyEpoch, bans: &[ReportedBan]) -> KeyState {
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

    fn key(signers: i64, holders: &[&str]) -> KeyEpoch {
        let parties = i64::try_from(holders.len()).unwrap();
        KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 1,
            scheme: Scheme::default(),
            threshold: Threshold::new(signers, parties).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: holders.iter().map(|name| name.parse().unwrap()).collect(),
        }
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
}
