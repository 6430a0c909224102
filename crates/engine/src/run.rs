//! One party's attempt at one session: envelopes in, envelopes out, and a result at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dkls23_secp256k1::protocols::PartyIndex;
use quorate_types::{
    Digest, Hello, KeyId, PartyId, PublicKey, Scheme, SessionId, SessionKind, Signature, Threshold,
};
use zeroize::Zeroizing;

use crate::dkls;
use crate::envelope::{self, Address};
use crate::execution::{Facts, execution_id};
use crate::fault::{Fault, FaultCode};
use crate::hello::{HelloSecret, HelloView, read_hello};
use crate::identity::Identity;
use crate::machine::{Input, Kind, Machine, MachineFault, Product, Seat};
use crate::share::Share;

/// A party of the session with its introduction.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub party_id: PartyId,
    /// Its introduction to this attempt.
    pub hello: Hello,
}

/// What the parties do together.
pub enum Task {
    /// Make a key.
    Keygen {
        /// For this scheme.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// Sign with a key.
    Sign {
        /// Our share.
        share: Arc<Share>,
        /// Of this key.
        key_id: KeyId,
        /// In this epoch.
        epoch: u32,
        /// All holders; position + 1 is the share index.
        holders: Vec<PartyId>,
        /// What is signed.
        digest: Digest,
    },
}

/// What a step of a run gives.
#[derive(Default)]
pub struct Step {
    /// Payloads to send, in this order.
    pub outgoing: Vec<Outgoing>,
    /// The result, at the end.
    pub output: Option<Output>,
}

/// A payload to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To whom; `None` to all others.
    pub to: Option<PartyId>,
    /// The protocol's round.
    pub round: u16,
    /// The envelope.
    pub payload: Bytes,
}

/// What a run makes.
pub enum Output {
    /// A key.
    Key {
        /// Our share of it.
        share: Share,
        /// Its verifying key.
        public_key: PublicKey,
    },
    /// A signature that verifies.
    Signature(Signature),
}

/// One attempt at one session, as one party runs it.
pub struct Run {
    identity: Identity,
    secret: HelloSecret,
    execution: [u8; 32],
    roster: Vec<(PartyId, HelloView)>,
    me: Seat,
    machine: Box<dyn Machine>,
    /// Opened bodies, one per round, kind and sender: at most 4 × 2 × 15.
    inbox: BTreeMap<(u16, Kind, Seat), Zeroizing<Vec<u8>>>,
    /// Set when the run has ended, one way or the other.
    over: bool,
}

impl Run {
    /// Prepares a run. `roster` is in the order of the session's participants.
    ///
    /// Fails when an introduction does not hold, when `me` is not in the roster with the
    /// introduction that `secret` belongs to, or when the task does not fit the roster.
    pub fn new(
        identity: &Identity,
        secret: HelloSecret,
        session: SessionId,
        me: &PartyId,
        roster: Vec<Member>,
        task: Task,
    ) -> Result<Self, Fault> {
        let bad = |why: &str| Fault::benign(FaultCode::BadInput, why);
        let seat = roster.iter().position(|member| member.party_id == *me);
        let seat = seat.ok_or_else(|| bad("this party does not take part in the session"))?;
        if roster[seat].hello != secret.hello {
            return Err(bad("the session has another introduction of this party than it made"));
        }
        let mut views = Vec::with_capacity(roster.len());
        for Member { party_id, hello } in roster {
            if views.iter().any(|(known, _)| *known == party_id) {
                return Err(bad("a party is in the session twice"));
            }
            let view = read_hello(&hello, session, &party_id)?;
            views.push((party_id, view));
        }
        let execution = execution_id(&facts(session, &task, &views)?);
        let machine = start(&task, seat, &views, execution)?;
        Ok(Self {
            identity: Identity::from_secret(&identity.secret()),
            secret,
            execution,
            roster: views,
            me: seat,
            machine,
            inbox: BTreeMap::new(),
            over: false,
        })
    }

