//! keygen, sign, keys, sessions: questions to a running coordinator.

use std::path::Path;
use std::time::Duration;

use quorate_client::{Verdict, Wanted, verify_new_key};
use quorate_ports::ManageSessions;
use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::client::{ClientArgs, PATIENCE, finish};
use super::creator::CreatorArgs;
use super::input::InputArgs;
use super::keys::told;
use super::output::{Output, table, tell};
use super::peers::PeersFile;
use super::request::{SigningArgs, record};
use super::values::{select_key, value};
use crate::serve::compose::interrupted;

/// How long closing a session may take that was interrupted.
const CLOSING: Duration = Duration::from_secs(3);

/// Arguments of `keygen`.
#[derive(clap::Args)]
pub(crate) struct KeygenArgs {
    #[command(flatten)]
    creator: CreatorArgs,
    #[command(flatten)]
    peers: PeersFile,
    /// Number of signers needed
    #[arg(short = 't', long, default_value_t = 2)]
    threshold: u16,
    /// Parties that hold a share
    #[arg(short = 'n', long, default_value_t = 3)]
    parties: u16,
    /// The signature scheme: ecdsa-secp256k1 or ed25519
    #[arg(long, default_value_t = Scheme::default(), value_parser = value::<Scheme>)]
    scheme: Scheme,
    /// The key's label: 1 to 64 letters, digits or -_.:@+. Lists show it, and policies
    /// can refer to it
    #[arg(long, value_parser = value::<KeyLabel>)]
    label: Option<KeyLabel>,
}

/// Arguments of `sign`.
#[derive(clap::Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    creator: CreatorArgs,
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short = 'k', long)]
    key: String,
    #[command(flatten)]
    signed: InputArgs,
    /// Let other holders also replace named parties that cannot sign
    #[arg(long)]
    replace: bool,
    /// Repeating a request with the same key gives the same signature session
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Arguments of `keys` and `sessions`.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Maximum number to list, newest first
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

/// Makes a key, shows it, and says whether its holders have signed that they made it.
pub(crate) async fn keygen(args: KeygenArgs, out: Output) -> Result<Answer> {
    let creator = &args.creator;
    let coordinator = creator.client.connect()?;
    let peers = args.peers.known(&creator.client.coordinator)?;
    let wanted = Wanted {
        scheme: args.scheme,
        threshold: Threshold::new(args.threshold.into(), args.parties.into())?,
        holders: &creator.participants,
    };
    let sign = async |signing: &SigningArgs, key: &Path| {
        let Wanted { scheme, threshold, holders } = wanted;
        signing.keygen(key, scheme, threshold, holders, args.label.as_ref(), &peers)
    };
    let authorization = creator.authorize(sign).await?;
    let (scheme, threshold) = (wanted.scheme, wanted.threshold);
    let request = creator.request(CeremonyRequest::Keygen { scheme, threshold }, authorization);
    let request = CreateSession { label: args.label.clone(), ..request };
    let view = run_session(&*coordinator, request, "making a key", out).await?;
    let public_key = view.public_key().ok_or_else(Error::internal)?;
    let key_id = view.key_id().ok_or_else(Error::internal)?;
    let key = coordinator.key(&Caller::Open, key_id).await?;
    let verdict = verify_new_key(&key, view.session_id, public_key, &wanted, &peers);
    if let Verdict::False(reason) = verdict {
        let why = format!("do not use key {key_id}: {reason}");
        return Err(Error::new(ErrorCode::Conflict, why));
    }
    let (scheme, threshold) = (view.ceremony.scheme(), view.ceremony.threshold());
    let value = json!({
        "key_id": key_id,
        "label": key.record.label,
        "scheme": scheme.name(),
        "threshold_t": threshold.signers(),
        "threshold_n": threshold.parties(),
        "public_key": hex::encode(&public_key.0),
        "ethereum_address": quorate_schemes::ethereum_address(scheme, public_key),
        "parties": view.parties().map(PartyId::as_str).collect::<Vec<_>>(),
        "verified": verdict == Verdict::Verified,
    });
    out.show(&value, || lines(&value));
    Ok(told(&verdict, key_id, out))
}

