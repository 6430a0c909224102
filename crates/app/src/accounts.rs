//! The account service: accounts in memory and on disk, sessions through the coordinator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quorate_authority::{Denial, Rule, read_public_key};
use quorate_core::accounts::AccountBook;
use quorate_ports::{Accounts, ManageSessions, Store, Urgency, Write};
use quorate_types::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::lock;

/// How long one question for a keygen's end may hang before it is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause after a failed question.
const RETRY: Duration = Duration::from_secs(1);
/// Longest list answered at once.
const MAX_LIST: u32 = 1_000;

/// The account service's handle; clones share one state.
#[derive(Clone)]
pub struct AccountsApp(Arc<Inner>);

struct Inner {
    book: Mutex<AccountBook>,
    store: Arc<dyn Store>,
    coordinator: Arc<dyn ManageSessions>,
    clock: Arc<dyn Clock>,
    /// Keygens whose key is not attached yet; the other end closes once it is.
    attaching: Mutex<HashMap<SessionId, watch::Receiver<()>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl AccountsApp {
    /// Loads the accounts and goes on waiting for the keygens that had not finished.
    pub async fn open(
        store: Arc<dyn Store>,
        coordinator: Arc<dyn ManageSessions>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let mut book = AccountBook::default();
        for account in store.accounts().await? {
            book.restore(account);
        }
        let pending: HashMap<SessionId, AccountId> = store.pending_keys().await?;
        let tasks = TaskTracker::new();
        let book = Mutex::new(book);
        let attaching = Mutex::default();
        let inner = Inner { book, store, coordinator, clock, attaching, tasks, stop };
        let app = Self(Arc::new(inner));
        for (session, account) in pending {
            app.attach_when_done(session, account);
        }
        Ok(app)
    }

    /// Waits until no task of this service runs any more. To be called after `stop`.
    pub async fn closed(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn save(&self, account: &Account) -> Result<()> {
        self.0.store.submit(vec![Write::Account(account.clone())], Urgency::Now).await
    }

    /// Attaches the key of a keygen to an account as soon as the session ends.
    fn attach_when_done(&self, session: SessionId, account: AccountId) {
        let (done, attached) = watch::channel(());
        lock(&self.0.attaching).insert(session, attached);
        let app = self.clone();
        self.0.tasks.spawn(async move {
            let watch = app.attach(session, account);
            tokio::select! {
                () = app.0.stop.cancelled() => {}
                () = watch => {}
            }
            lock(&app.0.attaching).remove(&session);
            drop(done);
        });
    }

    async fn attach(&self, session: SessionId, account: AccountId) {
        let wait = Some((WaitFor::End, PATIENCE));
        let view = loop {
            match self.0.coordinator.status(&Caller::System, session, wait).await {
                Ok(view) if view.status.is_final() => break Some(view),
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::NotFound => break None,
                Err(error) => {
                    tracing::warn!(%error, %session, "cannot follow a keygen; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let mut writes = vec![Write::PendingKey { session, account: None }];
        if let Some(view) = view
            && let (Some(public_key), Some(key_id)) = (view.public_key().cloned(), view.key_id())
            && view.status == SessionStatus::Completed
        {
            let now = self.0.clock.now();
            let changed = lock(&self.0.book).attach_key(now, account, key_id, public_key);
            writes.extend(changed.map(Write::Account));
        }
        if let Err(error) = self.0.store.submit(writes, Urgency::Now).await {
            tracing::error!(%error, %session, "a finished key could not be attached");
        }
    }
}

#[async_trait]
impl Accounts for AccountsApp {
    async fn create(&self, caller: &Caller, mut new: NewAccount) -> Result<Account> {
        caller.may(Scope::Accounts)?;
        self.0.store.health()?;
        new.public_key = new.public_key.map(canonical).transpose()?;
        new.initiator_key = new.initiator_key.map(checked).transpose()?;
        let tenant = caller.tenant().unwrap_or_default();
        let id = AccountId(uuid::Uuid::new_v4());
        let now = self.0.clock.now();
        let account = lock(&self.0.book).create(now, id, tenant, new)?;
        self.save(&account).await?;
        Ok(account)
    }

    async fn get(&self, caller: &Caller, id: AccountId) -> Result<Account> {
        caller.may(Scope::Accounts)?;
        // What is in memory may not have reached the disk.
        self.0.store.health()?;
        lock(&self.0.book).get(caller.tenant().as_ref(), id)
    }

    async fn list(
        &self,
        caller: &Caller,
        after: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        caller.may(Scope::Accounts)?;
        self.0.store.health()?;
        let limit = usize::try_from(limit.clamp(1, MAX_LIST)).unwrap_or(1);
        Ok(lock(&self.0.book).list(caller.tenant().as_ref(), after, limit))
    }

    async fn update(
        &self,
        caller: &Caller,
        id: AccountId,
        mut change: AccountChange,
    ) -> Result<Account> {
        caller.may(Scope::Accounts)?;
        self.0.store.health()?;
        change.public_key = change.public_key.map(canonical).transpose()?;
        change.initiator_key = change.initiator_key.map(checked).transpose()?;
        let now = self.0.clock.now();
        let account = lock(&self.0.book).update(now, caller.tenant().as_ref(), id, change)?;
        self.save(&account).await?;
        Ok(account)
    }

    async fn keygen(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        request: CreateSession,
    ) -> Result<CreatedSession> {
        if let Some(id) = account {
            let account = active(self.get(caller, id).await?)?;
            check_initiator(&account, &request)?;
        }
        let created = self.0.coordinator.create(caller, request).await?;
        if let Some(account) = account {
            let session = created.session.session_id;
            let note = Write::PendingKey { session, account: Some(account) };
            self.0.store.submit(vec![note], Urgency::Now).await?;
            self.attach_when_done(session, account);
        }
        Ok(created)
    }

    async fn sign(
        &self,
        caller: &Caller,
        account: AccountId,
        mut request: CreateSession,
    ) -> Result<CreatedSession> {
        let account = active(self.get(caller, account).await?)?;
        check_initiator(&account, &request)?;
        let selector = match (account.key_id, account.public_key) {
            (Some(id), _) => KeySelector::Id(id),
            (None, Some(public_key)) => KeySelector::PublicKey(public_key),
            (None, None) => {
                return Err(Error::new(
                    ErrorCode::NotFound,
                    "this account has no key yet; make one with POST /api/v1/mpc/keygen and its account_id",
                )
                .with_field("account_id"));
            }
        };
        match &mut request.ceremony {
            CeremonyRequest::Sign { key, .. } => *key = selector,
            _ => return Err(Error::internal()),
        }
        self.0.coordinator.create(caller, request).await
    }

    async fn session(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let view = self.0.coordinator.status(caller, session, wait).await?;
        if view.status.is_final() {
            // Who is told of the end finds the key at its account.
            let attaching = lock(&self.0.attaching).get(&session).cloned();
            if let Some(mut attached) = attaching {
                let _ = attached.changed().await;
            }
        }
        Ok(view)
    }
}

/// An account's key in canonical form.
fn canonical(key: PublicKey) -> Result<PublicKey> {
    quorate_schemes::identify_public_key(&key.0).map(|(_, key)| key)
}

/// An initiator's key that is a point of its curve.
fn checked(key: AuthorityKey) -> Result<AuthorityKey> {
    read_public_key(&key.to_string())
        .map_err(|error| Error::invalid_field("initiatorKey", error.message))
}

/// Refuses what the account's own initiator has not asked for. The coordinator and the parties
/// check the signature.
fn check_initiator(account: &Account, request: &CreateSession) -> Result<()> {
    let Some(own) = &account.initiator_key else { return Ok(()) };
    let denial = match &request.authorization {
        Some(authorization) if authorization.initiator == *own => return Ok(()),
        Some(_) => {
            let why = format!("requests for account {} are signed by {own}", account.id);
            Denial::new(Rule::Initiator, why)
        }
        None => {
            let why = format!(
                "account {} has an initiatorKey: send an authorization that {own} has signed",
                account.id
            );
            Denial::new(Rule::Unsigned, why)
        }
    };
    Err(denial.into())
}

fn active(account: Account) -> Result<Account> {
    match account.status {
        AccountStatus::Active => Ok(account),
        AccountStatus::Disabled => {
            Err(Error::new(ErrorCode::Forbidden, "this account is disabled; enable it first"))
        }
    }
}
