//! Random commands on inboxes against a model: nothing lost, nothing twice, order kept.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use quorate_core::inbox::{InboxLimits, Inboxes, MESSAGE_COST};
use quorate_types::*;

const PARTIES: usize = 3;
const SESSIONS: usize = 2;
const BYTES: usize = 10;
const COST: usize = BYTES + MESSAGE_COST;

#[derive(Clone, Debug)]
enum Step {
    Route { session: usize, from: usize, to: Vec<usize> },
    Read { stream: usize, max: usize },
    Poll { session: usize, by: usize },
    Acknowledge { by: usize, back: usize, success: bool },
    Reconnect { stream: usize, resume: bool },
    Clock { by: i64 },
    Close { session: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let party = 0..PARTIES;
    let session = 0..SESSIONS;
    let stream = 0..PARTIES * (SESSIONS + 1);
    prop_oneof![
        12 => (session.clone(), party.clone(), prop::collection::vec(party.clone(), 0..3))
            .prop_map(|(session, from, to)| Step::Route { session, from, to }),
        12 => (stream.clone(), 1_usize..4).prop_map(|(stream, max)| Step::Read { stream, max }),
        6 => (session.clone(), party.clone()).prop_map(|(session, by)| Step::Poll { session, by }),
        10 => (party, 0_usize..8, any::<bool>())
            .prop_map(|(by, back, success)| Step::Acknowledge { by, back, success }),
        4 => (stream, any::<bool>())
            .prop_map(|(stream, resume)| Step::Reconnect { stream, resume }),
        3 => (-3_i64..4).prop_map(|by| Step::Clock { by }),
        1 => session.prop_map(|session| Step::Close { session }),
        1 => Just(Step::Restart),
    ]
}

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn session(n: usize) -> SessionId {
    format!("{n:032x}").parse().unwrap()
}

fn message_id(n: usize) -> MessageId {
    format!("{n:032x}").parse().unwrap()
}

fn request(of: usize, from: usize, to: &[usize]) -> RouteRequest {
    RouteRequest {
        session_id: session(of),
        from_party: name(from),
        to_parties: to.iter().copied().map(name).collect(),
        round: 1,
        message_type: String::new(),
        payload: vec![0; BYTES].into(),
        acknowledges: vec![],
        patient: false,
    }
}

/// A closed session is over, and after a restart not even known.
fn is_over(error: Error) -> Result<(), TestCaseError> {
    prop_assert!(matches!(error.code, ErrorCode::SessionExpired | ErrorCode::NotFound), "{error}");
    Ok(())
}

/// An accepted message as the model knows it.
struct Sent {
    session: usize,
    id: usize,
    at: Timestamp,
    /// Who must still get it.
    waiting: Vec<usize>,
    row: Arc<MessageRow>,
    /// A restart has dropped it, because nobody waited for it.
    forgotten: bool,
}

/// A reader of one session or of all, with what it has shown since it connected.
#[derive(Clone, Default)]
struct Reader {
    cursor: u64,
    after: Timestamp,
    shown: Vec<usize>,
    last: Timestamp,
}

struct World {
    boxes: Inboxes,
    sent: Vec<Sent>,
    readers: Vec<Reader>,
    polled: BTreeMap<(usize, usize), Timestamp>,
    closed: [bool; SESSIONS],
    now: i64,
}

/// Whose stream it is, and of which session.
fn stream_of(stream: usize) -> (usize, Option<usize>) {
    let of = stream / PARTIES;
    (stream % PARTIES, (of < SESSIONS).then_some(of))
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            boxes: Inboxes::new(InboxLimits::default()),
            sent: Vec::new(),
            readers: vec![Reader::default(); PARTIES * (SESSIONS + 1)],
            polled: BTreeMap::new(),
            closed: [false; SESSIONS],
            now: 100,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let members: Vec<_> = (0..PARTIES).map(name).collect();
        for of in (0..SESSIONS).filter(|of| !self.closed[*of]) {
            self.boxes.open_session(session(of), &Tenant::default(), 0, &members);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    fn last_known(&self, of: usize) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| sent.session == of && !sent.forgotten)
    }

