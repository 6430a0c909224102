//! What each role needs to do its work. A router needs nothing but its database: the others wait
//! for it, so it must not wait for them.

use std::sync::Arc;

use quorate_front_rest::{Readiness, Reasons};
use quorate_ports::{Directory, ManageSessions, Store};
use quorate_store::SqliteStore;
use quorate_types::*;

/// Fewest signers of any key.
const FEWEST: usize = 2;

/// Why a database takes no more.
pub(super) fn of_store(store: &SqliteStore) -> Reasons {
    store.health().err().map(|error| error.message).into_iter().collect()
}

/// Anybody may ask whether a service is ready: where the other one is, the log says.
fn away(role: &str, error: &Error) -> String {
    tracing::warn!(%error, "not ready: the {role} does not answer");
    format!("the {role} does not answer")
}

/// A caller that sees what belongs to the operator, and nothing of a tenant's own.
fn onlooker() -> Caller {
    Caller::Key { tenant: Tenant::default(), scopes: vec![Scope::Read] }
}

/// A coordinator: it reaches its router, and enough of the server parties are there, where there
/// are any.
pub(super) fn coordinator(store: Arc<SqliteStore>, directory: Arc<dyn Directory>) -> Readiness {
    Readiness::new(move || {
        let (store, directory) = (store.clone(), directory.clone());
        async move {
            let mut reasons = of_store(&store);
            let found = directory.parties(&onlooker(), Some(PartyRole::Persistent), false).await;
            reasons.extend(match found {
                Ok(parties) => too_few(&parties),
                Err(error) => Some(away("router", &error)),
            });
            reasons
        }
    })
}

fn too_few(parties: &[PartyView]) -> Option<String> {
    let online = parties.iter().filter(|party| party.online).count();
    (!parties.is_empty() && online < FEWEST).then(|| {
        let all = parties.len();
        format!(
            "{online} of {all} server parties is connected, and each key needs {FEWEST} or more"
        )
    })
}

/// An account service: it reaches its coordinator.
pub(super) fn accounts(store: Arc<SqliteStore>, coordinator: Arc<dyn ManageSessions>) -> Readiness {
    Readiness::new(move || {
        let (store, coordinator) = (store.clone(), coordinator.clone());
        async move {
            let mut reasons = of_store(&store);
            // That there is no such session is an answer.
            let nothing = SessionId(Default::default());
            match coordinator.status(&onlooker(), nothing, None).await {
                Err(error) if error.code != ErrorCode::NotFound => {
                    reasons.push(away("coordinator", &error));
                }
                _ => {}
            }
            reasons
        }
    })
}

/// A router.
pub(super) fn router(store: Arc<SqliteStore>) -> Readiness {
    Readiness::at_once(move || of_store(&store))
}
