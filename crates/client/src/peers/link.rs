//! What devices show each other, as a QR code or a line of text.
//!
//! ```text
//! quorate:device?key=ED25519.…
//! quorate:room?relay=ws%3A…&instance=…&signers=2&member=…&member=…
//! quorate:sign?relay=ws%3A…&instance=…&key=<key id>&member=…&member=…
//! ```
//!
//! A link with an instance is for one run, and for the eyes of its members only.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_types::threshold::MAX_PARTIES;
use quorate_types::{Error, KeyId, Result};
use reqwest::Url;

use super::message::InstanceId;
use super::signer::VerifyingKey;

/// Something that one device shows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLink {
    /// Who the device is.
    Device(VerifyingKey),
    /// Where a key is to be made, and with whom.
    Room {
        /// Address of the relay.
        relay: String,
        /// The run.
        instance: InstanceId,
        /// Signers needed.
        signers: u16,
        /// The holders, in their order.
        members: Vec<VerifyingKey>,
    },
    /// Where something is to be signed, and with whom.
    Sign {
        /// Address of the relay.
        relay: String,
        /// The run.
        instance: InstanceId,
        /// The key.
        key: KeyId,
        /// The signers, in their order.
        members: Vec<VerifyingKey>,
    },
}

impl fmt::Display for DeviceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Device(_) => "device",
            Self::Room { .. } => "room",
            Self::Sign { .. } => "sign",
        };
        let mut url = Url::parse(&format!("quorate:{kind}")).expect("a fixed address");
        let mut query = url.query_pairs_mut();
        let (relay, instance, members) = match self {
            Self::Device(key) => {
                query.append_pair("key", &key.to_string());
                drop(query);
                return f.write_str(url.as_str());
            }
            Self::Room { relay, instance, members, .. }
            | Self::Sign { relay, instance, members, .. } => (relay, instance, members),
        };
        query.append_pair("relay", relay);
        query.append_pair("instance", &URL_SAFE_NO_PAD.encode(instance.0));
        match self {
            Self::Room { signers, .. } => query.append_pair("signers", &signers.to_string()),
            Self::Sign { key, .. } => query.append_pair("key", &key.to_string()),
            Self::Device(_) => &mut query,
        };
        for member in members {
            query.append_pair("member", &member.to_string());
        }
        drop(query);
        f.write_str(url.as_str())
    }
}

impl FromStr for DeviceLink {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let url = Url::parse(text.trim()).ok().filter(|url| url.scheme() == "quorate");
        let url = url.ok_or_else(|| {
            Error::invalid_field("link", "a link begins with quorate:device, :room or :sign")
        })?;
        let all = |name: &str| -> Vec<String> {
            let pairs = url.query_pairs().filter(|(key, _)| key == name);
            pairs.map(|(_, value)| value.into_owned()).collect()
        };
        let one = |name: &str| {
            all(name).into_iter().next().ok_or_else(|| {
                Error::invalid_field("link", format!("the link is cut off: it has no {name}"))
            })
        };
        let members = || {
            let members: Vec<VerifyingKey> =
                all("member").iter().map(|text| text.parse()).collect::<Result<_>>()?;
            if members.len() < 2 || members.len() > usize::from(MAX_PARTIES) {
                let why = format!("a link names 2 to {MAX_PARTIES} members");
                return Err(Error::invalid_field("link", why));
            }
            Ok(members)
        };
        let instance = || {
            let bytes = URL_SAFE_NO_PAD.decode(one("instance")?).ok();
            let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
            bytes.map(InstanceId).ok_or_else(|| {
                Error::invalid_field("link", "the link is damaged: its instance is not 32 bytes")
            })
        };
        match url.path() {
            "device" => Ok(Self::Device(one("key")?.parse()?)),
            "room" => Ok(Self::Room {
                relay: one("relay")?,
                instance: instance()?,
                signers: one("signers")?.parse().map_err(|_| {
                    Error::invalid_field("link", "the link is damaged: signers is no number")
                })?,
                members: members()?,
            }),
            "sign" => Ok(Self::Sign {
                relay: one("relay")?,
                instance: instance()?,
                key: one("key")?.parse()?,
                members: members()?,
            }),
            other => Err(Error::invalid_field("link", format!("quorate:{other} is no known link"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::Secret;

    use super::*;
    use crate::peers::signer::{KeyType, MessageSigner as _, SoftwareSigner};

    fn key(seed: u8) -> VerifyingKey {
        SoftwareSigner::new(KeyType::EcdsaP256Sec1, &Secret::new([seed; 32]))
            .unwrap()
            .verifying_key()
    }

    #[test]
    fn every_link_comes_back_as_it_went() {
        let (relay, instance) = ("ws://h:1/v1/msg-relay?a=b&c".to_owned(), InstanceId([7; 32]));
        let members = vec![key(1), key(2)];
        let session: KeyId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        for link in [
            DeviceLink::Device(key(1)),
            DeviceLink::Room {
                relay: relay.clone(),
                instance,
                signers: 2,
                members: members.clone(),
            },
            DeviceLink::Sign { relay, instance, key: session, members },
        ] {
            assert_eq!(link.to_string().parse::<DeviceLink>().unwrap(), link, "{link}");
        }
    }

    #[test]
    fn what_is_no_link_is_refused_in_words() {
        let room = "quorate:room?relay=x&instance=AA&signers=2";
        for text in ["", "hello", "https://x", "quorate:other", "quorate:device", room] {
            assert!(text.parse::<DeviceLink>().is_err(), "{text}");
        }
    }
}
