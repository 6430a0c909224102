//! Whether a key is the one its holders made: checked against identities that the caller knows
//! from elsewhere, so that whoever runs the coordinator cannot put another key in its place.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::*;

/// The identities that parties are known to have. A name may have several, such as those of a
/// machine before and after it was set up anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPeers {
    identities: BTreeMap<PartyId, BTreeSet<[u8; 32]>>,
    delegate_keys: BTreeMap<PartyId, PackageKey>,
}

impl KnownPeers {
    /// Lets a name show this Ed25519 identity.
    pub fn add(&mut self, name: PartyId, identity: [u8; 32]) {
        self.identities.entry(name).or_default().insert(identity);
    }

    /// Forgets a name. `false` when it was not known.
    pub fn remove(&mut self, name: &PartyId) -> bool {
        self.delegate_keys.remove(name);
        self.identities.remove(name).is_some()
    }

    /// The key to which shares are sealed for a delegate.
    pub fn delegate_key(&self, name: &PartyId) -> Option<&PackageKey> {
        self.delegate_keys.get(name)
    }

    /// Notes that key.
    pub fn add_delegate_key(&mut self, name: PartyId, key: PackageKey) {
        self.delegate_keys.insert(name, key);
    }

    /// Whether a name is known at all.
    pub fn knows(&self, name: &PartyId) -> bool {
        self.identities.contains_key(name)
    }

    /// Every name with each of its identities.
    pub fn iter(&self) -> impl Iterator<Item = (&PartyId, &[u8; 32])> {
        self.identities
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |identity| (name, identity)))
    }
}

/// What can be said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its holders have signed it, with identities that are known.
    Verified,
    /// It may be right, and nothing proves it.
    Unverified {
        /// Why, in words.
        reason: String,
        /// The holders whose identities are not known.
        unknown: Vec<PartyId>,
    },
    /// It is not the key that its holders made, in words.
    False(String),
}

/// What a creator asked for when it had a key made.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The key's scheme.
    pub scheme: Scheme,
    /// Signers needed and holders.
    pub threshold: Threshold,
    /// Holders that were named; the rest was left to the coordinator.
    pub holders: &'a [PartyId],
}

/// Checks the active epoch of a key as a coordinator shows it.
pub fn verify_key(view: &KeyView, peers: &KnownPeers) -> Verdict {
    let key = &view.record.key;
    let epoch = view.epochs.iter().find(|epoch| epoch.epoch == key.epoch);
    let Some(attestation) = epoch.and_then(|epoch| epoch.attestation.as_ref()) else {
        let reason = "not all its holders have signed it: a holder took part without an identity, \
                      or it was made by an earlier version and needs `quorate keys attest`";
        return Verdict::Unverified { reason: reason.into(), unknown: Vec::new() };
    };
    if let Err(error) = quorate_schemes::check_attestation(key, attestation) {
        return Verdict::False(error.message);
    }
    let shown = || key.holders.iter().zip(&attestation.identities);
    let is_other = |(name, identity): &(&PartyId, &[u8; 32])| {
        peers.identities.get(*name).is_some_and(|known| !known.contains(*identity))
    };
    if let Some((name, identity)) = shown().find(is_other) {
        return Verdict::False(format!(
            "{name} is recorded with another identity than the one that signed it, {}",
            hex::encode(identity)
        ));
    }
    let unknown: Vec<_> = shown().map(|(name, _)| name).filter(|name| !peers.knows(name)).collect();
    if unknown.is_empty() {
        return Verdict::Verified;
    }
    let names: Vec<_> = unknown.iter().map(|name| name.as_str()).collect();
    let reason = format!("no identity is recorded for {}", names.join(", "));
    Verdict::Unverified { reason, unknown: unknown.into_iter().cloned().collect() }
}

