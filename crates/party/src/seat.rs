//! A seat that a delegate takes for a user: an identity and keys of its own, for one session.
//!
//! They are in memory and go with the session, but for its bans, which the delegate keeps. What is
//! made in it leaves once, sealed to the user's key; to sign in it the user lends its share.

mod host;
mod vault;

use std::sync::Arc;

use async_trait::async_trait;
use quorate_engine::{Holding, Identity, Package, SealKey};
use quorate_ports::vault::Ban;
use quorate_schemes::{
    DELEGATE_KEY, PackageSecret, Purpose, Seat as SealedSeat, delegate_key_message, seal_package,
};
use quorate_types::*;
use tokio::sync::watch;

use crate::keyring::Keyring;
use crate::session::{Party, Worker};
pub(crate) use host::take_elsewhere;
pub use host::{Errand, SeatHost};
use vault::SeatVault;

/// A delegate's key, and where it takes the seats of users.
#[derive(Clone)]
pub struct Delegate {
    /// Opens what users lend it.
    pub key: Arc<PackageSecret>,
    /// Takes its seats in other processes. Without one they are taken here, and what the protocols'
    /// libraries leave in memory stays until it is used again.
    pub seats: Option<Arc<dyn SeatHost>>,
    /// Where bans go that are found in a seat, beside the delegate's vault: for one whose vault goes
    /// with its process.
    pub bans: Option<Arc<dyn KeepBan>>,
}

/// Keeps bans for somebody else.
#[async_trait]
pub trait KeepBan: Send + Sync + 'static {
    /// Returns once the ban is on the disk.
    ///
    /// # Errors
    /// When it is not.
    async fn keep(&self, ban: Ban) -> Result<()>;
}

impl Delegate {
    /// The key as a delegate of this name and identity publishes it.
    pub(crate) fn published(&self, name: &PartyId, identity: &Identity) -> Result<DelegateKey> {
        let key = self.key.public()?;
        let signature = identity.sign(DELEGATE_KEY, &delegate_key_message(name, &key));
        Ok(DelegateKey { key, signature: KeySignature(signature) })
    }
}

/// A user's seat that a delegate takes.
pub(crate) struct Seat {
    /// Computes as the user.
    pub(crate) worker: Worker,
    /// What is handed over of a key that is made in it.
    handover: Option<Handover>,
}

/// How a user gets the share that a delegate makes.
struct Handover {
    index: PartyIndex,
    seal_key: PackageKey,
    /// What is handed in: the same every time.
    submission: Option<SubmitShare>,
}

