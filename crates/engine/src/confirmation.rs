//! The last round of a run that makes shares: each holder confirms what it has stored, by a
//! [`Statement`], before anybody signs with it.

use quorate_schemes::Statement;
use quorate_types::CONFIRMATION;

use crate::identity::Identity;
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, encode,
};
use crate::task::Output;

/// The exchange of confirmations, as the last round of a keygen.
pub(crate) struct Confirm {
    statement: Statement,
    round: u16,
    me: Position,
    own: [u8; CONFIRMATION],
    sent: bool,
}

impl Confirm {
    pub(crate) fn new(statement: Statement, round: u16, me: Position, identity: &Identity) -> Self {
        let own = identity.confirm(&statement);
        Self { statement, round, me, own, sent: false }
    }
}

impl Machine for Confirm {
    fn need(&self) -> Need {
        let others = (0..self.statement.identities().len()).filter(|position| *position != self.me);
        let broadcasts = if self.sent { others.collect() } else { Vec::new() };
        Need { round: self.round, broadcasts, directs: Vec::new() }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        if !self.sent {
            self.sent = true;
            let send =
                OutboundMessage { round: self.round, to: None, body: encode(&self.own.as_slice()) };
            return Ok(Stepped { sends: vec![send], output: None });
        }
        let mut confirmations = Vec::new();
        for position in 0..self.statement.identities().len() {
            if position == self.me {
                confirmations.extend_from_slice(&self.own);
                continue;
            }
            let one: Vec<u8> = crate::machine::decode(position, &input.broadcasts[&position])?;
            if !self.statement.holds(position, &one) {
                return Err(MachineFault::violation(
                    position,
                    "confirms another key than was made",
                ));
            }
            confirmations.extend_from_slice(&one);
        }
        Ok(Stepped { sends: Vec::new(), output: Some(Output::Confirmed(confirmations)) })
    }

    fn expects(&self, round: u16, kind: Kind, _: Position) -> bool {
        round == self.round && kind == Kind::Broadcast
    }

    fn rounds(&self) -> u16 {
        self.round
    }
}
