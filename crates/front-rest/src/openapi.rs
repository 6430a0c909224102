//! The OpenAPI 3.1 documents, generated from the routes and the JSON shapes.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Info, OpenApi as Document, SecurityRequirement};

use crate::routes::{accounts, api_keys, coordinator, delegates, mpc, party, router, tickets};
use crate::{common, sockets};

/// A service whose routes a document may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sessions and keys.
    Coordinator,
    /// Messages and registered parties.
    Router,
    /// The account service, with the `mpc` calls for its accounts.
    Accounts,
    /// One server party.
    Party,
}

impl Service {
    /// The services of a whole installation but the parties, whose routes have the same names.
    pub const ALL: [Self; 3] = [Self::Coordinator, Self::Router, Self::Accounts];

    /// The document's title where the service has an address of its own.
    fn title(self) -> &'static str {
        match self {
            Self::Coordinator => "Quorate session coordinator",
            Self::Router => "Quorate message router",
            Self::Accounts => "Quorate account service",
            Self::Party => "Quorate server party",
        }
    }

    fn document(self) -> Document {
        match self {
            Self::Coordinator => CoordinatorDocument::openapi(),
            Self::Router => RouterDocument::openapi(),
            Self::Accounts => AccountsDocument::openapi(),
            Self::Party => PartyDocument::openapi(),
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    paths(
        common::health, common::ready, common::metrics,
        api_keys::create, api_keys::list, api_keys::revoke,
    ),
    tags(
        (name = "service", description = "Health, readiness and metrics."),
        (name = "api keys", description = "Who may call this server, where it asks for keys."),
    )
)]
struct CommonDocument;

#[derive(OpenApi)]
#[openapi(
    paths(
        coordinator::create, coordinator::list, coordinator::join, coordinator::status,
        coordinator::close, coordinator::approve, coordinator::ready, coordinator::start, coordinator::complete,
        coordinator::timeline, coordinator::keys, coordinator::key, coordinator::freeze, coordinator::unfreeze,
        coordinator::notifications, delegates::submit, delegates::fetch, delegates::confirm,
    ),
    tags(
        (name = "sessions", description = "Keygen, signing and refresh sessions."),
        (name = "delegates", description = "Shares that delegates have made for users."),
        (name = "keys", description = "Keys: their public data."),
        (name = "notifications", description = "What offline parties and webhooks are told."),
    )
)]
struct CoordinatorDocument;

#[derive(OpenApi)]
#[openapi(
    paths(
        router::route, router::pending, router::acknowledge, router::message_status,
        sockets::messages::subscribe, router::parties, router::register, router::heartbeat,
        sockets::events::subscribe, tickets::issue,
    ),
    components(schemas(quorate_wire::ClientFrame, quorate_wire::ServerFrame, quorate_wire::EventJson)),
    tags(
        (name = "messages", description = "Protocol messages between a session's parties."),
        (name = "parties", description = "Registered parties."),
        (name = "events", description = "Events of a party's sessions."),
        (name = "tickets", description = "Tickets for WebSockets of browsers."),
    )
)]
struct RouterDocument;

#[derive(OpenApi)]
#[openapi(
    paths(
        accounts::create, accounts::list, accounts::read, accounts::update, accounts::replace,
        accounts::disable, accounts::remove, mpc::keygen, mpc::sign, mpc::session,
    ),
    tags(
        (name = "accounts", description = "Accounts and their keys."),
        (name = "mpc", description = "Sessions with an account's key."),
    )
)]
struct AccountsDocument;

#[derive(OpenApi)]
#[openapi(
    paths(party::keys, party::key),
    tags((name = "keys", description = "Keys this party holds a share of."))
)]
struct PartyDocument;

const ABOUT: &str = "Threshold signing: keys that never exist in one place.\n\n\
    Authentication: on loopback none is required by default. Elsewhere each request carries \
    `Authorization: Bearer KEY` with an API key that `quorate api-keys create --scope SCOPE` \
    prints, or a party's proof of identity; each operation says which scope it needs.\n\n\
    `threshold_t` counts the signers needed, `threshold_n` the holders of a share. Every error \
    has the same body; its `error` is a stable code. Unknown fields and query parameters are \
    refused by name. Bytes are hex, payloads base64. Times named `…_at` are milliseconds since \
    1970, but `expires_at` and `timestamp` are seconds; accounts have RFC 3339 times.";

/// The document of an address that has these services.
pub fn service_document(services: &[Service]) -> Document {
    let title = match services {
        [service] => service.title(),
        _ => "Quorate",
    };
    let info = Info::new(title, env!("CARGO_PKG_VERSION"));
    let mut document = Document::new(info, CommonDocument::openapi().paths);
    document.merge(CommonDocument::openapi());
    for service in services {
        document.merge(service.document());
    }
    document.info.description = Some(ABOUT.to_owned());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            let scopes = scopes(operation.operation_id.as_deref().unwrap_or_default());
            let required =
                |scopes: &&[&str]| SecurityRequirement::new("api_key", scopes.iter().copied());
            // An empty requirement beside it: on loopback, an installation may ask for nothing.
            let nothing = std::iter::once(SecurityRequirement::default());
            operation.security = Some(scopes.iter().map(required).chain(nothing).collect());
        }
    }
    document
}

/// The scopes that an operation needs: all of one of these sets. Any key may read.
fn scopes(operation: &str) -> &'static [&'static [&'static str]] {
    match operation {
        "getHealth" | "getReadiness" => &[],
        "getMetrics" | "createApiKey" | "listApiKeys" | "revokeApiKey" | "listNotifications" => {
            &[&["system"]]
        }
        "createSession" | "closeSession" | "approveSession" | "startKeygen" | "freezeKey"
        | "unfreezeKey" => &[&["sessions"]],
        "startSession" | "fetchDelegateShare" | "confirmDelegateShare" => {
            &[&["sessions"], &["party"]]
        }
        "startSign" => &[&["accounts", "sessions"]],
        "joinSession"
        | "markPartyReady"
        | "submitDelegateShare"
        | "reportCompletion"
        | "routeMessage"
        | "getPendingMessages"
        | "acknowledgeMessage"
        | "subscribeMessages"
        | "subscribeEvents"
        | "registerParty"
        | "heartbeat" => &[&["party"]],
        "createAccount" | "listAccounts" | "getAccount" | "updateAccount" | "replaceAccount"
        | "disableAccount" | "deleteAccount" => &[&["accounts"]],
        _ => &[&["read"]],
    }
}

/// The document of a whole installation.
pub fn openapi_document() -> Document {
    service_document(&Service::ALL)
}
