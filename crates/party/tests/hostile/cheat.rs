//! A holder that cheats in the multiplication, with the protocol library's own code.
//!
//! Its share holds the two seeds of each row of the base transfers; the other holder has one of
//! them, which one is a bit of its secret choice. A cheat that changes one of the two seeds of a row
//! before it signs sends what passes the other's consistency check if that holder has the seed that
//! was not changed, and fails it otherwise: each attempt guesses one bit.

use std::sync::Arc;

use bytes::Bytes;
use dkls23_secp256k1::Party as Held;
use dkls23_secp256k1::protocols::PartyIndex;
use quorate_engine::{Identity, Member, Run, SealContext, SealKey, Share, Task, make_handshake};
use quorate_party::{Compute, OpenKey};
use quorate_ports::{Deliver as _, ReadSession as _, TakePart as _};
use quorate_types::*;

use crate::world::{FOR_EVER, Machine, SEAL, World};

/// What stands in a share's plain form before the library's own: version and tag of the scheme.
const FRONT: [u8; 2] = [2, 1];

fn seal() -> SealKey {
    SealKey::from_bytes(Secret::new(SEAL))
}

/// What a share is bound to at rest.
fn context(party: &PartyId, key: KeyId) -> Vec<u8> {
    let name = party.as_str().as_bytes();
    let length = (name.len() as u64).to_be_bytes();
    let epoch = 0_u32.to_be_bytes();
    [b"quorate/share/v1", &length[..], name, key.0.as_bytes(), &epoch].concat()
}

/// A machine's share as the library holds it, out of its vault.
async fn held(machine: &Machine, key: KeyId) -> Held {
    let stored = machine.vault.share(key).await.unwrap().unwrap();
    let plain = seal().open(&stored.sealed, &context(machine.keyring.party(), key)).unwrap();
    assert_eq!(plain[..2], FRONT);
    postcard::from_bytes(&plain[2..]).unwrap()
}

/// A holder under the control of whoever writes this test.
pub(crate) struct Cheat<'a> {
    world: &'a World,
    machine: &'a Machine,
    key: Arc<OpenKey>,
    held: Held,
    victim: PartyIndex,
    /// The victim's secret choices, which no real cheat knows.
    secret: Vec<bool>,
}

impl<'a> Cheat<'a> {
    pub(crate) async fn new(
        world: &'a World,
        machine: &'a Machine,
        victim: &Machine,
        key: KeyId,
    ) -> Self {
        let (held, theirs) = (held(machine, key).await, held(victim, key).await);
        let secret = theirs.mul_senders[&held.party_index].ote_sender.correlation.clone();
        let key = machine.keyring.key(key, &Compute::new(1, 1)).await.unwrap().unwrap();
        Self { world, machine, key, held, victim: theirs.party_index, secret }
    }

    /// How many bits there are to guess.
    pub(crate) fn rows(&self) -> usize {
        self.secret.len()
    }

    /// A share with which a guess of the bit of this row is right or wrong.
    fn guessing(&self, row: usize, right: bool) -> Share {
        let mut held = self.held.clone();
        let receiver = &mut held.mul_receivers.get_mut(&self.victim).unwrap().ote_receiver;
        let guess = self.secret[row] == right;
        let unseen = if guess { &mut receiver.seeds0 } else { &mut receiver.seeds1 };
        unseen[row][0] ^= 1;
        let (party, key_id) = (self.machine.keyring.party(), self.key.stored.key_id);
        let plain = [&FRONT[..], &postcard::to_allocvec(&held).unwrap()].concat();
        let sealed = seal().seal(&plain, &context(party, key_id)).unwrap();
        let context = SealContext { party_id: party, key_id, epoch: 0 };
        Share::open(&sealed, &seal(), &context).unwrap()
    }

    /// Joins a session and answers with the first message of its guess, once all have joined.
    pub(crate) async fn message(&self, created: &CreatedSession, row: usize, right: bool) -> Bytes {
        let (session, me) = (created.session.session_id, self.machine.keyring.party().clone());
        let identity = Identity::from_secret(&self.machine.identity);
        let shown = self.machine.keyring.shown(Some(&self.key)).await.unwrap();
        let (handshake, secret) = make_handshake(&identity, session, &me, &shown);
        let join = JoinSession {
            session_id: Some(session),
            party_id: me.clone(),
            token: created.join_tokens[&me].clone(),
            device: DeviceInfo::default(),
            handshake: Some(handshake),
            ready: true,
            awaiting_approval: false,
            attempt: 0,
        };
        let caller = Caller::Party(me.clone());
        self.world.coordinator.join(&caller, join).await.unwrap();
        let wait = Some((WaitFor::Start, FOR_EVER));
        let view = self.world.coordinator.status(&caller, session, wait).await.unwrap();
        assert_eq!(view.status, SessionStatus::InProgress, "{:?}", view.failure);
        let member = |seat: ParticipantView| Member {
            party_id: seat.party_id,
            handshake: seat.handshake.expect("all have sent a handshake"),
        };
        let roster = view.participants.into_iter().map(member).collect();
        let task = Task::Sign {
            share: Arc::new(self.guessing(row, right)),
            key: self.key.stored.record.key.clone(),
            made_by: self.key.stored.execution,
            input: view.ceremony.input().unwrap().clone(),
        };
        let mut run = Run::new(&identity, secret, (session, 0), &me, roster, task).unwrap();
        let mut outgoing = run.advance().unwrap().outgoing;
        assert_eq!(outgoing.len(), 1, "there are two signers");
        outgoing.remove(0).payload
    }

    /// Sends a message of the first round to a victim.
    pub(crate) async fn send(&self, created: &CreatedSession, to: &Machine, payload: Bytes) {
        let from = self.machine.keyring.party().clone();
        let request = RouteRequest {
            session_id: created.session.session_id,
            from_party: from.clone(),
            to_parties: vec![to.keyring.party().clone()],
            round: 1,
            message_type: "quorate".into(),
            payload,
            acknowledges: Vec::new(),
            patient: false,
        };
        // The session may be over by now: then nobody needs it.
        let _ = self.world.router.route(&Caller::Party(from), request).await;
    }
}
