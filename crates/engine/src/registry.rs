//! Which protocol serves which scheme and task. Nothing above knows what runs.

use quorate_types::{PartyId, Scheme, SessionKind, ShareIndex};

use crate::dkls;
use crate::fault::{Fault, FaultCode};
use crate::machine::{Machine, MachineFault, Position};
use crate::run::Task;
use crate::share::Share;

/// What a task does and by which protocol, with the version of its messages.
pub(crate) fn protocol(task: &Task) -> Result<(SessionKind, &'static str), Fault> {
    match task {
        Task::Keygen { scheme: Scheme::EcdsaSecp256k1, .. } => {
            Ok((SessionKind::Keygen, "dkls23-keygen/1"))
        }
        Task::Sign { share, .. } if share.scheme() == Scheme::EcdsaSecp256k1 => {
            Ok((SessionKind::Sign, "dkls23-sign/1"))
        }
        Task::Keygen { scheme, .. } => Err(not_offered(*scheme)),
        Task::Sign { share, .. } => Err(not_offered(share.scheme())),
    }
}

/// Makes the machine for a task, after checking that the task fits the parties.
pub(crate) fn start(
    task: &Task,
    me: Position,
    parties: &[&PartyId],
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, Fault> {
    match task {
        Task::Keygen { scheme: Scheme::EcdsaSecp256k1, threshold } => {
            if usize::from(threshold.parties()) != parties.len() {
                let message = format!("a key of {} parties needs as many", threshold.parties());
                return Err(Fault::benign(FaultCode::BadInput, message));
            }
            Ok(Box::new(dkls::Keygen::new(me, *threshold, execution)))
        }
        Task::Keygen { scheme, .. } => Err(not_offered(*scheme)),
        Task::Sign { share, key, input, .. } => {
            let positions = share_indices(share, me, &key.holders, parties)?;
            let Some(digest) = input.digest() else {
                let message = "an ECDSA key signs a digest of 32 bytes, not a message";
                return Err(Fault::benign(FaultCode::BadInput, message));
            };
            let machine = dkls::Sign::new(share.clone(), me, &positions, digest, execution);
            let bad = |fault: MachineFault| Fault::benign(fault.code, fault.message);
            Ok(Box::new(machine.map_err(bad)?))
        }
    }
}

fn not_offered(scheme: Scheme) -> Fault {
    Fault::benign(FaultCode::BadInput, format!("{scheme} is not offered by this version"))
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
