//! Values of the command line: ids, and keys by the beginning of a name that people copy.

use std::str::FromStr;

use quorate_ports::ManageSessions;
use quorate_types::*;

/// Shortest beginning by which a key is looked for, in hex digits.
const SHORTEST: usize = 4;
/// Keys per page while all are looked through.
const PAGE: u32 = 500;

/// Parses a value for clap, which wants the sentence of an error without its code.
pub(crate) fn value<T: FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| error.message)
}

/// As [`find_key`], with the key's scheme; a whole public key is left for the coordinator to find.
pub(super) async fn select_key(
    coordinator: &dyn ManageSessions,
    text: &str,
) -> Result<(KeySelector, Scheme)> {
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap_or_default();
    if let Ok((scheme, key)) = quorate_schemes::identify_public_key(&bytes) {
        return Ok((KeySelector::PublicKey(key), scheme));
    }
    let id = find_key(coordinator, text).await?;
    let found = coordinator.key(&Caller::Open, id).await.map_err(|error| match error.code {
        ErrorCode::NotFound => {
            let why = format!("key {id} does not exist; `quorate keys` lists them");
            Error::new(ErrorCode::NotFound, why).with_field("key")
        }
        _ => error,
    });
    let scheme = found?.record.scheme;
    Ok((KeySelector::Id(id), scheme))
}

/// The id of a coordinator's key by that id, its public key or its Ethereum address, or by the
/// beginning of one of them that no other key has.
pub(super) async fn find_key(coordinator: &dyn ManageSessions, text: &str) -> Result<KeyId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let wanted = Beginning::new(text, "quorate keys")?;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let Page { items, next } = coordinator.keys(&Caller::Open, before, PAGE).await?;
        found.extend(items.into_iter().filter(|key| wanted.fits(key)));
        if next.is_none() {
            return wanted.only(found).map(|key| key.key_id);
        }
        before = next;
    }
}

/// As [`find_key`], of the keys of a device.
pub(super) fn key_among(keys: Vec<KeyRecord>, text: &str) -> Result<KeyRecord> {
    let wanted = Beginning::new(text, "quorate device show")?;
    wanted.only(keys.into_iter().filter(|key| wanted.fits(key)).collect())
}

/// What a key's id, public key or address begins with.
struct Beginning<'a> {
    /// As it was written.
    text: &'a str,
    /// In lower case, without `0x`.
    digits: String,
    /// The command that lists keys.
    list: &'static str,
}

impl<'a> Beginning<'a> {
    fn new(text: &'a str, list: &'static str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix("0x").unwrap_or(&lower).to_owned();
        let plausible = digits.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !plausible || digits.len() < SHORTEST {
            let why = format!(
                "{text:?} is not the beginning of a key id, public key or Ethereum address: give at \
                 least {SHORTEST} hex digits; `{list}` lists them"
            );
            return Err(Error::invalid_field("key", why));
        }
        Ok(Self { text, digits, list })
    }

    fn fits(&self, key: &KeyRecord) -> bool {
        let begins = |name: &str| name.to_ascii_lowercase().starts_with(&self.digits);
        let compressed = quorate_schemes::compressed_public_key(key.scheme, &key.public_key);
        let address = quorate_schemes::ethereum_address(key.scheme, &key.public_key);
        begins(&key.key_id.to_string())
            || begins(&hex::encode(&key.public_key.0))
            || compressed.is_ok_and(|compressed| begins(&hex::encode(compressed)))
            || address.is_some_and(|address| begins(address.trim_start_matches("0x")))
    }

    fn only(&self, mut found: Vec<KeyRecord>) -> Result<KeyRecord> {
        let Self { text, list, .. } = self;
        match (found.pop(), found.len()) {
            (Some(key), 0) => Ok(key),
            (None, _) => {
                let why = format!("no key begins with {text}; `{list}` lists them");
                Err(Error::new(ErrorCode::NotFound, why).with_field("key"))
            }
            (Some(last), others) => {
                let why = format!(
                    "{} keys begin with {text}, among them {} and {}: give more digits",
                    others + 1,
                    last.key_id,
                    found[0].key_id
                );
                Err(Error::invalid_field("key", why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A key with this id and the generator's multiple as its point.
    fn key(id: &str, compressed: &str) -> KeyRecord {
        let mut key = quorate_testkit::key_view(id.parse().unwrap()).record;
        let point = hex::decode(compressed).unwrap();
        let point = quorate_schemes::normalize_public_key(key.scheme, &point).unwrap();
        Arc::make_mut(&mut key.key).public_key = point;
        key
    }

    fn keys() -> Vec<KeyRecord> {
        let one = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let two = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
        vec![
            key("550e8400-e29b-41d4-a716-446655440000", one),
            key("550e9400-e29b-41d4-a716-446655440000", two),
        ]
    }

    #[test]
    fn a_key_is_found_by_the_beginning_of_any_of_its_names() {
        for (text, at) in [
            ("550e8", 0),
            ("550E94", 1),
            ("550e9400-e29b-41d4-a716-446655440000", 1),
            ("0279be", 0),
            ("0479be", 0),
            ("0x7E5F45", 0),
            ("7e5f4552091a69125d5dfcb7b8c2659029395bdf", 0),
            ("0x2b5ad5c4795c026514f8317c7a215e218dccd6cf", 1),
        ] {
            let found = key_among(keys(), text).unwrap();
            assert_eq!(found.key_id, keys()[at].key_id, "{text}");
        }
    }

    #[test]
    fn a_beginning_of_no_key_or_of_several_is_refused() {
        let refused = |text| key_among(keys(), text).unwrap_err();
        assert_eq!(refused("ffff").code, ErrorCode::NotFound);
        let several = refused("550e");
        assert!(several.message.contains("2 keys begin with 550e"), "{several}");
        for text in ["550", "", "0x", "xyzw", "no key"] {
            assert!(refused(text).message.contains("is not the beginning of a key id"), "{text}");
        }
    }
}
