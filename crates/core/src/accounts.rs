//! Accounts: unique names, one key each.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use quorate_types::*;

use crate::naming::{folded, shows, tidy};

/// Longest user name, mail address or telephone number, in bytes.
const MAX_TEXT: usize = 128;
/// Accounts at most; one takes about 0.5 KiB of memory.
const MAX_ACCOUNTS: usize = 1_000_000;

/// All accounts of an installation.
#[derive(Clone, Debug, Default)]
pub struct AccountBook {
    accounts: HashMap<AccountId, Account>,
    /// Ids by time of creation, the order of lists.
    order: BTreeSet<(Timestamp, AccountId)>,
    /// Who has what names a person; several only where they are of an earlier version.
    owners: HashMap<(Tenant, Mark), Vec<AccountId>>,
}

/// What no two accounts of a tenant share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Username(String),
    Email(String),
}

impl Mark {
    fn field(&self) -> &'static str {
        match self {
            Self::Username(_) => "username",
            Self::Email(_) => "email",
        }
    }
}

// Not the public key: nobody has proven that it is its own, so whoever claimed it first could keep
// its owner out.
fn marks(account: &Account) -> impl Iterator<Item = Mark> {
    let email = account.email.as_ref().map(|email| Mark::Email(folded(email)));
    [Mark::Username(folded(&account.username))].into_iter().chain(email)
}

impl AccountBook {
    /// Puts back an account found in the store. Two of before that would not be made any more stay.
    pub fn restore(&mut self, account: Account) {
        for mark in marks(&account) {
            self.owners.entry((account.tenant.clone(), mark)).or_default().push(account.id);
        }
        self.order.insert((account.created_at, account.id));
        self.accounts.insert(account.id, account);
    }

    /// Creates an account.
    pub fn create(
        &mut self,
        now: Timestamp,
        id: AccountId,
        tenant: Tenant,
        new: NewAccount,
    ) -> Result<Account> {
        let account = Account {
            id,
            tenant,
            username: tidy(&new.username),
            email: new.email.as_deref().map(tidy),
            phone: new.phone.as_deref().map(tidy),
            public_key: new.public_key,
            key_id: None,
            initiator_key: new.initiator_key,
            status: AccountStatus::Active,
            created_at: now,
            updated_at: now,
        };
        self.check(&account, None)?;
        if self.accounts.len() >= MAX_ACCOUNTS {
            return Err(Error::new(ErrorCode::RateLimited, "there are too many accounts"));
        }
        self.restore(account.clone());
        Ok(account)
    }

    /// One account of a tenant (`None`: of any).
    pub fn get(&self, tenant: Option<&Tenant>, id: AccountId) -> Result<Account> {
        self.accounts
            .get(&id)
            .filter(|account| tenant.is_none_or(|tenant| *tenant == account.tenant))
            .cloned()
            .ok_or_else(|| Error::not_found("account", id))
    }

