//! Signed requests and approvals as JSON.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::{Base64Text, SignatureText};

/// An approver's signature over a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalJson {
    /// The approver's public key: `ed25519:` or `p256:` (compressed) and hex digits.
    #[schema(value_type = String)]
    pub approver: AuthorityKey,
    /// Over `quorate/approval/v1` and the SHA-256 of the request: R ‖ S or r ‖ s, 128 hex digits.
    pub signature: SignatureText,
}

impl From<Approval> for ApprovalJson {
    fn from(approval: Approval) -> Self {
        let signature = SignatureText(approval.signature.0.to_vec());
        Self { approver: approval.approver, signature }
    }
}

impl TryFrom<ApprovalJson> for Approval {
    type Error = Error;

    fn try_from(json: ApprovalJson) -> Result<Self> {
        let signature = AuthoritySignature::read(&json.signature.0)?;
        Ok(Self { approver: json.approver, signature })
    }
}

/// A request signed by its initiator, as `quorate request sign` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationJson {
    /// The request in its canonical encoding, at most 8 KiB, in base64.
    pub request: Base64Text,
    /// The initiator's public key: `ed25519:` or `p256:` (compressed) and hex digits.
    #[schema(value_type = String)]
    pub initiator: AuthorityKey,
    /// The initiator's signature over the request's bytes: R ‖ S or r ‖ s, 128 hex digits.
    pub signature: SignatureText,
    /// Approvals so far, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalJson>,
}

impl From<Authorization> for AuthorizationJson {
    fn from(authorization: Authorization) -> Self {
        Self {
            request: Base64Text(authorization.request),
            initiator: authorization.initiator,
            signature: SignatureText(authorization.signature.0.to_vec()),
            approvals: authorization.approvals.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<AuthorizationJson> for Authorization {
    type Error = Error;

    fn try_from(json: AuthorizationJson) -> Result<Self> {
        let authorization = Self {
            request: json.request.0,
            initiator: json.initiator,
            signature: AuthoritySignature::read(&json.signature.0)?,
            approvals: json.approvals.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        };
        authorization.check_size()?;
        Ok(authorization)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with an approval, signed by nobody.
    pub(crate) fn authorization() -> Authorization {
        let key: AuthorityKey = format!("ed25519:{}", "ab".repeat(32)).parse().unwrap();
        let signature = AuthoritySignature([7; 64]);
        Authorization {
            request: b"quorate/request/v1".as_slice().into(),
            initiator: key.clone(),
            signature,
            approvals: vec![Approval { approver: key, signature }],
        }
    }

    #[test]
    fn an_authorization_survives_its_json_and_is_bounded() {
        let text = serde_json::to_string(&AuthorizationJson::from(authorization())).unwrap();
        let json: AuthorizationJson = serde_json::from_str(&text).unwrap();
        assert_eq!(Authorization::try_from(json).unwrap(), authorization());
        let mut long = authorization();
        long.request = vec![0; MAX_REQUEST + 1].into();
        assert!(Authorization::try_from(AuthorizationJson::from(long)).is_err());
        let mut many = authorization();
        many.approvals = vec![many.approvals[0].clone(); MAX_APPROVALS + 1];
        let error = Authorization::try_from(AuthorizationJson::from(many)).unwrap_err();
        assert!(error.details.fields.contains_key("approvals"), "{error}");
    }
}