    /// Takes a payload in after checking all of it: version, execution, sender, recipient, round,
    /// signature, seal. A refused one changes nothing; a repeated one is ignored.
    pub fn receive(&mut self, from: &PartyId, payload: &[u8]) -> Result<(), Fault> {
        let seat = self.roster.iter().position(|(party, _)| party == from).ok_or_else(|| {
            Fault::benign(FaultCode::WrongSender, format!("{from} does not take part"))
        })?;
        self.check(seat, payload).map_err(|fault| Fault {
            message: format!("from {from}: {}", fault.message),
            ..fault
        })
    }

    fn check(&mut self, seat: Seat, payload: &[u8]) -> Result<(), Fault> {
        let address = envelope::peek(payload)?;
        if address.execution != self.execution {
            return Err(Fault::benign(
                FaultCode::ExecutionMismatch,
                "the message belongs to another attempt, or its sender sees other facts of this one",
            ));
        }
        if usize::from(address.from) != seat || seat == self.me {
            return Err(Fault::benign(FaultCode::WrongSender, "the envelope names another sender"));
        }
        if address.to.is_some_and(|to| usize::from(to) != self.me) {
            return Err(Fault::benign(FaultCode::WrongRecipient, "the envelope is for another party"));
        }
        let kind = if address.to.is_some() { Kind::Direct } else { Kind::Broadcast };
        if !self.machine.expects(address.round, kind) {
            return Err(Fault::benign(
                FaultCode::WrongRound,
                format!("no such message belongs to round {}", address.round),
            ));
        }
        let slot = (address.round, kind, seat);
        if address.round < self.machine.need().round || self.inbox.contains_key(&slot) {
            return Ok(());
        }
        let (party, view) = &self.roster[seat];
        let body = envelope::open(payload, &view.identity, &self.secret)
            .map_err(|fault| match fault.code {
                FaultCode::SealInvalid => fault.blaming(party),
                _ => fault,
            })?;
        self.inbox.insert(slot, Zeroizing::new(body));
        Ok(())
    }

    /// Computes as far as the received messages allow. Heavy; to be called once at the start and
    /// after every message that was taken in.
    pub fn advance(&mut self) -> Result<Step, Fault> {
        let mut step = Step::default();
        while !self.over {
            let Some(input) = self.take_input() else { break };
            let stepped = self.machine.step(input).map_err(|fault| {
                self.over = true;
                self.named(fault)
            })?;
            for send in stepped.sends {
                step.outgoing.push(self.wrap(send)?);
            }
            if let Some(product) = stepped.product {
                self.over = true;
                step.output = Some(match product {
                    Product::Key { share, public_key } => Output::Key { share, public_key },
                    Product::Signature(signature) => Output::Signature(signature),
                });
            }
        }
        Ok(step)
    }

    fn take_input(&mut self) -> Option<Input> {
        let need = self.machine.need();
        let slots = |kind: Kind, seats: &[Seat]| -> Vec<_> {
            seats.iter().map(|seat| (need.round, kind, *seat)).collect()
        };
        let broadcasts = slots(Kind::Broadcast, &need.broadcasts);
        let directs = slots(Kind::Direct, &need.directs);
        if !broadcasts.iter().chain(&directs).all(|slot| self.inbox.contains_key(slot)) {
            return None;
        }
        let mut take = |slots: Vec<(u16, Kind, Seat)>| {
            slots.into_iter().filter_map(|slot| Some((slot.2, self.inbox.remove(&slot)?))).collect()
        };
        Some(Input { broadcasts: take(broadcasts), directs: take(directs) })
    }

    fn wrap(&self, send: crate::machine::Send) -> Result<Outgoing, Fault> {
        let small = |seat: Seat| u8::try_from(seat).expect("at most MAX_PARTIES");
        let recipient = send.to.map(|seat| &self.roster[seat]);
        let address = Address {
            execution: self.execution,
            from: small(self.me),
            to: send.to.map(small),
            round: send.round,
        };
        let key = recipient.map(|(_, view)| &view.encryption_key);
        Ok(Outgoing {
            to: recipient.map(|(party, _)| party.clone()),
            round: send.round,
            payload: envelope::wrap(&self.identity, &address, &send.body, key)?,
        })
    }

