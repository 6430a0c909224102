//! device refresh: new shares for all holders of a key, each with the consent of its person.

use quorate_client::peers::{DeviceLink, InstanceId};
use quorate_types::{Error, ErrorCode, KeyRecord, Result};
use serde_json::json;

use super::super::ask::lines;
use super::super::output::{Output, tell};
use super::super::values::key_among;
use super::folder::Folder;
use super::names::Names;
use super::sign::agrees;
use super::{RunArgs, Steps, described, qr};

/// Arguments of `device refresh`.
#[derive(clap::Args)]
pub(in crate::cli) struct RefreshArgs {
    /// The link shown by the device that started it
    #[arg(value_name = "LINK", conflicts_with = "key")]
    link: Option<String>,
    /// Start a refresh of this key
    #[arg(short, long, required_unless_present = "link")]
    key: Option<String>,
    /// Approve without asking
    #[arg(short, long, requires = "link")]
    yes: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Refreshes a key, as the one who starts it or as one who takes part.
pub(in crate::cli) async fn run(folder: &Folder, args: RefreshArgs, out: Output) -> Result<()> {
    let keyring = folder.keyring().await?;
    let (relay, instance, key, members) = match (&args.link, &args.key) {
        (Some(link), _) => match link.parse()? {
            DeviceLink::Refresh { relay, instance, key, members } => {
                (relay, instance, key, members)
            }
            _ => return Err(Error::invalid_field("link", "this link is not for a refresh")),
        },
        (None, Some(key)) => {
            let key = key_among(keyring.keys().await?, key)?.key_id;
            let room = folder.members(key)?;
            (room.relay().to_owned(), InstanceId::random(), key, room.members().to_vec())
        }
        (None, None) => return Err(Error::invalid("give --key to start, or a link to take part")),
    };
    let session = folder.session(&relay, keyring, args.run.limit())?;
    let record = session.key(key).await?;
    let names = folder.members(key).map(|room| room.names()).unwrap_or_default();
    if args.link.is_none() {
        let (relay, members) = (relay.clone(), members.clone());
        let link = DeviceLink::Refresh { relay, instance, key, members }.to_string();
        out.show(&json!({ "link": link }), || {
            format!("{}{link}\n\nthe others take part with `device refresh LINK`", qr::code(&link))
        });
    } else {
        agree_to_refresh(&record, &names, args.yes)?;
    }
    let steps = Steps::new(out, "refreshing a key", names);
    let mut observer = steps.observer();
    let refreshed = session.refresh(instance, &members, key, &mut observer).await;
    drop(observer);
    steps.finish();
    let value = described(&refreshed?);
    out.show(&value, || lines(&value));
    Ok(())
}

/// Shows which key gets new shares and whose, and asks the person at the terminal unless it has
/// agreed already.
pub(in crate::cli) fn agree_to_refresh(key: &KeyRecord, names: &Names, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let holders: Vec<_> = key.holders.iter().map(|holder| names.full(holder)).collect();
    tell(&format!("key: {}\nholders: {}", key.key_id, holders.join(", ")));
    match agrees("give them all new shares?") {
        true => Ok(()),
        false => Err(Error::new(ErrorCode::Conflict, "you declined to refresh this key")),
    }
}
