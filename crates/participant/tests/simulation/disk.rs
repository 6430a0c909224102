//! A holder's disk: what outlives its process.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_engine::{Identity, SealContext, SealKey, Share};
use quorate_participant::{
    Bans, KnownPeer, Me, NewShare, OpenKey, Standing, VaultAction, VaultAnswer, Witness,
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
        let later = self.shares.range((key, share.epoch + 1)..=(key, u32::MAX));
        let later = later.map(|(_, share)| self.opened(me, share)).collect();
        Some(Arc::new(self.opened(me, share).followed_by(later)))
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
        let mut before = self.shares.range((key_id, 0)..=(key_id, u32::MAX));
        assert!(before.clone().all(|(_, share)| share.epoch < epoch), "no share is replaced");
        let active = before.any(|(_, share)| share.state == ShareState::Active);
        assert!(active || epoch == 0, "it follows what signs");
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

    /// Makes a share the active one with confirmations of all holders.
    pub(crate) fn certify(
        &mut self,
        party: &PartyId,
        identities: &BTreeMap<PartyId, Identity>,
        place: (KeyId, u32),
    ) {
        let identity = Arc::new(Identity::from_secret(&identities[party].secret()));
        let bans = Arc::new(Bans::new(party.clone()));
        let me = Me { party: party.clone(), identity, bans };
        let key = self.opened(&me, &self.shares[&place]);
        let holders = key.stored.record.holders.iter();
        let statement = key.statement();
        let confirmations =
            holders.flat_map(|holder| identities[holder].confirm(&statement)).collect();
        self.answer(&me, [0; 16], VaultAction::Activate { key, confirmations });
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
                    for (_, before) in self.shares.range_mut((place.0, 0)..place) {
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
