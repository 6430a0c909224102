//! Machines that run in step in one process, for tests that cheat inside them.

use std::sync::Arc;

use quorate_types::{Scheme, Threshold};

use crate::fault::{FaultCode, Severity};
use crate::machine::{Input, Machine, MachineFault, OutboundMessage, Position};
use crate::registry;
use crate::share::Share;
use crate::task::Output;

/// How a machine ended: `Ok(None)` where it still waits.
pub(crate) type Ending = Result<Option<Output>, MachineFault>;

/// The machines of a keygen by `n` parties.
pub(crate) fn keygen(scheme: Scheme, t: i64, n: u16) -> Vec<Box<dyn Machine>> {
    let threshold = Threshold::new(t, n.into()).unwrap();
    let machine =
        |position| registry::keygen_machine(scheme, position, threshold, [3; 32]).unwrap();
    (0..n.into()).map(machine).collect()
}

/// The shares that a keygen by `n` parties makes.
pub(crate) fn shares(scheme: Scheme, t: i64, n: u16) -> Vec<Arc<Share>> {
    let share = |ending: Ending| match ending {
        Ok(Some(Output::Key { share, .. })) => Arc::new(share),
        _ => panic!("a key"),
    };
    drive(&mut keygen(scheme, t, n), |_, _| {}).into_iter().map(share).collect()
}

/// The machines of a refresh of these shares, in the order of the holders.
pub(crate) fn refresh(shares: &[Arc<Share>]) -> Vec<Box<dyn Machine>> {
    let machine = |(position, share)| registry::refresh_machine(share, position, [5; 32]).unwrap();
    shares.iter().enumerate().map(machine).collect()
}

/// Runs all in step; `tamper` sees what each machine sends.
pub(crate) fn drive(
    machines: &mut [Box<dyn Machine>],
    mut tamper: impl FnMut(Position, &mut Vec<OutboundMessage>),
) -> Vec<Ending> {
    let mut endings: Vec<Ending> = machines.iter().map(|_| Ok(None)).collect();
    let mut inputs: Vec<Input> = machines.iter().map(|_| Input::default()).collect();
    for _ in 0..8 {
        let mut sent = Vec::new();
        for (position, machine) in machines.iter_mut().enumerate() {
            let need = machine.need();
            let input = std::mem::take(&mut inputs[position]);
            let fits = need.broadcasts.iter().eq(input.broadcasts.keys())
                && need.directs.iter().eq(input.directs.keys());
            if !fits || !matches!(endings[position], Ok(None)) {
                continue;
            }
            match machine.step(input) {
                Ok(mut stepped) => {
                    tamper(position, &mut stepped.sends);
                    endings[position] = Ok(stepped.output);
                    sent.extend(stepped.sends.into_iter().map(|send| (position, send)));
                }
                Err(fault) => endings[position] = Err(fault),
            }
        }
        for (from, OutboundMessage { to, body, .. }) in sent {
            for (position, input) in inputs.iter_mut().enumerate() {
                match to {
                    Some(to) if to == position => drop(input.directs.insert(from, body.clone())),
                    None if from != position => drop(input.broadcasts.insert(from, body.clone())),
                    _ => {}
                }
            }
        }
    }
    endings
}

/// All but the cheat in position 0 end with this fault.
pub(crate) fn assert_all(endings: &[Ending], code: FaultCode, blame: Option<Position>) {
    for ending in &endings[1..] {
        let fault = ending.as_ref().err().expect("a fault");
        let got = (fault.code, fault.severity, fault.blame);
        assert_eq!(got, (code, Severity::Recoverable, blame), "{}", fault.message);
    }
}
