//! A party's own policy: which of its initiators may have what, when, how often and with whose
//! approval.

mod read;
#[cfg(test)]
mod tests;

use std::time::Duration;

use quorate_types::{AuthorityKey, Authorization, KeyId, KeyLabel, Scheme, Timestamp};

use crate::calendar::Hours;
use crate::initiators::{Initiators, Verified};
use crate::key::verify;
use crate::request::{Action, Request, RequestedInput, approval_message};
use crate::rule::{Denial, Rule};

/// Highest count of a rate: so many moments are remembered for a key.
pub const MAX_RATE: u32 = 10_000;

/// The span in which a rate counts; it ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// One second.
    Second,
    /// One minute, 60 s.
    Minute,
    /// 3 600 s.
    Hour,
    /// 86 400 s.
    Day,
}

impl Period {
    fn of(name: &str) -> Option<Self> {
        [Self::Second, Self::Minute, Self::Hour, Self::Day].into_iter().find(|p| p.name() == name)
    }

    /// The word behind the slash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Its length in milliseconds.
    pub fn millis(self) -> i64 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// So many in a period: `10/hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at most [`MAX_RATE`].
    pub count: u32,
    /// In which period.
    pub per: Period,
}

/// Approvals that a request needs: so many of these approvers, not counting its initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// Number of different approvers needed, 1 or more.
    pub needed: usize,
    /// Names and keys.
    pub of: Vec<(String, AuthorityKey)>,
}

impl Approvals {
    /// How many of the approvers, the initiator aside, have approved this request.
    pub fn given(&self, authorization: &Authorization) -> usize {
        let message = approval_message(&authorization.request);
        let approved = |key: &AuthorityKey| {
            *key != authorization.initiator
                && authorization.approvals.iter().any(|approval| {
                    approval.approver == *key && verify(key, &message, &approval.signature)
                })
        };
        self.of.iter().filter(|(_, key)| approved(key)).count()
    }
}

/// A service of the operator's that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Where: `https`, or `http` on this machine.
    pub url: String,
    /// How long an answer may take. A service that is away that long refuses.
    pub deadline: Duration,
}

/// What holds for some keys, for all others, or for keys that are to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its label, for words.
    pub name: String,
    /// The keys that it is about.
    pub ids: Vec<KeyId>,
    /// And what others are called that it is about.
    pub labels: Vec<KeyLabel>,
    /// It allows nothing.
    pub deny: bool,
    /// Who may ask; `None`: every initiator that the party knows.
    pub initiators: Option<Vec<String>>,
    /// Of which schemes; `None`: all.
    pub schemes: Option<Vec<Scheme>>,
    /// When; none given: always.
    pub hours: Vec<Hours>,
    /// Largest rates; each of them must be kept.
    pub rates: Vec<Rate>,
    /// How many in all.
    pub count: Option<u64>,
    /// Whether digests are signed, of which the party does not see what they are of.
    pub digests: bool,
    /// Whether a key may have holders whose identity the initiator has not named.
    pub unidentified_holders: bool,
    /// Whose approval is needed.
    pub approvals: Option<Approvals>,
    /// Who is asked last.
    pub callback: Option<Callback>,
}

/// What becomes of what no entry is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Deny,
    /// It is allowed to whoever the party knows.
    Allow,
}

/// A party's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Initiators that the policy pins, by name.
    pub initiators: Vec<(String, AuthorityKey)>,
    /// Entries for keys by their ids and labels.
    pub keys: Vec<Entry>,
    /// For keys that are to be made; without it `default` holds for them too.
    pub keygen: Option<Entry>,
    /// For everything else.
    pub default: Option<Entry>,
    /// For what is left.
    pub otherwise: Otherwise,
}

/// How often requests about one key, or to make keys, have been allowed before.
pub struct Use<'a> {
    /// Requests that were allowed since the key's first one.
    pub total: u64,
    /// Since a moment.
    pub since: &'a dyn Fn(Timestamp) -> u64,
}

/// What a party does about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It takes part.
    Allow,
    /// It waits for approvals.
    AwaitApproval {
        /// How many there must be.
        needed: usize,
        /// How many there are.
        given: usize,
    },
    /// It asks this service.
    AskCallback(Callback),
    /// The request is refused; the denial names the rule.
    Deny(Denial),
}

impl Policy {
    /// Allows everything to every initiator that the party knows: what holds without a policy.
    pub fn permissive() -> Self {
        Self { otherwise: Otherwise::Allow, ..Self::default() }
    }