/// A seat to be taken: what is made in it, or used.
pub(crate) enum Task<'a> {
    /// A share, for the user with this key.
    Make(&'a ParticipantView, &'a OnBehalfOf, &'a PackageKey),
    /// The share that the user lends for this request.
    Use(&'a OnBehalfOf, &'a LentShare, &'a Authorization),
}

impl Seat {
    /// Takes a seat.
    ///
    /// # Errors
    /// Why a lent share cannot be used.
    pub(crate) async fn take(
        task: Task<'_>,
        delegate: &Delegate,
        worker: &Worker,
    ) -> Result<Self, String> {
        match task {
            Task::Make(seat, of, seal_key) => {
                let vault = SeatVault::new(of.user_id.clone(), worker, delegate.bans.clone());
                let worker = seated(of.user_id.clone(), Identity::generate(), vault, worker);
                let (index, seal_key) = (seat.party_index, seal_key.clone());
                let handover = Some(Handover { index, seal_key, submission: None });
                Ok(Self { worker, handover })
            }
            Task::Use(of, lent, authorization) => {
                let (key, sealed) = (Arc::clone(&delegate.key), lent.package.clone());
                let request = authorization.request.clone();
                let open = move || {
                    let plain = key.open(Purpose::ToDelegate, &request, &sealed)?;
                    Package::decode(&plain).ok()
                };
                let package = worker.compute.run(open).await.ok_or_else(|| {
                    "the share that was lent does not open: it was sealed to another key, or for \
                     another request"
                        .to_owned()
                })?;
                let vault = SeatVault::lent(&package, worker, delegate.bans.clone());
                let identity = Identity::from_secret(&package.identity.secret());
                let worker = seated(of.user_id.clone(), identity, vault, worker);
                let received = worker.keyring.receive(package, &worker.compute).await;
                received.map_err(|error| format!("the share that was lent: {}", error.message))?;
                Ok(Self { worker, handover: None })
            }
        }
    }

    /// What the delegate hands in of the key that it has made in a session.
    ///
    /// # Errors
    /// `internal_error` where it has made none.
    pub(crate) async fn submission(
        &mut self,
        session_id: SessionId,
        delegate: &PartyId,
    ) -> Result<SubmitShare> {
        let Self { worker: Worker { keyring, compute }, handover } = self;
        let handover = handover.as_mut().ok_or_else(Error::internal)?;
        if let Some(made) = &handover.submission {
            return Ok(made.clone());
        }
        let key = keyring.key(session_id.into(), compute).await?;
        let key = key.filter(|key| key.active()).ok_or_else(Error::internal)?;
        let holder = keyring.party().clone();
        let stored = &key.stored;
        let KeyRecord { key: epoch, tenant, created_at, label, frozen: _ } = stored.record.clone();
        let seat = SealedSeat {
            key_id: stored.key_id,
            epoch: stored.epoch,
            holder: &holder,
            index: handover.index,
            scheme: epoch.scheme,
        };
        let associated = seat.associated_data(session_id);
        let public_key = epoch.public_key.0.clone();
        let package = Package {
            holding: Holding {
                holder: holder.clone(),
                key: Arc::unwrap_or_clone(epoch),
                tenant,
                created_at,
                label,
                identities: stored.identities.clone(),
                execution: stored.execution,
                confirmations: stored.confirmations.clone(),
                bans: Vec::new(),
            },
            identity: Arc::clone(keyring.identity()),
            generation: keyring.vault().generation().await?,
            share: Arc::clone(&key.share),
        };
        let to = handover.seal_key.clone();
        let job = move || seal_package(&to, Purpose::ToUser, &associated, package.encode()?);
        let package = compute.run(job).await?.into();
        let submission = SubmitShare {
            session_id,
            party_id: delegate.clone(),
            party_index: handover.index,
            public_key,
            package,
        };
        Ok(handover.submission.insert(submission).clone())
    }
}

/// What computes in a seat: as its holder, with keys in memory.
fn seated(holder: PartyId, identity: Identity, vault: SeatVault, delegate: &Worker) -> Worker {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the system gives randomness");
    let seal = SealKey::from_bytes(Secret::new(key));
    let keyring = Arc::new(Keyring::new(holder, identity, seal, Arc::new(vault)));
    Worker { keyring, compute: delegate.compute.clone() }
}

/// The seat that a party takes for a user; `None` where it takes its own.
///
/// # Errors
/// Why it does not take this seat.
pub(crate) fn taken<'a>(
    party: &'a Party,
    view: Option<&'a SessionView>,
    lent: Option<&'a LentShare>,
) -> Result<Option<(&'a Delegate, Task<'a>)>, String> {
    let me = party.id();
    let seat = view.and_then(|view| Some((view, view.seat(me)?)));
    let Some((view, seat, of)) =
        seat.and_then(|(view, seat)| Some((view, seat, seat.on_behalf_of.as_ref()?)))
    else {
        return match &party.delegate {
            Some(_) => Err(format!("{me} takes part on behalf of users only")),
            None => Ok(None),
        };
    };
    let Some(delegate) = &party.delegate else { return Err(format!("{me} is not a delegate")) };
    let task = match (&view.ceremony, &of.seal_key, lent, view.authorization.as_deref()) {
        (Ceremony::Keygen { .. }, Some(key), ..) => Task::Make(seat, of, key),
        (Ceremony::Keygen { .. }, None, ..) => {
            return Err(format!("{me} has no key to seal the share of {} to", of.user_id));
        }
        (Ceremony::Sign { .. }, _, Some(lent), Some(request)) => Task::Use(of, lent, request),
        (Ceremony::Sign { .. }, ..) => {
            return Err(format!("{} has lent {me} no share for this request", of.user_id));
        }
        (Ceremony::Refresh { .. }, ..) => return Err(format!("{me} refreshes no share of a user")),
    };
    Ok(Some((delegate, task)))
}

/// What the router calls the seats of a session: by their parties. Those who compute call them by
/// their holders, which differ where a delegate takes a seat.
pub(crate) struct Names(watch::Receiver<Option<SessionView>>);

impl Names {
    /// The names in a session as it is known.
    pub(crate) fn new(views: watch::Receiver<Option<SessionView>>) -> Self {
        Self(views)
    }

    /// The party that takes a holder's seat.
    pub(crate) fn party(&self, holder: PartyId) -> PartyId {
        self.find(|seat| seat.holder() == &holder, |seat| &seat.party_id).unwrap_or(holder)
    }

    /// The holder whose seat a party takes.
    pub(crate) fn holder(&self, party: PartyId) -> PartyId {
        self.find(|seat| seat.party_id == party, ParticipantView::holder).unwrap_or(party)
    }

    fn find(
        &self,
        meant: impl Fn(&ParticipantView) -> bool,
        name: impl Fn(&ParticipantView) -> &PartyId,
    ) -> Option<PartyId> {
        let view = self.0.borrow();
        let seat = view.as_ref()?.participants.iter().find(|seat| meant(seat))?;
        Some(name(seat).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegated_seat_has_two_names_and_others_one() {
        let mut view = quorate_testkit::session();
        let user_id = "carol".parse().unwrap();
        view.participants[1].on_behalf_of = Some(OnBehalfOf { user_id, seal_key: None });
        let name = |text: &str| text.parse::<PartyId>().unwrap();
        let (sender, views) = watch::channel(None);
        let names = Names::new(views);
        assert_eq!(names.party(name("carol")), name("carol"), "nothing is known yet");
        sender.send_replace(Some(view));
        for (party, holder) in [("bob", "carol"), ("alice", "alice"), ("stranger", "stranger")] {
            assert_eq!(names.party(name(holder)), name(party));
            assert_eq!(names.holder(name(party)), name(holder));
        }
    }
}
