//! Keys and signatures among devices over the binary relay.

use std::sync::Arc;
use std::time::Duration;

use quorate_party::{Compute, Keyring, Worker};
use quorate_types::*;
use tokio::time::Instant;

use super::letter::{InstanceId, Purpose};
use super::relay::Route;
use super::run::{Hooks, Run, Terms};
use super::signer::{MessageSigner, VerifyingKey};
use super::what::Proposal;

/// How long a run may take when nothing else is said: a person must reach for the other phone.
const LIMIT: Duration = Duration::from_secs(300);

/// A device and the relay over which it meets others.
///
/// The devices know each other's verifying keys and one fresh instance id per run before they
/// start, from a QR code or another channel that they trust. Both, or all of them, name the members
/// in the same order.
pub struct RelaySession {
    worker: Worker,
    signer: Arc<dyn MessageSigner>,
    url: String,
    limit: Duration,
}

impl RelaySession {
    /// A device with its keys, at `url`, such as `ws://127.0.0.1:8000/v1/msg-relay`.
    ///
    /// # Errors
    /// `invalid_request` when the keyring belongs to another device than the signer, or the
    /// address is none of a plain WebSocket.
    pub fn new(url: &str, signer: Arc<dyn MessageSigner>, keyring: Arc<Keyring>) -> Result<Self> {
        if !url.starts_with("ws://") {
            let why = "the relay's address begins with ws://; put a tunnel in front for TLS";
            return Err(Error::invalid_field("relay", why));
        }
        let own = signer.verifying_key().party_id();
        if *keyring.party() != own {
            let why = format!("the keyring is of {}, the signer is {own}", keyring.party());
            return Err(Error::invalid(why));
        }
        let worker = Worker { keyring, compute: Compute::default() };
        Ok(Self { worker, signer, url: url.to_owned(), limit: LIMIT })
    }

    /// The same with another time limit for a run.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// A fresh instance id, for one run.
    pub fn random_instance_id(&self) -> InstanceId {
        InstanceId::random()
    }

    /// Makes a 2-of-2 key as its first party.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`].
    pub async fn keygen_p1(
        &self,
        instance: InstanceId,
        other: &VerifyingKey,
        hooks: &mut Hooks<'_>,
    ) -> Result<KeyRecord> {
        let members = [self.signer.verifying_key(), other.clone()];
        self.keygen(instance, &members, Threshold::new(2, 2)?, hooks).await
    }

    /// Makes a 2-of-2 key as its second party.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`].
    pub async fn keygen_p2(
        &self,
        instance: InstanceId,
        other: &VerifyingKey,
        hooks: &mut Hooks<'_>,
    ) -> Result<KeyRecord> {
        let members = [other.clone(), self.signer.verifying_key()];
        self.keygen(instance, &members, Threshold::new(2, 2)?, hooks).await
    }

    /// Signs as the first party, which proposes what.
    ///
    /// # Errors
    /// As [`RelaySession::sign`].
    pub async fn signgen_p1(
        &self,
        instance: InstanceId,
        key: KeyId,
        proposal: Proposal,
        other: &VerifyingKey,
        hooks: &mut Hooks<'_>,
    ) -> Result<Signature> {
        let members = [self.signer.verifying_key(), other.clone()];
        self.sign(instance, &members, key, Some(proposal), hooks).await
    }

    /// Signs as the second party what the first proposes, if the hooks approve of it.
    ///
    /// # Errors
    /// As [`RelaySession::sign`].
    pub async fn signgen_p2(
        &self,
        instance: InstanceId,
        key: KeyId,
        other: &VerifyingKey,
        hooks: &mut Hooks<'_>,
    ) -> Result<Signature> {
        let members = [other.clone(), self.signer.verifying_key()];
        self.sign(instance, &members, key, None, hooks).await
    }

    /// Makes a key among `members`, this device among them. It returns when all have kept their
    /// share; the key's id follows from the instance.
    ///
    /// # Errors
    /// `session_expired` at the time limit, naming who did not come; `conflict` when a device wants
    /// something else, gave up or broke the protocol; `unavailable` when the relay is not there.
    pub async fn keygen(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        threshold: Threshold,
        hooks: &mut Hooks<'_>,
    ) -> Result<KeyRecord> {
        if members.len() != usize::from(threshold.parties()) {
            let why = format!("{} members, {} parties", members.len(), threshold.parties());
            return Err(Error::invalid_field("members", why));
        }
        let purpose = Purpose::Keygen { scheme: Scheme::default(), threshold };
        self.run(instance, members, purpose, hooks).await?;
        self.key(instance.session().into()).await
    }

    /// Signs with a key, among `members` that hold it. One of them, and no more, proposes what.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`]; `forbidden` when a device does not agree.
    pub async fn sign(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        key: KeyId,
        proposal: Option<Proposal>,
        hooks: &mut Hooks<'_>,
    ) -> Result<Signature> {
        self.key(key).await?;
        let purpose = Purpose::Sign { key_id: key, proposal };
        match self.run(instance, members, purpose, hooks).await? {
            PartyOutcome::Signature { bytes, recovery_id } => Ok(Signature { bytes, recovery_id }),
            _ => Err(Error::internal()),
        }
    }

    /// The public side of a key that this device holds a share of.
    ///
    /// # Errors
    /// `not_found` when it holds none.
    pub async fn key(&self, key: KeyId) -> Result<KeyRecord> {
        let open = self.worker.keyring.key(key, &self.worker.compute).await?;
        let open = open.ok_or_else(|| Error::not_found("key", key))?;
        Ok(open.stored.record.clone())
    }

    async fn run(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        purpose: Purpose,
        hooks: &mut Hooks<'_>,
    ) -> Result<PartyOutcome> {
        let key = self.signer.verifying_key();
        let me = members.iter().position(|member| *member == key).ok_or_else(|| {
            Error::invalid_field("members", "this device is not among the members")
        })?;
        let deadline = Instant::now() + self.limit;
        let route = Route {
            url: self.url.clone(),
            signer: Arc::clone(&self.signer),
            keys: members.to_vec(),
            me,
            instance,
            deadline,
        };
        let known = members.iter().map(VerifyingKey::party_id).collect();
        let terms = Terms { instance, purpose, key, me, members: members.len(), deadline };
        Run::new(&self.worker, terms, route.start(), hooks, Some(known)).finish().await
    }
}
