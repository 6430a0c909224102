//! Proxies in front of this server: which are believed, and whose requests they bring.
//!
//! Behind a proxy all clients come from one address, and would share what one address may have. A
//! trusted proxy is believed when it names the client's address in `Forwarded` or
//! `X-Forwarded-For`. From anybody else these headers mean nothing.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};
use quorate_types::{ClientAddress, Error, Result};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    fn contains(self, ip: IpAddr) -> bool {
        // Of the bits that differ, none is among the leading ones.
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid_field("trusted-proxy", format!("{text:?} {why}"));
        let unreadable = || wrong("is not a network such as 10.0.0.0/8, or an address");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| unreadable())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = length.map_or(Ok(most), |length| length.parse().map_err(|_| unreadable()))?;
        match bits {
            0 => Err(wrong("is every address: name those of the proxies alone")),
            bits if bits > most => Err(unreadable()),
            bits => Ok(Self { base, bits }),
        }
    }
}

/// The proxies that are believed.
#[derive(Clone, Debug)]
pub(crate) struct Proxies(Arc<[Network]>);

impl Proxies {
    /// Those in these networks.
    pub(crate) fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// Whether a peer is one of them.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }

    /// Whose request one with these headers is that came from `peer`: the last address on its way
    /// that is no trusted proxy.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        if !self.trusts(peer) {
            return ClientAddress::of(peer);
        }
        let named = |name: HeaderName, node: fn(&str) -> Option<IpAddr>| {
            headers.contains_key(&name).then(|| self.last_untrusted(headers, name, node))
        };
        let client = match (named(header::FORWARDED, forwarded), named(X_FORWARDED_FOR, node)) {
            // A proxy writes one of them, and may pass on the other as its client made it up.
            (Some(one), Some(other)) if one != other => None,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => None,
        };
        ClientAddress::of(client.unwrap_or(peer))
    }

    /// Reads a list from its end, where each proxy adds who called it.
    fn last_untrusted(
        &self,
        headers: &HeaderMap,
        name: HeaderName,
        node: fn(&str) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let mut client = None;
        let lines: Vec<_> = headers.get_all(name).into_iter().collect();
        for line in lines.into_iter().rev() {
            for hop in line.to_str().ok()?.rsplit(',') {
                // Before a hop that cannot be read anything may stand.
                let ip = node(hop.trim())?;
                client = Some(ip);
                if !self.trusts(ip) {
                    return client;
                }
            }
        }
        client
    }
}

/// The node of an element of `Forwarded`, such as `for="[2001:db8::1]:4711";proto=https`.
fn forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = nodes.next()?;
    node(value.trim().trim_matches('"'))
}

/// An address, with a port or without one.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    text.parse().ok().or_else(bare).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(networks: &[&str]) -> Proxies {
        let networks: Vec<_> = networks.iter().map(|text| text.parse().unwrap()).collect();
        Proxies::new(&networks)
    }

    fn client(proxies: &Proxies, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn networks_are_read_and_contain_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("192.168.0.128/25", "::ffff:192.168.0.200", "192.168.0.127"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?}");
        }
        for wrong in ["", "proxy", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "::/0"] {
            let error = wrong.parse::<Network>().unwrap_err();
            assert!(
                error.message.contains("network") || error.message.contains("every"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_its_client() {
        let trusted = proxies(&["10.0.0.0/8", "::1"]);
        let x = "x-forwarded-for";
        for (peer, lines, whose) in [
            ("203.0.113.9", &[(x, "198.51.100.1")][..], "203.0.113.9"),
            ("10.0.0.1", &[(x, "198.51.100.1")], "198.51.100.1"),
            ("::ffff:10.0.0.1", &[(x, "198.51.100.1:4711")], "198.51.100.1"),
            ("::1", &[(x, "2001:db8:1:2:3::4")], "2001:db8:1:2::"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            assert_eq!(client(&trusted, peer, lines), whose, "{peer} {lines:?}");
        }
        assert_eq!(client(&proxies(&[]), "10.0.0.1", &[(x, "198.51.100.1")]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_writes_itself_is_not_believed() {
        let trusted = proxies(&["10.0.0.0/8"]);
        let (x, f) = ("x-forwarded-for", "forwarded");
        for (lines, whose) in [
            // Each proxy adds at the end.
            (&[(x, "1.1.1.1, 198.51.100.1, 10.0.0.2")][..], "198.51.100.1"),
            (&[(x, "1.1.1.1"), (x, "198.51.100.1"), (x, "10.0.0.2")], "198.51.100.1"),
            (&[(x, "1.1.1.1, nonsense, 10.0.0.2")], "10.0.0.1"),
            (&[(x, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[(f, "for=1.1.1.1, for=198.51.100.1;proto=https")], "198.51.100.1"),
            (&[(f, r#"proto=http; For="[2001:db8::1]:80""#)], "2001:db8::"),
            (&[(f, "for=1.1.1.1, for=_hidden")], "10.0.0.1"),
            // One of them is what the proxy says; which one it is cannot be told.
            (&[(f, "for=1.1.1.1"), (x, "198.51.100.1")], "10.0.0.1"),
            (&[(f, "for=unknown"), (x, "198.51.100.1")], "10.0.0.1"),
            (&[(f, "for=198.51.100.1"), (x, "198.51.100.1")], "198.51.100.1"),
        ] {
            assert_eq!(client(&trusted, "10.0.0.1", lines), whose, "{lines:?}");
        }
    }
}
