//! Who may do what at the router: the rules that need more than the caller itself.

use quorate_schemes::verify_delegate_key;
use quorate_types::*;

/// Refuses a caller that may not act as `party`.
///
/// A `reserved` name is one whose identity the operator trusts: only its proof speaks for it,
/// whatever an API key or an open server would allow otherwise.
///
/// # Errors
/// `forbidden`, saying what is missing.
pub fn act_as(caller: &Caller, party: &PartyId, reserved: bool) -> Result<()> {
    caller.speaks_for(party)?;
    let proven = caller.is_system() || matches!(caller, Caller::Party(_));
    if reserved && !proven {
        return Err(Error::new(
            ErrorCode::Forbidden,
            format!("{party} is a trusted party: only its own proof of identity speaks for it"),
        ));
    }
    Ok(())
}

/// Refuses a registration that claims more than its caller has: parties of the role `persistent`
/// are chosen to fill sessions, and the operator says which those are.
///
/// # Errors
/// `forbidden`, naming the way out.
pub fn register(caller: &Caller, registration: &Registration, reserved: bool) -> Result<()> {
    act_as(caller, &registration.party_id, reserved)?;
    check_delegate_key(registration)?;
    let claims = registration.role == PartyRole::Persistent;
    let granted = match caller {
        Caller::Open | Caller::Party(_) | Caller::System => true,
        Caller::Key { .. } => caller.is_system(),
    };
    if claims && !granted {
        return Err(Error::new(
            ErrorCode::Forbidden,
            "a persistent party must prove its identity to a router started with --trust NAME=HEX; \
             other parties register as temporary or delegate",
        )
        .with_field("party_role"));
    }
    Ok(())
}

/// Refuses a key that is not signed by the identity beside it.
fn check_delegate_key(registration: &Registration) -> Result<()> {
    let Registration { party_id, role, identity, delegate_key, .. } = registration;
    let Some(published) = delegate_key else { return Ok(()) };
    let refused = |why: &str| Err(Error::invalid_field("delegate_key", why));
    match identity {
        _ if *role != PartyRole::Delegate => refused("only a delegate registers a delegate_key"),
        None => refused("a delegate_key is signed by an identity: register identity_key, too"),
        Some(identity) if !verify_delegate_key(identity, party_id, published) => {
            refused("the identity of this party has not signed its delegate_key")
        }
        Some(_) => quorate_schemes::check_package_key(&published.key),
    }
}

/// Refuses a caller that may not start a session: its creators and its parties do.
///
/// # Errors
/// `forbidden`, naming the scope.
pub fn start(caller: &Caller) -> Result<()> {
    match caller {
        // Which sessions are its own is asked where the session is known.
        Caller::Party(_) => Ok(()),
        _ => caller.may(Scope::Party).or_else(|_| caller.may(Scope::Sessions)),
    }
}

/// Refuses a caller that may not see what concerns the whole installation. An open server has none
/// but the people of its own machine.
///
/// # Errors
/// `forbidden`, naming the scope.
pub fn operate(caller: &Caller) -> Result<()> {
    match caller {
        Caller::Open => Ok(()),
        _ => caller.may(Scope::System),
    }
}

/// Whether things of `owner` exist for this caller.
///
/// A proven party and another role are bounded by what they take part in, not by a tenant.
pub fn sees(caller: &Caller, owner: &Tenant) -> bool {
    caller.tenant().is_none_or(|tenant| tenant == *owner)
}

/// Whether a key exists for this caller: for a proven party, where it holds a share.
pub fn sees_key(caller: &Caller, key: &KeyRecord) -> bool {
    match caller {
        Caller::Party(party) => key.holders.contains(party),
        _ => sees(caller, &key.tenant),
    }
}

/// Whether a registered name of `owner` exists for this caller. A proven party knows the
/// operator's only.
pub fn knows_name(caller: &Caller, owner: &NameOwner) -> bool {
    match (caller, owner) {
        (_, NameOwner::Operator | NameOwner::Unclaimed) => true,
        (Caller::Party(_), NameOwner::Tenant(_)) => false,
        (_, NameOwner::Tenant(owner)) => sees(caller, owner),
    }
}

/// A registered party as this caller may see it: how to reach it is the notifier's business.
/// A channel stays visible as a channel with blank fields, so that offline mode does.
pub fn registered_as_seen(caller: &Caller, mut view: PartyView) -> PartyView {
    if !caller.is_system() && !view.registration.notification.is_empty() {
        view.offline = true;
        view.registration.notification = NotificationChannel::default();
    }
    view
}

