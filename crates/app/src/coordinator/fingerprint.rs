//! What makes two requests the same for an idempotency key.

use quorate_ports::store::IdempotencyRow;
use quorate_types::*;
use sha2::{Digest as _, Sha256};

/// The encoding below. Version 1 was a hash of how the program printed a request, which no other
/// version can compute.
pub(super) const VERSION: u32 = 2;

/// SHA-256 over all of a request but its idempotency key: a domain, then each field that is set, as
/// tag, length and bytes. A new field gets a new tag and is written only where it is set, so that
/// requests without it keep their fingerprint; anything else needs another version.
pub(super) fn of(request: &CreateSession) -> [u8; 32] {
    // Taken apart by name, so that a new field is not forgotten.
    // A retry may be signed anew: who may ask is for the first request's session to say.
    let CreateSession {
        ceremony,
        participants,
        expires_in_seconds,
        idempotency_key: _,
        authorization: _,
        label,
        replace,
        lent,
        webhook,
    } = request;
    let mut hash = Fields(Sha256::new_with_prefix(b"quorate/create-session/v2"));
    hash.field(1, ceremony.kind().name().as_bytes());
    let scheme = match ceremony {
        CeremonyRequest::Keygen { scheme, threshold: _ } => *scheme,
        // What version 2 has always written where no scheme is named.
        CeremonyRequest::Sign { .. } | CeremonyRequest::Refresh { .. } => Scheme::EcdsaSecp256k1,
    };
    hash.field(2, scheme.name().as_bytes());
    if let Some(threshold) = ceremony.threshold() {
        hash.field(3, &threshold.signers().to_be_bytes());
        hash.field(4, &threshold.parties().to_be_bytes());
    }
    for NewParticipant { party_id, device, on_behalf_of } in participants {
        let DeviceInfo { device_type, device_id, platform, app_version } = device;
        hash.field(5, party_id.as_str().as_bytes());
        for (tag, text) in [(6, device_type), (7, device_id), (8, platform), (9, app_version)] {
            if !text.is_empty() {
                hash.field(tag, text.as_bytes());
            }
        }
        if let Some(OnBehalfOf { user_id, seal_key }) = on_behalf_of {
            hash.field(17, user_id.as_str().as_bytes());
            if let Some(key) = seal_key {
                hash.field(18, key.kem().name().as_bytes());
                hash.field(19, key.bytes());
            }
        }
    }
    match ceremony.key() {
        Some(KeySelector::Id(id)) => hash.field(10, id.0.as_bytes()),
        Some(KeySelector::PublicKey(public_key)) => hash.field(11, &public_key.0),
        Some(KeySelector::ByParticipants) | None => {}
    }
    if let CeremonyRequest::Sign { input, .. } = ceremony {
        match input {
            SignInput::Digest(digest) => hash.field(12, &digest.0),
            SignInput::Message(message) => hash.field(14, message),
        }
    }
    if let Some(seconds) = expires_in_seconds {
        hash.field(13, &seconds.to_be_bytes());
    }
    if let Some(label) = label {
        hash.field(15, label.as_str().as_bytes());
    }
    if *replace {
        hash.field(16, &[1]);
    }
    if let Some(LentShare { delegate, holder_index, package }) = lent {
        hash.field(20, delegate.as_str().as_bytes());
        hash.field(21, &holder_index.0.to_be_bytes());
        hash.field(22, package);
    }
    if let Some(webhook) = webhook {
        hash.field(23, webhook.as_bytes());
    }
    hash.0.finalize().into()
}

struct Fields(Sha256);

impl Fields {
    fn field(&mut self, tag: u8, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).expect("a length fits 64 bits");
        self.0.update([tag]);
        self.0.update(length.to_be_bytes());
        self.0.update(bytes);
    }
}

