//! Bytes as text: hex and base64, one type per meaning so that a parsed value is well formed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use quorate_types::{Digest, Error, PublicKey, Result};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use utoipa::ToSchema;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Reads hex digits of either case, with or without `0x`.
///
/// # Errors
/// `invalid_request` saying which rule is broken.
pub fn decode_hex(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // Before their number: a blank is no missing digit.
    if let Some(other) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
        let problem = format!("{other:?} is not a hex digit; give hex digits, with or without 0x");
        return Err(Error::invalid(problem));
    }
    hex::decode(digits).map_err(|_| {
        let count = digits.len();
        Error::invalid(format!("{count} hex digits do not make whole bytes; one is missing"))
    })
}

fn fixed<const N: usize>(text: &str, what: &str) -> Result<[u8; N]> {
    let bytes = decode_hex(text)?;
    bytes.as_slice().try_into().map_err(|_| {
        Error::invalid(format!("{what} is {N} bytes ({} hex digits), not {}", 2 * N, bytes.len()))
    })
}

/// Reads base64 in the standard or the url-safe alphabet, padded or not.
///
/// # Errors
/// `invalid_request` when it is neither.
pub fn decode_base64(text: &str) -> Result<Bytes> {
    let url_safe = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if url_safe { &URL_SAFE_BASE64 } else { &STANDARD_BASE64 };
    match engine.decode(text) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(Error::invalid(format!("not base64 ({error}); give standard base64"))),
    }
}

macro_rules! text_value {
    ($(#[$meta:meta])* $name:ident($inner:ty), $expecting:literal) => {
        #[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
        $(#[$meta])*
        pub struct $name(pub $inner);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|error: Error| E::custom(error.message))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_value!(
    /// Bytes in standard base64; url-safe and unpadded text is read as well.
    #[schema(value_type = String, content_encoding = "base64", example = "AAEC")]
    Base64Text(Bytes),
    "a string of base64"
);
text_value!(
    /// A 32-byte hash as 64 hex digits.
    #[schema(value_type = String, pattern = "^(0[xX])?[0-9a-fA-F]{64}$",
        example = "8dcd9f3511659638d5c33938ddb7fee9bb63533b94a97c7467d3fd36abbdca81")]
    DigestText(Digest),
    "a string of 64 hex digits"
);
text_value!(
    /// A 32-byte Ed25519 identity key as 64 hex digits.
    #[schema(value_type = String, pattern = "^(0[xX])?[0-9a-fA-F]{64}$")]
    IdentityText([u8; 32]),
    "a string of 64 hex digits"
);
text_value!(
    /// A public key in hex. ECDSA: 65 bytes uncompressed (`04…`) or 33 bytes compressed; Ed25519: 32
    /// bytes.
    #[schema(value_type = String,
        pattern = "^(0[xX])?(04[0-9a-fA-F]{128}|(0[23])?[0-9a-fA-F]{64})$")]
    PublicKeyText(PublicKey),
    "a string of hex digits"
);
text_value!(
    /// r and s as 128 hex digits; `||` between the two is tolerated.
    #[schema(value_type = String)]
    SignatureText(Vec<u8>),
    "a string of 128 hex digits"
);

impl FromStr for Base64Text {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        decode_base64(text).map(Self)
    }
}

impl FromStr for DigestText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fixed(text, "a message hash").map(|bytes| Self(Digest(bytes)))
    }
}

impl FromStr for IdentityText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fixed(text, "an identity key").map(Self)
    }
}

impl FromStr for PublicKeyText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = decode_hex(text)?;
        match (bytes.len(), bytes.first()) {
            (65, Some(4)) | (33, Some(2 | 3)) | (32, _) => Ok(Self(PublicKey(bytes))),
            (length, _) => Err(Error::invalid(format!(
                "{length} bytes are not a public key; give 65 bytes 04… or 33 bytes 02… or 03… \
                 (ECDSA), or 32 bytes (Ed25519)"
            ))),
        }
    }
}

impl FromStr for SignatureText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((r, s)) = text.split_once("||") else {
            return fixed::<64>(text, "a signature").map(|bytes| Self(bytes.to_vec()));
        };
        let (r, s) = (fixed::<32>(r, "r")?, fixed::<32>(s, "s")?);
        Ok(Self([r, s].concat()))
    }
}

