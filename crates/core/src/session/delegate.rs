//! Seats that delegates take for users: who may be one, and the packages that they hand in.

use bytes::Bytes;
use quorate_types::*;

use super::{Durability, Effects, Participant, Reply, Session, index};

/// A package that a delegate hands in for its user.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The delegate that takes the seat.
    pub party: PartyId,
    /// Its place, as it says.
    pub party_index: PartyIndex,
    /// The key that was made, as it says.
    pub public_key: Vec<u8>,
    /// The package, sealed to its user's key.
    pub package: Bytes,
    /// SHA-256 of the package, by which a repetition is known.
    pub package_hash: [u8; 32],
}

/// Refuses delegated seats that cannot be: where a key is made a package is handed over, to a key to
/// which something can be sealed; where one is used a user lends its share, of which there is one;
/// holders have one name each, which no party of the session has.
///
/// # Errors
/// `invalid_request` naming the member.
pub(super) fn check(ceremony: &Ceremony, participants: &[&NewParticipant]) -> Result<()> {
    let delegated = || participants.iter().filter_map(|one| one.on_behalf_of.as_ref());
    let refused = |field, problem: String| Err(Error::invalid_field(field, problem));
    for OnBehalfOf { user_id, seal_key } in delegated() {
        match (ceremony, seal_key) {
            (Ceremony::Keygen { .. }, Some(key)) => quorate_schemes::check_package_key(key)?,
            (Ceremony::Keygen { .. }, None) => {
                let why = format!("the share of {user_id} has to be sealed to a key of its own");
                return refused("seal_key", why);
            }
            (Ceremony::Sign { .. }, None) if delegated().count() == 1 => {}
            (Ceremony::Sign { .. }, None) => {
                let why = "one share is lent for a signature: one delegate signs for one user";
                return refused("on_behalf_of", why.to_owned());
            }
            (Ceremony::Sign { .. }, Some(_)) => {
                let why = "nothing is handed over by a signature: leave seal_key out".to_owned();
                return refused("seal_key", why);
            }
            (Ceremony::Refresh { .. }, _) => {
                let why = "a key is refreshed by its holders themselves, not by delegates";
                return refused("on_behalf_of", why.to_owned());
            }
        }
        let same = |one: &&&NewParticipant| one.party_id == *user_id || one.holder() == user_id;
        if participants.iter().filter(same).count() > 1 {
            return refused("user_id", format!("{user_id} is named twice"));
        }
    }
    Ok(())
}

impl Participant {
    /// Whose the seat is among the holders of the key.
    pub(super) fn holder(&self) -> &PartyId {
        self.on_behalf_of.as_ref().map_or(&self.party_id, |of| &of.user_id)
    }

    /// Whether its user's package is not in, where it makes one.
    pub(super) fn owes_package(&self) -> bool {
        let made = self.on_behalf_of.as_ref().is_some_and(|of| of.seal_key.is_some());
        made && self.package.is_none()
    }
}

impl Session {
    /// Seats in which a delegate makes a share for its user: the delegate, its place and its user.
    pub fn delegated(&self) -> impl Iterator<Item = (&PartyId, PartyIndex, &PartyId)> {
        let keygen = self.kind() == SessionKind::Keygen;
        let seats = self.participants.iter().enumerate().filter(move |_| keygen);
        seats.filter_map(|(at, seat)| {
            let of = seat.on_behalf_of.as_ref()?;
            Some((&seat.party_id, index(at), &of.user_id))
        })
    }

    /// The place of a party or, in a seat that a delegate takes, of its user.
    pub(super) fn place_of(&self, name: &PartyId) -> Option<usize> {
        let holds = |seat: &Participant| seat.holder() == name;
        self.place(name).or_else(|| self.participants.iter().position(holds))
    }

    /// Takes a package in: one for each seat, and the same again.
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        submission: Submission,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let Submission { party, party_index, public_key, package_hash, package: _ } = submission;
        let at = self.member(&party)?;
        if self.kind() != SessionKind::Keygen {
            let why = "this session makes no key: there is nothing to hand over";
            return Err(Error::invalid_field("session_id", why));
        }
        if self.participants[at].on_behalf_of.is_none() {
            let why = format!("{party} takes its seat for itself: it has no package to submit");
            return Err(Error::invalid_field("party_id", why));
        }
        match self.participants[at].package {
            Some(known) if known == package_hash => return Ok(Reply::Done),
            Some(_) => {
                let why = "another package was handed in for this seat; the first one stands";
                return Err(Error::new(ErrorCode::Conflict, why));
            }
            None => {}
        }
        if self.status.is_unstarted() {
            let why = format!("the session is {}: no key is made yet", self.status.name());
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        self.refuse_ended()?;
        if party_index != index(at) {
            let why = format!("the place of {party} is {at}, not {}", party_index.0);
            return Err(Error::invalid_field("party_index", why));
        }
        let made = Outcome::PublicKey(quorate_schemes::normalize_public_key(
            self.ceremony.scheme(),
            &public_key,
        )?);
        if self.outcome.as_ref().is_some_and(|known| *known != made) {
            let why = "this is another key than the parties have made";
            return Err(Error::invalid_field("public_key", why));
        }
        self.outcome.get_or_insert(made);
        self.participants[at].package = Some(package_hash);
        self.note(now, Some(&party), "handed in its user's package");
        effects.package = true;
        effects.persist(Durability::Now);
        if std::mem::take(&mut self.participants[at].reported) {
            self.take_result(now, at, effects);
        }
        Ok(Reply::Done)
    }
}
