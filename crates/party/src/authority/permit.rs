//! What a party has allowed: a session may start as that and as nothing else.

use std::sync::Arc;

use futures_util::future::{BoxFuture, Shared};
use quorate_authority::{Denial, Facts, Request, Rule};
use quorate_types::*;

/// The write of a request that was allowed.
pub(crate) type Stored = Shared<BoxFuture<'static, Result<()>>>;

/// A request that was verified and allowed.
pub(crate) struct Permit {
    pub(super) authorization: Arc<Authorization>,
    pub(super) request: Request,
    /// `None` where it was on the disk before.
    pub(super) stored: Option<Stored>,
}

impl Permit {
    /// The write that must have ended before anything of a result leaves.
    pub(crate) fn stored(&self) -> Option<Stored> {
        self.stored.clone()
    }

    /// Compares the session that starts with what was allowed. The signature was checked then: the
    /// bytes must be the same.
    pub(super) fn check(
        &self,
        view: &SessionView,
        held: Option<&KeyEpoch>,
        identities: &[[u8; 32]],
        now: Timestamp,
    ) -> Result<(), Denial> {
        let same = view.authorization.as_deref().is_some_and(|shown| {
            let allowed = &self.authorization;
            shown.request == allowed.request
                && shown.initiator == allowed.initiator
                && shown.signature == allowed.signature
        });
        if !same {
            let why = "the session starts with another request than this party has allowed";
            return Err(Denial::new(Rule::Signature, why));
        }
        self.request.check_time(now)?;
        let shown = identities.iter().map(|identity| Some(*identity));
        let participants = view.parties().zip(shown).collect();
        self.request.fits(&Facts { ceremony: &view.ceremony, held, participants })
    }
}
