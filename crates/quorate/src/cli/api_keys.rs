//! api-keys: create, list, revoke. Works on the data folder while the server is stopped.

use clap::{Subcommand, ValueEnum};
use quorate_app::ApiKeys;
use quorate_types::*;
use serde_json::json;

use super::DataArgs;
use super::output::{Output, table};
use super::values::value;
use crate::serve::compose::open_store;

/// Arguments of `api-keys`.
#[derive(clap::Args)]
pub(crate) struct ApiKeysArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a key and print it; it is never shown again
    Create {
        /// What it may do; give it once per scope
        #[arg(long = "scope", value_enum, required = true)]
        scopes: Vec<ScopeArg>,
        /// Whose sessions, keys and accounts it sees [default: default]; a key with the scope system
        /// belongs to no tenant
        #[arg(long, value_parser = value::<Tenant>)]
        tenant: Option<Tenant>,
    },
    /// List keys, without their secrets
    List,
    /// Revoke a key by its id
    Revoke {
        /// The id, as `list` shows it
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// Create, list and close sessions
    Sessions,
    /// Read sessions, keys and parties, and nothing else; every other scope may read them too
    Read,
    /// Manage accounts
    Accounts,
    /// Act as a party of a session, by its join token
    Party,
    /// Everything, of every tenant; for the other roles of an installation
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

/// Runs the action.
pub(crate) async fn run(args: ApiKeysArgs, out: Output) -> Result<()> {
    let (store, clock) = open_store(&args.data.data)?;
    let keys = ApiKeys::open(store, clock).await?;
    match args.action {
        Action::Create { scopes, tenant } => {
            let scopes: Vec<_> = scopes.into_iter().map(Scope::from).collect();
            if tenant.is_some() && scopes.contains(&Scope::System) {
                let why = "a key with the scope system acts on every tenant: leave --tenant out, \
                           or give the scopes that the tenant needs";
                return Err(Error::invalid_field("tenant", why));
            }
            let key = keys.create(tenant.unwrap_or_default(), scopes).await?;
            out.show(&json!({ "api_key": key.expose() }), || key.expose().clone());
        }
        Action::List => list(&keys, out),
        Action::Revoke { id } => {
            keys.revoke(&id).await?;
            out.show(&json!({ "revoked": id }), || format!("{id} is revoked"));
        }
    }
    Ok(())
}

fn list(keys: &ApiKeys, out: Output) {
    let rows: Vec<_> = keys
        .list()
        .into_iter()
        .map(|row| {
            json!({
                "id": row.id, "tenant": row.tenant, "scopes": row.scopes,
                "created_at": row.created_at, "revoked": row.revoked,
            })
        })
        .collect();
    out.show(&rows, || {
        let cell = |row: &serde_json::Value, name: &str| match &row[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let cells: Vec<_> = rows
            .iter()
            .map(|row| ["id", "tenant", "scopes", "revoked"].map(|name| cell(row, name)).to_vec())
            .collect();
        table(&["ID", "TENANT", "SCOPES", "REVOKED"], &cells)
    });
}
