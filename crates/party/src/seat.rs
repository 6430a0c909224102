//! A seat that a delegate takes for a user: an identity and keys of its own, for one session.
//!
//! They are in memory and go with the session, but for its bans, which the delegate keeps. What is
//! made in it leaves once, sealed to the user's key.

mod host;
mod vault;

use std::sync::Arc;

use quorate_engine::{Holding, Identity, Package, SealKey};
use quorate_schemes::{Purpose, Seat as SealedSeat, seal_package};
use quorate_types::*;
use tokio::sync::watch;

use crate::keyring::Keyring;
use crate::session::{Party, Worker};
pub(crate) use host::take_elsewhere;
pub use host::{Errand, SeatHost};
use vault::SeatVault;

/// A user's seat in a keygen.
pub(crate) struct Seat {
    /// Computes as the user.
    pub(crate) worker: Worker,
    index: PartyIndex,
    seal_key: PackageKey,
    /// What is handed in: the same every time.
    submission: Option<SubmitShare>,
}

impl Seat {
    /// A seat with a fresh identity; `None` where there is no key to seal its share to.
    pub(crate) fn new(seat: &ParticipantView, delegate: &Worker) -> Option<Self> {
        let OnBehalfOf { user_id, seal_key } = seat.on_behalf_of.clone()?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system gives randomness");
        let (seal, vault) =
            (SealKey::from_bytes(Secret::new(key)), Arc::new(SeatVault::new(delegate)));
        let keyring = Arc::new(Keyring::new(user_id, Identity::generate(), seal, vault));
        Some(Self {
            worker: Worker { keyring, compute: delegate.compute.clone() },
            index: seat.party_index,
            seal_key: seal_key?,
            submission: None,
        })
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
        if let Some(made) = &self.submission {
            return Ok(made.clone());
        }
        let Worker { keyring, compute } = &self.worker;
        let key = keyring.key(session_id.into(), compute).await?;
        let key = key.filter(|key| key.active()).ok_or_else(Error::internal)?;
        let holder = keyring.party().clone();
        let stored = &key.stored;
        let KeyRecord { key: epoch, tenant, created_at, label, frozen: _ } = stored.record.clone();
        let seat = SealedSeat {
            key_id: stored.key_id,
            epoch: stored.epoch,
            holder: &holder,
            index: self.index,
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
            share: Arc::clone(&key.share),
        };
        let to = self.seal_key.clone();
        let job = move || seal_package(&to, Purpose::ToUser, &associated, package.encode()?);
        let package = compute.run(job).await?.into();
        let submission = SubmitShare {
            session_id,
            party_id: delegate.clone(),
            party_index: self.index,
            public_key,
            package,
        };
        Ok(self.submission.insert(submission).clone())
    }
}

/// The seat that a party takes for a user; `None` where it takes its own.
///
/// # Errors
/// Why it does not take this seat.
pub(crate) fn taken<'a>(
    party: &Party,
    view: Option<&'a SessionView>,
) -> Result<Option<&'a ParticipantView>, String> {
    let me = party.id();
    let mut seats = view.into_iter().flat_map(|view| &view.participants);
    let taken = seats.find(|seat| seat.party_id == *me);
    match taken.map(|seat| (seat, seat.on_behalf_of.as_ref())) {
        Some((seat, Some(of))) => match (&party.delegate, &of.seal_key) {
            (None, _) => Err(format!("{me} is no delegate")),
            (Some(_), None) => {
                Err(format!("{me} has no key to seal the share of {} to", of.user_id))
            }
            (Some(_), Some(_)) => Ok(Some(seat)),
        },
        _ if party.delegate.is_some() => Err(format!("{me} takes part on behalf of users only")),
        _ => Ok(None),
    }
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
