//! Which protocol serves which scheme and task: the one place that lists them.

use std::sync::Arc;

use quorate_types::{Error, KeyEpoch, PartyId, Result, Scheme, ShareIndex, Threshold};

use crate::dkls;
use crate::fault::{Fault, FaultCode};
use crate::frost;
use crate::machine::{Kind, Machine, MachineFault, Position};
use crate::share::Share;
use crate::task::Task;
use crate::trial::{StartSign, Tried};

/// What serves one scheme.
pub(crate) struct Row {
    scheme: Scheme,
    /// Stands in a sealed share; never given to another scheme.
    pub(crate) share_tag: u8,
    /// Reads the stored form of a share; `None` where the bytes are none.
    pub(crate) read_share: fn(&[u8]) -> Option<Result<Share>>,
    keygen: Keygen,
    refresh: Refresh,
    sign: Sign,
}

/// The protocol that makes keys, without test signatures and confirmations.
struct Keygen {
    /// Its name with the version of its messages; part of the execution id.
    id: &'static str,
    machine: fn(Position, Threshold, [u8; 32]) -> Box<dyn Machine>,
}

/// The protocol that makes the shares of a key's next epoch, without test signatures and
/// confirmations.
struct Refresh {
    /// Its name with the version of its messages; part of the execution id.
    id: &'static str,
    machine: StartRefresh,
}

/// Makes the machine of a refresh: of our share, at our position, in the execution.
type StartRefresh = fn(Arc<Share>, Position, [u8; 32]) -> Result<Box<dyn Machine>, MachineFault>;

/// The protocol that signs.
struct Sign {
    /// Its name with the version of its messages; part of the execution id.
    id: &'static str,
    machine: StartSign,
    /// How the messages among the signers travel, by round from 1.
    rounds: &'static [Kind],
}

/// One row for each scheme.
static ROWS: &[Row] = &[
    Row {
        scheme: Scheme::EcdsaSecp256k1,
        share_tag: 1,
        read_share: dkls::read_share,
        keygen: Keygen { id: "dkls23-keygen/2", machine: dkls::keygen },
        refresh: Refresh { id: "dkls23-refresh/1", machine: dkls::refresh },
        sign: Sign { id: "dkls23-sign/1", machine: dkls::sign, rounds: dkls::SIGN_ROUNDS },
    },
    Row {
        scheme: Scheme::Ed25519,
        share_tag: 2,
        read_share: frost::read_share,
        keygen: Keygen { id: "frost-ed25519-keygen/1", machine: frost::keygen },
        refresh: Refresh { id: "frost-ed25519-refresh/1", machine: frost::refresh },
        sign: Sign { id: "frost-ed25519-sign/1", machine: frost::sign, rounds: frost::SIGN_ROUNDS },
    },
];

impl Row {
    /// The name of the protocol for this task.
    pub(crate) fn protocol(&self, task: &Task) -> &'static str {
        match task {
            Task::Keygen { .. } => self.keygen.id,
            Task::Refresh { .. } => self.refresh.id,
            Task::Sign { .. } => self.sign.id,
        }
    }

    /// The machine of a keygen, with the test signatures at its end.
    fn keygen(&self, me: Position, threshold: Threshold, execution: [u8; 32]) -> Box<dyn Machine> {
        let inner = (self.keygen.machine)(me, threshold, execution);
        self.tried(inner, me, threshold, execution, None)
    }

    /// The machine of a refresh, with the test signatures of the new shares at its end.
    fn refresh(
        &self,
        me: Position,
        share: &Arc<Share>,
        execution: [u8; 32],
    ) -> Result<Box<dyn Machine>, MachineFault> {
        let inner = (self.refresh.machine)(Arc::clone(share), me, execution)?;
        let before = Arc::clone(share);
        Ok(self.tried(inner, me, share.threshold(), execution, Some(before)))
    }

    fn tried(
        &self,
        inner: Box<dyn Machine>,
        me: Position,
        threshold: Threshold,
        execution: [u8; 32],
        before: Option<Arc<Share>>,
    ) -> Box<dyn Machine> {
        let Sign { machine, rounds, .. } = self.sign;
        Box::new(Tried::new(inner, machine, rounds, me, threshold, execution, before))
    }
}

