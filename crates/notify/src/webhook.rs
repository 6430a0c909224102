//! Webhooks of creators: how a session has ended, as signed JSON.
//!
//! `Quorate-Signature: t=SECONDS,v1=HEX` is HMAC-SHA256 over `SECONDS.BODY` under the webhook's
//! secret. A receiver refuses what is older than five minutes, and knows by `Quorate-Delivery` what
//! comes twice.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, header};
use quorate_ports::{Delivery, Undelivered};
use quorate_types::*;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::http::{Reach, Target, Trust, tell};

/// The version of the body.
const VERSION: u32 = 1;

/// One webhook of one tenant.
pub(crate) struct Webhook {
    pub(crate) target: Target,
    pub(crate) reach: Reach,
    pub(crate) trust: Trust,
    pub(crate) secret: Secret<String>,
}

impl Webhook {
    /// 2xx: it has it. 410: it wants it no more. Anything else, redirects too: later.
    pub(crate) async fn send(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        let body = body(delivery).to_string().into_bytes();
        let signature = signature(&self.secret, delivery.at.0.div_euclid(1000), &body);
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (HeaderName::from_static("quorate-signature"), signature),
            (HeaderName::from_static("quorate-delivery"), delivery.notification.id.to_string()),
            (HeaderName::from_static("quorate-attempt"), delivery.attempt.to_string()),
            (HeaderName::from_static("quorate-event"), delivery.notification.step.name().into()),
        ];
        let header = |(name, value): (HeaderName, String)| {
            HeaderValue::try_from(value).ok().map(|value| (name, value))
        };
        let headers = headers.into_iter().filter_map(header);
        let status = tell(&self.target, self.reach, &self.trust, headers, body).await;
        match status.map_err(Undelivered::Later)? {
            200..=299 => Ok(()),
            410 => Err(Undelivered::Never("the webhook answered with status 410".into())),
            status => Err(Undelivered::Later(format!("the webhook answered with status {status}"))),
        }
    }
}

fn signature(secret: &Secret<String>, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// What a session has made, for whoever had it made: never what was signed.
fn body(delivery: &Delivery) -> Value {
    let Delivery { notification, session, .. } = delivery;
    let mut body = json!({
        "version": VERSION,
        "delivery_id": notification.id.to_string(),
        "event": notification.step.name(),
        "session_id": session.session_id.to_string(),
        "session_type": session.ceremony.kind().name(),
        "scheme": session.ceremony.scheme().name(),
        "status": session.status.name(),
        "key_id": session.key_id().map(|key| key.to_string()),
        "created_at": session.created_at.0,
    });
    match &session.outcome {
        Some(Outcome::Signature(signature)) => {
            body["signature"] = hex::encode(signature.bytes()).into();
            body["recovery_id"] = signature.recovery_id().into();
        }
        Some(Outcome::PublicKey(key)) => body["public_key"] = hex::encode(&key.0).into(),
        None => {}
    }
    if let Some(failure) = &session.failure {
        let parties: Vec<_> = failure.parties.iter().map(PartyId::as_str).collect();
        body["failure"] = json!({ "reason": failure.reason.name(), "parties": parties });
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::delivery;

    #[test]
    fn a_signature_is_over_the_time_and_the_body() {
        // By openssl: printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec
        let made = signature(&Secret::new("whsec".to_owned()), 1_700_000_000, b"{}");
        assert_eq!(made, format!("t=1700000000,v1={}", GOLDEN));
    }

    const GOLDEN: &str = "7d44587dddbaf4c7f70fef20f48cd594834ffea1641e3ac227b84408298738af";

    #[test]
    fn a_body_has_the_result_and_neither_digest_nor_token() {
        let mut delivery =
            delivery(NotificationStep::SessionCompleted, Medium::Webhook, "settlement");
        delivery.session.status = SessionStatus::Completed;
        let signature = Signature::Ecdsa { rs: [0xab; 64], recovery_id: 1 };
        delivery.session.outcome = Some(Outcome::Signature(signature));
        let body = body(&delivery);
        assert_eq!(body["signature"], "ab".repeat(64));
        assert_eq!((&body["recovery_id"], &body["status"]), (&json!(1), &json!("completed")));
        assert!(!body.to_string().contains(&"d1".repeat(32)) && body["failure"].is_null());
    }
}
