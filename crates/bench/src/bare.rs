//! The baseline: the threshold library alone, all parties in turn on one thread, no messages.

pub(crate) mod frost;

use std::collections::BTreeMap;

use dkls23_secp256k1::protocols::dkg::ProofCommitment;
use dkls23_secp256k1::protocols::signing::SignData;
use dkls23_secp256k1::protocols::{Parameters, PartyIndex};
use dkls23_secp256k1::{DkgSession, Party, SignSession};
use k256::Secp256k1;

fn index(i: u8) -> PartyIndex {
    PartyIndex::new(i).expect("indices start at 1")
}

/// Makes a `t`-of-`n` key; the parties in the order of their indices.
pub(crate) fn keygen(t: u8, n: u8) -> Vec<Party> {
    let parameters = Parameters::new(t, n).expect("2 ≤ t ≤ n");
    let mut sessions: Vec<DkgSession<Secp256k1>> =
        (1..=n).map(|i| DkgSession::new(parameters.clone(), index(i), b"bench".to_vec())).collect();
    let fragments: Vec<_> = sessions.iter().map(DkgSession::phase1).collect();
    let mut proofs: Vec<ProofCommitment<Secp256k1>> = Vec::new();
    let mut zero2 = Vec::new();
    let mut bip2 = BTreeMap::new();
    for (me, session) in sessions.iter_mut().enumerate() {
        let mine: Vec<_> = fragments.iter().map(|points| points[me]).collect();
        let (proof, zero, bip) = session.phase2(&mine).expect("honest parties");
        proofs.push(proof);
        zero2.extend(zero);
        bip2.insert(bip.sender_index, bip);
    }
    let mut zero3 = Vec::new();
    let mut mul = Vec::new();
    let mut bip3 = BTreeMap::new();
    for session in &mut sessions {
        let (zero, transmit, bip) = session.phase3().expect("honest parties");
        zero3.extend(zero);
        mul.extend(transmit);
        bip3.insert(bip.sender_index, bip);
    }
    let finish = |(i, session): (usize, DkgSession<Secp256k1>)| {
        let me = index(u8::try_from(i + 1).expect("n ≤ 16"));
        let zero2: Vec<_> = zero2.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        let zero3: Vec<_> = zero3.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        let mul: Vec<_> = mul.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        session
            .phase4(&proofs, &zero2, &zero3, &mul, &bip2, &bip3, |_| String::new())
            .expect("honest parties")
            .0
    };
    sessions.into_iter().enumerate().map(finish).collect()
}

/// Refreshes a key; the parties in the order of their indices.
pub(crate) fn refresh(parties: &[Party]) -> Vec<Party> {
    let id = b"bench refresh";
    let fragments: Vec<_> = parties.iter().map(Party::refresh_complete_phase1).collect();
    let (mut proofs, mut zero2, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for (me, party) in parties.iter().enumerate() {
        let mine: Vec<_> = fragments.iter().map(|points| points[me]).collect();
        let (correction, proof, kept, zero) = party.refresh_complete_phase2(id, &mine);
        proofs.push(proof);
        zero2.extend(zero);
        second.push((correction, kept));
    }
    let (mut zero3, mut mul, mut third) = (Vec::new(), Vec::new(), Vec::new());
    for (party, (correction, kept)) in parties.iter().zip(second) {
        let (zero_kept, zero, mul_kept, transmit) = party.refresh_complete_phase3(id, &kept);
        zero3.extend(zero);
        mul.extend(transmit);
        third.push((correction, zero_kept, mul_kept));
    }
    let finish = |(party, (correction, zero_kept, mul_kept)): (&Party, _)| {
        let me = party.party_index;
        let zero2: Vec<_> = zero2.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        let zero3: Vec<_> = zero3.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        let mul: Vec<_> = mul.iter().filter(|m| m.parties.receiver == me).cloned().collect();
        party
            .refresh_complete_phase4(
                id,
                &correction,
                &proofs,
                &zero_kept,
                &zero2,
                &zero3,
                &mul_kept,
                &mul,
            )
            .expect("honest parties")
    };
    parties.iter().zip(third).map(finish).collect()
}

/// Signs with the given parties, one after the other in each phase.
pub(crate) fn sign(signers: &[&Party], digest: [u8; 32], sign_id: &[u8]) -> [u8; 64] {
    let mut sessions = Vec::new();
    let mut first = Vec::new();
    for party in signers {
        let others = signers.iter().map(|p| p.party_index).filter(|i| *i != party.party_index);
        let data = SignData {
            sign_id: sign_id.to_vec(),
            counterparties: others.collect(),
            message_hash: digest,
        };
        let (session, transmit) = SignSession::new(party, data).expect("honest parties");
        sessions.push((party.party_index, session));
        first.extend(transmit);
    }
    let mut second = Vec::new();
    for (me, session) in &mut sessions {
        let mine: Vec<_> = first.iter().filter(|m| m.parties.receiver == *me).cloned().collect();
        second.extend(session.phase2(&mine).expect("honest parties"));
    }
    let mut third = Vec::new();
    for (me, session) in &mut sessions {
        let mine: Vec<_> = second.iter().filter(|m| m.parties.receiver == *me).cloned().collect();
        third.push(session.phase3(&mine).expect("honest parties"));
    }
    let mut signature = [0; 64];
    for (_, session) in sessions {
        signature = session.phase4(&third, true).expect("honest parties").to_bytes();
    }
    signature
}
