//! What a server party asks before it joins: has an initiator that it knows signed this, and does
//! its own policy allow it.
//!
//! A request that is allowed is used up at once, in memory, so that of two sessions with one
//! request only one is joined. It is written to the ledger beside the join, and the run waits for
//! the disk before the first message that tells of a result: a crash before that leaves a request
//! that has made nothing.

mod memory;
mod permit;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use quorate_authority::{
    Decision, Denial, Facts, Initiators, Policy, Request, Rule, Use, Verified,
};
use quorate_participant::Allowed;
use quorate_ports::ledger::{AskCallback, CallbackAnswer, Ledger};
use quorate_types::*;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::keyring::Keyring;
use crate::session::denied;
use memory::Memory;
pub(crate) use permit::{Permit, Stored};

/// Sessions that may wait here for approvals or a callback; a party has four times as many places.
const WAITING: usize = 1_024;

/// The domain of the signature under a callback's body.
const CALLBACK: &str = "quorate/callback/v1";

/// Whom a party knows and what it allows them.
pub struct Rules {
    initiators: Initiators,
    policy: Policy,
}

impl Rules {
    /// Rules of these initiators and those that the policy pins.
    ///
    /// # Errors
    /// `invalid_request` when one name or key is pinned twice, or the policy names an initiator
    /// that nobody pins.
    pub fn new(mut initiators: Initiators, policy: Policy) -> Result<Self> {
        for (name, key) in &policy.initiators {
            initiators.pin(name, key.clone())?;
        }
        policy.check_initiators(&initiators)?;
        Ok(Self { initiators, policy })
    }

    /// Whether nobody is known: then every session is refused.
    pub fn is_empty(&self) -> bool {
        self.initiators.is_empty()
    }
}

/// What a party's authority is made of.
pub struct AuthorityParts {
    /// Whom it knows and what it allows.
    pub rules: Rules,
    /// What it has allowed.
    pub ledger: Arc<dyn Ledger>,
    /// How a policy's callback is asked.
    pub callback: Arc<dyn AskCallback>,
    /// The party's wall clock.
    pub now: fn() -> Timestamp,
}

/// For parties whose policies have no callback.
pub struct NoCallback;

#[async_trait]
impl AskCallback for NoCallback {
    async fn ask(&self, _: &str, _: Vec<u8>, _: &str) -> Result<CallbackAnswer> {
        Err(Error::unavailable("this party asks no callbacks"))
    }
}

/// What a party decides about sessions, by its own rules and memory.
pub struct Authority {
    rules: RwLock<Arc<Rules>>,
    changes: watch::Sender<u64>,
    ledger: Arc<dyn Ledger>,
    callback: Arc<dyn AskCallback>,
    now: fn() -> Timestamp,
    memory: Mutex<Memory>,
    waiting: Arc<Semaphore>,
}

/// What is to be done about a session.
pub(crate) enum Verdict {
    Allowed(Permit),
    Denied(Denial),
    AwaitApproval(Lacking),
    AskCallback(Question),
}

/// More approvals are needed.
pub(crate) struct Lacking {
    /// How a session is refused that starts without them.
    pub(crate) denial: Denial,
    /// How long the request still holds.
    pub(crate) expires_in: Duration,
}

/// What a callback is asked.
pub(crate) struct Question {
    callback: quorate_authority::Callback,
    body: Vec<u8>,
    signature: String,
}

impl Authority {
    /// An authority that remembers what its ledger does.
    pub async fn open(parts: AuthorityParts) -> Result<Self> {
        let AuthorityParts { rules, ledger, callback, now } = parts;
        let memory = Memory::new(ledger.load(now()).await?);
        Ok(Self {
            rules: RwLock::new(Arc::new(rules)),
            changes: watch::Sender::new(0),
            ledger,
            callback,
            now,
            memory: Mutex::new(memory),
            waiting: Arc::new(Semaphore::new(WAITING)),
        })
    }

    /// Goes by other rules from now on, also for sessions that wait.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A place for a session that waits; `None` when all are taken.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides whether a party takes part in a session. `held` is the key as the party holds it;
    /// `confirmed` that the callback has approved of this request.
    ///
    /// Costs one check of a signature, and one for each approval that the policy wants.
    pub(crate) fn check(
        &self,
        keyring: &Keyring,
        view: &SessionView,
        held: Option<&KeyRecord>,
        confirmed: bool,
    ) -> Verdict {
        match self.decide(keyring, view, held, confirmed) {
            Ok(verdict) => verdict,
            Err(denial) => Verdict::Denied(denial),
        }
    }