/// Whether a request is the one that an idempotency key came with before. `made` is the session it
/// made: of a request of another version only its facts can be compared.
pub(super) fn is_same(request: &CreateSession, row: &IdempotencyRow, made: &SessionView) -> bool {
    if row.version == VERSION {
        return row.request_hash == of(request);
    }
    let same_key = |key: &KeySelector, used: &KeyEpoch| match key {
        KeySelector::Id(id) => used.key_id == *id,
        KeySelector::PublicKey(public_key) => {
            let wanted = quorate_schemes::identify_public_key(&public_key.0);
            wanted.is_ok_and(|(_, wanted)| used.public_key == wanted)
        }
        KeySelector::ByParticipants => true,
    };
    let same_subject = match (&request.ceremony, &made.ceremony) {
        (CeremonyRequest::Keygen { .. }, Ceremony::Keygen { .. }) => true,
        (CeremonyRequest::Sign { key, input, .. }, Ceremony::Sign { key: used, input: signed }) => {
            same_key(key, used) && input == signed
        }
        (CeremonyRequest::Refresh { key, .. }, Ceremony::Refresh { key: used }) => {
            same_key(key, used)
        }
        _ => false,
    };
    let threshold = request.ceremony.threshold();
    same_subject && threshold.is_none_or(|threshold| threshold == made.ceremony.threshold())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateSession {
        let participant = |name: &str| NewParticipant {
            party_id: name.parse().unwrap(),
            device: DeviceInfo { platform: "iOS".into(), ..DeviceInfo::default() },
            on_behalf_of: None,
        };
        CreateSession {
            ceremony: CeremonyRequest::Sign {
                key: KeySelector::Id("550e8400-e29b-41d4-a716-446655440000".parse().unwrap()),
                threshold: Some(Threshold::new(2, 3).unwrap()),
                input: SignInput::Digest(Digest([7; 32])),
            },
            participants: vec![participant("alice"), participant("bob")],
            expires_in_seconds: Some(60),
            idempotency_key: Some("once".into()),
            authorization: None,
            label: None,
            replace: false,
            lent: None,
            webhook: None,
        }
    }

    /// A change here makes retries over an upgrade fail: raise the version instead.
    #[test]
    fn the_fingerprint_of_version_2_is_fixed() {
        assert_eq!(hex::encode(of(&request())), GOLDEN);
    }

    const GOLDEN: &str = "e6250912e6e4002c91f7c5808aaa53976b32d59f877d144c9fdb91ed22392280";

    #[test]
    fn every_field_but_the_idempotency_key_makes_another_request() {
        let first = of(&request());
        fn sign(
            request: &mut CreateSession,
        ) -> (&mut KeySelector, &mut Option<Threshold>, &mut SignInput) {
            match &mut request.ceremony {
                CeremonyRequest::Sign { key, threshold, input } => (key, threshold, input),
                _ => unreachable!("the request is to sign"),
            }
        }
        fn delegated(request: &mut CreateSession, user: &str, key: u8) {
            let seal_key = PackageKey::new(Kem::X25519, vec![key; 32]).ok();
            let of = OnBehalfOf { user_id: user.parse().unwrap(), seal_key };
            request.participants[0].on_behalf_of = Some(of);
        }
        let changes: [fn(&mut CreateSession); 17] = [
            |r| {
                let (delegate, package) = ("delegate".parse().unwrap(), vec![1].into());
                r.lent = Some(LentShare { delegate, holder_index: PartyIndex(0), package });
            },
            |r| delegated(r, "carol", 1),
            |r| {
                let (key, threshold) = (sign(r).0.clone(), *sign(r).1);
                r.ceremony = CeremonyRequest::Refresh { key, threshold };
            },
            |r| {
                let (scheme, threshold) = (Scheme::EcdsaSecp256k1, Threshold::new(2, 3).unwrap());
                r.ceremony = CeremonyRequest::Keygen { scheme, threshold };
            },
            |r| *sign(r).1 = Some(Threshold::new(3, 3).unwrap()),
            |r| *sign(r).1 = Some(Threshold::new(2, 4).unwrap()),
            |r| *sign(r).1 = None,
            |r| r.participants.reverse(),
            |r| drop(r.participants.pop()),
            |r| r.participants[0].device.platform.clear(),
            |r| r.participants[0].device.device_id = "iOS".into(),
            |r| *sign(r).0 = KeySelector::ByParticipants,
            |r| *sign(r).0 = KeySelector::PublicKey(PublicKey(vec![2; 33])),
            |r| *sign(r).2 = SignInput::Digest(Digest([8; 32])),
            |r| *sign(r).2 = SignInput::Message(vec![7; 32].into()),
            |r| r.expires_in_seconds = None,
            |r| r.webhook = Some("settlement".into()),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut other = request();
            change(&mut other);
            assert_ne!(of(&other), first, "change {n}");
        }
        let mut again = request();
        again.idempotency_key = None;
        assert_eq!(of(&again), first);
    }
}
