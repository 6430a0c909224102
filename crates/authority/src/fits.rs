//! Whether a session is what the initiator has asked for.

use quorate_types::{Ceremony, KeyEpoch, KeyId, PartyId, PublicKey, Scheme, Threshold};

use crate::request::{Action, NamedHolder, Request, RequestedInput, Signers};
use crate::rule::{Denial, Rule};

/// A session as one party sees it.
pub struct Facts<'a> {
    /// What it does.
    pub ceremony: &'a Ceremony,
    /// The key as this party holds it, compared beside what the session says of it; `None` where it
    /// has none of its own. It may be of a later epoch: who has the session made may have missed the
    /// end of a refresh.
    pub held: Option<&'a KeyEpoch>,
    /// The participants in their order, each with the identity that it shows, once it does.
    pub participants: Vec<(&'a PartyId, Option<[u8; 32]>)>,
}

fn differs(rule: Rule, what: &str) -> Denial {
    Denial::new(rule, format!("the session {what} than its initiator has signed"))
}

impl Request {
    /// Compares each fact of a session with what was asked for.
    ///
    /// # Errors
    /// By the rule of the first that differs.
    pub fn fits(&self, facts: &Facts<'_>) -> Result<(), Denial> {
        match (&self.action, facts.ceremony) {
            (
                Action::Keygen { scheme, threshold, holders, label: _ },
                Ceremony::Keygen { scheme: made, threshold: with },
            ) => {
                same_scheme(*scheme, *made)?;
                same_threshold(*threshold, *with)?;
                same_holders(holders, &facts.participants)
            }
            (
                Action::Sign { key_id, epoch, scheme, public_key, input, path, signers },
                Ceremony::Sign { key: shown, input: signed },
            ) => {
                same_key(*key_id, *epoch, shown, facts.held)?;
                for key in std::iter::once(&**shown).chain(facts.held) {
                    same_scheme(*scheme, key.scheme)?;
                    same_public_key(public_key, key)?;
                }
                if *input != RequestedInput::of(signed) {
                    return Err(differs(Rule::Input, "signs something else"));
                }
                if !path.is_empty() {
                    let why = "the request derives a key, which this version does not";
                    return Err(Denial::new(Rule::Path, why));
                }
                within(signers, &facts.participants)
            }
            (
                Action::Refresh { key_id, epoch, scheme, public_key, threshold, holders },
                Ceremony::Refresh { key: shown },
            ) => {
                same_key(*key_id, *epoch, shown, facts.held)?;
                for key in std::iter::once(&**shown).chain(facts.held) {
                    same_scheme(*scheme, key.scheme)?;
                    same_public_key(public_key, key)?;
                    same_threshold(*threshold, key.threshold)?;
                }
                same_holders(holders, &facts.participants)
            }
            _ => Err(differs(Rule::Ceremony, "does something else")),
        }
    }
}

/// The session's epoch is the one that was asked for, and that is not ahead of the holder. A holder
/// that is ahead signs with the epoch that it has: the key is the same, and a refresh of an epoch
/// that was replaced makes nothing new.
fn same_key(
    key_id: KeyId,
    epoch: u32,
    shown: &KeyEpoch,
    held: Option<&KeyEpoch>,
) -> Result<(), Denial> {
    if key_id != shown.key_id || held.is_some_and(|held| key_id != held.key_id) {
        return Err(differs(Rule::Key, "uses another key"));
    }
    let differs = |at: u32| {
        let why = format!(
            "the request is signed for epoch {epoch} of the key, which is at {at}: sign a new one"
        );
        Err(Denial::new(Rule::Epoch, why))
    };
    match held.filter(|held| held.epoch < epoch) {
        Some(held) => differs(held.epoch),
        None if shown.epoch != epoch => differs(shown.epoch),
        None => Ok(()),
    }
}

fn same_public_key(asked: &PublicKey, key: &KeyEpoch) -> Result<(), Denial> {
    if *asked == key.public_key {
        return Ok(());
    }
    Err(differs(Rule::PublicKey, "uses a key with another verifying key"))
}

fn same_scheme(asked: Scheme, found: Scheme) -> Result<(), Denial> {
    if asked == found { Ok(()) } else { Err(differs(Rule::Scheme, "is for another scheme")) }
}

fn same_threshold(asked: Threshold, found: Threshold) -> Result<(), Denial> {
    if asked == found {
        return Ok(());
    }
    Err(differs(Rule::Threshold, "makes a key with another threshold"))
}

type Participants<'a> = [(&'a PartyId, Option<[u8; 32]>)];

