//! What must hold before a party takes part: of the view, the key, the roster and its identities.

use std::sync::Arc;

use quorate_engine::{Member, Shown, Task, claimed};
use quorate_types::vault::SealedShare;
use quorate_types::*;

use crate::Me;
use crate::bans::stale;
use crate::failure::{could_not, of_error};
use crate::key::OpenKey;
use crate::vault::{KnownPeer, Standing, VaultAction, VaultAnswer, Witness};

/// Shares of one tenant that may wait for confirmations. A keygen that breaks off in its last round
/// leaves one, of 50 to 500 kB, until its owner discards it.
const MAX_PENDING: u64 = 256;

/// How far an epoch may be ahead of the one that signs: so many refreshes may break off, one after
/// the other, and each leaves a share of 50 to 500 kB until one is finished.
const MAX_WAITING: u32 = 16;

/// What the vault must be asked before a session can be judged.
pub(crate) fn question(view: &SessionView) -> VaultAction {
    match &view.ceremony {
        Ceremony::Keygen { .. } => {
            let (key, tenant) = (view.session_id.into(), view.tenant.clone());
            VaultAction::CountShares { key, tenant }
        }
        Ceremony::Sign { key, .. } | Ceremony::Refresh { key } => VaultAction::OpenKey(key.key_id),
    }
}

/// Whether this party can take part, by what its vault answered; with the key it signs with.
pub(crate) fn judge(
    me: &Me,
    view: &SessionView,
    answer: Result<VaultAnswer>,
) -> Result<Option<Arc<OpenKey>>, Failure> {
    let answer = answer.map_err(|error| of_error(&me.party, error))?;
    match (&view.ceremony, answer) {
        (Ceremony::Keygen { .. }, VaultAnswer::Shares { held, pending }) => {
            new_key(me, view, held, pending).map(|()| None)
        }
        (Ceremony::Sign { key, .. }, VaultAnswer::Key(held)) => {
            signer(me, view, key.key_id, held).map(Some)
        }
        (Ceremony::Refresh { key }, VaultAnswer::Key(held)) => {
            let held = holder(me, view, key.key_id, held)?;
            all_holders(me, view, &held).map(|()| Some(held))
        }
        _ => Err(confused(me)),
    }
}

/// The vault answered something else than it was asked, which is a bug of this party's.
pub(crate) fn confused(me: &Me) -> Failure {
    could_not(&me.party, format!("{} met a bug of its own; its log names it", me.party))
}

/// A keygen must not be of a key that is held already.
fn new_key(me: &Me, view: &SessionView, held: bool, pending: u64) -> Result<(), Failure> {
    let (me, key) = (&me.party, KeyId::from(view.session_id));
    if held {
        let message = format!(
            "{me} already holds a share of key {key} and does not replace it; start a new keygen"
        );
        return Err(could_not(me, message));
    }
    if pending >= MAX_PENDING {
        let message = format!(
            "{me} keeps too many shares of this tenant that are not confirmed; its operator can \
             discard them with `quorate party shares`"
        );
        return Err(could_not(me, message));
    }
    Ok(())
}

/// A signature is made among holders none of whom is banned.
fn signer(
    me: &Me,
    view: &SessionView,
    key_id: KeyId,
    held: Option<Arc<OpenKey>>,
) -> Result<Arc<OpenKey>, Failure> {
    let key = holder(me, view, key_id, held)?;
    // Where a later epoch waits, it may sign instead, and bans end with theirs: the gate asks.
    if key.later.is_empty() {
        let checked = me.bans.check(&key, &parties(view));
        checked.map_err(|error| of_error(&me.party, error))?;
    }
    Ok(key)
}

/// A refresh takes all holders, in their order.
fn all_holders(me: &Me, view: &SessionView, key: &OpenKey) -> Result<(), Failure> {
    if key.stored.record.holders == parties(view) {
        return Ok(());
    }
    let key = key.stored.key_id;
    Err(could_not(&me.party, format!("key {key} is refreshed by all its holders, in their order")))
}

