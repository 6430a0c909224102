//! A device as a program: takes part in one session and prints how it ended, as JSON.
//!
//! ```text
//! device FOLDER PARTY SESSION TOKEN grpc  ROUTER_GRPC_URL
//! device FOLDER PARTY SESSION TOKEN ws    ROUTER_HTTP_URL COORDINATOR_HTTP_URL
//! ```
//!
//! Identity, seal key and shares stay in FOLDER, so that a later session can sign.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::path::Path;
use std::sync::Arc;

use quorate_client::{Connection, Device, Endpoint, Keyring, SealSource};
use quorate_store::SqliteVault;
use quorate_types::*;
use quorate_wire::SessionJson;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [folder, party, session, token, connection @ ..] = words.as_slice() else {
        return Err(Error::invalid("device FOLDER PARTY SESSION TOKEN grpc|ws URL…"));
    };
    let connection = match connection {
        ["grpc", router] => Connection::grpc(Endpoint::new(router, None)?),
        ["ws", router, coordinator] => Connection::websocket(router, coordinator)?,
        _ => return Err(Error::invalid("grpc ROUTER, or ws ROUTER COORDINATOR")),
    };
    let folder = Path::new(folder);
    let vault = Arc::new(SqliteVault::open(folder)?);
    let seal = SealSource::KeyFile(folder.join("seal.key"));
    let identity = folder.join("identity.key");
    let keyring = Keyring::open(party.parse()?, &identity, seal, vault, false).await?;
    let device = Device::new(Arc::new(keyring), connection, DeviceInfo::default());
    let token = Secret::new((*token).to_owned());
    let ended = device.take_part(session.parse()?, token).await?;
    println!("{}", serde_json::to_string(&SessionJson::from(ended)).expect("plain data"));
    Ok(())
}
