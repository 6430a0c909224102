//! How the devices of a session find out who they are: numbers from the relay, keys from each other.
//!
//! A key is trusted on first use: the first announcement for a number counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_participant::devices::VerifyingKey;
use quorate_types::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::signer::MessageSigner;
use super::connection::{Heard, RelayConnection};
use super::message::{Body, GroupMessage, SessionContext};
use super::transport::Roster;

/// Messages that another device can have sent, breaks of the line included, before we know all.
const EARLY: usize = 16;
/// How long the relay keeps the place of a device that has left, and a little more.
const KEPT: Duration = Duration::from_secs(70);

pub(super) struct Membership {
    connection: RelayConnection,
    context: SessionContext,
    signer: Arc<dyn MessageSigner>,
    /// Our key index for a signature: the sender of its round 0.
    key_index: u16,
    /// How many devices it takes.
    needed: usize,
    number: u16,
    key_announcement: Value,
    /// All have signed up, as far as we can know.
    started: bool,
    others: BTreeMap<u16, VerifyingKey>,
    early: Vec<GroupMessage>,
}

impl Membership {
    pub(super) fn new(
        connection: RelayConnection,
        context: SessionContext,
        signer: Arc<dyn MessageSigner>,
        key_index: u16,
        needed: usize,
    ) -> Self {
        Self {
            connection,
            context,
            signer,
            key_index,
            needed,
            number: 0,
            key_announcement: Value::Null,
            started: false,
            others: BTreeMap::new(),
            early: Vec::new(),
        }
    }

    /// Signs up and waits for the others. `tell` hears who is missing.
    pub(super) async fn wait_for_members(
        &mut self,
        tell: &mut (dyn FnMut(Vec<PartyId>) + Send),
    ) -> Result<()> {
        self.sign_up().await?;
        while !self.started || self.others.len() + 1 < self.needed {
            tell(self.missing());
            match self.connection.next().await {
                Ok(heard) => self.hear(heard)?,
                // Before the start another place is as good.
                Err(_) if self.connection.is_lost() => {
                    join_group(&mut self.connection, self.context.group).await?;
                    self.sign_up().await?;
                }
                Err(error) => return Err(error),
            }
        }
        let keys: BTreeSet<_> = self.others.values().collect();
        if keys.len() < self.others.len() || keys.contains(&self.signer.verifying_key()) {
            let why = "a device takes part twice; start again, once on each device";
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        Ok(())
    }

    /// Who meets, once all are known, and the link to them. In a signature the relay is told which
    /// index we have.
    pub(super) async fn roster(mut self) -> Result<(Roster, RelayConnection)> {
        self.others.insert(self.number, self.signer.verifying_key());
        let members: Vec<_> = self.others.into_iter().collect();
        let me = members.iter().position(|(number, _)| *number == self.number);
        let me = me.ok_or_else(Error::internal)?;
        let (key_announcement, early) = (self.key_announcement, self.early);
        let roster = Roster { context: self.context, members, me, key_announcement, early };
        if roster.context.kind == GroupKind::Sign {
            let SessionContext { group, session, .. } = roster.context;
            let params = json!([group, session, roster.address(me), self.number]);
            self.connection.call("Session.participant", params).await?;
        }
        Ok((roster, self.connection))
    }

    /// Those who have not come, by what is known of them.
    pub(super) fn missing(&self) -> Vec<PartyId> {
        let known = |number: &u16| *number == self.number || self.others.contains_key(number);
        let name = |number| format!("member-{number}").parse().expect("valid characters");
        let missing = self.needed.saturating_sub(self.others.len() + 1);
        (1..).filter(|number| !known(number)).take(missing).map(name).collect()
    }

    /// That the time is over.
    pub(super) fn late(&self) -> Error {
        let relay = match self.connection.last_error() {
            Some(why) => format!("; the relay is out of reach: {why}"),
            None => String::new(),
        };
        let missing = self.missing();
        let why = format!(
            "timed out: {} of {} devices never joined; invite them again{relay}",
            missing.len(),
            self.needed
        );
        Error::new(ErrorCode::SessionExpired, why).waiting_for(missing)
    }

    async fn sign_up(&mut self) -> Result<()> {
        let answer = self.connection.call("Session.signup", self.context.params()).await?;
        self.number = number(&answer)?;
        let body = self.context.key_announcement(self.signer.as_ref(), self.number).await?;
        let sender = match self.context.kind {
            GroupKind::Keygen => self.number,
            GroupKind::Sign => self.key_index,
        };
        self.key_announcement = self.context.message(sender, None, &body);
        Ok(())
    }

    fn hear(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Event(name, id) if name == "sessionSignup" => {
                if id == json!(self.context.session) {
                    // A member that joined earlier may have left before the start: everybody announces its key again.
                    self.others.clear();
                    self.started = true;
                    self.announce();
                }
            }
            // A relay that was restarted in between has not told us of the start.
            Heard::Again => {
                self.started = true;
                self.announce();
            }
            Heard::Event(name, message) if name == "sessionMessage" => {
                if let Some(message) = self.context.read(message) {
                    self.take(message);
                }
            }
            Heard::Answer(_, Err(refusal)) if refusal.is_for_now() => {
                self.connection.broke(refusal.message);
            }
            Heard::Answer(_, Err(refusal)) => return Err(refusal.error("a key announcement")),
            Heard::Answer(_, Ok(_)) | Heard::Event(..) => {}
        }
        Ok(())
    }

    fn announce(&mut self) {
        self.connection.post("Session.message", &self.key_announcement);
    }

    fn take(&mut self, message: GroupMessage) {
        let Body::KeyAnnouncement { number, key, proof } = &message.body else {
            if self.early.len() < EARLY * self.needed {
                self.early.push(message);
            }
            return;
        };
        let theirs = *number != self.number
            && (self.context.kind == GroupKind::Sign || *number == message.sender)
            && self.context.announces(*number, key, proof)
            && self.others.get(number).is_none_or(|known| known == key);
        if theirs {
            self.others.insert(*number, key.clone());
        } else {
            tracing::warn!(number, "dropped a key announcement for a number with another key");
        }
    }
}

fn number(answer: &Value) -> Result<u16> {
    let number = answer.as_u64().and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(strange)
}

pub(super) fn strange() -> Error {
    Error::new(ErrorCode::Conflict, "the relay answers otherwise than a group relay does")
}

/// Joins a group. One that is full may have a free place when it has forgotten who left.
pub(super) async fn join_group(connection: &mut RelayConnection, group: GroupId) -> Result<Value> {
    let until = Instant::now() + KEPT;
    loop {
        match connection.try_call("Group.join", json!(group)).await? {
            Ok(answer) => return Ok(answer),
            Err(refusal) if refusal.is_full() && Instant::now() < until => {
                connection.pause().await;
            }
            Err(refusal) => return Err(refusal.error("to let this device join")),
        }
    }
}
