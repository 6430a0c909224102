//! Members that sign what they send and still cheat: whom a run blames, and how much.

use std::ops::RangeInclusive;
use std::sync::Arc;

use dkls23_secp256k1::protocols::signing::{Broadcast3to4, TransmitPhase1to2, TransmitPhase2to3};
use k256::Secp256k1;
use quorate_types::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::common::*;
use super::*;
use crate::dkls;
use crate::handshake::make_handshake;
use crate::machine::{Need, Stepped, decode, encode};

mod frost;
mod refresh;

const ECDSA: Scheme = Scheme::EcdsaSecp256k1;

/// A machine whose messages are changed before they are sealed and signed.
struct Tampering<F> {
    inner: Box<dyn Machine>,
    tamper: F,
}

impl<F: FnMut(&mut Vec<OutboundMessage>) + std::marker::Send> Machine for Tampering<F> {
    fn need(&self) -> Need {
        self.inner.need()
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let mut stepped = self.inner.step(input)?;
        (self.tamper)(&mut stepped.sends);
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        self.inner.expects(round, kind, from)
    }

    fn rounds(&self) -> u16 {
        self.inner.rounds()
    }

    fn echoed(&self, round: u16) -> Option<RangeInclusive<u16>> {
        self.inner.echoed(round)
    }
}

/// Makes this party a cheat.
fn cheat(
    runs: &mut Vec<Run>,
    position: Position,
    tamper: impl FnMut(&mut Vec<OutboundMessage>) + std::marker::Send + 'static,
) {
    let run = runs.remove(position);
    let machine = Box::new(Tampering { inner: run.machine, tamper });
    runs.insert(position, Run { machine, ..run });
}

/// Changes the messages of one round, as the library knows them.
fn change<M: Serialize + DeserializeOwned>(
    round: u16,
    change: impl Fn(&mut M),
) -> impl FnMut(&mut Vec<OutboundMessage>) {
    move |sends| {
        for send in sends.iter_mut().filter(|send| send.round == round) {
            let mut message = decode(0, &send.body).unwrap();
            change(&mut message);
            send.body = encode(&message);
        }
    }
}

/// Two sign, the first cheats; how it ends for the second.
fn against(tamper: impl FnMut(&mut Vec<OutboundMessage>) + std::marker::Send + 'static) -> Fault {
    let (parties, mut runs) = signing(session(20), two_of_two(ECDSA), &[0, 1], Digest([7; 32]));
    cheat(&mut runs, 0, tamper);
    deliver(&parties, &mut runs, 5, |_, _| {}).remove(1).err().expect("the second notices")
}

fn assert_fault(fault: &Fault, code: FaultCode, severity: Severity, blame: Option<usize>) {
    let got = (fault.code, fault.severity, fault.blame.clone());
    assert_eq!(got, (code, severity, blame.map(name)), "{fault}");
}

#[test]
fn a_corrupted_transfer_in_the_first_round_bans_its_sender() {
    let fault = against(change(1, |m: &mut TransmitPhase1to2| m.mul_transmit.u[3][5] ^= 1));
    assert_fault(&fault, FaultCode::OtCheckFailed, Severity::Ban, Some(1));
    let fault = against(change(1, |m: &mut TransmitPhase1to2| m.mul_transmit.verify_x[0] ^= 1));
    assert_fault(&fault, FaultCode::OtCheckFailed, Severity::Ban, Some(1));
}

fn dkls_party(made: &Made, at: usize) -> &dkls23_secp256k1::Party {
    &made.shares[at].material::<dkls::Part>().unwrap().0
}

/// The key with its second share changed: what its holder sends guesses one bit of the first
/// holder's secret choices, and is in order if the guess is right.
fn guessing(made: &Made, row: usize, guess: bool) -> Made {
    let mut party = dkls_party(made, 1).clone();
    let receiver = &mut party.mul_receivers.values_mut().next().unwrap().ote_receiver;
    let unseen = if guess { &mut receiver.seeds0 } else { &mut receiver.seeds1 };
    unseen[row][0] ^= 1;
    let shares = vec![Arc::clone(&made.shares[0]), Arc::new(dkls::share(Box::new(party)).unwrap())];
    Made { holders: made.holders.clone(), shares, key: made.key.clone(), refreshes: 0 }
}

