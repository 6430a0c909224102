//! Tickets: what a browser shows at a WebSocket's handshake, where it can send no header.
//!
//! A caller fetches one with its credential; the next handshake that shows it is that caller's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use quorate_app::Clock;
use quorate_front_rest::{Lapse, Ticket, Tickets};
use quorate_types::{Caller, Error, ErrorCode, Result, Secret};
use sha2::{Digest as _, Sha256};

/// How long a ticket serves: a page opens its socket at once.
const LIFE: Duration = Duration::from_secs(30);
/// Tickets of one caller that have not been used: a page opens a few sockets.
const OF_A_CALLER: usize = 64;
/// Unused tickets in all, about 200 bytes each.
const IN_ALL: usize = 10_000;

/// Whose a ticket is, how long that caller's credential is good, and when it was made.
struct Unused {
    caller: Caller,
    lapse: Lapse,
    made: Duration,
}

/// The unused tickets of this process.
pub(crate) struct TicketDesk {
    /// By the ticket's SHA-256, so that looking one up tells nothing of the others.
    unused: Mutex<HashMap<[u8; 32], Unused>>,
    clock: Arc<dyn Clock>,
}

impl TicketDesk {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { unused: Mutex::default(), clock }
    }

    /// Whose ticket this is. It serves no second time.
    pub(crate) fn redeem(&self, ticket: &str) -> Result<(Caller, Lapse)> {
        let digest: [u8; 32] = Sha256::digest(ticket).into();
        let taken = self.unused.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let now = self.clock.monotonic();
        match taken {
            Some(Unused { caller, lapse, made }) if now.saturating_sub(made) <= LIFE => {
                Ok((caller, lapse))
            }
            _ => Err(Error::new(
                ErrorCode::Unauthorized,
                "this ticket is unknown, used, or older than 30 s; fetch another with POST \
                 /api/v1/tickets",
            )),
        }
    }
}

impl Tickets for TicketDesk {
    fn issue(&self, caller: &Caller, lapse: Lapse) -> Result<Ticket> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| Error::internal())?;
        let ticket = hex::encode(bytes);
        let digest = Sha256::digest(&ticket).into();
        let now = self.clock.monotonic();
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.retain(|_, ticket| now.saturating_sub(ticket.made) <= LIFE);
        let own = unused.values().filter(|ticket| ticket.caller == *caller).count();
        if own >= OF_A_CALLER || unused.len() >= IN_ALL {
            let message = "too many tickets are unused; use them, or wait until they lapse";
            return Err(Error::new(ErrorCode::RateLimited, message));
        }
        unused.insert(digest, Unused { caller: caller.clone(), lapse, made: now });
        Ok(Ticket { ticket: Secret::new(ticket), seconds: LIFE.as_secs() })
    }
}

/// Takes the parameter `ticket` out of a query: the ticket, and the address without it.
pub(crate) fn split_ticket(uri: &Uri) -> Option<(String, Uri)> {
    let query = uri.query()?;
    let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket="))?.to_owned();
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("ticket=")).collect();
    let target = match rest.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), rest.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Some((ticket, Uri::from_parts(parts).ok()?))
}

#[cfg(test)]
mod tests {
    use quorate_app::ManualClock;
    use quorate_types::Timestamp;

    use super::*;

    fn desk() -> (TicketDesk, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        (TicketDesk::new(clock.clone()), clock)
    }

    fn party(name: &str) -> Caller {
        Caller::Party(name.parse().unwrap())
    }

    #[test]
    fn a_ticket_serves_its_caller_once_within_30_s() {
        let (desk, clock) = desk();
        let ticket = desk.issue(&party("p"), Lapse::default()).unwrap().ticket;
        let late = desk.issue(&party("p"), Lapse::default()).unwrap().ticket;
        clock.advance(30_000);
        assert_eq!(desk.redeem(ticket.expose()).unwrap().0, party("p"));
        assert_eq!(desk.redeem(ticket.expose()).err().unwrap().code, ErrorCode::Unauthorized);
        clock.advance(1);
        assert!(desk.redeem(late.expose()).is_err() && desk.redeem("").is_err());
    }

    #[test]
    fn one_caller_cannot_hoard_tickets() {
        let (desk, clock) = desk();
        for _ in 0..OF_A_CALLER {
            desk.issue(&party("p"), Lapse::default()).unwrap();
        }
        assert_eq!(
            desk.issue(&party("p"), Lapse::default()).err().unwrap().code,
            ErrorCode::RateLimited
        );
        assert!(desk.issue(&party("q"), Lapse::default()).is_ok());
        clock.advance(30_001);
        assert!(desk.issue(&party("p"), Lapse::default()).is_ok(), "lapsed ones count no more");
    }

    #[test]
    fn a_ticket_leaves_the_rest_of_the_query() {
        let split = |uri: &str| split_ticket(&uri.parse().unwrap());
        assert!(split("/a?x=1").is_none() && split("/a").is_none());
        for (uri, rest) in [
            ("/a?ticket=t", "/a"),
            ("/a?x=1&ticket=t", "/a?x=1"),
            ("/a?ticket=t&x=1&y=a%20b", "/a?x=1&y=a%20b"),
            ("http://h:1/a?ticket=t", "http://h:1/a"),
        ] {
            assert_eq!(split(uri).unwrap(), ("t".to_owned(), rest.parse().unwrap()), "{uri}");
        }
    }
}
