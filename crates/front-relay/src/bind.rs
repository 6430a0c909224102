//! Where a relay listens.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use quorate_types::{Error, Result};
use tokio::net::{TcpListener, lookup_host};

/// Where a relay listens in any case: on the loopback, v4 and v6 when the machine has both.
pub const DEFAULT_ADDRESS: &str = "localhost:8000";

/// Listens on every address of `addresses`, which are `host:port` separated by spaces; a name
/// stands for all its addresses, and each is bound once.
///
/// # Errors
///
/// When one of them is no address, or none could be bound. What cannot be bound while another one
/// can is logged and left out.
pub async fn bind_all(addresses: &str) -> Result<Vec<TcpListener>> {
    let (mut listeners, mut seen, mut failed) = (Vec::new(), BTreeSet::new(), Vec::new());
    if let Some(wrong) = addresses.split_whitespace().find(|name| !names_a_port(name)) {
        let why = format!("{wrong:?} is not an address to listen on: write HOST:PORT");
        return Err(Error::invalid_field("listen", why));
    }
    for name in addresses.split_whitespace() {
        let found: Vec<SocketAddr> = match lookup_host(name).await {
            Ok(found) => found.collect(),
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        for address in found {
            // Port 0 is another port each time.
            if address.port() != 0 && !seen.insert(address) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => failed.push(format!("{address}: {error}")),
            }
        }
    }
    if listeners.is_empty() {
        let why = if failed.is_empty() { "no address is given".into() } else { failed.join("; ") };
        return Err(Error::invalid(format!("no address could be bound: {why}")));
    }
    for problem in failed {
        tracing::warn!(%problem, "cannot listen on an address");
    }
    Ok(listeners)
}

/// Whether this is a host or address with a port behind it.
fn names_a_port(address: &str) -> bool {
    let split = address.rsplit_once(':');
    split.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