/// Makes a signature and shows it.
pub(crate) async fn sign(args: SignArgs, out: Output) -> Result<()> {
    let creator = &args.creator;
    let coordinator = creator.client.connect()?;
    let (key, scheme) = select_key(&*coordinator, &args.key).await?;
    let input = args.signed.input(scheme)?;
    let sign = async |signing: &SigningArgs, file: &Path| {
        let with = record(&*coordinator, &key).await?;
        signing.signature(file, &with, &input, &creator.participants)
    };
    let authorization = creator.authorize(sign).await?;
    let ceremony = CeremonyRequest::Sign { key, threshold: None, input };
    let request = CreateSession {
        idempotency_key: args.idempotency_key,
        replace: args.replace,
        ..creator.request(ceremony, authorization)
    };
    let view = run_session(&*coordinator, request, "signing", out).await?;
    let value = signed(&view)?;
    out.show(&value, || lines(&value));
    Ok(())
}

/// A signature that a session has made.
pub(crate) fn signed(view: &SessionView) -> Result<serde_json::Value> {
    let Some(Outcome::Signature(signature)) = &view.outcome else {
        return Err(Error::internal());
    };
    let digest = view.ceremony.input().and_then(SignInput::digest);
    Ok(json!({
        "session_id": view.session_id,
        "key_id": view.key_id(),
        "public_key": view.public_key().map(|key| hex::encode(&key.0)),
        "message_hash": digest.map(|digest| hex::encode(digest.0)),
        "signature": hex::encode(signature.bytes()),
        "recovery_id": signature.recovery_id(),
        "signers": view.parties().map(PartyId::as_str).collect::<Vec<_>>(),
    }))
}

/// Creates a session and waits for its end.
pub(crate) async fn run_session(
    coordinator: &dyn ManageSessions,
    request: CreateSession,
    what: &str,
    out: Output,
) -> Result<SessionView> {
    let bar = out.progress(what);
    // Taken before the session exists, so that none is left behind.
    let interrupted = interrupted();
    let created = coordinator.create(&Caller::Open, request).await?;
    let session = created.session.session_id;
    let told = format!("{what}: session {session}");
    bar.set_message(told.clone());
    if bar.is_hidden() && !out.json {
        tell(&told);
    }
    let narrate = async {
        if bar.is_hidden() {
            return std::future::pending().await;
        }
        waiting_for(coordinator, session, |text| bar.set_message(format!("{told}{text}"))).await;
        std::future::pending().await
    };
    let view = tokio::select! {
        view = finish(coordinator, session) => view,
        () = interrupted => Err(abandon(coordinator, session).await),
        () = narrate => unreachable!("it does not end"),
    };
    bar.finish_and_clear();
    view
}

/// Says whom a session waits for, as long as it can be asked.
async fn waiting_for(
    coordinator: &dyn ManageSessions,
    session: SessionId,
    mut say: impl FnMut(String),
) {
    let mut seen = 0;
    loop {
        let wait = Some((seen, PATIENCE));
        let Ok(timeline) = coordinator.follow(&Caller::Open, session, wait).await else { return };
        seen = timeline.entries.len();
        let names: Vec<_> = timeline.session.waiting_for().iter().map(|p| p.to_string()).collect();
        let text = match names.is_empty() {
            true => String::new(),
            false => format!(", waiting for {}", names.join(", ")),
        };
        say(text);
        if timeline.session.status.is_final() {
            return;
        }
    }
}

/// Closes a session that nobody waits for any more, and says so.
async fn abandon(coordinator: &dyn ManageSessions, session: SessionId) -> Error {
    let closing = tokio::time::timeout(CLOSING, coordinator.close(&Caller::Open, session)).await;
    let message = match closing {
        Ok(Ok(_)) => format!("interrupted: session {session} is closed"),
        _ => format!(
            "interrupted: session {session} goes on; close it with `quorate close {session}`"
        ),
    };
    Error::new(ErrorCode::Conflict, message)
}

