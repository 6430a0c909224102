//! Delegated seats, and the packages that delegates hand in for their users.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::{Base64Text, PublicKeyText, decode_hex};
use crate::schema;

/// A public key to which a package is sealed, by HPKE (RFC 9180) with HKDF-SHA256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealKeyJson {
    /// `x25519`: with ChaCha20-Poly1305. `p256`: with AES-256-GCM.
    #[schema(schema_with = schema::kem)]
    pub kem: String,
    /// In hex. `x25519`: 32 bytes; `p256`: an uncompressed point of 65 bytes.
    pub key: String,
}

impl SealKeyJson {
    /// The key; `at` is this object's path, for refusals.
    ///
    /// # Errors
    /// `invalid_request` naming the member.
    pub fn into_key(self, at: &str) -> Result<PackageKey> {
        let named = |member: &str, error: Error| {
            Error::invalid_field(
                &format!("{at}{member}"),
                format!("{at}{member}: {}", error.message),
            )
        };
        let kem = self.kem.parse().map_err(|error| named("kem", error))?;
        let key = decode_hex(&self.key).map_err(|error| named("key", error))?;
        PackageKey::new(kem, key).map_err(|error| named("key", error))
    }
}

impl From<PackageKey> for SealKeyJson {
    fn from(key: PackageKey) -> Self {
        Self { kem: key.kem().name().into(), key: hex::encode(key.bytes()) }
    }
}

/// A delegate's key to which users seal what they lend it, signed by its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DelegateKeyJson {
    /// The public key to seal to.
    pub key: SealKeyJson,
    /// Of the delegate's identity over its name and the key: 64 bytes in hex.
    pub signature: String,
}

/// A [`DelegateKeyJson`] that is well formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DelegateKeyJson", into = "DelegateKeyJson")]
pub struct PublishedKey(pub DelegateKey);

impl TryFrom<DelegateKeyJson> for PublishedKey {
    type Error = Error;

    fn try_from(json: DelegateKeyJson) -> Result<Self> {
        let key = json.key.into_key("delegate_key.key.")?;
        Ok(Self(DelegateKey { key, signature: json.signature.try_into()? }))
    }
}

impl From<PublishedKey> for DelegateKeyJson {
    fn from(PublishedKey(DelegateKey { key, signature }): PublishedKey) -> Self {
        Self { key: key.into(), signature: signature.into() }
    }
}

/// A share that a user lends a delegate for one signed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LentShareJson {
    /// The delegate, which takes the user's seat.
    #[schema(value_type = String)]
    pub delegate_party_id: PartyId,
    /// The user's package in base64, sealed to the delegate's key and bound to the request: at most 1
    /// MiB.
    pub encrypted_share: Base64Text,
    /// The user's place among the holders of the key, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
}

impl From<LentShareJson> for LentShare {
    fn from(json: LentShareJson) -> Self {
        let LentShareJson { delegate_party_id, encrypted_share, party_index } = json;
        Self { delegate: delegate_party_id, holder_index: party_index, package: encrypted_share.0 }
    }
}

impl From<LentShare> for LentShareJson {
    fn from(LentShare { delegate, holder_index, package }: LentShare) -> Self {
        let encrypted_share = Base64Text(package);
        Self { delegate_party_id: delegate, encrypted_share, party_index: holder_index }
    }
}

/// The user for whom a delegate takes a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnBehalfOfJson {
    /// The user's name among the holders of the key; unique in the session.
    #[schema(value_type = String, example = "alice")]
    pub user_id: PartyId,
    /// Keygen: the user's key, to which the delegate seals its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<SealKeyJson>,
}

impl OnBehalfOfJson {
    /// The words; `at` is this object's path, for refusals.
    ///
    /// # Errors
    /// `invalid_request` naming the member.
    pub fn into_words(self, at: &str) -> Result<OnBehalfOf> {
        let key = |key: SealKeyJson| key.into_key(&format!("{at}seal_key."));
        Ok(OnBehalfOf { user_id: self.user_id, seal_key: self.seal_key.map(key).transpose()? })
    }
}

