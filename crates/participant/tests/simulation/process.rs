//! One party's process: its machine, and what the machine has asked for and not got yet.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_engine::{Identity, Outgoing};
use quorate_participant::{
    Action, Bans, Event, Incoming, Input, Me, Session, SessionAction, VaultAction,
};
use quorate_types::vault::{Ban, SealedShare, ShareState};
use quorate_types::*;

use crate::disk::Disk;

/// What a process does to the world outside.
pub(crate) enum Done {
    Nothing,
    /// It waits for something from outside.
    Waits,
    Sent(Outgoing),
    Join {
        handshake: Handshake,
        ready: bool,
    },
    Report(PartyOutcome),
    /// It died in the middle of an action.
    Died,
    /// It has left the session.
    Left,
}

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Before the action at this place among those of its vault.
    Before(usize),
    /// When that is on the disk, and nobody has heard of it.
    After(usize),
    /// Before it keeps the share that it has made.
    Keeping,
}

/// A process in a session.
pub(crate) struct Process {
    pub(crate) me: Me,
    number: [u8; 16],
    session: SessionId,
    kind: SessionKind,
    machine: Session,
    actions: VecDeque<SessionAction>,
    pub(crate) inbox: VecDeque<Incoming>,
    /// Bans on their way to the disk beside the session.
    writing: Vec<Ban>,
    /// When it gives up, in milliseconds.
    pub(crate) deadline: Option<i64>,
    stopped: bool,
    death: Option<Death>,
    /// Actions of its vault so far.
    vault_actions: usize,
    /// The last round in which a message is expected: of a keygen the confirmations.
    last_round: u16,
}

impl Process {
    pub(crate) fn begin(
        party: &PartyId,
        identity: &Secret<[u8; 32]>,
        number: u8,
        early: SessionView,
        death: Option<Death>,
    ) -> Self {
        let me = Me {
            party: party.clone(),
            identity: Arc::new(Identity::from_secret(identity)),
            bans: Arc::new(Bans::new(party.clone())),
        };
        let (session, kind) = (early.session_id, early.ceremony.kind());
        let (machine, actions) = Session::begin(me.clone(), session, Some(Box::new(early)));
        Self {
            me,
            number: [number; 16],
            session,
            kind,
            machine,
            actions: actions.into(),
            inbox: VecDeque::new(),
            writing: Vec::new(),
            deadline: None,
            stopped: false,
            death,
            vault_actions: 0,
            last_round: 0,
        }
    }

    /// Feeds the machine. What it wants at once is done at once.
    pub(crate) fn feed(&mut self, input: Input, now: i64) -> Done {
        for action in self.machine.handle(input) {
            match action {
                SessionAction::Done(_) => return Done::Left,
                SessionAction::Stop => self.stopped = true,
                SessionAction::Deadline(after) => {
                    self.deadline = Some(now + i64::try_from(after.as_millis()).unwrap());
                }
                SessionAction::JoinAgain { .. } => {}
                action => self.actions.push_back(action),
            }
        }
        Done::Nothing
    }

    /// Whether a step may do something.
    pub(crate) fn can_step(&self) -> bool {
        match self.actions.front() {
            None => !self.writing.is_empty(),
            Some(SessionAction::Attempt(Action::Receive)) => self.stopped || !self.inbox.is_empty(),
            Some(_) => true,
        }
    }

    /// Writes a ban beside the session.
    pub(crate) fn write(&mut self, disk: &mut Disk) {
        if let Some(ban) = self.writing.pop() {
            disk.ban(&ban);
            self.me.bans.written(&ban, Ok(())).unwrap();
        }
    }