/// The row of a scheme.
pub(crate) fn row(scheme: Scheme) -> Result<&'static Row> {
    ROWS.iter().find(|row| row.scheme == scheme).ok_or_else(|| {
        Error::invalid_field("scheme", format!("{scheme} is not offered by this version"))
    })
}

/// The row whose shares have this tag.
pub(crate) fn row_of_share(tag: u8) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.share_tag == tag)
}

/// Makes the machine for a task, after checking that the task fits the parties.
pub(crate) fn start(
    task: &Task,
    me: Position,
    parties: &[&PartyId],
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, Fault> {
    let bad = |message: String| Fault::benign(FaultCode::BadInput, message);
    let row = row(task.scheme()).map_err(|error| bad(error.message))?;
    match task {
        Task::Keygen { threshold, .. } => {
            if usize::from(threshold.parties()) != parties.len() {
                return Err(bad(format!("a key of {} parties needs as many", threshold.parties())));
            }
            Ok(row.keygen(me, *threshold, execution))
        }
        Task::Refresh { share, key, .. } => {
            check_key(share, key)?;
            if !key.holders.iter().eq(parties.iter().copied()) {
                return Err(bad("a refresh takes all holders of the key, in their order".into()));
            }
            share_indices(share, me, &key.holders, parties)?;
            row.refresh(me, share, execution)
                .map_err(|fault| Fault::benign(fault.code, fault.message))
        }
        Task::Sign { share, key, input, .. } => {
            check_key(share, key)?;
            let indices = share_indices(share, me, &key.holders, parties)?;
            quorate_schemes::check_input(share.scheme(), input)
                .map_err(|error| bad(error.message))?;
            (row.sign.machine)(Arc::clone(share), me, &indices, input, execution)
                .map_err(|fault| Fault::benign(fault.code, fault.message))
        }
    }
}

/// Refuses a share of another key than the session is about.
fn check_key(share: &Share, key: &KeyEpoch) -> Result<(), Fault> {
    let ours = (share.scheme(), share.public_key(), share.threshold());
    if ours == (key.scheme, &key.public_key, key.threshold) {
        return Ok(());
    }
    let message = "this party's share is of another key than the session says";
    Err(Fault::benign(FaultCode::NotASigner, message))
}

/// The share index of each position, after checking that our own is the one we hold.
fn share_indices(
    share: &Share,
    me: Position,
    holders: &[PartyId],
    parties: &[&PartyId],
) -> Result<Vec<ShareIndex>, Fault> {
    let not = |why: String| Fault::benign(FaultCode::NotASigner, why);
    let threshold = share.threshold();
    if holders.len() != usize::from(threshold.parties()) {
        return Err(not(format!("the key has {} holders", threshold.parties())));
    }
    if parties.len() < usize::from(threshold.signers()) {
        return Err(not(format!("{} signers are needed", threshold.signers())));
    }
    let mut indices = Vec::with_capacity(parties.len());
    for party in parties {
        let position = holders.iter().position(|holder| holder == *party);
        let index = position.and_then(|at| u8::try_from(at + 1).ok()).map(ShareIndex);
        indices.push(index.ok_or_else(|| not(format!("{party} holds no share of the key")))?);
    }
    if indices[me] != share.share_index() {
        return Err(not("this party holds another share of the key than the session says".into()));
    }
    Ok(indices)
}

/// The machine of a keygen, for tests that cheat inside it.
#[cfg(test)]
pub(crate) fn keygen_machine(
    scheme: Scheme,
    me: Position,
    threshold: Threshold,
    execution: [u8; 32],
) -> Result<Box<dyn Machine>> {
    row(scheme).map(|row| row.keygen(me, threshold, execution))
}

/// The machine of a refresh, for tests that cheat inside it.
#[cfg(test)]
pub(crate) fn refresh_machine(
    share: &Arc<Share>,
    me: Position,
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault> {
    row(share.scheme()).expect("a share of a known scheme").refresh(me, share, execution)
}
