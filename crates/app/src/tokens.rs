//! Join tokens: session id ‖ HMAC-SHA256(server key, session id ‖ party id), url-safe base64.
//!
//! They are recomputed when a party must be told its token again, so that neither the database nor
//! a dump of the session holds one; the session keeps their SHA-256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use quorate_types::{Error, ErrorCode, FetchToken, JoinToken, PartyId, Secret, SessionId};
use sha2::{Digest as _, Sha256};

const DOMAIN: &[u8] = b"quorate/join-token/v1";
const FETCH_DOMAIN: &[u8] = b"quorate/fetch-token/v1";

/// Makes and reads join tokens.
pub struct JoinTokens {
    key: Secret<[u8; 32]>,
}

impl JoinTokens {
    /// A join_tokens with the server's own key, which must survive restarts.
    pub fn new(key: Secret<[u8; 32]>) -> Self {
        Self { key }
    }

    /// The token with which `party` joins `session`.
    pub fn token(&self, session: SessionId, party: &PartyId) -> JoinToken {
        self.made(DOMAIN, session, party)
    }

    /// The token with which the user fetches what `party` has made for it in `session`.
    pub fn fetch_token(&self, session: SessionId, party: &PartyId) -> FetchToken {
        self.made(FETCH_DOMAIN, session, party)
    }

    fn made(&self, domain: &[u8], session: SessionId, party: &PartyId) -> Secret<String> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.key.expose())
            .expect("HMAC takes keys of any length");
        mac.update(domain);
        mac.update(session.0.as_bytes());
        mac.update(party.as_str().as_bytes());
        let mut bytes = session.0.as_bytes().to_vec();
        bytes.extend_from_slice(&mac.finalize().into_bytes());
        Secret::new(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The hash under which a session knows a token.
    pub fn hash(token: &JoinToken) -> [u8; 32] {
        Sha256::digest(token.expose().as_bytes()).into()
    }

    /// The session a token belongs to. Says nothing about whether the token is genuine.
    pub fn session_of(token: &JoinToken) -> Result<SessionId, Error> {
        let unknown = || Error::new(ErrorCode::Unauthorized, "this join token is not one of ours");
        let bytes = URL_SAFE_NO_PAD.decode(token.expose()).map_err(|_| unknown())?;
        let id: [u8; 16] = bytes
            .get(..16)
            .filter(|_| bytes.len() == 48)
            .and_then(|id| id.try_into().ok())
            .ok_or_else(unknown)?;
        Ok(SessionId(uuid::Uuid::from_bytes(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_by_party_session_and_key_and_name_their_session() {
        let join_tokens = JoinTokens::new(Secret::new([1; 32]));
        let other = JoinTokens::new(Secret::new([2; 32]));
        let (a, b) = (SessionId(uuid::Uuid::from_u128(1)), SessionId(uuid::Uuid::from_u128(2)));
        let (p, q): (PartyId, PartyId) = ("p".parse().unwrap(), "q".parse().unwrap());
        let token = join_tokens.token(a, &p);
        assert_eq!(token.expose(), join_tokens.token(a, &p).expose());
        for different in [
            join_tokens.token(a, &q),
            join_tokens.token(b, &p),
            other.token(a, &p),
            join_tokens.fetch_token(a, &p),
        ] {
            assert_ne!(JoinTokens::hash(&token), JoinTokens::hash(&different));
        }
        assert_eq!(JoinTokens::session_of(&token).unwrap(), a);
    }

    #[test]
    fn a_foreign_token_is_unauthorized() {
        for text in ["", "token-uuid-1", "AAAA", &"A".repeat(63)] {
            let error = JoinTokens::session_of(&Secret::new(text.to_owned())).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthorized);
        }
    }
}
