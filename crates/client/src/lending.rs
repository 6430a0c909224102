//! Lending a delegate a share: to whom, and for which request.

use quorate_party::{Compute, Keyring};
use quorate_schemes::{Purpose, seal_package, verify_delegate_key};
use quorate_types::*;

use crate::attestation::KnownPeers;

fn refused(delegate: &PartyId, why: &str) -> Error {
    Error::invalid_field("through", format!("{delegate} {why}"))
}

/// The key of a delegate, from its registration: signed by an identity that is known of it, and the
/// one that it had before where that is known.
///
/// # Errors
/// `invalid_request` naming `through` where it is no delegate or not known, `conflict` where it shows
/// another key.
pub fn delegate_key(party: &PartyView, peers: &KnownPeers) -> Result<PackageKey> {
    let Registration { party_id, role, identity, delegate_key, .. } = &party.registration;
    if *role != PartyRole::Delegate {
        return Err(refused(party_id, "is no delegate: a share is lent to a delegate only"));
    }
    let (Some(identity), Some(published)) = (identity, delegate_key) else {
        return Err(refused(party_id, "has no key to which a share could be sealed"));
    };
    let known = peers.iter().any(|known| known == (party_id, identity));
    if !known {
        let why = format!(
            "is not known here by the identity that it shows: note the right one with `quorate \
             peers add {party_id}=HEX`, as its --print-identity prints it"
        );
        return Err(refused(party_id, &why));
    }
    if !verify_delegate_key(identity, party_id, published) {
        return Err(refused(party_id, "shows a key that its identity has not signed"));
    }
    match peers.delegate_key(party_id) {
        Some(noted) if *noted != published.key => {
            let why = format!(
                "{party_id} shows another key than is noted here: if its operator has made a new \
                 one, remove it with `quorate peers remove {party_id}` and add it again"
            );
            Err(Error::new(ErrorCode::Conflict, why).with_field("through"))
        }
        _ => Ok(published.key.clone()),
    }
}

/// Seals the share of a key to a delegate's key, for one signed request and nothing else.
///
/// # Errors
/// `not_found` where no share of the key is held; `invalid_request` where nothing can be sealed to
/// the delegate's key.
pub async fn lend(
    keyring: &Keyring,
    key: KeyId,
    (delegate, to): (PartyId, PackageKey),
    request: &Authorization,
) -> Result<LentShare> {
    let compute = Compute::default();
    let package = keyring.package(key, &compute).await?;
    let place = package.share.share_index().0.checked_sub(1).ok_or_else(Error::internal)?;
    let associated = request.request.clone();
    let job = move || seal_package(&to, Purpose::ToDelegate, &associated, package.encode()?);
    let package = compute.run(job).await?.into();
    Ok(LentShare { delegate, holder_index: PartyIndex(place.into()), package })
}

#[cfg(test)]
mod tests {
    use quorate_engine::Identity;
    use quorate_schemes::{DELEGATE_KEY, PackageSecret, delegate_key_message};

    use super::*;

    fn registered(identity: &Identity, role: PartyRole) -> PartyView {
        let party_id: PartyId = "delegate".parse().unwrap();
        let key = PackageSecret::generate(Kem::X25519).public().unwrap();
        let signature = identity.sign(DELEGATE_KEY, &delegate_key_message(&party_id, &key));
        PartyView {
            registration: Registration {
                party_id,
                role,
                version: String::new(),
                notification: NotificationChannel::default(),
                identity: Some(identity.public()),
                delegate_key: Some(DelegateKey { key, signature: KeySignature(signature) }),
            },
            online: true,
            offline: false,
            registered_at: Timestamp(0),
            last_seen_at: Timestamp(0),
        }
    }

    #[test]
    fn a_delegates_key_is_that_of_a_known_identity_and_stays() {
        let (own, other) = (Identity::generate(), Identity::generate());
        let name: PartyId = "delegate".parse().unwrap();
        let mut peers = KnownPeers::default();
        let first = registered(&own, PartyRole::Delegate);
        assert!(delegate_key(&first, &peers).is_err(), "nobody is known");
        peers.add(name.clone(), own.public());
        let key = delegate_key(&first, &peers).unwrap();
        assert!(delegate_key(&registered(&other, PartyRole::Delegate), &peers).is_err());
        assert!(delegate_key(&registered(&own, PartyRole::Persistent), &peers).is_err());
        let mut forged = registered(&own, PartyRole::Delegate);
        forged.registration.delegate_key.as_mut().unwrap().signature = KeySignature([0; 64]);
        assert!(delegate_key(&forged, &peers).is_err());
        peers.add_delegate_key(name, key);
        assert!(delegate_key(&first, &peers).is_ok());
        let another = delegate_key(&registered(&own, PartyRole::Delegate), &peers).unwrap_err();
        assert_eq!(another.code, ErrorCode::Conflict);
    }
}