/// A notification as an operator may see it: by what it goes to whom, not to which address. A webhook
/// is known by its name.
pub fn hide_address(notification: &mut Notification) {
    if notification.recipient.channel != Medium::Webhook {
        notification.recipient.address.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, scopes: &[Scope]) -> Caller {
        Caller::Key { tenant: tenant.parse().unwrap(), scopes: scopes.into() }
    }

    fn registration(role: PartyRole) -> Registration {
        Registration {
            party_id: "p".parse().unwrap(),
            role,
            version: String::new(),
            notification: NotificationChannel { email: "p@x".into(), ..Default::default() },
            identity: None,
            delegate_key: None,
        }
    }

    #[test]
    fn a_key_that_its_identity_has_not_signed_is_not_registered() {
        let registered = |role, name: &str, seed: [u8; 32], identity: bool| {
            let own = ed25519_dalek::SigningKey::from_bytes(&seed);
            let mut point = vec![0; 32];
            point[0] = 9;
            let key = PackageKey::new(Kem::X25519, point).unwrap();
            let message = quorate_schemes::delegate_key_message(&name.parse().unwrap(), &key);
            let message = quorate_schemes::in_domain(quorate_schemes::DELEGATE_KEY, &message);
            let signer = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
            let signature = ed25519_dalek::Signer::sign(&signer, &message).to_bytes();
            let registration = Registration {
                identity: identity.then(|| own.verifying_key().to_bytes()),
                delegate_key: Some(DelegateKey { key, signature: KeySignature(signature) }),
                ..registration(role)
            };
            register(&Caller::Open, &registration, false)
        };
        assert!(registered(PartyRole::Delegate, "p", [1; 32], true).is_ok());
        for refused in [
            registered(PartyRole::Delegate, "other", [1; 32], true),
            registered(PartyRole::Delegate, "p", [2; 32], true),
            registered(PartyRole::Delegate, "p", [1; 32], false),
            registered(PartyRole::Temporary, "p", [1; 32], true),
        ] {
            assert!(refused.unwrap_err().details.fields.contains_key("delegate_key"));
        }
    }

    #[test]
    fn only_its_own_proof_speaks_for_a_trusted_name() {
        let party: PartyId = "p".parse().unwrap();
        let own = Caller::Party(party.clone());
        for caller in [Caller::Open, key("a", &[Scope::Party])] {
            assert!(act_as(&caller, &party, false).is_ok(), "{caller:?}");
            assert!(act_as(&caller, &party, true).is_err(), "{caller:?}");
        }
        for caller in [own, Caller::System, key("a", &[Scope::System])] {
            assert!(act_as(&caller, &party, true).is_ok(), "{caller:?}");
        }
        let other = Caller::Party("q".parse().unwrap());
        assert!(act_as(&other, &party, false).is_err());
    }

    #[test]
    fn an_api_key_cannot_claim_to_be_chosen() {
        let claim = |caller: &Caller, role| register(caller, &registration(role), false).is_ok();
        let tenant = key("a", &[Scope::Party]);
        assert!(!claim(&tenant, PartyRole::Persistent));
        assert!(claim(&tenant, PartyRole::Temporary) && claim(&tenant, PartyRole::Delegate));
        assert!(claim(&Caller::Open, PartyRole::Persistent));
        assert!(claim(&Caller::Party("p".parse().unwrap()), PartyRole::Persistent));
    }

    #[test]
    fn creators_and_parties_start_sessions_and_readers_do_not() {
        for scope in [Scope::Sessions, Scope::Party, Scope::System] {
            assert!(start(&key("a", &[scope])).is_ok(), "{scope:?}");
        }
        for scope in [Scope::Read, Scope::Accounts] {
            assert!(start(&key("a", &[scope])).is_err(), "{scope:?}");
        }
        assert!(
            start(&Caller::Open).is_ok() && start(&Caller::Party("p".parse().unwrap())).is_ok()
        );
    }

    #[test]
    fn tenants_do_not_exist_for_each_other() {
        let acme: Tenant = "acme".parse().unwrap();
        assert!(sees(&key("acme", &[Scope::Read]), &acme));
        assert!(!sees(&key("evil", &Scope::ALL[..4]), &acme));
        assert!(!sees(&Caller::Open, &acme) && sees(&Caller::Open, &Tenant::default()));
        assert!(sees(&Caller::System, &acme));
    }

    #[test]
    fn names_of_a_tenant_are_known_to_it_only() {
        let acme = NameOwner::of(&key("acme", &[Scope::Party]));
        assert!(knows_name(&key("acme", &[Scope::Read]), &acme));
        assert!(!knows_name(&key("evil", &Scope::ALL[..4]), &acme));
        assert!(!knows_name(&Caller::Party("p".parse().unwrap()), &acme));
        assert!(knows_name(&Caller::System, &acme));
        let trusted = NameOwner::of(&Caller::Party("p".parse().unwrap()));
        assert!(knows_name(&key("evil", &[Scope::Read]), &trusted));
    }

    #[test]
    fn contact_data_is_blank_but_its_presence_shows() {
        let view = PartyView {
            registration: registration(PartyRole::Temporary),
            online: true,
            offline: false,
            registered_at: Timestamp(0),
            last_seen_at: Timestamp(0),
        };
        let seen = registered_as_seen(&key("a", &[Scope::Read]), view.clone());
        assert!(seen.offline && seen.registration.notification.is_empty());
        assert_eq!(registered_as_seen(&Caller::System, view.clone()), view);
    }
}
