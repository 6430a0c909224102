//! api-keys: create, list, revoke, at a running server or in the data folder of a stopped one.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use quorate_app::{ApiKeys, Clock as _, SystemClock};
use quorate_ports::ManageApiKeys;
use quorate_rpc::operator::RemoteApiKeys;
use quorate_types::*;
use quorate_wire::Rfc3339;
use serde_json::json;

use super::DataArgs;
use super::credential::ApiKeyArgs;
use super::output::{Output, table};
use super::values::value;
use crate::serve::compose::open_store;
use crate::serve::peers;

/// Arguments of `api-keys`.
#[derive(clap::Args)]
pub(crate) struct ApiKeysArgs {
    #[command(flatten)]
    data: DataArgs,
    /// gRPC address of a running server, which is shown an API key with the scope system. Without
    /// it, the keys are those in the data folder, and no server may be running on it
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    credential: ApiKeyArgs,
    /// Certificate authority that signed the server's certificate, PEM
    #[arg(long, global = true, value_name = "FILE", env = "QUORATE_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// Send the API key in plaintext to another machine: through a tunnel that encrypts
    #[arg(long, global = true)]
    insecure: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a key and print it; it is never shown again
    Create {
        /// A scope that the key grants; give it once per scope, or several separated by commas
        #[arg(long = "scope", value_enum, required = true, value_delimiter = ',')]
        scopes: Vec<ScopeArg>,
        /// The tenant whose sessions, keys and accounts it sees [default: default]; a key with the scope
        /// system belongs to no tenant
        #[arg(long, value_parser = value::<Tenant>)]
        tenant: Option<Tenant>,
        /// What people call it
        #[arg(long, value_parser = value::<KeyLabel>)]
        label: Option<KeyLabel>,
        /// After how many days it stops to work [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in: Option<u32>,
    },
    /// List keys, without their secrets
    List,
    /// Revoke a key by its id, for good
    Revoke {
        /// The id, as `list` shows it
        #[arg(value_parser = value::<ApiKeyId>)]
        id: ApiKeyId,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// Create, list and close sessions
    Sessions,
    /// Read sessions, keys and parties, and nothing else; every other scope can read them too
    Read,
    /// Manage accounts
    Accounts,
    /// Act as a party of a session, by its join token
    Party,
    /// Everything, of every tenant; for the operator and for the other roles of an installation
    System,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Sessions => Self::Sessions,
            ScopeArg::Read => Self::Read,
            ScopeArg::Accounts => Self::Accounts,
            ScopeArg::Party => Self::Party,
            ScopeArg::System => Self::System,
        }
    }
}

/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// Runs the action.
pub(crate) async fn run(args: ApiKeysArgs, out: Output) -> Result<()> {
    // Who reads and writes the folder may do all that its server does.
    let operator = Caller::System;
    let keys: Arc<dyn ManageApiKeys> = match &args.server {
        Some(url) => {
            let (key, ca) = (args.credential.read()?, args.tls_ca.as_deref());
            let endpoint = peers::endpoint(url, key, ca, args.insecure)?;
            Arc::new(RemoteApiKeys::new(endpoint.advise("start it, or give its --server")))
        }
        None => {
            let data = &args.data.data;
            if !matches!(args.action, Action::Create { .. }) && !data.exists() {
                let why = format!(
                    "the data folder {} does not exist: give the server's --data, or --server",
                    data.display()
                );
                return Err(Error::new(ErrorCode::NotFound, why).with_field("data"));
            }
            let (store, clock) = open_store(data)?;
            Arc::new(ApiKeys::open(store, clock).await?)
        }
    };
    match args.action {
        Action::Create { scopes, tenant, label, expires_in } => {
            let scopes = scopes.into_iter().map(Scope::from).collect();
            let expires_at =
                expires_in.map(|days| Timestamp(SystemClock.now().0 + i64::from(days) * DAY));
            let tenant = tenant.unwrap_or_default();
            let new = NewApiKey { label, tenant, scopes, expires_at };
            let made = keys.create_api_key(&operator, new).await?;
            let secret = made.secret.expose();
            out.show(&json!({ "api_key": secret, "id": made.key.id }), || secret.clone());
        }
        Action::List => list(&all(&*keys, &operator).await?, out),
        Action::Revoke { id } => {
            keys.revoke_api_key(&operator, id).await?;
            out.show(&json!({ "revoked": id }), || format!("{id} is revoked"));
        }
    }
    Ok(())
}

/// All keys, oldest first.
async fn all(keys: &dyn ManageApiKeys, operator: &Caller) -> Result<Vec<ApiKey>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = keys.api_keys(operator, after).await?;
        after = page.get(API_KEYS_PAGE - 1).map(|last| last.id);
        all.extend(page);
        if after.is_none() {
            all.sort_by_key(|key| (key.created_at, key.id));
            return Ok(all);
        }
    }
}

fn list(keys: &[ApiKey], out: Output) {
    let now = SystemClock.now();
    out.show(&keys, || {
        let time = |at: Option<Timestamp>| at.map_or("never".into(), |at| Rfc3339(at).to_string());
        let cells: Vec<_> = keys
            .iter()
            .map(|key| {
                let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
                let state = match key.expires_at {
                    _ if key.revoked => "revoked",
                    Some(end) if end <= now => "expired",
                    _ => "active",
                };
                vec![
                    key.id.to_string(),
                    key.label.as_ref().map(ToString::to_string).unwrap_or_default(),
                    key.tenant.as_str().to_owned(),
                    scopes.join(" "),
                    state.to_owned(),
                    time(key.expires_at),
                    time(key.last_used_at),
                ]
            })
            .collect();
        table(&["ID", "LABEL", "TENANT", "SCOPES", "STATE", "EXPIRES", "LAST USED"], &cells)
    });
}