fn same_holders(asked: &[NamedHolder], found: &Participants<'_>) -> Result<(), Denial> {
    let names = |asked: &NamedHolder, found: &PartyId| asked.party_id == *found;
    if asked.len() != found.len() || !asked.iter().zip(found).all(|(a, (f, _))| names(a, f)) {
        return Err(differs(Rule::Holders, "makes a key with other holders"));
    }
    let foreign = |asked: &NamedHolder, shown: &Option<[u8; 32]>| {
        asked.identity.zip(*shown).is_some_and(|(asked, shown)| asked != shown)
    };
    match asked.iter().zip(found).find(|(asked, (_, shown))| foreign(asked, shown)) {
        Some((holder, _)) => {
            let why =
                format!("{} shows another identity than the initiator has signed", holder.party_id);
            Err(Denial::new(Rule::Holders, why))
        }
        None => Ok(()),
    }
}

fn within(signers: &Signers, found: &Participants<'_>) -> Result<(), Denial> {
    let Signers::Named(named) = signers else { return Ok(()) };
    match found.iter().find(|(party, _)| !named.contains(party)) {
        Some((party, _)) => {
            let why = format!("{party} is none of the signers that the initiator has named");
            Err(Denial::new(Rule::Signers, why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use quorate_types::{Digest, SignInput, Timestamp};

    use super::*;
    use crate::request::tests::sign;

    pub(crate) fn key() -> KeyEpoch {
        KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 3,
            scheme: Scheme::EcdsaSecp256k1,
            threshold: Threshold::new(2, 3).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec(),
        }
    }

    pub(crate) fn signing() -> Ceremony {
        Ceremony::Sign { key: Arc::new(key()), input: SignInput::Digest(Digest([7; 32])) }
    }

    fn parties(names: &[&str]) -> Vec<PartyId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// The rule by which a session fails, or none.
    fn failed(
        request: &Request,
        ceremony: &Ceremony,
        held: &KeyEpoch,
        names: &[&str],
    ) -> Option<Rule> {
        let parties = parties(names);
        let participants = parties.iter().map(|party| (party, None)).collect();
        let facts = Facts { ceremony, held: Some(held), participants };
        request.fits(&facts).err().map(|denial| denial.rule)
    }

    #[test]
    fn each_fact_of_a_signature_that_differs_is_named() {
        let with = |change: &dyn Fn(&mut KeyEpoch)| {
            let mut key = key();
            change(&mut key);
            key
        };
        assert_eq!(failed(&sign(), &signing(), &key(), &["a", "b"]), None);
        assert_eq!(failed(&sign(), &signing(), &key(), &["b"]), None);
        assert_eq!(failed(&sign(), &signing(), &key(), &["a", "c"]), Some(Rule::Signers));
        let other: quorate_types::KeyId = "550e8400-e29b-41d4-a716-446655440001".parse().unwrap();
        for (rule, key) in [
            (Rule::Key, with(&|key| key.key_id = other)),
            (Rule::Epoch, with(&|key| key.epoch = 2)),
            (Rule::Scheme, with(&|key| key.scheme = Scheme::Ed25519)),
            (Rule::PublicKey, with(&|key| key.public_key = PublicKey(vec![5; 65]))),
        ] {
            assert_eq!(failed(&sign(), &signing(), &key, &["a", "b"]), Some(rule));
            let input = SignInput::Digest(Digest([7; 32]));
            let shown = Ceremony::Sign { key: Arc::new(key.clone()), input };
            let parties = parties(&["a", "b"]);
            let participants = parties.iter().map(|party| (party, None)).collect();
            let facts = Facts { ceremony: &shown, held: None, participants };
            assert_eq!(sign().fits(&facts).unwrap_err().rule, rule, "as the session shows it");
        }
        let later = with(&|key| key.epoch = 4);
        assert_eq!(failed(&sign(), &signing(), &later, &["a", "b"]), None, "the holder is ahead");
        let input = SignInput::Digest(Digest([7; 32]));
        let ahead = Ceremony::Sign { key: Arc::new(later.clone()), input };
        assert_eq!(failed(&sign(), &ahead, &later, &["a", "b"]), Some(Rule::Epoch));
        for input in [SignInput::Digest(Digest([8; 32])), SignInput::Message(vec![7; 32].into())] {
            let other = Ceremony::Sign { key: Arc::new(key()), input };
            assert_eq!(failed(&sign(), &other, &key(), &["a", "b"]), Some(Rule::Input));
        }
        let mut derived = sign();
        if let Action::Sign { path, .. } = &mut derived.action {
            path.push(1);
        }
        assert_eq!(failed(&derived, &signing(), &key(), &["a", "b"]), Some(Rule::Path));
        let (scheme, threshold) = (Scheme::EcdsaSecp256k1, Threshold::new(2, 3).unwrap());
        let keygen = Ceremony::Keygen { scheme, threshold };
        assert_eq!(failed(&sign(), &keygen, &key(), &["a", "b"]), Some(Rule::Ceremony));
    }

    #[test]
    fn each_fact_of_a_keygen_that_differs_is_named() {
        let holder =
            |name: &str, identity| NamedHolder { party_id: name.parse().unwrap(), identity };
        let (scheme, threshold) = (Scheme::EcdsaSecp256k1, Threshold::new(2, 2).unwrap());
        let holders = vec![holder("a", Some([1; 32])), holder("b", None)];
        let action = Action::Keygen { scheme, threshold, holders, label: None };
        let request = Request { action, expires_at: Timestamp(1), ..sign() };
        let parties = parties(&["a", "b", "c"]);
        let rule = |ceremony: &Ceremony, shown: &[(usize, Option<[u8; 32]>)]| {
            let participants = shown.iter().map(|(at, id)| (&parties[*at], *id)).collect();
            let facts = Facts { ceremony, held: None, participants };
            request.fits(&facts).err().map(|denial| denial.rule)
        };
        let made = Ceremony::Keygen { scheme, threshold };
        assert_eq!(rule(&made, &[(0, None), (1, None)]), None);
        assert_eq!(rule(&made, &[(0, Some([1; 32])), (1, Some([9; 32]))]), None);
        assert_eq!(rule(&made, &[(0, Some([2; 32])), (1, None)]), Some(Rule::Holders));
        for others in [vec![(0, None), (2, None)], vec![(1, None), (0, None)], vec![(0, None)]] {
            assert_eq!(rule(&made, &others), Some(Rule::Holders));
        }
        let threshold = Threshold::new(2, 3).unwrap();
        let wider = Ceremony::Keygen { scheme, threshold };
        assert_eq!(rule(&wider, &[(0, None), (1, None)]), Some(Rule::Threshold));
        let other = Ceremony::Keygen { scheme: Scheme::Ed25519, threshold };
        assert_eq!(rule(&other, &[(0, None), (1, None)]), Some(Rule::Scheme));
        assert_eq!(rule(&signing(), &[(0, None), (1, None)]), Some(Rule::Ceremony));
    }

    #[test]
    fn each_fact_of_a_refresh_that_differs_is_named() {
        let named = |(name, seed): (&str, u8)| NamedHolder {
            party_id: name.parse().unwrap(),
            identity: Some([seed; 32]),
        };
        let KeyEpoch { key_id, epoch, scheme, threshold, public_key, .. } = key();
        let holders = [("a", 1), ("b", 2), ("c", 3)].map(named).to_vec();
        let action = Action::Refresh { key_id, epoch, scheme, public_key, threshold, holders };
        let request = Request { action, ..sign() };
        let parties = parties(&["a", "b", "c"]);
        let rule = |shown: &KeyEpoch, held: &KeyEpoch, identities: [u8; 3]| {
            let ceremony = Ceremony::Refresh { key: Arc::new(shown.clone()) };
            let participants = parties.iter().zip(identities.map(|seed| Some([seed; 32])));
            let facts = Facts {
                ceremony: &ceremony,
                held: Some(held),
                participants: participants.collect(),
            };
            request.fits(&facts).err().map(|denial| denial.rule)
        };
        assert_eq!(rule(&key(), &key(), [1, 2, 3]), None);
        assert_eq!(rule(&key(), &key(), [1, 2, 4]), Some(Rule::Holders));
        type Change = fn(&mut KeyEpoch);
        let later = KeyEpoch { epoch: 4, ..key() };
        assert_eq!(rule(&key(), &later, [1, 2, 3]), None, "the holder is ahead");
        assert_eq!(rule(&later, &later, [1, 2, 3]), Some(Rule::Epoch));
        let changes: [(Rule, Change); 5] = [
            (Rule::Key, |key| {
                key.key_id = "550e8400-e29b-41d4-a716-446655440001".parse().unwrap();
            }),
            (Rule::Epoch, |key| key.epoch = 2),
            (Rule::Scheme, |key| key.scheme = Scheme::Ed25519),
            (Rule::PublicKey, |key| key.public_key = PublicKey(vec![5; 65])),
            (Rule::Threshold, |key| key.threshold = Threshold::new(3, 3).unwrap()),
        ];
        for (expected, change) in changes {
            let mut changed = key();
            change(&mut changed);
            assert_eq!(rule(&changed, &key(), [1, 2, 3]), Some(expected), "as it is shown");
            assert_eq!(rule(&key(), &changed, [1, 2, 3]), Some(expected), "as it is held");
        }
    }
}
