//! Addresses of other roles, and how we show them who we are.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use quorate_rpc::endpoint::{ApiKey, Endpoint};
use quorate_types::{Result, Secret};

/// The address at which a listener is reached from this machine: an unspecified one on loopback.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The URL of a listening address.
pub(crate) fn url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let address = reachable(address);
    let host = match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    format!("{scheme}://{host}:{}", address.port())
}

/// An address with an optional API key and authority; `insecure` lets credentials go there in
/// clear text.
pub(crate) fn endpoint(
    url: &str,
    api_key: Option<Secret<String>>,
    ca: Option<&Path>,
    insecure: bool,
) -> Result<Endpoint> {
    let mut endpoint = Endpoint::new(url, ca)?;
    if insecure {
        endpoint = endpoint.allow_clear_text();
    }
    match api_key {
        Some(key) => endpoint.with_credentials(Arc::new(ApiKey(key))),
        None => Ok(endpoint),
    }
}