#[test]
fn a_guess_of_one_secret_bit_passes_only_if_it_is_right() {
    let made = two_of_two(ECDSA);
    let sender = dkls_party(made, 0).mul_senders.values().next().unwrap();
    let secret = &sender.ote_sender.correlation;
    for row in [0, 1, 77, secret.len() - 1] {
        for guess in [false, true] {
            let digest = Digest([7; 32]);
            let (parties, mut runs) =
                signing(session(30), &guessing(made, row, guess), &[0, 1], digest);
            let mut endings = deliver(&parties, &mut runs, 5, |_, _| {});
            if guess == secret[row] {
                check(made, &digest, endings);
            } else {
                let fault = endings.remove(0).err().expect("the first notices");
                assert_fault(&fault, FaultCode::OtCheckFailed, Severity::Ban, Some(2));
            }
        }
    }
}

#[test]
fn a_ban_keeps_the_messages_that_the_cheat_has_signed() {
    for (round, fault) in [
        (1, against(change(1, |m: &mut TransmitPhase1to2| m.mul_transmit.u[3][5] ^= 1))),
        (2, against(change(2, |m: &mut TransmitPhase2to3<Secp256k1>| m.gamma_u = m.gamma_v))),
    ] {
        assert_eq!(fault.evidence.len(), 1);
        let envelope = Envelope::read(&fault.evidence[0]).unwrap();
        assert_eq!((envelope.address.from, envelope.address.round), (0, round));
    }
    let fault = against(change(1, |m: &mut TransmitPhase1to2| m.session_binding[0] ^= 1));
    assert!(fault.evidence.is_empty(), "it is no ban");
}

#[test]
fn a_corrupted_transfer_in_the_second_round_bans_its_sender() {
    let tamper = |m: &mut TransmitPhase2to3<Secp256k1>| m.gamma_u = m.gamma_v;
    let fault = against(change(2, tamper));
    assert_fault(&fault, FaultCode::OtCheckFailed, Severity::Ban, Some(1));
}

#[test]
fn a_message_of_another_session_inside_a_good_envelope_blames_without_a_ban() {
    let fault = against(change(1, |m: &mut TransmitPhase1to2| m.session_binding[0] ^= 1));
    assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(1));
}

#[test]
fn an_opening_that_does_not_fit_its_commitment_blames_without_a_ban() {
    let tamper = |m: &mut TransmitPhase2to3<Secp256k1>| m.salt[0] ^= 1;
    let fault = against(change(2, tamper));
    assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(1));
}

#[test]
fn a_message_in_another_partys_name_is_the_senders_fault() {
    let swap = |m: &mut TransmitPhase1to2| m.parties = m.parties.reverse();
    let fault = against(change(1, swap));
    assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(1));
}

#[test]
fn a_false_part_of_the_signature_blames_nobody() {
    let tamper = |m: &mut Broadcast3to4<Secp256k1>| m.w += k256::Scalar::ONE;
    let fault = against(change(3, tamper));
    assert_fault(&fault, FaultCode::ResultInvalid, Severity::Recoverable, None);
}

#[test]
fn a_signed_body_that_cannot_be_decoded_is_the_senders_fault() {
    for change in [|body: &mut Vec<u8>| body.truncate(9), |body: &mut Vec<u8>| body.push(0)] {
        for round in 1..=3 {
            let fault = against(move |sends| {
                let bodies = sends.iter_mut().filter(|send| send.round == round);
                bodies.for_each(|send| change(&mut send.body));
            });
            assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(1));
        }
    }
}

#[test]
fn a_signed_body_sealed_to_somebody_else_is_the_senders_fault() {
    let (parties, mut runs) = signing(session(21), two_of_two(ECDSA), &[0, 1], Digest([7; 32]));
    let (handshake, _) =
        make_handshake(&runs[0].identity, session(21), &parties[0], &Shown::default());
    let other = read_handshake(&handshake, session(21), &parties[0]).unwrap().encryption_key;
    runs[0].roster[1].channel = Channel::new(other);
    let fault = deliver(&parties, &mut runs, 5, |_, _| {}).remove(1).err().unwrap();
    assert_fault(&fault, FaultCode::SealInvalid, Severity::Recoverable, Some(1));
}

