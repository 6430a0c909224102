//! The link by which a party takes part in a session: `…/s/SESSION#TOKEN`.

use std::str::FromStr;

use quorate_types::{Error, JoinToken, Secret, SessionId};

/// What a link says. Where it leads to is not asked: the server is given by its options.
#[derive(Clone)]
pub(super) struct SessionLink {
    pub(super) session: SessionId,
    pub(super) token: JoinToken,
}

impl FromStr for SessionLink {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let form = || Error::invalid("a link of a session ends with /s/SESSION#TOKEN; quote it");
        let (path, token) = text.split_once('#').ok_or_else(form)?;
        let session = path.rsplit('/').next().unwrap_or(path).parse().map_err(|_| form())?;
        if token.is_empty() {
            return Err(form());
        }
        Ok(Self { session, token: Secret::new(token.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_wherever_it_leads_to() {
        let id = "550e8400-e29b-41d4-a716-446655440000";
        for start in ["https://sign.example/s/", "http://127.0.0.1:1/a/s/", ""] {
            let link: SessionLink = format!("{start}{id}#tok-en_1").parse().unwrap();
            assert_eq!(
                (link.session.to_string().as_str(), link.token.expose().as_str()),
                (id, "tok-en_1")
            );
        }
        for wrong in ["", id, &format!("{id}#"), "https://x/s/nope#t"] {
            assert!(wrong.parse::<SessionLink>().is_err(), "{wrong}");
        }
    }
}