    /// Accounts in the order of their creation, after `after`: none after one that does not exist
    /// for this tenant.
    pub fn list(
        &self,
        tenant: Option<&Tenant>,
        after: Option<AccountId>,
        limit: usize,
    ) -> Vec<Account> {
        let from = match after.map(|id| self.get(tenant, id)) {
            None => Bound::Unbounded,
            Some(Ok(account)) => Bound::Excluded((account.created_at, account.id)),
            Some(Err(_)) => return Vec::new(),
        };
        self.order
            .range((from, Bound::Unbounded))
            .filter_map(|(_, id)| self.accounts.get(id))
            .filter(|account| tenant.is_none_or(|tenant| *tenant == account.tenant))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Changes an account.
    pub fn update(
        &mut self,
        now: Timestamp,
        tenant: Option<&Tenant>,
        id: AccountId,
        change: AccountChange,
    ) -> Result<Account> {
        let old = self.get(tenant, id)?;
        let mut account = old.clone();
        account.username = change.username.as_deref().map(tidy).unwrap_or(account.username);
        account.email = change.email.as_deref().map(tidy).or(account.email);
        account.phone = change.phone.as_deref().map(tidy).or(account.phone);
        if let Some(public_key) = change.public_key {
            // A key of one's own replaces the one that was made here.
            account.key_id =
                account.key_id.filter(|_| account.public_key.as_ref() == Some(&public_key));
            account.public_key = Some(public_key);
        }
        account.initiator_key = change.initiator_key.or(account.initiator_key);
        account.status = change.status.unwrap_or(account.status);
        account.updated_at = now;
        self.check(&account, Some(&old))?;
        self.replace(&old, account.clone());
        Ok(account)
    }

    /// Gives an account the key that was made for it.
    pub fn attach_key(
        &mut self,
        now: Timestamp,
        id: AccountId,
        key_id: KeyId,
        public_key: PublicKey,
    ) -> Option<Account> {
        let old = self.accounts.get(&id)?.clone();
        let (key_id, public_key) = (Some(key_id), Some(public_key));
        let account = Account { key_id, public_key, updated_at: now, ..old.clone() };
        self.replace(&old, account.clone());
        Some(account)
    }

    fn replace(&mut self, old: &Account, new: Account) {
        for mark in marks(old) {
            if let Entry::Occupied(mut place) = self.owners.entry((old.tenant.clone(), mark)) {
                place.get_mut().retain(|owner| *owner != old.id);
                if place.get().is_empty() {
                    place.remove();
                }
            }
        }
        self.restore(new);
    }

    /// What an account had before it may keep, though another one has it, too.
    fn check(&self, account: &Account, old: Option<&Account>) -> Result<()> {
        let texts = [
            ("username", Some(&account.username)),
            ("email", account.email.as_ref()),
            ("phone", account.phone.as_ref()),
        ];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > MAX_TEXT {
                let problem = format!("{field} is 1 to {MAX_TEXT} bytes of text");
                return Err(Error::invalid_field(field, problem));
            }
            if !shows(text) {
                let problem = format!(
                    "{field} has a character that does not show, such as one that turns the \
                     direction of text; leave it out"
                );
                return Err(Error::invalid_field(field, problem));
            }
        }
        if account.email.as_ref().is_some_and(|email| !is_address(email)) {
            return Err(Error::invalid_field("email", "email is not a mail address"));
        }
        let before: Vec<_> = old.into_iter().flat_map(marks).collect();
        for mark in marks(account).filter(|mark| !before.contains(mark)) {
            let field = mark.field();
            let owners = self.owners.get(&(account.tenant.clone(), mark));
            if owners.is_some_and(|owners| owners.iter().any(|owner| *owner != account.id)) {
                let problem = format!("another account has this {field}");
                return Err(Error::new(ErrorCode::Conflict, problem).with_field(field));
            }
        }
        Ok(())
    }
}

