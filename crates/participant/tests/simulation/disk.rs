//! A holder's disk: what outlives its process.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_engine::{SealContext, SealKey, Share};
use quorate_participant::{
    KnownPeer, Me, NewShare, OpenKey, Standing, VaultAction, VaultAnswer, Witness,
};
use quorate_types::vault::{Ban, SealedShare, ShareState};
use quorate_types::*;

/// What is on it.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) shares: BTreeMap<(KeyId, u32), SealedShare>,
    pub(crate) bans: Vec<Ban>,
    pub(crate) pins: BTreeMap<PartyId, [u8; 32]>,
    witnessed: BTreeMap<[u8; 32], Standing>,
    generation: u64,
}

fn seal() -> SealKey {
    SealKey::from_bytes(Secret::new([7; 32]))
}

impl Disk {
    /// A disk with these shares, whose generation does not show that they are old.
    pub(crate) fn with(shares: BTreeMap<(KeyId, u32), SealedShare>) -> Self {
        Self { shares, generation: 1 << 32, ..Self::default() }
    }

    /// The share that counts: the active one, else the pending one.
    pub(crate) fn share(&self, key: KeyId) -> Option<&SealedShare> {
        let of_key = || self.shares.range((key, 0)..=(key, u32::MAX)).map(|(_, share)| share);
        let active = of_key().find(|share| share.state == ShareState::Active);
        active.or_else(|| of_key().find(|share| share.state == ShareState::Pending))
    }

    fn open(&self, me: &Me, key: KeyId) -> Option<Arc<OpenKey>> {
        let share = self.share(key)?;
        let next = self.shares.get(&(key, share.epoch + 1));
        let next = next.map(|next| self.opened(me, next));
        Some(Arc::new(self.opened(me, share).followed_by(next)))
    }

    fn opened(&self, me: &Me, stored: &SealedShare) -> Arc<OpenKey> {
        let SealedShare { key_id, epoch, .. } = *stored;
        let context = SealContext { party_id: &me.party, key_id, epoch };
        let share = Share::open(&stored.sealed, &seal(), &context).unwrap();
        let stored = SealedShare { sealed: Vec::new(), ..stored.clone() };
        let bans = self.bans.iter().filter(|ban| ban.key_id == key_id).cloned().collect();
        Arc::new(OpenKey::new(Arc::new(share), stored, bans))
    }

    fn keep(&mut self, me: &Me, new: NewShare) -> Arc<OpenKey> {
        let NewShare { share, record, identities, execution } = new;
        let (key_id, epoch) = (record.key_id, record.epoch);
        let own = record.holders.iter().position(|holder| *holder == me.party).unwrap();
        let context = SealContext { party_id: &me.party, key_id, epoch };
        let stored = SealedShare {
            key_id,
            epoch,
            state: ShareState::Pending,
            share_index: ShareIndex(u8::try_from(own + 1).unwrap()),
            sealed: share.seal(&seal(), &context).unwrap(),
            record,
            identities,
            execution,
            confirmations: Vec::new(),
        };
        assert!(!self.shares.contains_key(&(key_id, epoch)), "no share is replaced");
        let before = epoch.checked_sub(1).map(|before| self.shares[&(key_id, before)].state);
        assert!(before.is_none_or(|state| state == ShareState::Active), "it follows what signs");
        self.generation += 1;
        self.shares.insert((key_id, epoch), stored);
        self.opened(me, &self.shares[&(key_id, epoch)])
    }

    /// Writes a ban unless the peer has one.
    pub(crate) fn ban(&mut self, ban: &Ban) {
        let known = self.bans.iter().any(|known| {
            (known.key_id, known.epoch, &known.peer) == (ban.key_id, ban.epoch, &ban.peer)
        });
        if !known {
            self.generation += 1;
            self.bans.push(ban.clone());
        }
    }

    /// Carries out an action at once.
    pub(crate) fn answer(
        &mut self,
        me: &Me,
        process: [u8; 16],
        action: VaultAction,
    ) -> VaultAnswer {
        match action {
            VaultAction::CountShares { key, .. } => {
                VaultAnswer::Shares { held: self.share(key).is_some(), pending: 0 }
            }
            VaultAction::OpenKey(key) => VaultAnswer::Key(self.open(me, key)),
            VaultAction::ReadStanding => VaultAnswer::Standing((self.generation, process)),
            VaultAction::FindPeers { peers, .. } => {
                let known = |(peer, identity): &(PartyId, [u8; 32])| KnownPeer {
                    pin: self.pins.get(peer).copied(),
                    standing: self.witnessed.get(identity).copied().unwrap_or_default(),
                };
                VaultAnswer::Peers(peers.iter().map(known).collect())
            }
            VaultAction::Witness(shown) => {
                for Witness { identity, standing, .. } in shown {
                    self.witnessed.insert(identity, standing);
                }
                VaultAnswer::Done
            }
            VaultAction::KeepShare(new) => VaultAnswer::Key(Some(self.keep(me, *new))),
            VaultAction::Activate { key, confirmations } => {
                let place = (key.stored.key_id, key.stored.epoch);
                let share = self.shares.get_mut(&place).unwrap();
                assert_ne!(share.state, ShareState::Retired);
                if share.state == ShareState::Pending {
                    self.generation += 1;
                    (share.state, share.confirmations) = (ShareState::Active, confirmations);
                    if let Some(before) = place.1.checked_sub(1) {
                        let before = self.shares.get_mut(&(place.0, before)).unwrap();
                        (before.state, before.sealed) = (ShareState::Retired, Vec::new());
                    }
                }
                VaultAnswer::Key(Some(self.opened(me, &self.shares[&place])))
            }
            VaultAction::Pin { peers, .. } => {
                let pin = |(peer, identity)| *self.pins.entry(peer).or_insert(identity);
                VaultAnswer::Pinned(peers.into_iter().map(pin).collect())
            }
            VaultAction::StoreBans(key) => {
                for ban in me.bans.unwritten(&key.stored) {
                    self.ban(&ban);
                    me.bans.written(&ban, Ok(())).unwrap();
                }
                VaultAnswer::Done
            }
        }
    }
}
