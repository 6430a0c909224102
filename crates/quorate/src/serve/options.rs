//! What every serving command takes, and which combinations are safe.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::ValueEnum;
use quorate_types::{Error, Result};

use super::link::{LinkSecret, default_path};
use super::proxies::Network;
use crate::cli::DataArgs;
use crate::cli::values::value;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthMode {
    /// Anybody, acting as any party: for development on one machine
    Open,
    /// Callers with an API key, and parties that prove their identity
    Required,
}

/// Options of a command that serves.
#[derive(clap::Args, Clone)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = listen_address)]
    pub(crate) host: IpAddr,
    /// Who may call [default: open on loopback, required elsewhere]
    #[arg(long, value_enum)]
    pub(crate) auth: Option<AuthMode>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve and call in plaintext beyond loopback: behind a TLS-terminating proxy or a tunnel
    #[arg(long)]
    pub(crate) insecure: bool,
    /// A party that may call, with its identity key: NAME=HEX. Give it once per party
    #[arg(long = "trust", value_name = "NAME=HEX")]
    pub(crate) trust: Vec<String>,
    /// A host name under which clients reach this server, in addition to IP addresses, localhost and
    /// the names in its certificate. Give it once per name; *.NAME covers one level
    #[arg(long = "allow-host", value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// An origin whose web pages may call, such as `https://wallet.example`. Give it once per origin
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Address or network, such as 10.0.0.0/8, of a proxy whose Forwarded or X-Forwarded-For header
    /// is trusted: per-address limits then apply to the client that it names. Give it once per network
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = value::<Network>)]
    pub(crate) trusted_proxy: Vec<Network>,
    /// File with the shared secret of the roles of one installation, 64 hex digits
    /// [default on loopback: link.key in $XDG_STATE_HOME/quorate, made by the first role]
    #[arg(long = "link-key", value_name = "FILE", env = "QUORATE_LINK_KEY")]
    pub(crate) link_key: Option<PathBuf>,
    /// Start with a missing or older database, giving up what is lost
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Days after which the coordinator deletes ended sessions; 0 keeps them. Keys stay
    #[arg(long, default_value_t = 90, value_name = "DAYS")]
    pub(crate) retention: u32,
    /// Graceful-shutdown timeout for running sessions, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) grace: u64,
}

impl ServeOptions {
    /// The mode in force.
    pub(crate) fn auth(&self) -> AuthMode {
        let default = if self.host.is_loopback() { AuthMode::Open } else { AuthMode::Required };
        self.auth.unwrap_or(default)
    }

    /// The secret that other roles prove: the file given, or on loopback the user's own.
    pub(crate) fn link(&self) -> Result<Option<LinkSecret>> {
        match (&self.link_key, self.host.is_loopback()) {
            (Some(path), false) => LinkSecret::read(path).map(Some),
            (Some(path), true) => LinkSecret::find_or_make(path).map(Some),
            (None, true) => default_path().map(|path| LinkSecret::find_or_make(&path)).transpose(),
            (None, false) => Ok(None),
        }
    }

    /// The scheme of this server's addresses.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Refuses what would be unsafe by accident.
    pub(crate) fn check(&self) -> Result<()> {
        if self.host.is_loopback() {
            return Ok(());
        }
        if self.tls_cert.is_none() && !self.insecure {
            return Err(Error::invalid(format!(
                "{} is not loopback: give --tls-cert and --tls-key, or --insecure behind a \
                 TLS-terminating proxy",
                self.host
            )));
        }
        if self.auth() == AuthMode::Open && !self.insecure {
            return Err(Error::invalid(
                "--auth open believes every caller; on an address that is not loopback it needs \
                 --insecure beside it",
            ));
        }
        Ok(())
    }
}

/// An IP address, in brackets or not, or `localhost`.
fn listen_address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    literal.parse().map_err(|_| {
        "give an IP address of this machine, localhost, or 0.0.0.0 for all of them".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    fn options(line: &[&str]) -> ServeOptions {
        Line::parse_from(std::iter::once("x").chain(line.iter().copied())).options
    }

    #[test]
    fn localhost_and_brackets_are_addresses() {
        for (text, address) in
            [("localhost", "127.0.0.1"), ("[::1]", "::1"), ("::1", "::1"), ("0.0.0.0", "0.0.0.0")]
        {
            assert_eq!(options(&["--host", text]).host.to_string(), address);
        }
        assert!(Line::try_parse_from(["x", "--host", "[127.0.0.1"]).is_err());
    }

    #[test]
    fn loopback_asks_for_nothing() {
        let options = options(&[]);
        assert!(options.check().is_ok());
        assert_eq!(options.auth(), AuthMode::Open);
    }

    #[test]
    fn a_public_address_needs_tls_or_a_word_and_requires_keys() {
        let public = ["--host", "0.0.0.0"];
        assert!(options(&public).check().is_err());
        assert_eq!(options(&public).auth(), AuthMode::Required);
        let insecure = ["--host", "0.0.0.0", "--insecure"];
        assert!(options(&insecure).check().is_ok());
        let tls = ["--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k"];
        assert!(options(&tls).check().is_ok());
        let open = ["--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k", "--auth", "open"];
        assert!(options(&open).check().is_err());
    }
}
