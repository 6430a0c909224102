//! What is signed, as the command line says it: a message and how it is hashed, or a digest.

use quorate_client::peers::MessageHash;
use quorate_types::{Error, Result, Scheme, SignInput};

use super::values::value;

/// What is signed or was signed.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct SignedArgs {
    /// The message; an ECDSA key signs its hash (--hash), an Ed25519 key the message itself
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// The message in hex
    #[arg(long, value_name = "HEX")]
    message_hex: Option<String>,
    /// The 32-byte digest in hex, for an ECDSA key
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
}

/// A digest, or a message and its hash.
#[derive(clap::Args)]
pub(crate) struct InputArgs {
    #[command(flatten)]
    signed: SignedArgs,
    /// How a message is hashed: keccak256, sha256, raw when it is the digest, or none [default: as
    /// the key's scheme signs, keccak256 or none]
    #[arg(long, value_parser = value::<MessageHash>)]
    hash: Option<MessageHash>,
}

impl InputArgs {
    /// What a key of this scheme signs of it.
    pub(crate) fn input(&self, scheme: Scheme) -> Result<SignInput> {
        let SignedArgs { message, message_hex, digest } = &self.signed;
        let given = Given { message, message_hex, digest, hash: self.hash };
        let (message, hash) = given.hashed_for(scheme)?;
        hash.input(&message)
    }
}

/// The options by which something to be signed is given, at most one of the first three.
pub(crate) struct Given<'a> {
    pub(crate) message: &'a Option<String>,
    pub(crate) message_hex: &'a Option<String>,
    pub(crate) digest: &'a Option<String>,
    pub(crate) hash: Option<MessageHash>,
}

impl Given<'_> {
    /// The bytes and how they are hashed for a key of this scheme.
    ///
    /// # Errors
    /// `invalid_request` naming the option that is missing, is not hex or does not go with the
    /// scheme.
    pub(crate) fn hashed_for(&self, scheme: Scheme) -> Result<(Vec<u8>, MessageHash)> {
        let unhex = |field: &str, text: &str| {
            hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| {
                Error::invalid_field(field, format!("--{field} takes an even number of hex digits"))
            })
        };
        let messages = quorate_schemes::signs_messages(scheme);
        let default = if messages { MessageHash::None } else { MessageHash::Keccak256 };
        let hash = self.hash.unwrap_or(default);
        let (option, bytes, hash) = match (self.message, self.message_hex, self.digest) {
            (Some(text), ..) => ("hash", text.clone().into_bytes(), hash),
            (_, Some(text), _) => ("hash", unhex("message-hex", text)?, hash),
            (_, _, Some(text)) => ("digest", unhex("digest", text)?, MessageHash::Raw),
            (None, None, None) => {
                return Err(Error::invalid("give --message, --message-hex or --digest"));
            }
        };
        let why = match (messages, hash == MessageHash::None) {
            (true, true) | (false, false) => return Ok((bytes, hash)),
            (true, false) => "the message itself: give --message or --message-hex, without --hash",
            (false, true) => "a hash: give --digest, or a --hash other than none",
        };
        Err(Error::invalid_field(option, format!("a key for {scheme} signs {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(
        scheme: Scheme,
        [message, message_hex, digest]: [Option<&str>; 3],
        hash: Option<MessageHash>,
    ) -> Result<SignInput> {
        let [message, message_hex, digest] =
            [message, message_hex, digest].map(|text| text.map(str::to_owned));
        let signed = SignedArgs { message, message_hex, digest };
        InputArgs { signed, hash }.input(scheme)
    }

    #[test]
    fn a_message_is_hashed_as_the_scheme_signs() {
        let (ecdsa, eddsa) = (Scheme::EcdsaSecp256k1, Scheme::Ed25519);
        let (text, same) = ([Some("pay"), None, None], [None, Some("0x706179"), None]);
        assert_eq!(input(ecdsa, text, None).unwrap(), input(ecdsa, same, None).unwrap());
        assert_eq!(input(eddsa, text, None).unwrap(), SignInput::Message("pay".into()));
        let sha256 = Some(MessageHash::Sha256);
        let digest = input(ecdsa, text, sha256).unwrap().digest().unwrap();
        let hex = hex::encode(digest.0);
        assert_eq!(
            input(ecdsa, [None, None, Some(&hex)], None).unwrap(),
            SignInput::Digest(digest)
        );
        let raw = Some(MessageHash::Raw);
        assert_eq!(input(ecdsa, [None, Some(&hex), None], raw).unwrap(), SignInput::Digest(digest));
    }

    #[test]
    fn what_a_scheme_does_not_sign_is_refused_by_its_option() {
        let (ecdsa, eddsa) = (Scheme::EcdsaSecp256k1, Scheme::Ed25519);
        let digest = "07".repeat(32);
        for (scheme, given, hash, option) in [
            (eddsa, [None, None, Some(&*digest)], None, "digest"),
            (eddsa, [Some("pay"), None, None], Some(MessageHash::Keccak256), "hash"),
            (ecdsa, [Some("pay"), None, None], Some(MessageHash::None), "hash"),
            (ecdsa, [None, Some("pay"), None], None, "message-hex"),
            (ecdsa, [None, None, Some("07")], None, "message"),
        ] {
            let refused = input(scheme, given, hash).unwrap_err();
            assert!(refused.details.fields.contains_key(option), "{option}: {refused:?}");
        }
    }
}