/// Arguments of `close`.
#[derive(clap::Args)]
pub(crate) struct CloseArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of the session
    #[arg(value_parser = value::<SessionId>)]
    session: SessionId,
}

/// Closes a session.
pub(crate) async fn close(args: CloseArgs, out: Output) -> Result<()> {
    let view = args.client.connect()?.close(&Caller::Open, args.session).await?;
    let status = view.status.name();
    let value = json!({ "session_id": view.session_id, "status": status });
    out.show(&value, || format!("session {}: {status}", view.session_id));
    Ok(())
}

/// The first `limit` items of a list, page by page.
pub(crate) async fn paged<T>(
    limit: u32,
    page: impl AsyncFn(Option<Cursor>, u32) -> Result<Page<T>>,
) -> Result<Vec<T>> {
    let wanted = limit as usize;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let missing = u32::try_from(wanted - found.len()).unwrap_or(u32::MAX);
        let Page { mut items, next } = page(before, missing).await?;
        items.truncate(wanted - found.len());
        found.append(&mut items);
        if next.is_none() || found.len() >= wanted {
            return Ok(found);
        }
        before = next;
    }
}

/// Lists the newest sessions with whom they wait for or why they failed.
pub(crate) async fn sessions(args: ListArgs, out: Output) -> Result<()> {
    let coordinator = args.client.connect()?;
    let page = async |before, limit| coordinator.list(&Caller::Open, before, limit).await;
    let sessions = paged(args.limit, page).await?;
    let row = |view: &SessionView| {
        let waiting: Vec<_> = view.waiting_for().iter().map(|p| p.to_string()).collect();
        vec![
            view.session_id.to_string(),
            view.ceremony.kind().name().to_owned(),
            view.status.name().to_owned(),
            view.failure.as_ref().map_or(waiting.join(","), |failure| failure.message.clone()),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let sessions: Vec<_> = sessions.into_iter().map(quorate_wire::SessionJson::from).collect();
    out.show(&sessions, || table(&["SESSION", "TYPE", "STATUS", "WAITING FOR / FAILURE"], &rows));
    Ok(())
}

/// What people look for first; all else follows by name.
const ORDER: [&str; 9] = [
    "key_id",
    "label",
    "scheme",
    "threshold",
    "epoch",
    "public_key",
    "ethereum_address",
    "message_hash",
    "signature",
];

/// An object as aligned lines of name and value; `-` where a value is missing or empty.
pub(crate) fn lines(value: &serde_json::Value) -> String {
    let Some(object) = value.as_object() else {
        return value.to_string();
    };
    let mut object = object.clone();
    if let (Some(t), Some(n)) = (object.get("threshold_t"), object.get("threshold_n")) {
        let threshold = format!("{t} of {n}");
        object.retain(|name, _| !["threshold_t", "threshold_n"].contains(&name.as_str()));
        object.insert("threshold".to_owned(), threshold.into());
    }
    let mut fields: Vec<_> = object.iter().collect();
    let place = |name: &str| ORDER.iter().position(|&first| first == name).unwrap_or(ORDER.len());
    fields.sort_by_key(|(name, _)| place(name));
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        serde_json::Value::Array(items) => {
            items.iter().map(|i| i.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let line = |(name, value): (&String, &serde_json::Value)| {
        let text = text(value);
        let text = if text.is_empty() { "-" } else { &text };
        format!("{:<width$}  {text}", name.replace('_', " "))
    };
    fields.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_the_key_and_show_one_threshold_and_no_empty_value() {
        let value = json!({
            "approved_by": [], "ethereum_address": null, "key_id": "k", "label": "",
            "parties": ["a", "b"], "threshold_n": 3, "threshold_t": 2,
        });
        let expected = "key id            k\n\
                        label             -\n\
                        threshold         2 of 3\n\
                        ethereum address  -\n\
                        approved by       -\n\
                        parties           a, b";
        assert_eq!(lines(&value), expected);
    }
}
