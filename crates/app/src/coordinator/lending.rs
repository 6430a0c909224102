//! Shares that users lend delegates: taken in with a session, shown to the delegate, gone at its end.

use quorate_core::budget::Over;
use quorate_types::*;

/// Bytes of lent shares of all open sessions: 50 to 500 kB each.
pub(super) const IN_ALL: usize = 256 << 20;
/// Seconds after which one that has too many may try again.
const RETRY_SECONDS: u32 = 5;

fn refused<T>(field: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::invalid_field(field, problem))
}

/// Gives the delegate to whom a share is lent its user's seat among the participants of a request.
///
/// # Errors
/// `invalid_request` naming what does not fit the share, `message_too_large`.
pub(super) fn seat(request: &mut CreateSession, ceremony: &Ceremony) -> Result<()> {
    let CreateSession { participants, authorization, lent, .. } = request;
    let Some(LentShare { delegate, holder_index, package }) = lent else {
        let delegated = participants.iter().any(|one| one.on_behalf_of.is_some());
        return match ceremony {
            Ceremony::Sign { .. } if delegated => {
                let why = "a delegate signs with the share that its user lends it: give \
                           delegate_user_share";
                refused("delegate_user_share", why)
            }
            _ => Ok(()),
        };
    };
    let Ceremony::Sign { key, .. } = ceremony else {
        return refused(
            "delegate_user_share",
            "a share is lent to sign with, and for nothing else",
        );
    };
    if authorization.is_none() {
        let why =
            "a share is lent for one request that an initiator has signed: give authorization";
        return refused("authorization", why);
    }
    if package.is_empty() {
        return refused("encrypted_share", "encrypted_share is missing");
    }
    if package.len() > MAX_PACKAGE {
        let problem = format!("encrypted_share is at most {MAX_PACKAGE} bytes");
        return Err(Error::new(ErrorCode::MessageTooLarge, problem));
    }
    let Some(user) = key.holders.get(usize::from(holder_index.0)) else {
        let problem = format!("key {} has no holder at place {}", key.key_id, holder_index.0);
        return refused("party_index", problem);
    };
    let of = OnBehalfOf { user_id: user.clone(), seal_key: None };
    match participants.iter_mut().find(|one| one.party_id == *delegate) {
        None => participants.insert(
            0,
            NewParticipant {
                party_id: delegate.clone(),
                device: DeviceInfo::default(),
                on_behalf_of: Some(of),
            },
        ),
        Some(seat) => {
            if seat.on_behalf_of.as_ref().is_some_and(|said| said.user_id != of.user_id) {
                let problem = format!("the share at place {} is that of {user}", holder_index.0);
                return refused("user_id", problem);
            }
            seat.on_behalf_of.get_or_insert(of);
        }
    }
    Ok(())
}

/// The refusal of a share for which there is no room.
pub(super) fn too_many(over: Over) -> Error {
    let whose = match over {
        Over::Whole => "too many shares are lent in open sessions",
        Over::Share => "this tenant lends as many shares in open sessions as it may",
    };
    Error::rate_limited(format!("{whose}; close some, or wait for some to end"), RETRY_SECONDS)
}