#[test]
fn an_observer_does_not_believe_a_false_signature() {
    let (parties, mut runs) =
        signing(session(22), two_of_three(ECDSA), &[0, 1, 2], Digest([7; 32]));
    cheat(&mut runs, 0, change(4, |m: &mut (Vec<u8>, u8)| m.0[40] ^= 1));
    let mut endings = deliver(&parties, &mut runs, 5, |_, _| {});
    let fault = endings.remove(2).err().unwrap();
    assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(1));
    check(two_of_three(ECDSA), &Digest([7; 32]), endings);
}

/// An envelope that this party really signed.
fn signed(run: &Run, to: Option<u8>, round: u16, body: &[u8]) -> Bytes {
    let from = u8::try_from(run.me).unwrap();
    let address = Address { execution: run.execution, from, to, round };
    envelope::wrap(&run.identity, &address, body, None).unwrap()
}

#[test]
fn an_observer_that_speaks_up_is_refused_and_harms_nobody() {
    let digest = Digest([7; 32]);
    let (parties, mut runs) = signing(session(23), two_of_three(ECDSA), &[0, 1, 2], digest);
    for round in 1..=3 {
        let to = (round < 3).then_some(0);
        let spoken = signed(&runs[2], to, round, b"me too");
        let fault = runs[0].receive(&parties[2], &spoken).unwrap_err();
        assert_fault(&fault, FaultCode::NotASigner, Severity::Benign, None);
    }
    let told = signed(&runs[1], Some(2), 4, b"not the first signer");
    let fault = runs[2].receive(&parties[1], &told).unwrap_err();
    assert_fault(&fault, FaultCode::NotASigner, Severity::Benign, None);
    check(two_of_three(ECDSA), &digest, deliver(&parties, &mut runs, 6, |_, _| {}));
}

#[test]
fn a_signed_message_of_no_round_is_refused_and_harms_nobody() {
    let digest = Digest([7; 32]);
    let (parties, mut runs) = signing(session(24), two_of_two(ECDSA), &[0, 1], digest);
    for (to, round) in [(Some(0), 0), (Some(0), 3), (Some(0), 4), (None, 1), (None, 4), (None, 9)] {
        let sent = signed(&runs[1], to, round, b"now?");
        let fault = runs[0].receive(&parties[1], &sent).unwrap_err();
        assert_fault(&fault, FaultCode::WrongRound, Severity::Benign, None);
    }
    check(two_of_two(ECDSA), &digest, deliver(&parties, &mut runs, 6, |_, _| {}));
}

#[test]
fn of_two_messages_for_one_place_the_first_counts_and_the_second_is_held_against_its_sender() {
    let digest = Digest([7; 32]);
    let (parties, mut runs) = signing(session(25), two_of_two(ECDSA), &[0, 1], digest);
    let (first, second) = runs.split_at_mut(1);
    let step = second[0].advance().unwrap();
    let (_, _, honest) = deliveries(&parties, 1, step.outgoing).remove(0);
    let other = signed(&second[0], Some(0), 1, b"another");
    first[0].receive(&parties[1], &honest).unwrap();
    first[0].receive(&parties[1], &honest).unwrap();
    let fault = first[0].receive(&parties[1], &other).unwrap_err();
    assert_fault(&fault, FaultCode::ConflictingMessage, Severity::Benign, Some(2));
    assert_eq!(fault.evidence, [honest.clone(), other]);
    // Not signed by it, it is not held against it.
    let mut forged = honest.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let fault = first[0].receive(&parties[1], &forged.into()).unwrap_err();
    assert_fault(&fault, FaultCode::SignatureInvalid, Severity::Benign, None);
    // Nor is a repetition with the right signature and another body taken for the first.
    let mut garbled = honest.to_vec();
    garbled[60] ^= 1;
    let fault = first[0].receive(&parties[1], &garbled.into()).unwrap_err();
    assert_fault(&fault, FaultCode::SignatureInvalid, Severity::Benign, None);
}

