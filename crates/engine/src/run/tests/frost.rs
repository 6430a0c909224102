//! Members of an Ed25519 key that sign what they send and still cheat.

use super::*;

const ED25519: Scheme = Scheme::Ed25519;

/// Two sign, the first cheats; how it ends for the second, and the runs.
fn against(
    tamper: impl FnMut(&mut Vec<OutboundMessage>) + std::marker::Send + 'static,
) -> (Fault, Vec<Run>) {
    let (parties, mut runs) = signing(session(40), two_of_two(ED25519), &[0, 1], Digest([7; 32]));
    cheat(&mut runs, 0, tamper);
    let fault = deliver(&parties, &mut runs, 5, |_, _| {}).remove(1).err();
    (fault.expect("the second notices"), runs)
}

/// Changes the bodies of one round.
fn bytes(
    round: u16,
    change: impl Fn(&mut Vec<u8>) + std::marker::Send + 'static,
) -> impl FnMut(&mut Vec<OutboundMessage>) + std::marker::Send + 'static {
    move |sends| {
        for send in sends.iter_mut().filter(|send| send.round == round) {
            change(&mut send.body);
        }
    }
}

/// The generator: a point of the group that is not the commitment to the sender's nonce.
pub(super) fn generator() -> [u8; 32] {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
}

#[test]
fn a_share_of_the_signature_that_does_not_verify_bans_its_sender_by_what_it_signed() {
    let (fault, runs) = against(bytes(2, |share| share[0] ^= 1));
    assert_fault(&fault, FaultCode::SignatureShareInvalid, Severity::Ban, Some(1));
    // The commitments of both, and the share: all that a third party needs to check it.
    let places = fault.evidence.iter().map(|bytes| {
        let envelope = Envelope::read(bytes).unwrap();
        let from = envelope.address.from;
        assert!(envelope.verified(&runs[1].roster[usize::from(from)].verifier).is_ok());
        (from, envelope.address.round)
    });
    assert_eq!(places.collect::<Vec<_>>(), [(0, 1), (1, 1), (0, 2)]);
}

#[test]
fn a_commitment_to_other_nonces_than_its_senders_bans_it_by_its_share() {
    for at in [0, 32] {
        let change = move |body: &mut Vec<u8>| body[at..at + 32].copy_from_slice(&generator());
        let (fault, _) = against(bytes(1, change));
        assert_fault(&fault, FaultCode::SignatureShareInvalid, Severity::Ban, Some(1));
    }
}

