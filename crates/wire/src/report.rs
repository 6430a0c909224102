//! What a party reports at its end.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::{PublicKeyText, SignatureText};
use crate::key::AttestationJson;
use crate::schema;

/// Why a session failed, and the parties concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureJson {
    /// The stable code of the reason.
    #[serde(default = "party_failed")]
    #[schema(schema_with = schema::failure_reason, required = false)]
    pub reason: FailureReason,
    /// Description of what happened.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub message: String,
    /// Parties that were late or are at fault.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub parties: Vec<PartyId>,
}

fn party_failed() -> FailureReason {
    FailureReason::PartyFailed
}

impl From<Failure> for FailureJson {
    fn from(failure: Failure) -> Self {
        let Failure { reason, message, parties } = failure;
        Self { reason, message, parties }
    }
}

impl From<FailureJson> for Failure {
    fn from(json: FailureJson) -> Self {
        let FailureJson { reason, message, parties } = json;
        Self { reason, message, parties }
    }
}

/// Reports a result: exactly one of `public_key`, `signature` and `failure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportJson {
    /// The id of the reporting party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Keygen: the verifying key that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// Keygen: the signatures of all holders over the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationJson>,
    /// Keygen and refresh: the epoch that was made. Default: the first, or the one after the epoch
    /// that was to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Sign: the signature, r and s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureText>,
    /// Sign: the recovery id, 0 to 3, if the party knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<u8>,
    /// The reason why the party could not finish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureJson>,
    /// The attempt that is reported, from 0.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub attempt: u32,
}

impl ReportJson {
    /// The report to the session of the path.
    ///
    /// # Errors
    /// `invalid_request` naming the member that is missing or one too many.
    pub fn into_report(self, session_id: SessionId) -> Result<Report> {
        let refused = |field, problem: &str| Err(Error::invalid_field(field, problem));
        if self.attestation.is_some() && self.public_key.is_none() {
            return refused("attestation", "attestation goes with a public_key; give both");
        }
        if self.epoch.is_some() && self.attestation.is_none() {
            return refused("epoch", "epoch goes with an attestation; give both");
        }
        if self.recovery_id.is_some() && self.signature.is_none() {
            return refused("recovery_id", "recovery_id goes with a signature; give both");
        }
        if self.recovery_id.is_some_and(|id| id > 3) {
            return refused("recovery_id", "recovery_id is 0 to 3");
        }
        let outcome = match (self.public_key, self.signature, self.failure) {
            (Some(key), None, None) => PartyOutcome::Key {
                public_key: key.0.0,
                attestation: self.attestation.map(|json| Box::new(json.into())),
                epoch: self.epoch,
            },
            (None, Some(signature), None) => {
                PartyOutcome::Signature { bytes: signature.0, recovery_id: self.recovery_id }
            }
            (None, None, Some(failure)) => PartyOutcome::Failure(failure.into()),
            (None, None, None) => {
                return refused("public_key", "give public_key, signature or failure");
            }
            (_, Some(_), _) => {
                return refused("signature", "give one of public_key, signature and failure");
            }
            _ => return refused("failure", "give one of public_key, signature and failure"),
        };
        Ok(Report { session_id, party_id: self.party_id, attempt: self.attempt, outcome })
    }
}

impl From<Report> for ReportJson {
    fn from(report: Report) -> Self {
        let mut json = Self {
            party_id: report.party_id,
            public_key: None,
            attestation: None,
            epoch: None,
            signature: None,
            recovery_id: None,
            failure: None,
            attempt: report.attempt,
        };
        match report.outcome {
            PartyOutcome::Key { public_key, attestation, epoch } => {
                json.epoch = epoch;
                json.public_key = Some(PublicKeyText(PublicKey(public_key)));
                json.attestation = attestation.map(|attestation| (*attestation).into());
            }
            PartyOutcome::Signature { mut bytes, recovery_id } => {
                let last = if bytes.len() == 65 { bytes.pop() } else { None };
                json.recovery_id = recovery_id.or(last);
                json.signature = Some(SignatureText(bytes));
            }
            PartyOutcome::Failure(failure) => json.failure = Some(failure.into()),
        }
        json
    }
}

/// Answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletedJson {
    /// `false` if the session has failed although this party reported a result.
    pub success: bool,
    /// Whether every participant has reported its result.
    pub all_completed: bool,
    /// Status of the session.
    #[schema(schema_with = schema::session_status)]
    pub status: SessionStatus,
    /// The failure, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureJson>,
}

