//! Between the core's records and the rows of the store.

use async_trait::async_trait;
use quorate_core::groups::{Change, Kept, Place};
use quorate_ports::groups::{GroupClientRow, GroupRow, GroupSessionRow, KeptGroups};
use quorate_ports::{Commit, GroupStore, GroupWrite};
use quorate_types::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A store that keeps nothing: nobody resumes after a restart.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotKept;

#[async_trait]
impl GroupStore for NotKept {
    fn submit_groups(&self, _: Vec<GroupWrite>) -> Commit {
        Commit::new(std::future::ready(Ok(())))
    }

    async fn groups(&self) -> Result<KeptGroups> {
        Ok(KeptGroups::default())
    }
}

fn document(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records are plain data")
}

/// A change as the store takes it.
pub(crate) fn write(change: Change) -> GroupWrite {
    match change {
        Change::Client(client, token_hash) => {
            GroupWrite::Client(GroupClientRow { client, token_hash })
        }
        Change::ForgetClient(client) => GroupWrite::ForgetClient(client),
        Change::Group(id, record) => {
            GroupWrite::Group(GroupRow { id, document: document(&record) })
        }
        Change::ForgetGroup(id) => GroupWrite::ForgetGroup(id),
        Change::Session(Place { group, session }, record) => {
            let document = document(&record);
            GroupWrite::Session(GroupSessionRow { id: session, group, document })
        }
        Change::ForgetSession(id) => GroupWrite::ForgetSession(id),
    }
}

/// What the store had, as the core takes it.
pub(crate) fn read(rows: KeptGroups) -> Result<Kept> {
    let clients = rows.clients.iter().map(|row| (row.client, row.token_hash)).collect();
    let group = |row: GroupRow| Ok((row.id, parse(&row.document)?));
    let session = |row: GroupSessionRow| {
        Ok((Place { group: row.group, session: row.id }, parse(&row.document)?))
    };
    Ok(Kept {
        clients,
        groups: rows.groups.into_iter().map(group).collect::<Result<_>>()?,
        sessions: rows.sessions.into_iter().map(session).collect::<Result<_>>()?,
    })
}

fn parse<T: DeserializeOwned>(document: &[u8]) -> Result<T> {
    serde_json::from_slice(document).map_err(|error| {
        tracing::error!(%error, "a kept group cannot be read");
        Error::internal()
    })
}
