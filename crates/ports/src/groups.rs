//! What the group relay needs kept, so that its clients resume after a restart.

use async_trait::async_trait;
use quorate_types::{GroupId, Result, SessionId};

use crate::store::Commit;

/// A group as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The group's id, which the relay chose.
    pub id: GroupId,
    /// The core's group as JSON.
    pub document: Vec<u8>,
}

/// A session of a group as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSessionRow {
    /// The session's id.
    pub id: SessionId,
    /// The id of the group that it belongs to.
    pub group: GroupId,
    /// The core's session as JSON.
    pub document: Vec<u8>,
}

/// A place at the relay that can be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupClientRow {
    /// The client's number.
    pub client: u64,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
}

/// One change. A list of them is one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupWrite {
    /// Inserts or replaces a client.
    Client(GroupClientRow),
    /// Removes a client.
    ForgetClient(u64),
    /// Inserts or replaces a group.
    Group(GroupRow),
    /// Removes a group and all its sessions.
    ForgetGroup(GroupId),
    /// Inserts or replaces a session.
    Session(GroupSessionRow),
    /// Removes a session.
    ForgetSession(SessionId),
}

/// All that was kept, as it was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptGroups {
    /// Clients by their number.
    pub clients: Vec<GroupClientRow>,
    /// Groups by their id.
    pub groups: Vec<GroupRow>,
    /// Sessions by their id.
    pub sessions: Vec<GroupSessionRow>,
}

/// Durable state of the group relay.
#[async_trait]
pub trait GroupStore: Send + Sync + 'static {
    /// Queues one transaction behind all earlier ones. Never blocks: it fails with `unavailable`
    /// when the queue is full or an earlier write failed.
    fn submit_groups(&self, writes: Vec<GroupWrite>) -> Commit;

    /// All that is kept.
    async fn groups(&self) -> Result<KeptGroups>;
}