    fn decide(
        &self,
        keyring: &Keyring,
        view: &SessionView,
        held: Option<&KeyRecord>,
        confirmed: bool,
    ) -> Result<Verdict, Denial> {
        let now = (self.now)();
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let verified = rules.initiators.verify(view.authorization.as_deref(), now)?;
        let Some(authorization) = view.authorization.clone() else {
            return Err(Denial::new(Rule::Unsigned, "the request is not signed"));
        };
        let participants = view.parties().map(|party| (party, None)).collect();
        // A share of an earlier epoch than is shown may have missed a refresh. What the others show
        // at the start tells whether it is late or stale, and the key is compared there again.
        let behind =
            |held: &KeyEpoch| view.ceremony.key().is_some_and(|shown| held.epoch < shown.epoch);
        let label = held.and_then(|held| held.label.as_ref());
        let held = held.map(|held| &*held.key).filter(|held| !behind(held));
        let facts = Facts { ceremony: &view.ceremony, held, participants };
        verified.request.fits(&facts)?;
        let nonce = memory::nonce(&authorization.initiator, &verified.request.nonce);
        let key = verified.request.key_id();
        // From the question to the entry nobody else may come in between.
        let mut memory = self.memory();
        if memory.serves(nonce, view.session_id)? {
            let request = verified.request;
            let stored = memory.written(nonce);
            return Ok(Verdict::Allowed(Permit { authorization, request, stored }));
        }
        let uses = memory.uses(key);
        let since = |from| uses.since(from);
        let used = Use { total: uses.total(), since: &since };
        let decision = rules.policy.decide(now, &verified, &authorization, &used, label, confirmed);
        match decision {
            Decision::Deny(denial) => Err(denial),
            Decision::AwaitApproval { needed, given } => {
                let why = format!("the policy wants {needed} approvals, and there are {given}");
                let expires_in = verified.request.expires_at.millis_since(now);
                Ok(Verdict::AwaitApproval(Lacking {
                    denial: Denial::new(Rule::Approvals, why),
                    expires_in: Duration::from_millis(expires_in),
                }))
            }
            Decision::AskCallback(callback) => {
                let body = question(keyring, view, &verified, &authorization, label);
                let identity = keyring.identity();
                let signature = format!(
                    "{} {} {}",
                    keyring.party(),
                    hex::encode(identity.public()),
                    hex::encode(identity.sign(CALLBACK, &body))
                );
                Ok(Verdict::AskCallback(Question { callback, body, signature }))
            }
            Decision::Allow => {
                let rates =
                    rules.policy.entry(&verified.request, label).map(|e| e.rates.as_slice());
                let consumed = memory.consume(
                    nonce,
                    view.session_id,
                    &verified.request,
                    rates.unwrap_or_default(),
                    now,
                )?;
                let stored = self.ledger.consume(consumed).boxed().shared();
                memory.writes(nonce, stored.clone());
                let request = verified.request;
                Ok(Verdict::Allowed(Permit { authorization, request, stored: Some(stored) }))
            }
        }
    }

    /// Asks a callback. A service that is away or silent until the deadline refuses.
    pub(crate) async fn ask(&self, question: &Question) -> Result<CallbackAnswer, Denial> {
        let Question { callback, body, signature } = question;
        let asked = self.callback.ask(&callback.url, body.clone(), signature);
        let seconds = callback.deadline.as_secs();
        match tokio::time::timeout(callback.deadline, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, url = callback.url, "the policy's callback does not answer");
                let why = format!("the callback has not answered: {}", error.message);
                Err(Denial::new(Rule::Callback, why))
            }
            Err(_) => {
                let why = format!("the callback has not answered within {seconds} seconds");
                Err(Denial::new(Rule::Callback, why))
            }
        }
    }

    /// What a session may start as, for the machine that starts it.
    pub(crate) fn allowed(self: Arc<Self>, permit: Permit, party: PartyId) -> Arc<dyn Allowed> {
        Arc::new(Start { authority: self, permit, party })
    }
}

/// What an authority has allowed in another process, for the machine that starts it here.
///
/// # Errors
/// `policy_denied` when it is no request.
pub(crate) fn signed(authorization: &Authorization, party: &PartyId) -> Result<Arc<dyn Allowed>> {
    let request = Request::decode(&authorization.request)?;
    let authorization = Arc::new(authorization.clone());
    let permit = Permit { authorization, request, stored: None };
    Ok(Arc::new(Signed { permit, party: party.clone() }))
}

struct Signed {
    permit: Permit,
    party: PartyId,
}

impl Allowed for Signed {
    fn check(
        &self,
        view: &SessionView,
        held: Option<&KeyEpoch>,
        identities: &[[u8; 32]],
    ) -> Result<(), Failure> {
        let checked = self.permit.check(view, held, identities, crate::clock::now());
        checked.map_err(|denial| denied(&self.party, &denial))
    }

    fn label(&self) -> Option<KeyLabel> {
        self.permit.request.label().cloned()
    }
}

/// A permission together with the clock that it is held against.
struct Start {
    authority: Arc<Authority>,
    permit: Permit,
    party: PartyId,
}

impl Allowed for Start {
    /// The identities are known only now.
    fn check(
        &self,
        view: &SessionView,
        held: Option<&KeyEpoch>,
        identities: &[[u8; 32]],
    ) -> Result<(), Failure> {
        let checked = self.permit.check(view, held, identities, (self.authority.now)());
        checked.map_err(|denial| denied(&self.party, &denial))
    }

    fn label(&self) -> Option<KeyLabel> {
        self.permit.request.label().cloned()
    }
}

/// What a callback is told, as JSON: who asks for what, and the bytes that the initiator signed.
fn question(
    keyring: &Keyring,
    view: &SessionView,
    verified: &Verified,
    authorization: &Authorization,
    label: Option<&KeyLabel>,
) -> Vec<u8> {
    let input = view.ceremony.input();
    let participants = view.parties().map(PartyId::as_str);
    let body = json!({
        "version": 1,
        "party_id": keyring.party(),
        "session_id": view.session_id,
        "tenant": view.tenant,
        "session_type": view.ceremony.kind().name(),
        "scheme": view.ceremony.scheme().name(),
        "key_id": verified.request.key_id(),
        "key_label": verified.request.label().or(label),
        "message_hash": input.and_then(SignInput::digest).map(|digest| hex::encode(digest.0)),
        "message_hex": input.and_then(SignInput::message).map(hex::encode),
        "participants": participants.collect::<Vec<_>>(),
        "initiator": verified.initiator,
        "initiator_key": authorization.initiator,
        "purpose": verified.request.purpose,
        "expires_at": verified.request.expires_at.0,
        "request": hex::encode(&authorization.request),
        "request_sha256": hex::encode(quorate_authority::hash(&authorization.request)),
    });
    serde_json::to_vec(&body).expect("plain data")
}
