//! How many streams are open at the router, by account and party.

use quorate_types::*;

use crate::budget::{Budget, Over};
use crate::tally::Tally;

/// Streams of one party that one account may have open: a few processes with two each, and those
/// of connections that have died unnoticed. Each is woken for every event of the party.
const PER_PARTY: usize = 32;
/// Streams of all accounts. An idle one costs its connection, about 10 KiB.
const IN_ALL: usize = 1 << 16;
/// Seconds after which one that was refused may try again.
const RETRY_SECONDS: u32 = 5;

/// Who pays for something: bounds that hold for each account keep its neighbours free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// All callers of a tenant.
    Tenant(Tenant),
    /// A party that has proven its identity, whatever tenant it serves.
    Party(PartyId),
    /// Another role of the installation.
    Role,
}

impl Account {
    /// The account of a caller.
    pub fn of(caller: &Caller) -> Self {
        match (caller, caller.tenant()) {
            (Caller::Party(party), _) => Self::Party(party.clone()),
            (_, Some(tenant)) => Self::Tenant(tenant),
            (_, None) => Self::Role,
        }
    }
}

/// The open streams, counted.
#[derive(Debug)]
pub struct Subscriptions {
    accounts: Budget<Account>,
    parties: Tally<(Account, PartyId)>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self { accounts: Budget::new(IN_ALL), parties: Tally::default() }
    }
}

impl Subscriptions {
    /// Counts a stream of `party` for a caller. What is counted is to be given back by
    /// [`Subscriptions::close`] with the account in the answer.
    ///
    /// # Errors
    /// `rate_limited` when the party, the account or the router has as many as it may.
    pub fn open(&mut self, caller: &Caller, party: &PartyId) -> Result<Account> {
        let account = Account::of(caller);
        let key = (account.clone(), party.clone());
        let of_party = self.parties.of(&key);
        let problem = match self.accounts.check(&account, 1) {
            _ if of_party >= PER_PARTY => {
                format!("{party} has {of_party} streams open; close some of them")
            }
            Err(Over::Whole) => {
                "the router has as many streams open as it may; try again later".into()
            }
            Err(Over::Share) if account != Account::Role => {
                "this tenant has as many streams open as it may; close some of them".into()
            }
            _ => {
                self.accounts.add(&account, 1);
                self.parties.add(key);
                return Ok(account);
            }
        };
        Err(Error::rate_limited(problem, RETRY_SECONDS))
    }

    /// Gives a stream's place back.
    pub fn close(&mut self, account: &Account, party: &PartyId) {
        self.accounts.give_back(account, 1);
        self.parties.remove(&(account.clone(), party.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str) -> Caller {
        Caller::Key { tenant: tenant.parse().unwrap(), scopes: vec![Scope::Party] }
    }

    fn name(text: &str) -> PartyId {
        text.parse().unwrap()
    }

    #[test]
    fn a_neighbour_cannot_take_a_partys_streams() {
        let mut open = Subscriptions::default();
        for _ in 0..PER_PARTY {
            open.open(&key("evil"), &name("alice")).unwrap();
        }
        let refused = open.open(&key("evil"), &name("alice")).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(refused.details.retry_after.is_some());
        assert!(open.open(&key("evil"), &name("bob")).is_ok());
        let account = open.open(&key("acme"), &name("alice")).unwrap();
        assert_eq!(account, Account::Tenant("acme".parse().unwrap()));
        assert!(open.open(&Caller::Party(name("alice")), &name("alice")).is_ok());
    }

    #[test]
    fn a_tenant_leaves_room_for_the_others() {
        let mut open = Subscriptions::default();
        for n in 0..IN_ALL / 2 {
            open.open(&key("evil"), &name(&format!("p{n}"))).unwrap();
        }
        assert!(open.open(&key("evil"), &name("one-more")).is_err());
        let account = open.open(&key("acme"), &name("alice")).unwrap();
        open.close(&account, &name("alice"));
        open.close(&Account::of(&key("evil")), &name("p0"));
        assert!(open.open(&key("evil"), &name("one-more")).is_ok());
    }

    #[test]
    fn closed_streams_leave_nothing_behind() {
        let mut open = Subscriptions::default();
        let account = open.open(&key("a"), &name("p")).unwrap();
        open.close(&account, &name("p"));
        assert!(open.accounts.used() == 0 && open.parties.is_empty());
    }
}
