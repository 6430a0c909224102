//! What devices show each other, as a QR code or a line of text.
//!
//! ```text
//! quorate:device?key=ED25519.…&name=bob
//! quorate:room?relay=ws%3A…&instance=…&signers=2&member=…&name=alice&member=…&name=bob
//! quorate:sign?relay=ws%3A…&instance=…&key=<key id>&member=…&member=…
//! quorate:refresh?…                                        as sign
//! ```
//!
//! Names are optional: in a room each follows its member, and counts as no proof of anything.
//! A link with an instance is for one run, and for the eyes of its members only.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_participant::devices::{InstanceId, VerifyingKey};
use quorate_types::threshold::MAX_PARTIES;
use quorate_types::{Error, KeyId, Result, Scheme};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Something that one device shows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLink {
    /// Who the device is.
    Device {
        /// The key that verifies the device's messages.
        key: VerifyingKey,
        /// What its user calls it.
        name: Option<DeviceName>,
    },
    /// Where a key is to be made, and with whom.
    Room {
        /// Address of the relay.
        relay: String,
        /// Instance id of the keygen, fresh for each room.
        instance: InstanceId,
        /// The scheme of the key.
        scheme: Scheme,
        /// Number of signers needed, *t* of the key.
        signers: u16,
        /// The holders, in their order.
        members: Vec<VerifyingKey>,
        /// What the holders are called, in the same order.
        names: Vec<Option<DeviceName>>,
    },
    /// Where something is to be signed, and with whom.
    Sign {
        /// Address of the relay.
        relay: String,
        /// Instance id of the signature, fresh for each one.
        instance: InstanceId,
        /// The id of the key that signs.
        key: KeyId,
        /// The signers, in their order.
        members: Vec<VerifyingKey>,
    },
    /// Where a key gets new shares, and with whom.
    Refresh {
        /// Address of the relay.
        relay: String,
        /// Instance id of the refresh, fresh for each one.
        instance: InstanceId,
        /// The id of the key that is refreshed.
        key: KeyId,
        /// The holders, in their order.
        members: Vec<VerifyingKey>,
    },
}

impl fmt::Display for DeviceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Device { .. } => "device",
            Self::Room { .. } => "room",
            Self::Sign { .. } => "sign",
            Self::Refresh { .. } => "refresh",
        };
        let mut url = Url::parse(&format!("quorate:{kind}")).expect("a fixed address");
        let mut query = url.query_pairs_mut();
        let (relay, instance, members) = match self {
            Self::Device { key, name } => {
                query.append_pair("key", &key.to_string());
                if let Some(name) = name {
                    query.append_pair("name", name.as_str());
                }
                drop(query);
                return f.write_str(url.as_str());
            }
            Self::Room { relay, instance, members, .. }
            | Self::Sign { relay, instance, members, .. }
            | Self::Refresh { relay, instance, members, .. } => (relay, instance, members),
        };
        query.append_pair("relay", relay);
        query.append_pair("instance", &URL_SAFE_NO_PAD.encode(instance.0));
        match self {
            Self::Room { signers, scheme, .. } => {
                query.append_pair("scheme", scheme.name());
                query.append_pair("signers", &signers.to_string())
            }
            Self::Sign { key, .. } | Self::Refresh { key, .. } => {
                query.append_pair("key", &key.to_string())
            }
            Self::Device { .. } => &mut query,
        };
        let names = match self {
            Self::Room { names, .. } => names.as_slice(),
            _ => &[],
        };
        for (at, member) in members.iter().enumerate() {
            query.append_pair("member", &member.to_string());
            if let Some(Some(name)) = names.get(at) {
                query.append_pair("name", name.as_str());
            }
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
            Error::invalid_field(
                "link",
                "a link begins with quorate:device, :room, :sign or :refresh",
            )
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
            "device" => Ok(Self::Device {
                key: one("key")?.parse()?,
                name: all("name").first().map(|name| name.parse()).transpose()?,
            }),
            "room" => Ok(Self::Room {
                relay: one("relay")?,
                instance: instance()?,
                scheme: match all("scheme").first() {
                    Some(name) => name.parse()?,
                    // Links of the first version are for ECDSA keys.
                    None => Scheme::EcdsaSecp256k1,
                },
                signers: one("signers")?.parse().map_err(|_| {
                    Error::invalid_field("link", "the link is damaged: signers is not a number")
                })?,
                members: members()?,
                names: names(&url)?,
            }),
            "sign" => Ok(Self::Sign {
                relay: one("relay")?,
                instance: instance()?,
                key: one("key")?.parse()?,
                members: members()?,
            }),
            "refresh" => Ok(Self::Refresh {
                relay: one("relay")?,
                instance: instance()?,
                key: one("key")?.parse()?,
                members: members()?,
            }),
            other => {
                Err(Error::invalid_field("link", format!("quorate:{other} is not a known link")))
            }
        }
    }
}