/// Checks a key that was just made for the caller, in session `session`, with this public key.
pub fn verify_new_key(
    view: &KeyView,
    session: SessionId,
    public_key: &PublicKey,
    wanted: &Wanted<'_>,
    peers: &KnownPeers,
) -> Verdict {
    let key = &view.record.key;
    let missing = wanted.holders.iter().find(|holder| !key.holders.contains(holder));
    let problem = if key.key_id != session.into() {
        Some("it is another session's key".to_owned())
    } else if key.public_key != *public_key {
        Some("its public key is not the one that its session ended with".to_owned())
    } else if (key.scheme, key.threshold) != (wanted.scheme, wanted.threshold) {
        Some(format!(
            "it is a {}-of-{} key for {}, which was not asked for",
            key.threshold.signers(),
            key.threshold.parties(),
            key.scheme
        ))
    } else {
        missing.map(|holder| format!("{holder} was asked for and holds no share of it"))
    };
    match problem {
        Some(problem) => Verdict::False(problem),
        None => verify_key(view, peers),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_engine::Identity;
    use quorate_schemes::Statement;

    use super::*;

    struct World {
        identities: Vec<Identity>,
        view: KeyView,
        peers: KnownPeers,
    }

    fn world() -> World {
        let identities: Vec<_> = (0..2).map(|_| Identity::generate()).collect();
        let mut view =
            quorate_testkit::key_view("550e8400-e29b-41d4-a716-446655440000".parse().unwrap());
        let mut world = World { identities, peers: KnownPeers::default(), view: view.clone() };
        for (holder, identity) in view.record.holders.iter().zip(&world.identities) {
            world.peers.add(holder.clone(), identity.public());
        }
        attest(&mut view, &world.identities);
        world.view = view;
        world
    }

    /// What these identities would have signed of the key as it is shown.
    fn attest(view: &mut KeyView, identities: &[Identity]) {
        let public: Vec<_> = identities.iter().map(Identity::public).collect();
        let statement = Statement::new(&view.record.key, &[9; 32], &public);
        let (domain, bytes) = statement.signed();
        let confirmations = identities.iter().flat_map(|one| one.sign(domain, bytes)).collect();
        view.epochs[0].attestation =
            Some(Attestation { execution: [9; 32], identities: public, confirmations });
    }

    fn changed(change: impl FnOnce(&mut KeyEpoch)) -> Verdict {
        let mut world = world();
        change(Arc::make_mut(&mut world.view.record.key));
        verify_key(&world.view, &world.peers)
    }

    #[test]
    fn a_key_that_a_coordinator_changes_is_refused() {
        let World { view, peers, .. } = world();
        assert_eq!(verify_key(&view, &peers), Verdict::Verified);
        let refused = |verdict| matches!(verdict, Verdict::False(_));
        assert!(refused(changed(|key| key.public_key.0[9] ^= 1)));
        assert!(refused(changed(|key| key.threshold = Threshold::new(2, 3).unwrap())));
        assert!(refused(changed(|key| key.holders.reverse())));
        assert!(refused(changed(|key| key.holders[0] = "c".parse().unwrap())));
        let other = "550e8400-e29b-41d4-a716-446655440009".parse().unwrap();
        assert!(refused(changed(|key| key.key_id = other)));
    }

    #[test]
    fn a_key_signed_by_strangers_in_the_holders_names_is_refused() {
        let World { mut view, peers, identities } = world();
        let forger = Identity::generate();
        attest(&mut view, &[forger, Identity::from_secret(&identities[1].secret())]);
        let Verdict::False(why) = verify_key(&view, &peers) else { panic!("not refused") };
        assert!(why.contains("a is recorded with another identity"), "{why}");
    }

    #[test]
    fn an_unknown_identity_or_none_proves_nothing() {
        let World { mut view, mut peers, .. } = world();
        assert!(peers.remove(&"b".parse().unwrap()));
        let Verdict::Unverified { unknown, .. } = verify_key(&view, &peers) else {
            panic!("not known");
        };
        assert_eq!(unknown, ["b".parse().unwrap()]);
        view.epochs[0].attestation = None;
        assert!(matches!(verify_key(&view, &peers), Verdict::Unverified { .. }));
    }

    #[test]
    fn a_new_key_is_the_one_that_was_asked_for() {
        let World { view, peers, .. } = world();
        let session = SessionId(view.record.key_id.0);
        let holders = view.record.holders.clone();
        let public_key = view.record.public_key.clone();
        let wanted = Wanted {
            scheme: view.record.scheme,
            threshold: view.record.threshold,
            holders: &holders,
        };
        let verdict = |session, public_key: &PublicKey, wanted: &Wanted<'_>| {
            verify_new_key(&view, session, public_key, wanted, &peers)
        };
        assert_eq!(verdict(session, &public_key, &wanted), Verdict::Verified);
        let refused = |verdict| matches!(verdict, Verdict::False(_));
        let other_session = SessionId(Default::default());
        assert!(refused(verdict(other_session, &public_key, &wanted)));
        assert!(refused(verdict(session, &PublicKey(vec![4; 65]), &wanted)));
        let threshold = Threshold::new(2, 3).unwrap();
        assert!(refused(verdict(session, &public_key, &Wanted { threshold, ..wanted.clone() })));
        let scheme = Scheme::Ed25519;
        assert!(refused(verdict(session, &public_key, &Wanted { scheme, ..wanted.clone() })));
        let holders = &["c".parse().unwrap()];
        assert!(refused(verdict(session, &public_key, &Wanted { holders, ..wanted.clone() })));
    }
}