    /// What waits for a party in the router's order.
    fn waiting(&self, party: usize, of: Option<usize>, after: Timestamp) -> Vec<usize> {
        let fits = |sent: &&Sent| {
            sent.waiting.contains(&party)
                && !self.closed[sent.session]
                && of.is_none_or(|of| of == sent.session)
                && sent.at > after
        };
        self.sent.iter().filter(fits).map(|sent| sent.id).collect()
    }

    fn run(&mut self, n: usize, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Route { session, from, to } => self.route(n, session, from, &to),
            Step::Read { stream, max } => self.read(stream, max),
            Step::Poll { session, by } => self.poll(session, by),
            Step::Acknowledge { by, back, success } => self.acknowledge(by, back, success),
            Step::Reconnect { stream, resume } => {
                let reader = &mut self.readers[stream];
                // Resuming behind the last message seen is safe within one session.
                let one = stream_of(stream).1.is_some();
                let after = if resume && one { reader.last } else { Timestamp(0) };
                *reader = Reader { after, last: after, ..Reader::default() };
                Ok(())
            }
            Step::Clock { by } => {
                self.now += by;
                Ok(())
            }
            Step::Close { session: of } => {
                let left = self.sent.iter().filter(|s| s.session == of && !s.waiting.is_empty());
                let left = if self.closed[of] { 0 } else { left.count() };
                prop_assert_eq!(self.boxes.close_session(session(of)).len(), left);
                self.closed[of] = true;
                Ok(())
            }
            Step::Restart => {
                self.restart();
                Ok(())
            }
        }
    }

    fn route(
        &mut self,
        n: usize,
        of: usize,
        from: usize,
        to: &[usize],
    ) -> Result<(), TestCaseError> {
        let routed = self.boxes.accept(self.now(), message_id(n), request(of, from, to));
        if self.closed[of] {
            return is_over(routed.unwrap_err());
        }
        if to.contains(&from) {
            prop_assert_eq!(routed.unwrap_err().code, ErrorCode::InvalidRequest);
            return Ok(());
        }
        let row = routed.unwrap().row;
        let others = (0..PARTIES).filter(|p| *p != from && (to.is_empty() || to.contains(p)));
        let at = row.message.created_at;
        prop_assert!(at >= self.now());
        if let Some(before) = self.last_known(of) {
            prop_assert!(at > before.at, "later than the one before, whatever the clock says");
        }
        self.sent.push(Sent {
            session: of,
            id: n,
            at,
            waiting: others.collect(),
            row,
            forgotten: false,
        });
        Ok(())
    }

    fn read(&mut self, stream: usize, max: usize) -> Result<(), TestCaseError> {
        let (party, of) = stream_of(stream);
        let reader = self.readers[stream].clone();
        let (cursor, after) = (reader.cursor, reader.after);
        let now = self.now();
        let got =
            self.boxes.next(now, &name(party), (of.map(session), cursor, after), |_| true, max);
        let mut expected = self.waiting(party, of, after);
        expected.retain(|id| !reader.shown.contains(id));
        expected.truncate(max);
        let ids: Vec<_> = got.iter().map(|(_, message)| message.message_id).collect();
        prop_assert_eq!(ids, expected.iter().copied().map(message_id).collect::<Vec<_>>());
        let reader = &mut self.readers[stream];
        if let Some((sequence, message)) = got.last() {
            reader.cursor = *sequence;
            reader.last = message.created_at;
        }
        reader.shown.extend(expected);
        Ok(())
    }

    /// Polls behind the last message that a poll has shown: no later one may be missing.
    fn poll(&mut self, of: usize, party: usize) -> Result<(), TestCaseError> {
        let after = self.polled.get(&(of, party)).copied().unwrap_or_default();
        let got = self.boxes.pending(self.now(), session(of), &name(party), after);
        if self.closed[of] {
            return is_over(got.unwrap_err());
        }
        let got = got.unwrap();
        let ids: Vec<_> = got.iter().map(|message| message.message_id).collect();
        let expected = self.waiting(party, Some(of), after);
        prop_assert_eq!(ids, expected.into_iter().map(message_id).collect::<Vec<_>>());
        if let Some(last) = got.last() {
            self.polled.insert((of, party), last.created_at);
        }
        Ok(())
    }

    fn acknowledge(&mut self, by: usize, back: usize, success: bool) -> Result<(), TestCaseError> {
        let now = self.now();
        let place = self.sent.len().checked_sub(back + 1);
        let Some(sent) = place.map(|at| &mut self.sent[at]) else {
            return Ok(());
        };
        let ack = Acknowledge {
            message_id: message_id(sent.id),
            party_id: name(by),
            session_id: session(sent.session),
            success,
        };
        let waited = sent.waiting.contains(&by);
        let acked = self.boxes.acknowledge(now, &ack);
        if waited {
            sent.waiting.retain(|party| *party != by);
        }
        match acked {
            Ok(acked) => {
                prop_assert_eq!(acked.first, waited);
                prop_assert_eq!(acked.all, sent.waiting.is_empty());
                if !self.closed[sent.session] && acked.all {
                    prop_assert!(sent.row.is_settled());
                }
            }
            Err(error) => {
                // Not a recipient, or of a message that a restart had no reason to put back.
                let gone = sent.waiting.is_empty() || self.closed[sent.session];
                prop_assert!(error.code == ErrorCode::Forbidden || gone);
                prop_assert!(!waited || self.closed[sent.session], "an acknowledgement is taken");
            }
        }
        Ok(())
    }

    /// The router starts again from what the store kept: messages that somebody waits for.
    fn restart(&mut self) {
        self.boxes = Inboxes::new(InboxLimits::default());
        self.open();
        for sent in &mut self.sent {
            sent.forgotten |= sent.waiting.is_empty();
            let row = &sent.row;
            self.boxes.continue_after(row.sequence);
            if self.closed[sent.session] {
                continue;
            }
            let party = |p: &PartyId| (0..PARTIES).find(|n| name(*n) == *p).unwrap();
            let acknowledged: Vec<_> = row
                .recipients
                .iter()
                .filter(|p| !sent.waiting.contains(&party(p)))
                .cloned()
                .collect();
            self.boxes.restore(row.clone(), &acknowledged);
        }
        // Streams do not outlive the router. Their cursors start afresh.
        for reader in &mut self.readers {
            *reader = Reader::default();
        }
        // What is settled was not kept, nor were its times: a poll starts afresh too.
        self.polled.clear();
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let open = |sent: &&Sent| !sent.waiting.is_empty() && !self.closed[sent.session];
        prop_assert_eq!(self.boxes.held_bytes(), self.sent.iter().filter(open).count() * COST);
        for party in 0..PARTIES {
            let waiting = self.waiting(party, None, Timestamp(0)).len();
            prop_assert_eq!(self.boxes.pending_count(&name(party)) as usize, waiting);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_message_is_lost_before_its_acknowledgement_or_comes_twice(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for (n, step) in steps.into_iter().enumerate() {
            world.run(n, step)?;
            world.check()?;
        }
        for of in 0..SESSIONS {
            world.boxes.close_session(session(of));
        }
        prop_assert_eq!(world.boxes.held_bytes(), 0);
        for party in 0..PARTIES {
            prop_assert_eq!(world.boxes.pending_count(&name(party)), 0);
        }
    }

    #[test]
    fn acknowledging_everything_leaves_nothing(
        routes in prop::collection::vec((0..SESSIONS, 0..PARTIES), 1..40),
    ) {
        let mut world = World::new();
        for (n, (of, from)) in routes.into_iter().enumerate() {
            world.route(n, of, from, &[])?;
        }
        for back in 0..world.sent.len() {
            for by in 0..PARTIES {
                world.acknowledge(by, back, true)?;
            }
        }
        prop_assert_eq!(world.boxes.held_bytes(), 0);
        world.check()?;
    }
}
