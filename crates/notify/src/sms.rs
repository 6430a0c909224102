//! SMS through a provider that takes a form, as Twilio's messages do.

use http::{HeaderName, HeaderValue, header};
use quorate_ports::{Delivery, Undelivered};

use crate::http::{Reach, Target, Trust, tell};
use crate::outcome;
use crate::text::Message;

/// A provider of SMS.
pub(crate) struct Sms {
    pub(crate) target: Target,
    pub(crate) reach: Reach,
    pub(crate) trust: Trust,
    /// The value of `Authorization`, where the provider wants one.
    pub(crate) authorization: Option<HeaderValue>,
    /// The header that carries the delivery id.
    pub(crate) idempotency: HeaderName,
    pub(crate) from: String,
    /// What the form's fields are called: recipient, sender, text.
    pub(crate) fields: [String; 3],
}

impl Sms {
    pub(crate) async fn send(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Undelivered> {
        let [to, from, text] = &self.fields;
        let address = &delivery.notification.recipient.address;
        let form = [(to, address), (from, &self.from), (text, &message.short)]
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let id = HeaderValue::try_from(delivery.notification.id.to_string());
        let id = id.map_err(|_| Undelivered::Never("its id is no header".into()))?;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut headers = vec![(header::CONTENT_TYPE, form_type), (self.idempotency.clone(), id)];
        headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        let body = form.join("&").into_bytes();
        let status = tell(&self.target, self.reach, &self.trust, headers, body).await;
        outcome(status.map_err(Undelivered::Later)?)
    }
}

/// A text in a form: all but letters, digits and `-._*` by their bytes.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_no_byte_that_means_something_in_it() {
        assert_eq!(encoded("+1 555&a=b#ü"), "%2B1%20555%26a%3Db%23%C3%BC");
        assert_eq!(encoded("az-AZ_09.*"), "az-AZ_09.*");
    }
}