impl From<OnBehalfOf> for OnBehalfOfJson {
    fn from(OnBehalfOf { user_id, seal_key }: OnBehalfOf) -> Self {
        Self { user_id, seal_key: seal_key.map(Into::into) }
    }
}

/// Submits the package that a delegate has made for its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitShareJson {
    /// The id of the delegate.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Index of its seat, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
    /// The verifying key that was made.
    pub public_key: PublicKeyText,
    /// The user's package in base64, sealed to its `seal_key`: at most 1 MiB.
    pub encrypted_share: Base64Text,
}

impl SubmitShareJson {
    /// The submission to the session of the path.
    pub fn into_submission(self, session_id: SessionId) -> SubmitShare {
        SubmitShare {
            session_id,
            party_id: self.party_id,
            party_index: self.party_index,
            public_key: self.public_key.0.0,
            package: self.encrypted_share.0,
        }
    }
}

impl From<SubmitShare> for SubmitShareJson {
    fn from(submitted: SubmitShare) -> Self {
        let SubmitShare { session_id: _, party_id, party_index, public_key, package } = submitted;
        let public_key = PublicKeyText(PublicKey(public_key));
        Self { party_id, party_index, public_key, encrypted_share: Base64Text(package) }
    }
}

/// Answer to submitting or confirming a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareStepJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
}

/// A user's package, sealed to that user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DelegatedShareJson {
    /// The id of the keygen session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// The id of the delegate that made it.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// The user that holds the share.
    #[schema(value_type = String)]
    pub user_id: PartyId,
    /// Index of the holder's seat, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
    /// The package in base64, sealed to the user's `seal_key`.
    pub encrypted_share: Base64Text,
}

impl From<DelegatedShare> for DelegatedShareJson {
    fn from(share: DelegatedShare) -> Self {
        let DelegatedShare { session_id, party_id, user_id, party_index, package } = share;
        let encrypted_share = Base64Text(package);
        Self { session_id, party_id, user_id, party_index, encrypted_share }
    }
}

impl From<DelegatedShareJson> for DelegatedShare {
    fn from(json: DelegatedShareJson) -> Self {
        let DelegatedShareJson { session_id, party_id, user_id, party_index, encrypted_share } =
            json;
        Self { session_id, party_id, user_id, party_index, package: encrypted_share.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewParticipantJson, parse};

    fn read(json: &str) -> Result<NewParticipant> {
        parse::<NewParticipantJson>(json.as_bytes())?.into_participant("participants[1].")
    }

    fn delegated(kem: &str, key: &str) -> String {
        format!(
            r#"{{"party_id":"d","on_behalf_of":{{"user_id":"alice","seal_key":{{"kem":"{kem}","key":"{key}"}}}}}}"#
        )
    }

    #[test]
    fn a_delegated_seat_survives_its_json() {
        for (kem, length) in [("x25519", 32), ("p256", 65)] {
            let seat = read(&delegated(kem, &"04".repeat(length))).unwrap();
            assert_eq!((seat.party_id.as_str(), seat.holder().as_str()), ("d", "alice"));
            let text = serde_json::to_string(&NewParticipantJson::from(seat.clone())).unwrap();
            assert_eq!(read(&text).unwrap().on_behalf_of, seat.on_behalf_of);
        }
        let plain = read(r#"{"party_id":"d"}"#).unwrap();
        assert_eq!((plain.on_behalf_of.is_none(), plain.holder().as_str()), (true, "d"));
    }

    #[test]
    fn each_wrong_member_of_a_delegated_seat_is_named() {
        let key = "04".repeat(32);
        for (member, json) in [
            ("seal_key.kem", delegated("rsa", &key)),
            ("seal_key.key", delegated("x25519", "xy")),
            ("seal_key.key", delegated("x25519", "0404")),
            ("seal_key.key", delegated("p256", &key)),
        ] {
            let error = read(&json).unwrap_err();
            let member = format!("participants[1].on_behalf_of.{member}");
            assert!(error.details.fields.contains_key(&member), "{json}: {error:?}");
        }
        let error = read(r#"{"party_id":"d","on_behalf_of":{"user":"alice"}}"#).unwrap_err();
        assert!(error.details.fields.contains_key("on_behalf_of.user"), "{error:?}");
    }
}
