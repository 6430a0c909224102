//! Keys and signatures among devices over the binary relay.

use std::sync::Arc;
use std::time::Duration;

use quorate_participant::devices::{
    InstanceId, ProposedCeremony, RunParameters, SigningRequest, VerifyingKey,
};
use quorate_party::Keyring;
use quorate_types::*;
use tokio::time::Instant;

use super::peer::{self, Peer};
use super::run::{Observer, run};
use super::signer::MessageSigner;
use super::transport::Route;

/// A device and the relay over which it meets others.
///
/// The devices know each other's verifying keys and one fresh instance id per run before they
/// start, from a QR code or another channel that they trust. Both, or all of them, name the members
/// in the same order.
pub struct RelaySession(Peer);

impl RelaySession {
    /// A device with its keys, at `url`, such as `ws://127.0.0.1:8000/v1/msg-relay`.
    ///
    /// # Errors
    /// `invalid_request` when the keyring belongs to another device than the signer, or the
    /// address is none of a WebSocket. With `wss` the system's authorities are trusted.
    pub fn new(url: &str, signer: Arc<dyn MessageSigner>, keyring: Arc<Keyring>) -> Result<Self> {
        Peer::new(url, signer, keyring).map(Self)
    }

    /// The same with another time limit for a run.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.0.limit = limit;
        self
    }

    /// A fresh instance id, for one run.
    pub fn random_instance_id(&self) -> InstanceId {
        InstanceId::random()
    }

    /// Makes a 2-of-2 ECDSA key as its first party.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`].
    pub async fn keygen_p1(
        &self,
        instance: InstanceId,
        other: &VerifyingKey,
        observer: &mut Observer<'_>,
    ) -> Result<KeyRecord> {
        let members = [self.0.signer.verifying_key(), other.clone()];
        self.keygen(instance, &members, Scheme::EcdsaSecp256k1, Threshold::new(2, 2)?, observer)
            .await
    }

    /// Makes a 2-of-2 ECDSA key as its second party.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`].
    pub async fn keygen_p2(
        &self,
        instance: InstanceId,
        other: &VerifyingKey,
        observer: &mut Observer<'_>,
    ) -> Result<KeyRecord> {
        let members = [other.clone(), self.0.signer.verifying_key()];
        self.keygen(instance, &members, Scheme::EcdsaSecp256k1, Threshold::new(2, 2)?, observer)
            .await
    }

    /// Signs as the first party, which proposes what.
    ///
    /// # Errors
    /// As [`RelaySession::sign`].
    pub async fn signgen_p1(
        &self,
        instance: InstanceId,
        key: KeyId,
        request: SigningRequest,
        other: &VerifyingKey,
        observer: &mut Observer<'_>,
    ) -> Result<Signature> {
        let members = [self.0.signer.verifying_key(), other.clone()];
        self.sign(instance, &members, key, Some(request), observer).await
    }

    /// Signs as the second party what the first proposes, if the observer approve of it.
    ///
    /// # Errors
    /// As [`RelaySession::sign`].
    pub async fn signgen_p2(
        &self,
        instance: InstanceId,
        key: KeyId,
        other: &VerifyingKey,
        observer: &mut Observer<'_>,
    ) -> Result<Signature> {
        let members = [other.clone(), self.0.signer.verifying_key()];
        self.sign(instance, &members, key, None, observer).await
    }

    /// Makes a key among `members`, this device among them. It returns when all have kept their
    /// share; the key's id follows from the instance.
    ///
    /// # Errors
    /// `session_expired` at the time limit, naming the missing devices; `conflict` when a device wants
    /// something else, gave up or broke the protocol; `unavailable` when the relay is not there.
    pub async fn keygen(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        scheme: Scheme,
        threshold: Threshold,
        observer: &mut Observer<'_>,
    ) -> Result<KeyRecord> {
        if members.len() != usize::from(threshold.parties()) {
            let why = format!("{} members, {} parties", members.len(), threshold.parties());
            return Err(Error::invalid_field("members", why));
        }
        let ceremony = ProposedCeremony::Keygen { scheme, threshold };
        self.run(instance, members, ceremony, observer).await?;
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
        request: Option<SigningRequest>,
        observer: &mut Observer<'_>,
    ) -> Result<Signature> {
        self.key(key).await?;
        let ceremony = ProposedCeremony::Sign { key_id: key, request };
        peer::signature(self.run(instance, members, ceremony, observer).await?)
    }

    /// Gives all holders of a key new shares, this device among them. `members` are the holders in
    /// the key's order. It returns when all have kept theirs: the shares before sign nothing more.
    ///
    /// # Errors
    /// As [`RelaySession::keygen`]; `not_found` when this device holds no share of the key.
    pub async fn refresh(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        key: KeyId,
        observer: &mut Observer<'_>,
    ) -> Result<KeyRecord> {
        self.key(key).await?;
        let ceremony = ProposedCeremony::Refresh { key_id: key };
        self.run(instance, members, ceremony, observer).await?;
        self.key(key).await
    }

    /// The public side of a key that this device holds a share of.
    ///
    /// # Errors
    /// `not_found` when it holds none.
    pub async fn key(&self, key: KeyId) -> Result<KeyRecord> {
        self.0.key(key).await
    }

    async fn run(
        &self,
        instance: InstanceId,
        members: &[VerifyingKey],
        ceremony: ProposedCeremony,
        observer: &mut Observer<'_>,
    ) -> Result<PartyOutcome> {
        let key = self.0.signer.verifying_key();
        let me = members.iter().position(|member| *member == key).ok_or_else(|| {
            Error::invalid_field("members", "this device is not among the members")
        })?;
        let deadline = Instant::now() + self.0.limit;
        let route = Route {
            url: self.0.url.clone(),
            signer: Arc::clone(&self.0.signer),
            keys: members.to_vec(),
            me,
            instance,
            deadline,
        };
        let members = members.iter().map(VerifyingKey::party_id).collect();
        let parameters = RunParameters { instance, ceremony, key, members, me };
        run(&self.0.worker, parameters, deadline, route.start(), observer).await
    }
}