#[test]
fn a_body_that_is_no_message_is_its_senders_fault_and_no_ban() {
    for round in [1, 2] {
        for change in [
            |body: &mut Vec<u8>| body.truncate(9),
            |body: &mut Vec<u8>| body.push(0),
            |body: &mut Vec<u8>| body.clear(),
            |body: &mut Vec<u8>| body.fill(0xff),
        ] {
            let (fault, _) = against(bytes(round, change));
            let violation = FaultCode::ProtocolViolation;
            assert_fault(&fault, violation, Severity::Recoverable, Some(1));
            assert!(fault.evidence.is_empty());
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_in_a_body_is_its_senders_fault() {
    for (round, length) in [(1, 64), (2, 32)] {
        for at in (0..length).step_by(5).chain([length - 1]) {
            let (fault, _) = against(bytes(round, move |body| body[at] ^= 1));
            assert_eq!(fault.blame, Some(name(1)), "round {round}, byte {at}");
            let ban = fault.code == FaultCode::SignatureShareInvalid;
            assert_eq!(ban, fault.severity == Severity::Ban);
            assert!(ban || fault.code == FaultCode::ProtocolViolation);
        }
    }
}

#[test]
fn an_observer_names_the_same_cheat() {
    let made = two_of_three(ED25519);
    let (parties, mut runs) = signing(session(41), made, &[0, 1, 2], Digest([7; 32]));
    cheat(&mut runs, 0, bytes(2, |share| share[0] ^= 1));
    // In this order the second signer has sent its own share before it sees the cheat's.
    let endings = deliver(&parties, &mut runs, 6, |_, _| {});
    for ending in &endings[1..] {
        let fault = ending.as_ref().err().unwrap();
        assert_fault(fault, FaultCode::SignatureShareInvalid, Severity::Ban, Some(1));
    }
}

#[test]
fn two_stories_about_a_nonce_are_equivocation_and_no_bad_share() {
    // Three sign: the first tells the last of the others another commitment.
    let made = keygen(ED25519, 3, 3, 9);
    let (parties, mut runs) = signing(session(42), &made, &[0, 1, 2], Digest([7; 32]));
    cheat(&mut runs, 0, |sends| {
        if let Some(send) = sends.iter().find(|send| send.round == 1) {
            let mut body = send.body.clone();
            body[..32].copy_from_slice(&generator());
            sends.push(OutboundMessage { round: 1, to: None, body });
        }
    });
    let endings = deliver(&parties, &mut runs, 5, |_, _| {});
    for fault in endings.into_iter().skip(1).map(|ending| ending.err().unwrap()) {
        assert_fault(&fault, FaultCode::EchoMismatch, Severity::Recoverable, Some(1));
        assert_eq!(fault.evidence.len(), 2);
    }
}

/// The round 1 that another keygen of the first party would send: as good as its own.
fn another_polynomial() -> Zeroizing<Vec<u8>> {
    let mut machine = crate::lockstep::keygen(ED25519, 2, 3).remove(0);
    machine.step(Input::default()).unwrap().sends.remove(0).body
}

#[test]
fn two_stories_in_a_keygen_are_equivocation() {
    // Of round 3 it is another nonce for the last test signature.
    type Story = fn(&[u8]) -> Zeroizing<Vec<u8>>;
    let nonce: Story = |body| {
        let mut body = Zeroizing::new(body.to_vec());
        let at = body.len() - 32;
        body[at..].copy_from_slice(&generator());
        body
    };
    let polynomial: Story = |_| another_polynomial();
    for (round, story) in [(1, polynomial), (3, nonce)] {
        let (parties, mut runs) = making(ED25519, 2, 3);
        cheat(&mut runs, 0, move |sends| {
            if let Some(send) = sends.iter().find(|send| send.round == round) {
                sends.push(OutboundMessage { round, to: None, body: story(&send.body) });
            }
        });
        let endings = deliver(&parties, &mut runs, 5, |_, _| {});
        for fault in endings.into_iter().skip(1).map(|ending| ending.err().unwrap()) {
            assert_fault(&fault, FaultCode::EchoMismatch, Severity::Recoverable, Some(1));
            assert_eq!(fault.evidence.len(), 2);
        }
    }
}

#[test]
fn a_commitment_is_answered_once_though_its_message_is_replayed_with_another() {
    let made = two_of_two(ED25519);
    let (parties, mut runs) = signing(session(43), made, &[0, 1], Digest([7; 32]));
    let first = runs[1].advance().unwrap();
    let (_, _, honest) = deliveries(&parties, 1, first.outgoing).remove(0);
    let other = signed(&runs[1], None, 1, &[generator(), generator()].concat());
    runs[0].advance().unwrap();
    runs[0].receive(&parties[1], &honest).unwrap();
    assert_eq!(runs[0].advance().unwrap().outgoing.len(), 1, "one share");
    // A second list in the same attempt is refused, with both signed messages at hand.
    let fault = runs[0].receive(&parties[1], &other).unwrap_err();
    assert_fault(&fault, FaultCode::ConflictingMessage, Severity::Benign, Some(2));
    assert_eq!(fault.evidence, [honest, other]);
    assert!(runs[0].advance().unwrap().outgoing.is_empty());
}

#[test]
fn a_message_of_no_round_or_of_no_signer_is_refused_and_harms_nobody() {
    let (made, digest) = (two_of_three(ED25519), Digest([7; 32]));
    let (parties, mut runs) = signing(session(44), made, &[0, 1, 2], digest);
    for (to, round) in [(None, 0), (Some(0), 1), (Some(0), 2), (None, 3), (None, 9)] {
        let sent = signed(&runs[1], to, round, b"now?");
        let fault = runs[0].receive(&parties[1], &sent).unwrap_err();
        assert_fault(&fault, FaultCode::WrongRound, Severity::Benign, None);
    }
    for round in [1, 2] {
        let spoken = signed(&runs[2], None, round, b"me too");
        let fault = runs[0].receive(&parties[2], &spoken).unwrap_err();
        assert_fault(&fault, FaultCode::NotASigner, Severity::Benign, None);
    }
    check(made, &digest, deliver(&parties, &mut runs, 6, |_, _| {}));
}