/// A key is used with a share that is held, among its holders, by who made it.
fn holder(
    me: &Me,
    view: &SessionView,
    key_id: KeyId,
    held: Option<Arc<OpenKey>>,
) -> Result<Arc<OpenKey>, Failure> {
    let party = &me.party;
    let Some(key) = held else {
        let message = format!(
            "{party} holds no share of key {key_id}; choose signers that took part in its keygen"
        );
        return Err(could_not(party, message));
    };
    let holders = &key.stored.record.holders;
    let signers = parties(view);
    if let Some(stranger) = signers.iter().find(|signer| !holders.contains(signer)) {
        let mut failure = could_not(party, format!("{stranger} is not a holder of key {key_id}"));
        failure.parties = vec![stranger.clone()];
        return Err(failure);
    }
    if key.pinned(party) != Some(me.identity.public()) {
        let message = format!(
            "{party} has another identity than when key {key_id} was made; restore its identity \
             file"
        );
        return Err(could_not(party, message));
    }
    Ok(key)
}

/// The participants of a session, in their order.
pub(crate) fn parties(view: &SessionView) -> Vec<PartyId> {
    view.parties().cloned().collect()
}

/// What the run is to do.
pub(crate) fn task(me: &Me, ceremony: &Ceremony, key: Option<&OpenKey>) -> Result<Task, Failure> {
    match (ceremony, key) {
        (Ceremony::Keygen { scheme, threshold }, None) => {
            Ok(Task::Keygen { scheme: *scheme, threshold: *threshold })
        }
        // The key is the one that this party holds, whatever the session says of it.
        (Ceremony::Sign { input, .. }, Some(key)) => Ok(Task::Sign {
            share: Arc::clone(&key.share),
            key: Arc::clone(&key.stored.record.key),
            made_by: key.stored.execution,
            input: input.clone(),
        }),
        (Ceremony::Refresh { .. }, Some(key)) => Ok(Task::Refresh {
            share: Arc::clone(&key.share),
            key: Arc::clone(&key.stored.record.key),
            made_by: key.stored.execution,
        }),
        _ => Err(could_not(&me.party, "the session has changed its kind")),
    }
}

/// The participants with their handshakes, in their order; ours must be the one we sent.
pub(crate) fn roster(
    me: &Me,
    mine: &Handshake,
    view: &SessionView,
) -> Result<Vec<Member>, Failure> {
    let me = &me.party;
    let mut roster = Vec::with_capacity(view.participants.len());
    for participant in &view.participants {
        let party_id = participant.party_id.clone();
        let Some(handshake) = participant.handshake.clone() else {
            let mut failure = could_not(
                me,
                format!(
                    "{party_id} joined without a handshake; only parties with one can compute \
                     with {me}"
                ),
            );
            failure.parties = vec![party_id];
            return Err(failure);
        };
        if party_id == *me && handshake != *mine {
            let message = format!(
                "{me} is shown with another handshake than it sent; it may have restarted while \
                 the session was starting"
            );
            return Err(could_not(me, message));
        }
        roster.push(Member { party_id, handshake });
    }
    Ok(roster)
}

/// A peer of a run: its place in the view, its identity and what it shows of its vault.
pub(crate) struct Peer {
    pub(crate) party: PartyId,
    pub(crate) identity: [u8; 32],
    /// Whether a delegate takes its seat.
    pub(crate) delegated: bool,
    pub(crate) shown: Shown,
    pub(crate) handshake: Handshake,
}

/// Everybody must be who its name is pinned to be and, for signing, who it was when the key was
/// made, with a vault that is not older than it was. Answers with what is to be remembered of the
/// vaults.
pub(crate) fn identities<'a>(
    peers: impl Iterator<Item = &'a Peer>,
    known: &[KnownPeer],
    key: Option<&OpenKey>,
) -> Result<Vec<Witness>> {
    let mut witnessed = Vec::new();
    for (peer, known) in peers.zip(known) {
        if key.is_some_and(|key| key.pinned(&peer.party) != Some(peer.identity)) {
            return Err(foreign_identity(&peer.party, "it had when the key was made"));
        }
        pin(&peer.party, peer.identity, known.pin)?;
        if key.is_some() {
            witnessed.extend(standing(peer, known.standing)?);
        }
    }
    Ok(witnessed)
}

/// Compares a peer's identity with the one pinned for its name. A name without a pin may show any.
pub(crate) fn pin(peer: &PartyId, identity: [u8; 32], pinned: Option<[u8; 32]>) -> Result<()> {
    match pinned.is_none_or(|pinned| pinned == identity) {
        true => Ok(()),
        false => Err(foreign_identity(peer, "it first made a key with")),
    }
}

