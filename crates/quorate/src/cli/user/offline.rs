//! user register, user join: a user that need not be online, and takes part by the link it is sent.

use quorate_client::{Connection, Device};
use quorate_ports::{Deliver as _, ReadSession as _};
use quorate_rpc::remote::RemoteRouter;
use quorate_types::*;
use serde_json::json;

use super::folder::Folder;
use super::link::SessionLink;
use crate::cli::Answer;
use crate::cli::ask::{lines, signed};
use crate::cli::client::{ClientArgs, finish};
use crate::cli::output::{Output, tell};
use crate::cli::values::value;

#[derive(clap::Args)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    at: RouterArgs,
    /// Mail address
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["phone", "push_token"])]
    email: Option<String>,
    /// Telephone number for SMS
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    /// Token of a device for push notifications
    #[arg(long, value_name = "TOKEN")]
    push_token: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct JoinArgs {
    #[command(flatten)]
    at: RouterArgs,
    /// The link in the notification, quoted, or the part after its last slash
    #[arg(value_name = "LINK", value_parser = value::<SessionLink>)]
    link: SessionLink,
}

/// Where coordinator and router are.
#[derive(clap::Args)]
struct RouterArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The router's gRPC address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50052",
        env = "QUORATE_ROUTER"
    )]
    router: String,
}

/// Registers this user with its channels.
pub(super) async fn register(user: &Folder, args: RegisterArgs, out: Output) -> Result<Answer> {
    let router = RemoteRouter::new(args.at.client.endpoint(&args.at.router)?);
    let notification = NotificationChannel {
        email: args.email.unwrap_or_default(),
        phone: args.phone.unwrap_or_default(),
        push_token: args.push_token.unwrap_or_default(),
    };
    let registration = Registration {
        party_id: user.name().clone(),
        role: PartyRole::Temporary,
        version: env!("CARGO_PKG_VERSION").into(),
        notification,
        identity: None,
        delegate_key: None,
    };
    router.register(&Caller::Open, registration).await?;
    let value = json!({ "party_id": user.name(), "registered": true });
    out.show(&value, || format!("{} is notified of sessions that wait for it", user.name()));
    Ok(Answer::Yes)
}

/// Takes part in the session of a link, to its end.
pub(super) async fn join(user: &Folder, args: JoinArgs, out: Output) -> Result<Answer> {
    let client = &args.at.client;
    let coordinator = client.coordinator()?;
    let SessionLink { session, token } = args.link;
    let view = coordinator.status(&Caller::Open, session, None).await?;
    let key = view.ceremony.key().map(|key| key.key_id).ok_or_else(|| {
        let why = "the session makes a key: a user's share of one is made by a delegate";
        Error::invalid_field("link", why)
    })?;
    if !user.keys()?.contains(&key) {
        let why = format!("no share of key {key} is in this folder; give --folder for another");
        return Err(Error::new(ErrorCode::NotFound, why).with_field("link"));
    }
    if !out.json {
        tell(&format!("taking part in session {session}"));
    }
    let connection = Connection::grpc(client.endpoint(&args.at.router)?);
    let device = DeviceInfo { device_type: "user".into(), ..DeviceInfo::default() };
    let device = Device::new(user.keyring(key).await?, connection, device);
    device.take_part(session, token).await?;
    let view = finish(&coordinator, session).await?;
    let value = match view.outcome {
        Some(Outcome::Signature(_)) => signed(&view)?,
        _ => json!({ "session_id": session, "status": view.status.name(), "key_id": key }),
    };
    out.show(&value, || lines(&value));
    Ok(Answer::Yes)
}
