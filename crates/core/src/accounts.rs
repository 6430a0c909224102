//! Accounts: unique names, one key each.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use quorate_types::*;

/// Longest user name, mail address or telephone number, in bytes.
const MAX_TEXT: usize = 128;
/// Accounts at most; one takes about 0.5 KiB of memory.
const MAX_ACCOUNTS: usize = 1_000_000;

/// All accounts of an installation.
#[derive(Clone, Debug, Default)]
pub struct AccountBook {
    accounts: HashMap<AccountId, Account>,
    /// Creation order.
    order: BTreeSet<(Timestamp, AccountId)>,
    usernames: HashMap<(Tenant, String), AccountId>,
    emails: HashMap<(Tenant, String), AccountId>,
}

impl AccountBook {
    /// Puts back an account found in the store.
    pub fn restore(&mut self, account: Account) {
        let tenant = account.tenant.clone();
        self.usernames.insert((tenant.clone(), account.username.clone()), account.id);
        if let Some(email) = &account.email {
            self.emails.insert((tenant, email.to_lowercase()), account.id);
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
            username: new.username,
            email: new.email,
            phone: new.phone,
            public_key: new.public_key,
            key_id: None,
            initiator_key: new.initiator_key,
            status: AccountStatus::Active,
            created_at: now,
            updated_at: now,
        };
        self.check(&account)?;
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
        account.username = change.username.unwrap_or(account.username);
        account.email = change.email.or(account.email);
        account.phone = change.phone.or(account.phone);
        if let Some(public_key) = change.public_key {
            // A key of one's own replaces the one that was made here.
            account.key_id =
                account.key_id.filter(|_| account.public_key.as_ref() == Some(&public_key));
            account.public_key = Some(public_key);
        }
        account.initiator_key = change.initiator_key.or(account.initiator_key);
        account.status = change.status.unwrap_or(account.status);
        account.updated_at = now;
        self.check(&account)?;
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
        let account = self.accounts.get_mut(&id)?;
        account.key_id = Some(key_id);
        account.public_key = Some(public_key);
        account.updated_at = now;
        Some(account.clone())
    }

    fn replace(&mut self, old: &Account, new: Account) {
        self.usernames.remove(&(old.tenant.clone(), old.username.clone()));
        if let Some(email) = &old.email {
            self.emails.remove(&(old.tenant.clone(), email.to_lowercase()));
        }
        self.restore(new);
    }

    fn check(&self, account: &Account) -> Result<()> {
        let texts = [
            ("username", Some(&account.username)),
            ("email", account.email.as_ref()),
            ("phone", account.phone.as_ref()),
        ];
        for (field, text) in texts {
            let fits = |text: &String| {
                !text.trim().is_empty()
                    && text.len() <= MAX_TEXT
                    && !text.contains(char::is_control)
            };
            if text.is_some_and(|text| !fits(text)) {
                return Err(Error::invalid_field(
                    field,
                    format!("{field} is 1 to {MAX_TEXT} bytes of text"),
                ));
            }
        }
        if account.email.as_ref().is_some_and(|email| !is_address(email)) {
            return Err(Error::invalid_field("email", "email is not a mail address"));
        }
        let tenant = account.tenant.clone();
        let taken = |owner: Option<&AccountId>| owner.is_some_and(|owner| *owner != account.id);
        let conflict = |field| {
            Err(Error::new(ErrorCode::Conflict, format!("this {field} is taken")).with_field(field))
        };
        if taken(self.usernames.get(&(tenant.clone(), account.username.clone()))) {
            return conflict("username");
        }
        let email = account.email.as_ref().map(|email| (tenant, email.to_lowercase()));
        if email.is_some_and(|email| taken(self.emails.get(&email))) {
            return conflict("email");
        }
        Ok(())
    }
}

fn is_address(email: &str) -> bool {
    let parts = email.split_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
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
            (new("a\nb", None), "username"),
            (new("ok", Some("no address")), "email"),
        ] {
            let error = book.create(Timestamp(0), id(1), Tenant::default(), account).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{error}");
        }
    }
}
