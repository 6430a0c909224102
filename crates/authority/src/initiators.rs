//! The initiators that a party knows, and whether one of them has signed.

use std::collections::BTreeMap;

use quorate_types::{AuthorityKey, Authorization, Error, Result, Timestamp};

use crate::key::Verifier;
use crate::request::{MAX_LIFETIME, Request};
use crate::rule::{Denial, Rule};

/// The initiators pinned in one party's configuration, by name.
#[derive(Default)]
pub struct Initiators(BTreeMap<String, (AuthorityKey, Verifier)>);

/// A request that a known initiator has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The initiator's name in the party's configuration.
    pub initiator: String,
    /// What it asks for.
    pub request: Request,
}

impl Initiators {
    /// Pins an initiator under a name.
    ///
    /// # Errors
    /// `invalid_request` when the name is taken by another key, the key has another name, or the
    /// key is no point of its curve.
    pub fn pin(&mut self, name: &str, key: AuthorityKey) -> Result<()> {
        let Some(verifier) = Verifier::new(&key) else {
            return Err(Error::invalid(format!(
                "initiator {name}: {key} is not a point on its curve"
            )));
        };
        if let Some((known, _)) = self.0.get(name) {
            if *known == key {
                return Ok(());
            }
            return Err(Error::invalid(format!("initiator {name} is pinned with two keys")));
        }
        if let Some((other, _)) = self.0.iter().find(|(_, (known, _))| *known == key) {
            let problem = format!("initiators {other} and {name} are pinned with the same key");
            return Err(Error::invalid(problem));
        }
        self.0.insert(name.to_owned(), (key, verifier));
        Ok(())
    }

    /// Whether nobody is known: then every request is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and keys, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AuthorityKey)> {
        self.0.iter().map(|(name, (key, _))| (name.as_str(), key))
    }

    /// Reads a request that is signed by somebody known and has not expired.
    ///
    /// # Errors
    /// By `unsigned`, `unknown_initiator`, `signature`, `malformed` or `expiry`.
    pub fn verify(
        &self,
        authorization: Option<&Authorization>,
        now: Timestamp,
    ) -> Result<Verified, Denial> {
        let Some(Authorization { request, initiator, signature, .. }) = authorization else {
            let why = "the request is not signed: an initiator of this party must sign it \
                       (--initiator-key)";
            return Err(Denial::new(Rule::Unsigned, why));
        };
        let Some((name, (_, verifier))) = self.0.iter().find(|(_, (key, _))| key == initiator)
        else {
            let why = match self.is_empty() {
                true => "this party accepts no initiators: its operator adds one with \
                         --initiator NAME=KEY"
                    .to_owned(),
                false => format!(
                    "{initiator} is not an initiator of this party: its operator adds one with \
                     --initiator NAME=KEY"
                ),
            };
            return Err(Denial::new(Rule::UnknownInitiator, why));
        };
        if !verifier.verify(request, signature) {
            let why = format!("{name} has not signed this request");
            return Err(Denial::new(Rule::Signature, why));
        }
        let request = Request::decode(request)?;
        request.check_time(now)?;
        Ok(Verified { initiator: name.clone(), request })
    }
}

impl Request {
    /// Refuses a request whose time is over, or that would have to be remembered for too long.
    ///
    /// # Errors
    /// By `expiry`.
    pub fn check_time(&self, now: Timestamp) -> Result<(), Denial> {
        if self.expires_at <= now {
            return Err(Denial::new(Rule::Expiry, "the request has expired: sign a new one"));
        }
        if self.expires_at.millis_since(now) > MAX_LIFETIME * 1_000 {
            let why = format!(
                "the request is signed for longer than {MAX_LIFETIME} seconds: sign one that \
                 expires sooner"
            );
            return Err(Denial::new(Rule::Expiry, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{AuthoritySignature, Secret};

    use super::*;
    use crate::AuthoritySecret;
    use crate::request::tests::sign;

    fn secret(seed: u8) -> AuthoritySecret {
        AuthoritySecret::from_seed(&Secret::new([seed; 32]))
    }

    fn initiators() -> Initiators {
        let mut initiators = Initiators::default();
        initiators.pin("payments", secret(1).public().clone()).unwrap();
        initiators
    }

    fn rule(authorization: Option<&Authorization>, now: i64) -> Rule {
        initiators().verify(authorization, Timestamp(now)).unwrap_err().rule
    }

    #[test]
    fn a_request_of_a_known_initiator_is_read() {
        let authorization = secret(1).authorize(&sign());
        let verified = initiators().verify(Some(&authorization), Timestamp(59_999)).unwrap();
        assert_eq!(verified, Verified { initiator: "payments".into(), request: sign() });
    }

    #[test]
    fn whatever_is_wrong_is_named_by_its_rule() {
        let good = secret(1).authorize(&sign());
        assert_eq!(rule(None, 0), Rule::Unsigned);
        assert_eq!(rule(Some(&secret(2).authorize(&sign())), 0), Rule::UnknownInitiator);
        assert_eq!(rule(Some(&good), 60_000), Rule::Expiry);
        let mut late = sign();
        late.expires_at = Timestamp(i64::MAX);
        assert_eq!(rule(Some(&secret(1).authorize(&late)), 0), Rule::Expiry);
        for at in 0..good.request.len() {
            let mut request = good.request.to_vec();
            request[at] ^= 1;
            let changed = Authorization { request: request.into(), ..good.clone() };
            assert_eq!(rule(Some(&changed), 0), Rule::Signature, "byte {at}");
        }
        for at in 0..64 {
            let mut signature = good.signature.0;
            signature[at] ^= 1;
            let signature = AuthoritySignature(signature);
            let changed = Authorization { signature, ..good.clone() };
            assert_eq!(rule(Some(&changed), 0), Rule::Signature, "byte {at}");
        }
        assert!(Initiators::default().verify(Some(&good), Timestamp(0)).is_err());
    }

    #[test]
    fn a_name_has_one_key_and_a_key_one_name() {
        let mut initiators = initiators();
        assert!(initiators.pin("payments", secret(1).public().clone()).is_ok());
        assert!(initiators.pin("payments", secret(2).public().clone()).is_err());
        assert!(initiators.pin("treasury", secret(1).public().clone()).is_err());
    }
}