    /// The entry about a request. `label` is what the party knows its key by; an entry about the
    /// key's id comes before one about its label.
    pub fn entry(&self, request: &Request, label: Option<&KeyLabel>) -> Option<&Entry> {
        let labelled = |entry: &&Entry| label.is_some_and(|label| entry.labels.contains(label));
        let of_key = match request.key_id() {
            Some(id) => {
                let by_id = self.keys.iter().find(|entry| entry.ids.contains(&id));
                by_id.or_else(|| self.keys.iter().find(labelled))
            }
            None => self.keygen.as_ref(),
        };
        of_key.or(self.default.as_ref())
    }

    /// Decides about a request that a known initiator has signed and that fits its session.
    /// `confirmed` says that the callback has approved of this very request, `label` what the party
    /// knows the key by.
    pub fn decide(
        &self,
        now: Timestamp,
        verified: &Verified,
        authorization: &Authorization,
        used: &Use<'_>,
        label: Option<&KeyLabel>,
        confirmed: bool,
    ) -> Decision {
        let Verified { initiator, request } = verified;
        let Some(entry) = self.entry(request, label) else {
            return match self.otherwise {
                Otherwise::Allow => Decision::Allow,
                Otherwise::Deny => {
                    let why = format!("the policy has no rule for this {}", request.kind());
                    Decision::Deny(Denial::new(Rule::Denied, why))
                }
            };
        };
        if let Err(denial) = entry.allows(now, initiator, request, used) {
            return Decision::Deny(denial);
        }
        if let Some(approvals) = &entry.approvals {
            let given = approvals.given(authorization);
            if given < approvals.needed {
                return Decision::AwaitApproval { needed: approvals.needed, given };
            }
        }
        match &entry.callback {
            Some(callback) if !confirmed => Decision::AskCallback(callback.clone()),
            _ => Decision::Allow,
        }
    }

    /// Refuses a policy that lets somebody ask whom the party does not know.
    ///
    /// # Errors
    /// Names the entry and the initiator.
    pub fn check_initiators(&self, known: &Initiators) -> quorate_types::Result<()> {
        let entries = self.keys.iter().chain(&self.keygen).chain(&self.default);
        for entry in entries {
            for name in entry.initiators.iter().flatten() {
                if known.iter().all(|(known, _)| known != name) {
                    return Err(quorate_types::Error::invalid(format!(
                        "the policy's rule {} names the initiator {name}, who is not pinned: add \
                         {name} to [initiators], or give --initiator {name}=KEY",
                        entry.name
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    fn allows(
        &self,
        now: Timestamp,
        initiator: &str,
        request: &Request,
        used: &Use<'_>,
    ) -> Result<(), Denial> {
        let name = &self.name;
        let deny = |rule, why: String| Err(Denial::new(rule, why));
        if self.deny {
            return deny(Rule::Denied, format!("the rule {name} allows nothing"));
        }
        if self.initiators.as_ref().is_some_and(|all| all.iter().all(|one| one != initiator)) {
            return deny(Rule::Initiator, format!("the rule {name} does not let {initiator} ask"));
        }
        let scheme = request.scheme();
        if self.schemes.as_ref().is_some_and(|schemes| !schemes.contains(&scheme)) {
            return deny(Rule::Scheme, format!("the rule {name} does not allow {scheme}"));
        }
        if !self.hours.is_empty() && !self.hours.iter().any(|hours| hours.contain(now)) {
            return deny(Rule::Hours, format!("the rule {name} allows nothing at this hour (UTC)"));
        }
        match &request.action {
            Action::Sign { input: RequestedInput::Digest(_), .. } if !self.digests => {
                let why = format!("the rule {name} allows messages only, and this is a digest");
                return deny(Rule::Digests, why);
            }
            Action::Keygen { holders, .. } if !self.unidentified_holders => {
                if let Some(holder) = holders.iter().find(|holder| holder.identity.is_none()) {
                    let why = format!(
                        "the request names no identity for {}, which the rule {name} wants",
                        holder.party_id
                    );
                    return deny(Rule::Holders, why);
                }
            }
            _ => {}
        }
        if let Some(count) = self.count.filter(|count| used.total >= *count) {
            return deny(
                Rule::Count,
                format!("the rule {name} allows {count} in all, now reached"),
            );
        }
        for Rate { count, per } in &self.rates {
            if (used.since)(Timestamp(now.0.saturating_sub(per.millis()))) >= u64::from(*count) {
                let why = format!("the rule {name} allows {count} per {}", per.name());
                return deny(Rule::Rate, why);
            }
        }
        Ok(())
    }
}