#[test]
fn a_run_that_has_ended_stays_ended() {
    let (parties, mut runs) = signing(session(26), two_of_two(ECDSA), &[0, 1], Digest([7; 32]));
    cheat(&mut runs, 0, |sends| sends.iter_mut().for_each(|send| send.body.truncate(3)));
    assert!(deliver(&parties, &mut runs, 5, |_, _| {}).remove(1).is_err());
    let late = signed(&runs[0], None, 3, b"late");
    runs[1].receive(&parties[0], &late).unwrap();
    assert!(runs[1].inbox.is_empty() && runs[1].waiting_for().is_empty());
    let step = runs[1].advance().unwrap();
    assert!(step.outgoing.is_empty() && step.output.is_none());
}

#[test]
fn a_handshake_with_an_unusable_key_is_its_partys_fault() {
    let (_, mut runs) = signing(session(27), two_of_two(ECDSA), &[0, 1], Digest([7; 32]));
    runs[0].roster[1].channel = Channel::new([0; 32]);
    let fault = runs[0].advance().err().unwrap();
    assert_fault(&fault, FaultCode::HandshakeInvalid, Severity::Recoverable, Some(2));
}

/// Makes this party tell the last of the others another story in a round.
fn two_stories(runs: &mut Vec<Run>, cheat_at: Position, round: u16) {
    cheat(runs, cheat_at, move |sends| {
        let story = sends.iter().find(|send| send.round == round && send.to.is_none());
        if let Some(OutboundMessage { body, .. }) = story {
            // The last byte is the end of a commitment, or of the salt that opens it.
            let mut body = body.clone();
            *body.last_mut().unwrap() ^= 1;
            sends.push(OutboundMessage { round, to: None, body });
        }
    });
}

#[test]
fn a_broadcaster_that_tells_two_stories_is_convicted_by_both() {
    for round in [2, 3] {
        let (parties, mut runs) = making(ECDSA, 2, 3);
        two_stories(&mut runs, 0, round);
        let endings = deliver(&parties, &mut runs, 5, |_, _| {});
        for fault in endings.into_iter().skip(1).map(|ending| ending.err().unwrap()) {
            assert_fault(&fault, FaultCode::EchoMismatch, Severity::Recoverable, Some(1));
            let [held, echoed] = fault.evidence.as_slice() else { panic!("two signatures") };
            let verifier = &runs[0].roster[0].verifier;
            assert!(Envelope::read(held).unwrap().verified(verifier).is_ok());
            let (header, rest) = echoed.split_first_chunk().unwrap();
            let (hash, signature) = rest.split_first_chunk().unwrap();
            assert_eq!(header[..], held[..header.len()]);
            let signature = signature.try_into().unwrap();
            assert!(envelope::signed_by(verifier, header, hash, signature));
        }
    }
}

#[test]
fn an_echo_of_what_nobody_signed_is_the_fault_of_who_sent_it() {
    let (parties, mut runs) = making(ECDSA, 2, 3);
    let endings = deliver(&parties, &mut runs, 5, |run, delivery| {
        // The second party remembers another broadcast of the first than it was sent.
        if delivery.1 == parties[1]
            && let Some(kept) = run.broadcasts.get(2, 0)
        {
            let mut forged = kept.to_vec();
            forged[envelope::HEADER] ^= 1;
            run.broadcasts.keep(2, 0, forged.into());
        }
    });
    for at in [0, 2] {
        let fault = endings[at].as_ref().err().unwrap();
        assert_fault(fault, FaultCode::ProtocolViolation, Severity::Recoverable, Some(2));
    }
}