impl fmt::Display for Base64Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64::display::Base64Display::new(&self.0, &STANDARD_BASE64).fmt(f)
    }
}

impl fmt::Display for DigestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0.0, f)
    }
}

impl fmt::Display for IdentityText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for PublicKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0.0, f)
    }
}

impl fmt::Display for SignatureText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    proptest! {
        #[test]
        fn hex_reads_both_cases_and_an_optional_prefix(bytes: Vec<u8>) {
            let text = hex::encode(&bytes);
            for given in [text.clone(), text.to_uppercase(), format!("0x{text}")] {
                prop_assert_eq!(&decode_hex(&given).unwrap(), &bytes);
            }
        }

        #[test]
        fn base64_writes_standard_and_reads_four_spellings(bytes: Vec<u8>) {
            use base64::prelude::*;
            let bytes = Bytes::from(bytes);
            let text = Base64Text(bytes.clone()).to_string();
            prop_assert_eq!(&text, &BASE64_STANDARD.encode(&bytes));
            for given in [
                text,
                BASE64_STANDARD_NO_PAD.encode(&bytes),
                BASE64_URL_SAFE.encode(&bytes),
                BASE64_URL_SAFE_NO_PAD.encode(&bytes),
            ] {
                prop_assert_eq!(decode_base64(&given).unwrap(), bytes.clone());
            }
        }

        #[test]
        fn values_survive_their_json(digest: [u8; 32], bytes: Vec<u8>, sig in prop::collection::vec(any::<u8>(), 64)) {
            let digest = DigestText(Digest(digest));
            prop_assert_eq!(&serde_json::from_str::<DigestText>(&json(&digest)).unwrap(), &digest);
            let bytes = Base64Text(bytes.into());
            prop_assert_eq!(&serde_json::from_str::<Base64Text>(&json(&bytes)).unwrap(), &bytes);
            let sig = SignatureText(sig);
            prop_assert_eq!(&serde_json::from_str::<SignatureText>(&json(&sig)).unwrap(), &sig);
        }

        #[test]
        fn signature_tolerates_the_bars_between_r_and_s(r: [u8; 32], s: [u8; 32]) {
            let plain = format!("{}{}", hex::encode(r), hex::encode(s));
            let barred = format!("{}||{}", hex::encode(r), hex::encode_upper(s));
            let parsed: SignatureText = barred.parse().unwrap();
            prop_assert_eq!(parsed.to_string(), plain);
        }

        #[test]
        fn parsers_never_panic(text: String) {
            let _ = decode_hex(&text);
            let _ = decode_base64(&text);
            let _ = text.parse::<SignatureText>();
            let _ = text.parse::<PublicKeyText>();
        }
    }

    #[test]
    fn hex_names_the_wrong_character_and_the_missing_digit() {
        assert!(decode_hex("0g").unwrap_err().message.contains("'g'"));
        assert!(decode_hex("abc").unwrap_err().message.contains("3 hex digits"));
    }

    #[test]
    fn digest_of_another_length_is_refused_with_both_lengths() {
        let message = "ab".repeat(31).parse::<DigestText>().unwrap_err().message;
        assert!(message.contains("32") && message.contains("31"), "{message}");
    }

    #[test]
    fn signature_refuses_uneven_halves_and_other_lengths() {
        let uneven = format!("{}||{}", "a".repeat(62), "b".repeat(66));
        for bad in [uneven, "ab".repeat(63), "ab".repeat(65), "||".to_owned(), String::new()] {
            assert!(bad.parse::<SignatureText>().is_err(), "{bad}");
        }
    }

    #[test]
    fn public_key_needs_the_prefix_of_its_length() {
        let good = [
            "04".to_owned() + &"00".repeat(64),
            "0x03".to_owned() + &"AA".repeat(32),
            "d7".repeat(32),
        ];
        let bad = [format!("02{}", "00".repeat(64)), format!("04{}", "00".repeat(32)), "04".into()];
        assert!(good.iter().all(|text| text.parse::<PublicKeyText>().is_ok()));
        assert!(bad.iter().all(|text| text.parse::<PublicKeyText>().is_err()));
    }

    #[test]
    fn base64_of_mixed_alphabets_is_refused() {
        assert!(decode_base64("ab-/").is_err());
        assert!(decode_base64("a b").is_err());
    }
}
