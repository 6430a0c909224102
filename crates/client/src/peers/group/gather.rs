//! How the devices of a session find out who they are: numbers from the relay, keys from each other.
//!
//! A key is believed at first sight: the first introduction by which a number becomes known counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_types::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::signer::{MessageSigner, VerifyingKey};
use super::carrier::Roster;
use super::link::{Heard, Link};
use super::words::{Body, Room, Words};

/// Letters that another device can have sent, breaks of the line included, before we know all.
const EARLY: usize = 16;
/// How long the relay keeps the place of a device that has left, and a little more.
const KEPT: Duration = Duration::from_secs(70);

pub(super) struct Gathering {
    link: Link,
    room: Room,
    signer: Arc<dyn MessageSigner>,
    /// Our key index for a signature: the sender of its round 0.
    key_index: u16,
    /// How many devices it takes.
    needed: usize,
    number: u16,
    introduction: Value,
    /// All have signed up, as far as we can know.
    started: bool,
    others: BTreeMap<u16, VerifyingKey>,
    early: Vec<Words>,
}

impl Gathering {
    pub(super) fn new(
        link: Link,
        room: Room,
        signer: Arc<dyn MessageSigner>,
        key_index: u16,
        needed: usize,
    ) -> Self {
        Self {
            link,
            room,
            signer,
            key_index,
            needed,
            number: 0,
            introduction: Value::Null,
            started: false,
            others: BTreeMap::new(),
            early: Vec::new(),
        }
    }

    /// Signs up and waits for the others. `tell` hears who is missing.
    pub(super) async fn gather(
        &mut self,
        tell: &mut (dyn FnMut(Vec<PartyId>) + Send),
    ) -> Result<()> {
        self.sign_up().await?;
        while !self.started || self.others.len() + 1 < self.needed {
            tell(self.missing());
            match self.link.next().await {
                Ok(heard) => self.hear(heard)?,
                // Before the start another place is as good.
                Err(_) if self.link.is_lost() => {
                    join_group(&mut self.link, self.room.group).await?;
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
    pub(super) async fn roster(mut self) -> Result<(Roster, Link)> {
        self.others.insert(self.number, self.signer.verifying_key());
        let members: Vec<_> = self.others.into_iter().collect();
        let me = members.iter().position(|(number, _)| *number == self.number);
        let me = me.ok_or_else(Error::internal)?;
        let (introduction, early) = (self.introduction, self.early);
        let roster = Roster { room: self.room, members, me, introduction, early };
        if roster.room.kind == SessionKind::Sign {
            let Room { group, session, .. } = roster.room;
            let params = json!([group, session, roster.address(me), self.number]);
            self.link.call("Session.participant", params).await?;
        }
        Ok((roster, self.link))
    }

    /// Those who have not come, by what is known of them.
    pub(super) fn missing(&self) -> Vec<PartyId> {
        let known = |number: &u16| *number == self.number || self.others.contains_key(number);
        let name = |number| format!("member-{number}").parse().expect("letters and digits");
        let missing = self.needed.saturating_sub(self.others.len() + 1);
        (1..).filter(|number| !known(number)).take(missing).map(name).collect()
    }

    /// That the time is over.
    pub(super) fn late(&self) -> Error {
        let relay = match self.link.trouble() {
            Some(why) => format!("; the relay is out of reach: {why}"),
            None => String::new(),
        };
        let missing = self.missing();
        let why = format!(
            "the time is over and {} of {} devices did not come; invite them again{relay}",
            missing.len(),
            self.needed
        );
        Error::new(ErrorCode::SessionExpired, why).waiting_for(missing)
    }

    async fn sign_up(&mut self) -> Result<()> {
        let answer = self.link.call("Session.signup", self.room.params()).await?;
        self.number = number(&answer)?;
        let body = self.room.introduction(self.signer.as_ref(), self.number).await?;
        let sender = match self.room.kind {
            SessionKind::Keygen => self.number,
            SessionKind::Sign => self.key_index,
        };
        self.introduction = self.room.message(sender, None, &body);
        Ok(())
    }

    fn hear(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Event(name, id) if name == "sessionSignup" => {
                if id == json!(self.room.session) {
                    // Who came before may have left before the start. All introduce themselves now.
                    self.others.clear();
                    self.started = true;
                    self.introduce();
                }
            }
            // A relay that was restarted in between has not told us of the start.
            Heard::Again => {
                self.started = true;
                self.introduce();
            }
            Heard::Event(name, message) if name == "sessionMessage" => {
                if let Some(words) = self.room.read(message) {
                    self.take(words);
                }
            }
            Heard::Answer(_, Err(refusal)) if refusal.is_for_now() => {
                self.link.broke(refusal.message);
            }
            Heard::Answer(_, Err(refusal)) => return Err(refusal.error("an introduction")),
            Heard::Answer(_, Ok(_)) | Heard::Event(..) => {}
        }
        Ok(())
    }

    fn introduce(&mut self) {
        self.link.post("Session.message", &self.introduction);
    }

    fn take(&mut self, words: Words) {
        let Body::Introduction { number, key, letter } = &words.body else {
            if self.early.len() < EARLY * self.needed {
                self.early.push(words);
            }
            return;
        };
        let theirs = *number != self.number
            && (self.room.kind == SessionKind::Sign || *number == words.sender)
            && self.room.is_introduced(*number, key, letter)
            && self.others.get(number).is_none_or(|known| known == key);
        if theirs {
            self.others.insert(*number, key.clone());
        } else {
            tracing::warn!(number, "dropped an introduction by another key than the number's");
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
pub(super) async fn join_group(link: &mut Link, group: GroupId) -> Result<Value> {
    let until = Instant::now() + KEPT;
    loop {
        match link.try_call("Group.join", json!(group)).await? {
            Ok(answer) => return Ok(answer),
            Err(refusal) if refusal.is_full() && Instant::now() < until => {
                link.pause().await;
            }
            Err(refusal) => return Err(refusal.error("this device's joining")),
        }
    }
}
