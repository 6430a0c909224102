//! What devices say in a session of the group relay.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_participant::devices::{InstanceId, MessageKind, VerifyingKey, open};
use quorate_types::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::message::seal;
use super::super::signer::MessageSigner;
use super::Invitation;

/// A session, and what its messages are bound to.
#[derive(Clone)]
pub(super) struct SessionContext {
    pub(super) group: GroupId,
    pub(super) session: SessionId,
    pub(super) kind: GroupKind,
    pub(super) instance: InstanceId,
}

/// The body of a message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    /// Round 0: which number this device has, and by which key it is known.
    KeyAnnouncement { number: u16, key: VerifyingKey, proof: String },
    /// A message of the run.
    Message { kind: MessageKind, sealed: String },
}

/// A message as the relay delivers it.
#[derive(Deserialize)]
pub(super) struct GroupMessage {
    pub(super) sender: u16,
    uuid: String,
    pub(super) body: Body,
}

impl SessionContext {
    pub(super) fn new(invitation: Invitation, kind: GroupKind) -> Self {
        let Invitation { group, session } = invitation;
        let hash = Sha256::new()
            .chain_update(b"quorate/group-instance/v1")
            .chain_update(group.0.as_bytes())
            .chain_update(session.0.as_bytes());
        Self { group, session, kind, instance: InstanceId(hash.finalize().into()) }
    }

    /// The parameters of a call about this session.
    pub(super) fn params(&self) -> Value {
        json!([self.group, self.session, self.kind])
    }

    /// The parameters of a message. Key announcements are round 0.
    pub(super) fn message(&self, sender: u16, receiver: Option<u16>, body: &Body) -> Value {
        let round = match body {
            Body::KeyAnnouncement { .. } => 0,
            Body::Message { kind: MessageKind::Proposal, .. } => 1,
            Body::Message { kind: MessageKind::Round { round, .. }, .. } => round.saturating_add(2),
            Body::Message { kind: MessageKind::Confirmation | MessageKind::Abort, .. } => u16::MAX,
        };
        let message = json!({
            "round": round, "sender": sender, "receiver": receiver,
            "uuid": self.session, "body": body,
        });
        json!([self.group, self.session, self.kind, message])
    }

    /// A message of this session that a device of ours wrote.
    pub(super) fn read(&self, message: Value) -> Option<GroupMessage> {
        let message: GroupMessage = serde_json::from_value(message).ok()?;
        (message.uuid == self.session.to_string()).then_some(message)
    }

    /// What a signature binds: the run, the kind of message, the sender's number and the receiver's,
    /// 0 for all.
    fn place(&self, tag: u64, sender: u16, receiver: u16) -> Vec<u8> {
        let tag = tag.to_be_bytes();
        [&self.instance.0[..], &tag, &sender.to_be_bytes(), &receiver.to_be_bytes()].concat()
    }

    pub(super) async fn key_announcement(
        &self,
        signer: &dyn MessageSigner,
        number: u16,
    ) -> Result<Body> {
        // Messages of a run have other tags.
        let proof = seal(signer, &self.place(0, number, 0), b"").await?;
        Ok(Body::KeyAnnouncement {
            number,
            key: signer.verifying_key(),
            proof: STANDARD.encode(proof),
        })
    }

    /// Whether the key's owner says that it has this number.
    pub(super) fn announces(&self, number: u16, key: &VerifyingKey, proof: &str) -> bool {
        let proof = STANDARD.decode(proof).unwrap_or_default().into();
        open(key, &self.place(0, number, 0), &proof).is_some()
    }

    pub(super) async fn seal(
        &self,
        signer: &dyn MessageSigner,
        kind: MessageKind,
        (sender, receiver): (u16, u16),
        payload: &Bytes,
    ) -> Result<Body> {
        let sealed = seal(signer, &self.place(kind.tag(0), sender, receiver), payload).await?;
        Ok(Body::Message { kind, sealed: STANDARD.encode(sealed) })
    }

    /// The payload of a message, if its sender signed it for this place.
    pub(super) fn open(
        &self,
        key: &VerifyingKey,
        kind: MessageKind,
        (sender, receiver): (u16, u16),
        sealed: &str,
    ) -> Option<Bytes> {
        let sealed = STANDARD.decode(sealed).ok()?.into();
        open(key, &self.place(kind.tag(0), sender, receiver), &sealed)
    }
}