impl CompletedJson {
    /// The answer to a report; `was_failure` says whether it was one.
    pub fn new(session: &SessionView, was_failure: bool) -> Self {
        Self {
            success: was_failure || session.status != SessionStatus::Failed,
            all_completed: session.completed_parties() == session.participants.len(),
            status: session.status,
            failure: session.failure.clone().map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn read(json: &str) -> Result<Report> {
        let session = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        parse::<ReportJson>(json.as_bytes())?.into_report(session)
    }

    #[test]
    fn documented_signing_report_is_read_with_its_bars() {
        let (r, s) = ("ab".repeat(32), "cd".repeat(32));
        let json = format!(
            r#"{{"party_id": "party_user_device", "signature": "{r}||{s}", "recovery_id": 0}}"#
        );
        let PartyOutcome::Signature { bytes, recovery_id } = read(&json).unwrap().outcome else {
            panic!("not a signature");
        };
        assert_eq!(bytes, [[0xab; 32], [0xcd; 32]].concat());
        assert_eq!(recovery_id, Some(0));
    }

    #[test]
    fn documented_keygen_report_is_read() {
        let json = format!(r#"{{"party_id":"a","public_key":"04{}"}}"#, "a1".repeat(64));
        assert!(matches!(read(&json).unwrap().outcome,
                PartyOutcome::Key { public_key, attestation: None, epoch: None } if public_key.len() == 65));
    }

    #[test]
    fn none_or_two_results_are_refused_by_name() {
        let (key, signature) = ("02".repeat(33), "ab".repeat(64));
        for (field, json) in [
            ("public_key", r#"{"party_id":"a"}"#.to_owned()),
            (
                "signature",
                format!(r#"{{"party_id":"a","public_key":"{key}","signature":"{signature}"}}"#),
            ),
            ("failure", format!(r#"{{"party_id":"a","public_key":"{key}","failure":{{}}}}"#)),
            ("epoch", format!(r#"{{"party_id":"a","public_key":"{key}","epoch":1}}"#)),
            ("recovery_id", r#"{"party_id":"a","recovery_id":1}"#.to_owned()),
            (
                "attestation",
                format!(
                    r#"{{"party_id":"a","attestation":
                        {{"execution":"{}","identities":[],"confirmations":[]}}}}"#,
                    "00".repeat(32)
                ),
            ),
            (
                "recovery_id",
                format!(r#"{{"party_id":"a","signature":"{signature}","recovery_id":4}}"#),
            ),
            ("recovery_id", r#"{"party_id":"a","recovery_id":256}"#.to_owned()),
            ("failure.reason", r#"{"party_id":"a","failure":{"reason":"bored"}}"#.to_owned()),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{json}: {error:?}");
        }
    }

    #[test]
    fn each_outcome_survives_its_json() {
        let failure = Failure {
            reason: FailureReason::PartyCheated,
            message: "m".into(),
            parties: vec!["b".parse().unwrap()],
        };
        for outcome in [
            PartyOutcome::Key { public_key: vec![2; 33], attestation: None, epoch: None },
            PartyOutcome::Key {
                public_key: vec![2; 33],
                attestation: Some(Box::new(Attestation {
                    execution: [1; 32],
                    identities: vec![[2; 32], [3; 32]],
                    confirmations: vec![4; 128],
                })),
                epoch: Some(3),
            },
            PartyOutcome::Signature { bytes: vec![1; 64], recovery_id: Some(3) },
            PartyOutcome::Failure(failure),
        ] {
            let report = Report {
                session_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
                party_id: "a".parse().unwrap(),
                attempt: 0,
                outcome: outcome.clone(),
            };
            let text = serde_json::to_string(&ReportJson::from(report)).unwrap();
            assert_eq!(read(&text).unwrap().outcome, outcome);
        }
    }

    #[test]
    fn a_result_that_made_the_session_fail_is_no_success() {
        let mut session = crate::view::tests::signed();
        assert!(CompletedJson::new(&session, false).success);
        assert!(CompletedJson::new(&session, false).all_completed);
        session.status = SessionStatus::Failed;
        assert!(!CompletedJson::new(&session, false).success);
        assert!(CompletedJson::new(&session, true).success);
    }
}
