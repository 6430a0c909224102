//! Addresses of other roles, and how we show them who we are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use quorate_rpc::endpoint::{ApiKey, Endpoint};
use quorate_types::{Result, Secret};

/// The URL of a listening address; an unspecified one is reached on loopback.
pub(crate) fn url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let host = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".to_owned(),
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