fn is_address(email: &str) -> bool {
    let parts = email.split_once('@');
    let blank = email.contains(char::is_whitespace);
    let fits = |(user, host): (&str, &str)| {
        !user.is_empty() && !host.is_empty() && !host.contains('@') && !blank
    };
    parts.is_some_and(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> AccountId {
        format!("{n:032x}").parse().unwrap()
    }

    fn new(username: &str, email: Option<&str>) -> NewAccount {
        NewAccount {
            username: username.into(),
            email: email.map(Into::into),
            ..NewAccount::default()
        }
    }

    #[test]
    fn a_taken_name_or_address_is_a_conflict_naming_the_field() {
        let mut book = AccountBook::default();
        let tenant = Tenant::default();
        book.create(Timestamp(0), id(1), tenant.clone(), new("alice", Some("A@x.org"))).unwrap();
        let same_name = book.create(Timestamp(1), id(2), tenant.clone(), new("alice", None));
        assert!(same_name.unwrap_err().details.fields.contains_key("username"));
        let same_mail = book.create(Timestamp(1), id(2), tenant, new("bob", Some("a@X.org")));
        let error = same_mail.unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.details.fields.contains_key("email"));
        let other: Tenant = "other".parse().unwrap();
        book.create(Timestamp(1), id(3), other, new("alice", None)).unwrap();
    }

    #[test]
    fn spellings_of_one_person_are_one_account() {
        let mut book = AccountBook::default();
        let tenant = Tenant::default();
        let first = new(" Jose\u{301} ", Some(" frank@example.com"));
        let made = book.create(Timestamp(0), id(1), tenant.clone(), first).unwrap();
        assert_eq!(
            (&*made.username, made.email.as_deref()),
            ("Jos\u{e9}", Some("frank@example.com"))
        );
        for (other, field) in [
            (new("JOS\u{c9}", None), "username"),
            (new("jos\u{e9}\u{a0}", None), "username"),
            (new("other", Some("Frank@Example.com ")), "email"),
        ] {
            let error = book.create(Timestamp(1), id(2), tenant.clone(), other).unwrap_err();
            assert_eq!(error.code, ErrorCode::Conflict);
            assert!(error.details.fields.contains_key(field), "{error}");
        }
        book.create(Timestamp(1), id(2), tenant.clone(), new("a", None)).unwrap();
        // Its own name in another case it may have.
        let change = AccountChange { username: Some("A".into()), ..AccountChange::default() };
        assert_eq!(book.update(Timestamp(2), None, id(2), change).unwrap().username, "A");
    }

    #[test]
    fn accounts_of_before_that_share_a_name_stay_and_can_be_changed() {
        let mut book = AccountBook::default();
        let account = |n, username: &str| {
            let mut other = AccountBook::default();
            let made = other.create(Timestamp(0), id(n), Tenant::default(), new(username, None));
            made.unwrap()
        };
        book.restore(account(1, "bob"));
        book.restore(account(2, "Bob"));
        for n in [1, 2] {
            let change = AccountChange { phone: Some("1".into()), ..AccountChange::default() };
            assert!(book.update(Timestamp(1), None, id(n), change).is_ok());
        }
        let renamed = AccountChange { username: Some("rob".into()), ..AccountChange::default() };
        book.update(Timestamp(2), None, id(1), renamed).unwrap();
        let error = book.create(Timestamp(3), id(3), Tenant::default(), new("BOB", None));
        assert_eq!(error.unwrap_err().code, ErrorCode::Conflict, "the other one still has it");
    }

    #[test]
    fn a_renamed_account_frees_its_old_name() {
        let mut book = AccountBook::default();
        let tenant = Tenant::default();
        book.create(Timestamp(0), id(1), tenant.clone(), new("alice", None)).unwrap();
        let change = AccountChange { username: Some("anna".into()), ..AccountChange::default() };
        book.update(Timestamp(1), None, id(1), change).unwrap();
        book.create(Timestamp(2), id(2), tenant, new("alice", None)).unwrap();
        let names: Vec<_> = book.list(None, None, 10).into_iter().map(|a| a.username).collect();
        assert_eq!(names, ["anna", "alice"]);
        assert_eq!(book.list(None, Some(id(1)), 10).len(), 1);
        assert!(book.list(None, Some(id(9)), 10).is_empty(), "an unknown place is not the start");
    }

    #[test]
    fn another_tenants_account_does_not_exist() {
        let mut book = AccountBook::default();
        book.create(Timestamp(0), id(1), Tenant::default(), new("alice", None)).unwrap();
        let other: Tenant = "other".parse().unwrap();
        assert_eq!(book.get(Some(&other), id(1)).unwrap_err().code, ErrorCode::NotFound);
        assert!(book.list(Some(&other), None, 10).is_empty());
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let mut book = AccountBook::default();
        for (account, field) in [
            (new("", None), "username"),
            (new(" \t", None), "username"),
            (new("a\nb", None), "username"),
            (new("a\u{202e}b", None), "username"),
            (new(&"x".repeat(129), None), "username"),
            (new("ok", Some("a b@x.org")), "email"),
            (new("ok", Some("no address")), "email"),
        ] {
            let error = book.create(Timestamp(0), id(1), Tenant::default(), account).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{error}");
        }
    }
}
