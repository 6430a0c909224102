//! Signed requests on their way through the coordinator.
//!
//! The parties decide. What they would refuse in any case is refused here at once, and what comes
//! unsigned is signed by the service initiator, where the operator has one.

use std::sync::Arc;

use quorate_authority::{
    Action, AuthoritySecret, Denial, Facts, NamedHolder, Request, RequestedInput, Rule, Signers,
    approval_message, verify,
};
use quorate_types::*;

/// What the service initiator signs for holds so much longer than the session, in seconds: the
/// parties' clocks may be ahead.
const CLOCKS: u64 = 60;

/// A participant of a new session with the identity that it has registered, where it has one.
pub(super) type Known<'a> = (&'a PartyId, Option<[u8; 32]>);

/// Refuses an approval that its approver has not signed.
pub(super) fn check_approval(request: &[u8], approval: &Approval) -> Result<()> {
    if verify(&approval.approver, &approval_message(request), &approval.signature) {
        return Ok(());
    }
    let why = format!("{} has not signed this approval of the request", approval.approver);
    Err(Denial::new(Rule::Approvals, why).into())
}

/// The request that a creator has signed, read.
pub(super) fn asked(authorization: &Authorization, now: Timestamp) -> Result<Request> {
    let Authorization { request, initiator, signature, approvals } = authorization;
    if !verify(initiator, request, signature) {
        let why = format!("{initiator} has not signed this request");
        return Err(Denial::new(Rule::Signature, why).into());
    }
    let asked = Request::decode(request)?;
    asked.check_time(now)?;
    approvals.iter().try_for_each(|approval| check_approval(request, approval))?;
    Ok(asked)
}

/// Those whom a request lets take part; `None`: anybody.
pub(super) fn named(request: &Request) -> Option<Vec<PartyId>> {
    match &request.action {
        Action::Keygen { holders, .. } | Action::Refresh { holders, .. } => {
            Some(holders.iter().map(|holder| holder.party_id.clone()).collect())
        }
        Action::Sign { signers: Signers::Named(named), .. } => Some(named.clone()),
        Action::Sign { signers: Signers::Any, .. } => None,
    }
}

/// What a new key is called: as the request says, and as its creator does where that is said too.
pub(super) fn label(request: &Request, said: Option<&KeyLabel>) -> Result<Option<KeyLabel>> {
    let signed = request.label();
    if said.is_some_and(|said| Some(said) != signed) {
        let why = "the key is called something else than its initiator has signed";
        return Err(Denial::new(Rule::Label, why).into());
    }
    Ok(signed.cloned())
}

/// Refuses a session that is not what its creator has signed.
pub(super) fn check_fits(
    request: &Request,
    ceremony: &Ceremony,
    participants: &[Known<'_>],
) -> Result<()> {
    let participants = participants.to_vec();
    Ok(request.fits(&Facts { ceremony, held: None, participants })?)
}

/// A session's request as the service initiator signs it.
pub(super) fn sign(
    service: &AuthoritySecret,
    ceremony: &Ceremony,
    participants: &[Known<'_>],
    label: Option<&KeyLabel>,
    expires_at: Timestamp,
) -> Result<Arc<Authorization>> {
    let holder = |(party, identity): &Known<'_>| NamedHolder {
        party_id: (*party).clone(),
        identity: *identity,
    };
    let holders = participants.iter().map(holder);
    let action = match ceremony {
        Ceremony::Keygen { scheme, threshold } => Action::Keygen {
            scheme: *scheme,
            threshold: *threshold,
            holders: holders.collect(),
            label: label.cloned(),
        },
        Ceremony::Refresh { key } => Action::Refresh {
            key_id: key.key_id,
            epoch: key.epoch,
            scheme: key.scheme,
            public_key: key.public_key.clone(),
            threshold: key.threshold,
            holders: holders.collect(),
        },
        Ceremony::Sign { key, input } => Action::Sign {
            key_id: key.key_id,
            epoch: key.epoch,
            scheme: key.scheme,
            public_key: key.public_key.clone(),
            input: RequestedInput::of(input),
            path: Vec::new(),
            signers: Signers::Any,
        },
    };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| Error::internal())?;
    let expires_at = expires_at.plus_seconds(CLOCKS);
    let request = Request { action, expires_at, nonce, purpose: String::new() };
    Ok(Arc::new(service.authorize(&request)))
}
