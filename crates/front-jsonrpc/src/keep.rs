//! Between the core's records and the rows of the store.

use async_trait::async_trait;
use quorate_core::groups::{Change, Kept, Place};
use quorate_ports::groups::{GroupClientRow, GroupRow, GroupSessionRow, KeptGroups};
use quorate_ports::{Commit, GroupStore, GroupWrite};
use quorate_types::Result;
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

/// What the store had, as the core takes it. A record that cannot be read is reported and left out:
/// it does not keep the other groups from coming back.
pub(crate) fn read(rows: KeptGroups) -> Kept {
    let clients = rows.clients.iter().map(|row| (row.client, row.token_hash)).collect();
    let group = |row: GroupRow| Some((row.id, parse(&row.document)?));
    let session = |row: GroupSessionRow| {
        Some((Place { group: row.group, session: row.id }, parse(&row.document)?))
    };
    Kept {
        clients,
        groups: rows.groups.into_iter().filter_map(group).collect(),
        sessions: rows.sessions.into_iter().filter_map(session).collect(),
    }
}

fn parse<T: DeserializeOwned>(document: &[u8]) -> Option<T> {
    let parsed = serde_json::from_slice(document);
    parsed.inspect_err(|error| tracing::error!(%error, "a kept group is damaged: left out")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_group_keeps_no_other_from_coming_back() {
        let id = |n: u8| format!("{n:032x}").parse().unwrap();
        let text = r#"{"label":"x","params":{"parties":2,"threshold":1},"members":[7]}"#;
        let whole = GroupRow { id: id(1), document: text.into() };
        let damaged = GroupRow { id: id(2), document: text[1..].into() };
        let rows = KeptGroups {
            clients: vec![GroupClientRow { client: 7, token_hash: [1; 32] }],
            groups: vec![damaged, whole],
            sessions: vec![],
        };
        let kept = read(rows);
        assert_eq!((kept.clients.len(), kept.groups.len()), (1, 1));
        assert_eq!(kept.groups[0].0, id(1));
    }
}
