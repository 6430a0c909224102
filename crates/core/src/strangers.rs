//! Sessions that were announced by somebody who does not belong to the installation.
//!
//! An open router carries the sessions of other coordinators too. They stay apart from those of its
//! own coordinator, which takes an id over where both use it.

use std::collections::HashSet;

use quorate_types::{Error, ErrorCode, Result, SessionId};

/// Open sessions of strangers: as many as a developer's machine runs, and no burden on others.
const MAX_OPEN: usize = 1_000;

/// Of those, the ones in which a user lends its delegate a share: up to 1 MiB each.
const MAX_LENDING: usize = 32;

/// The open sessions that strangers have announced.
#[derive(Clone, Debug, Default)]
pub struct Strangers {
    open: HashSet<SessionId>,
    lending: HashSet<SessionId>,
}

impl Strangers {
    /// Takes a stranger's announcement. `known` says that the router knows the session, `ends`
    /// that this is its last event, `lends` that it carries a share.
    ///
    /// # Errors
    /// `forbidden` for a session that the installation announced, `rate_limited` past the bound.
    pub fn admit(
        &mut self,
        session: SessionId,
        known: bool,
        ends: bool,
        lends: bool,
    ) -> Result<()> {
        let own = self.open.contains(&session);
        if known && !own {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("session {session} is announced by this installation's coordinator only"),
            ));
        }
        if ends {
            self.displace(session);
            return Ok(());
        }
        let more = lends && !self.lending.contains(&session);
        if (!own && self.open.len() >= MAX_OPEN) || (more && self.lending.len() >= MAX_LENDING) {
            let message = "too many sessions of other coordinators are open here";
            return Err(Error::new(ErrorCode::RateLimited, message));
        }
        self.open.insert(session);
        if lends {
            self.lending.insert(session);
        }
        Ok(())
    }

    /// The installation announces a session: whether a stranger used its id until now.
    pub fn displace(&mut self, session: SessionId) -> bool {
        self.lending.remove(&session);
        self.open.remove(&session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> SessionId {
        SessionId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn strangers_announce_sessions_of_their_own_only() {
        let mut strangers = Strangers::default();
        let error = strangers.admit(id(1), true, false, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        assert!(strangers.admit(id(1), true, true, false).is_err(), "nor do they end it");
        assert!(strangers.admit(id(2), false, false, false).is_ok());
        assert!(strangers.admit(id(2), true, false, false).is_ok(), "it is theirs");
        assert!(strangers.displace(id(2)) && !strangers.displace(id(2)));
        assert!(
            strangers.admit(id(2), true, false, false).is_err(),
            "it is the installation's now"
        );
    }

    #[test]
    fn strangers_sessions_are_bounded_and_end() {
        let mut strangers = Strangers::default();
        for number in 0..MAX_OPEN as u128 {
            strangers.admit(id(number), false, false, false).unwrap();
        }
        let error = strangers.admit(id(9_999), false, false, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::RateLimited);
        strangers.admit(id(0), true, true, false).unwrap();
        assert!(strangers.admit(id(9_999), false, false, false).is_ok());
        assert!(strangers.admit(id(0), true, false, false).is_err(), "an ended one stays ended");
    }

    #[test]
    fn shares_in_strangers_sessions_are_bounded() {
        let mut strangers = Strangers::default();
        for number in 0..MAX_LENDING as u128 {
            strangers.admit(id(number), false, false, true).unwrap();
            strangers.admit(id(number), true, false, true).unwrap();
        }
        let error = strangers.admit(id(9_999), false, false, true).unwrap_err();
        assert_eq!(error.code, ErrorCode::RateLimited);
        strangers.admit(id(9_999), false, false, false).unwrap();
        strangers.admit(id(0), true, true, false).unwrap();
        strangers.admit(id(9_999), true, false, true).unwrap();
    }
}