#[test]
fn a_party_that_repeats_a_commitment_makes_no_key() {
    let (parties, mut runs) = making(ECDSA, 2, 3);
    let first = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, repeated) = (first.clone(), first.clone());
    // The commitment to the proof comes first in the broadcast of round 2.
    let of_two = |sends: &mut Vec<OutboundMessage>| -> Option<usize> {
        sends.iter().position(|send| send.round == 2 && send.to.is_none())
    };
    cheat(&mut runs, 0, move |sends| {
        if let Some(at) = of_two(sends) {
            *seen.lock().unwrap() = sends[at].body[..32].to_vec();
        }
    });
    cheat(&mut runs, 1, move |sends| {
        if let Some(at) = of_two(sends) {
            sends[at].body[..32].copy_from_slice(&repeated.lock().unwrap());
        }
    });
    // The first party is served first, so that the second can repeat it.
    let mut queue = Vec::new();
    for (at, run) in runs.iter_mut().enumerate() {
        queue.extend(deliveries(&parties, at, run.advance().unwrap().outgoing));
    }
    let mut told = 0;
    while !queue.is_empty() {
        let at = queue.iter().position(|delivery| delivery.1 == parties[0]).unwrap_or(0);
        let (from, to, payload) = queue.remove(at);
        let at = parties.iter().position(|party| *party == to).unwrap();
        runs[at].receive(&from, &payload).unwrap();
        match runs[at].advance() {
            Ok(step) => {
                let reveals = step.outgoing.iter().any(|sent| sent.round > 2);
                assert!(at == 1 || !reveals, "only the cheat itself goes on");
                queue.extend(deliveries(&parties, at, step.outgoing));
            }
            Err(fault) => {
                assert_fault(&fault, FaultCode::ProtocolViolation, Severity::Recoverable, None);
                assert!(fault.message.contains("same commitment"), "{fault}");
                told += 1;
            }
        }
    }
    assert_eq!(told, 2, "all others find it");
    assert!(!first.lock().unwrap().is_empty());
}

/// Runs that have made a key or an epoch confirm it: with one that lies about its execution, all
/// others name it.
fn confirmed_by_all(
    parties: &[PartyId],
    mut runs: Vec<Run>,
    key: impl Fn(PublicKey) -> KeyEpoch,
    liar: Option<Position>,
) {
    let keys: Vec<_> = deliver(parties, &mut runs, 4, |_, _| {})
        .into_iter()
        .map(|ending| match ending {
            Ok(Some(Output::Key { public_key, .. })) => public_key,
            _ => panic!("a key"),
        })
        .collect();
    let identities = runs[0].identities();
    let key = key(keys[0].clone());
    let statement = |execution: [u8; 32]| Statement::new(&key, &execution, &identities);
    let made = statement(runs[0].execution());
    for (at, run) in runs.iter_mut().enumerate() {
        assert!(run.waiting_for().is_empty() && run.advance().unwrap().outgoing.is_empty());
        let lies = liar == Some(at);
        run.kept(if lies { statement([0; 32]) } else { made.clone() });
    }
    let endings = deliver(parties, &mut runs, 6, |_, _| {});
    for (at, ending) in endings.into_iter().enumerate() {
        match (liar, ending) {
            (None, Ok(Some(Output::Confirmed(all)))) => assert!(made.confirmed_by(&all)),
            (Some(liar), Err(fault)) if at != liar => {
                let violation = FaultCode::ProtocolViolation;
                assert_fault(&fault, violation, Severity::Recoverable, Some(liar + 1));
            }
            (Some(liar), Err(_)) => assert_eq!(at, liar),
            _ => panic!("{at} ended otherwise"),
        }
    }
}

#[test]
fn a_new_key_is_confirmed_by_all_its_holders() {
    for liar in [None, Some(1)] {
        let (parties, runs) = making(ECDSA, 2, 3);
        let key = |public_key| KeyEpoch {
            key_id: session(1).into(),
            epoch: 0,
            scheme: ECDSA,
            threshold: Threshold::new(2, 3).unwrap(),
            public_key,
            holders: parties.clone(),
        };
        confirmed_by_all(&parties, runs, key, liar);
    }
}

#[test]
fn a_party_of_another_version_is_told_so() {
    let (parties, runs) = making(ECDSA, 2, 2);
    let mut handshake = runs[0].secret.handshake.to_vec();
    handshake[0] = 1;
    let fault = read_handshake(&handshake, session(1), &parties[0]).unwrap_err();
    assert_fault(&fault, FaultCode::VersionMismatch, Severity::Benign, Some(1));
    assert!(fault.message.contains("update"), "{fault}");
}
