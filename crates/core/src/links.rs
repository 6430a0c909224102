//! What each role of an installation may ask of another over their link.
//!
//! A role asks for its callers or as itself, and has no other rights: what it does not need in its
//! work, a stolen link does not give.

use quorate_types::{Caller, Error, ErrorCode, Result};

/// A role that proves that it belongs to the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// The account service: manages sessions for its callers.
    Accounts,
    /// The session coordinator: announces sessions.
    Coordinator,
    /// The message router: passes on what parties of sessions do.
    Router,
}

impl LinkRole {
    /// Every role that can prove a link.
    pub const ALL: [Self; 3] = [Self::Accounts, Self::Coordinator, Self::Router];

    /// The role's name in a link's credential.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Coordinator => "coordinator",
            Self::Router => "router",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The gRPC calls that this role makes for its callers, and those it makes as itself.
    fn rights(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Accounts => (
                &[
                    "/mpc.coordinator.v1.SessionCoordinator/CreateSession",
                    "/mpc.coordinator.v1.SessionCoordinator/GetSessionStatus",
                ],
                // It follows the keygens of accounts, also after a restart.
                &["/mpc.coordinator.v1.SessionCoordinator/GetSessionStatus"],
            ),
            Self::Coordinator => (
                // Names are chosen from those that the creator knows.
                &["/mpc.router.v1.MessageRouter/GetRegisteredParties"],
                // It tells those who are offline.
                &[
                    "/mpc.router.v1.MessageRouter/GetContacts",
                    "/mpc.router.v1.MessageRouter/PublishSessionEvent",
                    "/mpc.router.v1.MessageRouter/SubscribeSessionEvents",
                ],
            ),
            Self::Router => (
                &[
                    "/mpc.coordinator.v1.SessionCoordinator/GetSessionStatus",
                    "/mpc.coordinator.v1.SessionCoordinator/JoinSession",
                    "/mpc.coordinator.v1.SessionCoordinator/MarkPartyReady",
                    "/mpc.coordinator.v1.SessionCoordinator/ReportCompletion",
                    "/mpc.coordinator.v1.SessionCoordinator/SubmitDelegateShare",
                    "/mpc.coordinator.v1.SessionCoordinator/FetchDelegateShare",
                    "/mpc.coordinator.v1.SessionCoordinator/ConfirmDelegateShare",
                ],
                &["/mpc.coordinator.v1.SessionCoordinator/ReportProgress"],
            ),
        }
    }

    /// Refuses a call that this role does not make. `caller` is for whom it asks; `System` is the
    /// role itself.
    ///
    /// # Errors
    /// `forbidden`, naming the role and the call.
    pub fn may(self, path: &str, caller: &Caller) -> Result<()> {
        let (for_callers, as_itself) = self.rights();
        let rights = if *caller == Caller::System { as_itself } else { for_callers };
        if rights.contains(&path) {
            return Ok(());
        }
        let shown: String = path.chars().take(100).collect();
        Err(Error::new(
            ErrorCode::Forbidden,
            format!("the link of the role {} has no right to {shown}", self.name()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_asks_what_it_needs_and_for_whom() {
        let status = "/mpc.coordinator.v1.SessionCoordinator/GetSessionStatus";
        let progress = "/mpc.coordinator.v1.SessionCoordinator/ReportProgress";
        let publish = "/mpc.router.v1.MessageRouter/PublishSessionEvent";
        let (open, own) = (&Caller::Open, &Caller::System);
        assert!(LinkRole::Router.may(status, open).is_ok());
        assert!(LinkRole::Router.may(status, own).is_err(), "it reads for somebody only");
        assert!(LinkRole::Router.may(progress, own).is_ok());
        assert!(LinkRole::Router.may(progress, open).is_err());
        assert!(LinkRole::Accounts.may(status, own).is_ok());
        for role in [LinkRole::Accounts, LinkRole::Router] {
            assert!(role.may(publish, own).is_err() && role.may(publish, open).is_err());
        }
        assert!(LinkRole::Coordinator.may(publish, own).is_ok());
        for role in LinkRole::ALL {
            assert!(role.may("/api/v1/sessions", open).is_err() && role.may("", own).is_err());
            assert_eq!(LinkRole::named(role.name()), Some(role));
        }
    }
}