/// The name behind each member.
fn names(url: &Url) -> Result<Vec<Option<DeviceName>>> {
    let mut names = Vec::new();
    for (key, value) in url.query_pairs() {
        match (&*key, names.last_mut()) {
            ("member", _) => names.push(None),
            ("name", Some(last)) => *last = Some(value.parse()?),
            _ => {}
        }
    }
    Ok(names)
}

/// What a person calls a device: 1 to 40 letters, digits, spaces and `-_.'`. Nobody vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl DeviceName {
    /// Longest name, in characters.
    pub const MAX: usize = 40;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Nothing that a terminal acts on, or that turns the direction of its text.
        let printable = |c: char| c.is_alphanumeric() || " -_.'".contains(c);
        let (text, length) = (text.trim(), text.trim().chars().count());
        if (1..=Self::MAX).contains(&length) && text.chars().all(printable) {
            return Ok(Self(text.to_owned()));
        }
        let why = format!(
            "a device's name is 1 to {} letters, digits, spaces, hyphens, underscores, full stops \
             or apostrophes",
            Self::MAX
        );
        Err(Error::invalid_field("name", why))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::Secret;

    use super::*;
    use quorate_participant::devices::KeyType;

    use crate::peers::signer::{MessageSigner as _, SoftwareSigner};

    fn key(seed: u8) -> VerifyingKey {
        SoftwareSigner::new(KeyType::EcdsaP256Sec1, &Secret::new([seed; 32]))
            .unwrap()
            .verifying_key()
    }

    #[test]
    fn every_link_comes_back_as_it_went() {
        let (relay, instance) = ("ws://h:1/v1/msg-relay?a=b&c".to_owned(), InstanceId([7; 32]));
        let members = vec![key(1), key(2)];
        let bob: DeviceName = "Bob's phone".parse().unwrap();
        let session: KeyId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        for link in [
            DeviceLink::Device { key: key(1), name: None },
            DeviceLink::Device { key: key(1), name: Some(bob.clone()) },
            DeviceLink::Room {
                relay: relay.clone(),
                instance,
                scheme: Scheme::Ed25519,
                signers: 2,
                members: members.clone(),
                names: vec![None, Some(bob)],
            },
            DeviceLink::Sign {
                relay: relay.clone(),
                instance,
                key: session,
                members: members.clone(),
            },
            DeviceLink::Refresh { relay, instance, key: session, members },
        ] {
            assert_eq!(link.to_string().parse::<DeviceLink>().unwrap(), link, "{link}");
        }
    }

    #[test]
    fn a_name_holds_nothing_that_a_terminal_acts_on() {
        for text in ["bob", "Zoë", "  Bob's phone 2.0  ", &"x".repeat(40)] {
            assert!(text.parse::<DeviceName>().is_ok(), "{text}");
        }
        for text in ["", " ", "a\nb", "\u{1b}[31m", "\u{202e}bob", "<b>", &"x".repeat(41)] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
            let mut link = Url::parse(&DeviceLink::Device { key: key(1), name: None }.to_string());
            link.as_mut().unwrap().query_pairs_mut().append_pair("name", text);
            assert!(link.unwrap().as_str().parse::<DeviceLink>().is_err(), "{text}");
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
