use super::common::*;
use crate::machine::{decode, encode};
use crate::envelope::*;
use crate::channel::Channel;
use crate::identity::*;
use quorate_types::*;
use dkls23_secp256k1::protocols::signing::*;
use std::time::Instant;
fn time<T>(what: &str, mut f: impl FnMut() -> T) -> T {
    let start = Instant::now();
    for _ in 0..49 { std::hint::black_box(f()); }
    let r = f();
    eprintln!("{what}: {:?}", start.elapsed() / 50);
    r
}
#[test]
fn perf() {
    let made = &*TWO_OF_TWO;
    time("runs x2 parties", || signing(session(1000), made, &[0, 1], Digest([1; 32])));
    let id = Identity::generate();
    let (hello, secret) = time("introduce", || crate::introduce(&id, session(1), &name(1)));
    let view = time("read_hello", || crate::read_hello(&hello, session(1), &name(1)).unwrap());
    let ps = [&made.shares[0].party, &made.shares[1].party];
    let d: Vec<_> = (0..2).map(|k| SignData { sign_id: vec![1; 32], counterparties: vec![ps[1 - k].party_index], message_hash: [1; 32] }).collect();
    let (u0, k0, m0) = ps[0].sign_phase1(&d[0]).unwrap();
    let (u1, k1, m1) = ps[1].sign_phase1(&d[1]).unwrap();
    let (_, _, n0) = ps[0].sign_phase2(&d[0], u0, k0, &m1).unwrap();
    let _ = (u1, k1);
    let e1 = time("encode 1", || encode(&m0[0]));
    let e2 = time("encode 2", || encode(&n0[0]));
    eprintln!("{} {}", e1.len(), e2.len());
    time("decode 1", || decode::<TransmitPhase1to2>(0, &e1).unwrap());
    time("decode 2", || decode::<TransmitPhase2to3<k256::Secp256k1>>(0, &e2).unwrap());
    let a = Address { execution: [1; 32], from: 0, to: Some(1), round: 1 };
    time("sign", || id.sign("x", &[1; 70]));
    let ver = Verifier::new(&id.public()).unwrap();
    let s = id.sign("x", &[1; 70]);
    time("verify", || ver.verify("x", &[1; 70], &s));
    time("sha 40k", || <sha2::Sha256 as sha2::Digest>::digest(&e2[..]));
    time("wrap new channel 2", || { let mut c = Channel::new(view.encryption_key); wrap(&id, &a, &e2, Some(&mut c)).unwrap() });
    let mut c = Channel::new(view.encryption_key);
    let w = wrap(&id, &a, &e2, Some(&mut c)).unwrap();
    time("wrap 2", || wrap(&id, &a, &e2, Some(&mut c)).unwrap());
    time("verified", || Envelope::read(&w).unwrap().verified(&ver).unwrap().to_vec());
    let body = Envelope::read(&w).unwrap().verified(&ver).unwrap().to_vec();
    time("open new", || Channel::new([0; 32]).open(&secret, &a.header(), body.clone()).unwrap());
    let sig = { let (p, mut r) = signing(session(1000), made, &[0, 1], Digest([1; 32])); let Ok(Some(crate::Output::Signature(s))) = deliver(&p, &mut r, 1, |_, _| {}).remove(0) else { panic!() }; s };
    time("complete", || quorate_schemes::complete_signature(Scheme::EcdsaSecp256k1, &made.key, &Digest([1; 32]), sig.clone()).unwrap());
}