    fn named(&self, fault: MachineFault) -> Fault {
        let blame = fault.blame.and_then(|seat| self.roster.get(seat)).map(|(p, _)| p.clone());
        Fault {
            code: fault.code,
            severity: fault.severity,
            message: match &blame {
                Some(party) => format!("{party} {}", fault.message),
                None => fault.message,
            },
            blame,
        }
    }

    /// The round whose messages are waited for.
    pub fn round(&self) -> u16 {
        self.machine.need().round
    }

    /// The parties whose message of this round has not come.
    pub fn waiting_for(&self) -> Vec<PartyId> {
        let need = self.machine.need();
        let missing = |kind, seats: &[Seat]| -> Vec<Seat> {
            let here = |seat: &Seat| self.inbox.contains_key(&(need.round, kind, *seat));
            seats.iter().copied().filter(|seat| !here(seat)).collect()
        };
        let mut seats = missing(Kind::Broadcast, &need.broadcasts);
        seats.extend(missing(Kind::Direct, &need.directs));
        seats.sort_unstable();
        seats.dedup();
        seats.into_iter().map(|seat| self.roster[seat].0.clone()).collect()
    }

    /// The identity keys of the roster, in its order.
    pub fn identities(&self) -> Vec<[u8; 32]> {
        self.roster.iter().map(|(_, view)| view.identity).collect()
    }
}

fn facts<'a>(
    session: SessionId,
    task: &'a Task,
    roster: &'a [(PartyId, HelloView)],
) -> Result<Facts<'a>, Fault> {
    Ok(match task {
        Task::Keygen { scheme, threshold } => Facts {
            kind: SessionKind::Keygen,
            scheme: *scheme,
            session,
            key: None,
            holders: &[],
            threshold: *threshold,
            digest: None,
            roster,
        },
        Task::Sign { share, key_id, epoch, holders, digest } => Facts {
            kind: SessionKind::Sign,
            scheme: share.scheme(),
            session,
            key: Some((*key_id, *epoch)),
            holders,
            threshold: share
                .threshold()
                .map_err(|error| Fault::benign(FaultCode::BadInput, error.message))?,
            digest: Some(*digest),
            roster,
        },
    })
}

/// The registry: which machine serves which task and scheme.
fn start(
    task: &Task,
    me: Seat,
    roster: &[(PartyId, HelloView)],
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, Fault> {
    let bad = |why: String| Fault::benign(FaultCode::BadInput, why);
    match task {
        Task::Keygen { scheme: Scheme::EcdsaSecp256k1, threshold } => {
            if usize::from(threshold.parties()) != roster.len() {
                return Err(bad(format!("a key of {} parties needs as many", threshold.parties())));
            }
            let keygen = dkls::Keygen::new(me, *threshold, execution);
            Ok(Box::new(keygen.map_err(|fault| bad(fault.message))?))
        }
        Task::Keygen { scheme, .. } => Err(bad(format!("{scheme} is not offered by this version"))),
        Task::Sign { share, holders, digest, .. } => {
            let indices = share_indices(share, me, holders, roster)?;
            Ok(Box::new(dkls::Sign::new(share.clone(), me, &indices, *digest, execution)))
        }
    }
}

/// The share index of each seat, after checking that our own is the one we hold.
fn share_indices(
    share: &Share,
    me: Seat,
    holders: &[PartyId],
    roster: &[(PartyId, HelloView)],
) -> Result<Vec<PartyIndex>, Fault> {
    let not = |why: String| Fault::benign(FaultCode::NotASigner, why);
    let parameters = &share.party.parameters;
    if holders.len() != usize::from(parameters.share_count) {
        return Err(not(format!("the key has {} holders", parameters.share_count)));
    }
    if roster.len() < usize::from(parameters.threshold) {
        return Err(not(format!("{} signers are needed", parameters.threshold)));
    }
    let mut indices = Vec::with_capacity(roster.len());
    for (party, _) in roster {
        let position = holders.iter().position(|holder| holder == party);
        let index = position.and_then(|at| PartyIndex::new(u8::try_from(at + 1).ok()?).ok());
        indices.push(index.ok_or_else(|| not(format!("{party} holds no share of the key")))?);
    }
    if indices[me] != share.party.party_index {
        return Err(not("this party holds another share of the key than the session says".into()));
    }
    Ok(indices)
}