/// Refuses a peer whose vault is older than one that it has shown before. Of one process of the
/// peer sessions may be seen in another order than it joined them.
fn standing(peer: &Peer, (known, by): Standing) -> Result<Option<Witness>> {
    let Shown { generation, process, .. } = peer.shown;
    if generation < known && process != by {
        let reason = format!(
            "its vault is older than the one it had (change {generation}, it was at {known})"
        );
        let message = format!(
            "{} may have forgotten bans: {reason}; put its newest folder back, or start it once \
             with --accept-rollback and refresh its keys",
            peer.party
        );
        let blame = Blame { party_id: peer.party.clone(), reason };
        return Err(Error::new(ErrorCode::Conflict, message).blaming(blame));
    }
    if generation < known || (generation, process) == (known, by) {
        return Ok(None);
    }
    let handshake = (generation > known).then(|| peer.handshake.clone());
    Ok(Some(Witness { identity: peer.identity, standing: (generation, process), handshake }))
}

/// The refusal of a peer whose identity is not the one expected.
fn foreign_identity(peer: &PartyId, expected: &str) -> Error {
    let reason = format!("its identity key is not the one {expected}");
    let message = format!(
        "{peer} is not who it was: {reason}; if it lost its identity on purpose, give it a new \
         party id"
    );
    let blame = Blame { party_id: peer.clone(), reason };
    Error::new(ErrorCode::Forbidden, message).blaming(blame)
}

/// A share that missed confirmations, with those of all holders.
pub(crate) struct Late {
    pub(crate) key: Arc<OpenKey>,
    pub(crate) confirmations: Vec<u8>,
}

/// Looks at what the others show of the key before its share is used: the confirmations of a share
/// that missed them come from any holder that has all, or from all holders at once. They prove
/// themselves, whoever shows them. Answers with the share that they let sign.
pub(crate) fn late_confirmations(
    me: &Me,
    view: &SessionView,
    key: &Arc<OpenKey>,
) -> Result<Option<Late>, Failure> {
    let others = || view.participants.iter().filter(|seat| seat.party_id != me.party);
    let claims = |seat: &ParticipantView| {
        let shown = seat.handshake.as_ref().and_then(|handshake| claimed(handshake))?;
        Some((seat.party_id.clone(), shown))
    };
    let shown: Vec<_> = others().filter_map(claims).collect();
    let waiting = key.waiting();
    let late = waiting.iter().enumerate().rev().find_map(|(at, share)| {
        let confirmations = certificate(me, share, &shown)?;
        let later = waiting.get(at + 1..).unwrap_or_default();
        Some(Late { key: Arc::new(share.followed_by(later.to_vec())), confirmations })
    });
    let newest = late.as_ref().map_or(key, |late| &late.key);
    let SealedShare { key_id, epoch, .. } = newest.stored;
    if let Some((_, later)) = shown.iter().find(|(_, shown)| newest.replaced_by(shown)) {
        return Err(of_error(&me.party, stale(&me.party, key_id, epoch, later.epoch)));
    }
    if late.is_some() || key.active() {
        return Ok(late);
    }
    let message = format!(
        "the share of {} is not confirmed by all holders of key {key_id}: it signs with a holder \
         that has all confirmations, or make another key",
        me.party
    );
    Err(could_not(&me.party, message))
}

/// The confirmations of all holders of a share, from what is shown.
fn certificate(me: &Me, share: &OpenKey, shown: &[(PartyId, Shown)]) -> Option<Vec<u8>> {
    let (statement, stored) = (share.statement(), &share.stored);
    let all = shown.iter().map(|(_, shown)| shown).find(|shown| {
        (shown.epoch, shown.execution) == (stored.epoch, stored.execution)
            && statement.confirmed_by(&shown.confirmations)
    });
    if let Some(all) = all {
        return Some(all.confirmations.clone());
    }
    let own = |holder: &PartyId| {
        if *holder == me.party {
            return Some(me.identity.confirm(&statement));
        }
        let (_, shown) = shown.iter().find(|(party, _)| party == holder)?;
        let pending = shown.pending.as_ref().filter(|pending| {
            (pending.epoch, pending.execution) == (stored.epoch, stored.execution)
        })?;
        Some(pending.confirmation)
    };
    let each: Option<Vec<_>> = stored.record.holders.iter().map(own).collect();
    each.map(|each| each.concat()).filter(|all| statement.confirmed_by(all))
}