    /// Carries out the next action.
    pub(crate) fn step(&mut self, disk: &mut Disk, now: i64) -> Done {
        let Some(action) = self.actions.pop_front() else {
            self.write(disk);
            return Done::Nothing;
        };
        let action = match action {
            SessionAction::Attempt(action) => action,
            SessionAction::Join { handshake, ready } => return Done::Join { handshake, ready },
            SessionAction::Report(outcome) => {
                self.check_report(disk, &outcome);
                return Done::Report(outcome);
            }
            _ => unreachable!("done when it was asked for"),
        };
        let event = match action {
            Action::Vault(action) => {
                let at = self.vault_actions;
                self.vault_actions += 1;
                let keeps = matches!(action, VaultAction::KeepShare(_));
                if self.death == Some(Death::Before(at))
                    || keeps && self.death == Some(Death::Keeping)
                {
                    return Done::Died;
                }
                self.check_write(disk, &action);
                let answer = disk.answer(&self.me, self.number, action);
                if self.death == Some(Death::After(at)) {
                    return Done::Died;
                }
                Event::Vault(Ok(answer))
            }
            Action::Compute(_) if self.stopped => self.left(),
            Action::Compute(work) => {
                let computed = work.run(Timestamp(now));
                self.writing.extend(computed.ban().cloned());
                Event::Computed(Box::new(computed))
            }
            Action::Receive if self.stopped => self.left(),
            Action::Receive if self.inbox.is_empty() => {
                self.actions.push_front(SessionAction::Attempt(Action::Receive));
                return Done::Waits;
            }
            Action::Receive => Event::Messages(self.inbox.drain(..).collect()),
            Action::Fence => Event::Passed,
            Action::Send(_) if self.stopped => self.left(),
            Action::Send(outgoing) => {
                self.check_sent(disk, &outgoing);
                return Done::Sent(outgoing);
            }
            Action::Expect(expected) => {
                self.last_round = expected.iter().map(|one| one.round).max().unwrap_or_default();
                return Done::Nothing;
            }
            _ => return Done::Nothing,
        };
        if matches!(event, Event::Broken(_)) {
            self.actions.clear();
        }
        self.feed(Input::Attempt(event), now)
    }

    fn left(&self) -> Event {
        let error = Error::new(ErrorCode::SessionExpired, "the session is over");
        Event::Broken(quorate_participant::Ended::Transport(error))
    }

    /// A name is pinned by a key that has become active.
    fn check_write(&self, disk: &Disk, action: &VaultAction) {
        if matches!(action, VaultAction::Pin { .. }) {
            let share = disk.share(self.session.into()).expect("its share is kept");
            assert!(!share.confirmations.is_empty(), "all have confirmed before a name is pinned");
        }
    }

    /// A share is on the disk before it is confirmed, and nothing leaves to a banned peer.
    fn check_sent(&self, disk: &Disk, outgoing: &Outgoing) {
        if outgoing.round == self.last_round && self.kind.makes_shares() {
            let kept = disk.shares.values().any(|share| share.state == ShareState::Pending);
            assert!(kept, "a share is kept before it is confirmed");
        }
        let signs = |ban: &&Ban| {
            let share = disk.share(ban.key_id);
            self.kind == SessionKind::Sign && share.is_some_and(|share| share.epoch == ban.epoch)
        };
        for ban in disk.bans.iter().filter(signs) {
            assert_ne!(outgoing.to.as_ref(), Some(&ban.peer), "nothing goes to a banned peer");
        }
    }

    /// A ban is on the disk before it is reported.
    fn check_report(&self, disk: &Disk, outcome: &PartyOutcome) {
        match outcome {
            PartyOutcome::Failure(failure) if failure.reason == FailureReason::PartyCheated => {
                let banned = |peer: &PartyId| disk.bans.iter().any(|ban| ban.peer == *peer);
                assert!(failure.parties.iter().all(banned), "a ban is stored before it is told");
            }
            PartyOutcome::Key { attestation, .. } => {
                let attested = attestation.as_ref().expect("all have confirmed it");
                let active = |share: &SealedShare| {
                    share.state == ShareState::Active && share.execution == attested.execution
                };
                assert!(disk.shares.values().any(active), "a key is reported when it signs");
            }
            _ => {}
        }
    }
}