/// The epoch that a refresh is to make with this share; none where a later one than was asked for is
/// there already, because an earlier attempt was confirmed only now or its end was missed.
///
/// It comes after all epochs of which any holder keeps a share: nothing that waits for confirmations
/// is replaced, since somebody may have them all. The holders agree on it, as the run's id covers
/// what they show.
pub(crate) fn next_epoch(
    me: &Me,
    view: &SessionView,
    key: &OpenKey,
) -> Result<Option<u32>, Failure> {
    let (party, Ceremony::Refresh { key: asked }) = (&me.party, &view.ceremony) else {
        return Ok(None);
    };
    let SealedShare { key_id, epoch, .. } = key.stored;
    if epoch > asked.epoch {
        return Ok(None);
    }
    if epoch < asked.epoch {
        let message = format!(
            "stale_epoch: the session refreshes epoch {} of key {key_id}, and {party} holds epoch \
             {epoch}",
            asked.epoch
        );
        return Err(could_not(party, message));
    }
    let waiting = |seat: &ParticipantView| {
        let pending = claimed(seat.handshake.as_ref()?)?.pending?;
        (pending.epoch > epoch).then(|| (seat.party_id.clone(), pending.epoch))
    };
    let waiting: Vec<_> = view.participants.iter().filter_map(waiting).collect();
    let last = epoch.saturating_add(MAX_WAITING);
    let too_late: Vec<_> = waiting.iter().filter(|(_, epoch)| *epoch >= last).collect();
    if too_late.is_empty() {
        let newest = waiting.iter().map(|(_, epoch)| *epoch).max().unwrap_or(epoch);
        return Ok(Some(newest.saturating_add(1)));
    }
    let commands: Vec<_> = too_late
        .iter()
        .map(|(party, epoch)| {
            format!("at {party} `quorate party shares discard {key_id} --epoch {epoch} --yes`")
        })
        .collect();
    let message = format!(
        "too many refreshes of key {key_id} broke off, and their shares wait for confirmations: \
         where no holder signs with them, the operators discard the newest with {}",
        commands.join(", ")
    );
    let mut failure = could_not(party, message);
    failure.parties = too_late.into_iter().map(|(party, _)| party.clone()).collect();
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(generation: u64, process: u8) -> Peer {
        let shown = Shown { generation, process: [process; 16], ..Shown::default() };
        let party = "peer".parse().unwrap();
        let handshake = Handshake::from_static(b"handshake");
        Peer { party, identity: [1; 32], delegated: false, shown, handshake }
    }

    #[test]
    fn a_peer_with_an_older_vault_than_before_is_refused() {
        let known = (7, [1; 16]);
        for (generation, process) in [(7, 1), (6, 1)] {
            assert!(standing(&peer(generation, process), known).unwrap().is_none(), "out of order");
        }
        let refused = standing(&peer(6, 2), known).err().unwrap();
        assert!(refused.message.contains("--accept-rollback"), "{refused}");
        assert_eq!(refused.details.blame.unwrap().party_id, "peer".parse().unwrap());
        let restarted = standing(&peer(7, 2), known).unwrap().unwrap();
        assert_eq!((restarted.standing, restarted.handshake), ((7, [2; 16]), None));
        let newer = standing(&peer(1 << 32, 3), known).unwrap().unwrap();
        assert!(newer.handshake.is_some(), "it proves a rollback later");
        assert!(standing(&peer(0, 3), (0, [0; 16])).is_ok(), "one that was never seen");
    }

    #[test]
    fn a_name_shows_the_identity_that_it_is_pinned_to() {
        let name: PartyId = "peer".parse().unwrap();
        assert!(pin(&name, [2; 32], None).is_ok() && pin(&name, [2; 32], Some([2; 32])).is_ok());
        let refused = pin(&name, [2; 32], Some([3; 32])).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden);
        assert_eq!(refused.details.blame.unwrap().party_id, name);
    }
}
