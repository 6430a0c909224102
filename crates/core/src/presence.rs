//! Which parties are registered, and which are online.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::*;

/// A party without an open stream is online for so long after its last sign of life.
const ALIVE: Duration = Duration::from_secs(30);
/// Registered parties at most; a registration takes about 0.5 KiB.
const MAX_PARTIES_KNOWN: usize = 100_000;
/// Longest free text accepted in a registration, in bytes.
const MAX_TEXT: usize = 256;

#[derive(Clone, Debug)]
struct Known {
    registration: Registration,
    registered_at: Timestamp,
    last_seen_at: Timestamp,
    /// Its last sign of life in this process, on the monotonic clock.
    alive: Option<Duration>,
    streams: u32,
    /// Its last stream has closed and it has not been heard of since.
    left: bool,
}

impl Known {
    fn seen(&mut self, now: Moment) {
        self.last_seen_at = now.wall;
        self.alive = Some(now.monotonic);
        self.left = false;
    }

    fn is_online(&self, now: Moment) -> bool {
        let alive = self.alive.is_some_and(|seen| now.monotonic.saturating_sub(seen) < ALIVE);
        self.streams > 0 || (alive && !self.left)
    }
}

/// What registering led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// When the party registered first.
    pub registered_at: Timestamp,
    /// Whether there is something to write.
    pub changed: bool,
}

/// All registered parties.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    parties: BTreeMap<PartyId, Known>,
}

impl Presence {
    /// Puts back a registration found in the store.
    pub fn restore(&mut self, registration: Registration, registered_at: Timestamp) {
        let last_seen_at = registered_at;
        let (alive, streams, left) = (None, 0, false);
        let known = Known { registration, registered_at, last_seen_at, alive, streams, left };
        self.parties.insert(known.registration.party_id.clone(), known);
    }

    /// Registers a party or renews its registration. An identity key, once given, stays.
    pub fn register(&mut self, now: Moment, registration: Registration) -> Result<Registered> {
        let notification = &registration.notification;
        let texts = [
            ("version", &registration.version),
            ("notification.email", &notification.email),
            ("notification.phone", &notification.phone),
            ("notification.push_token", &notification.push_token),
        ];
        for (field, text) in texts {
            // Push tokens are the longest of these, at about 200 bytes.
            if text.len() > MAX_TEXT {
                return Err(Error::invalid_field(
                    field,
                    format!("{field} is at most {MAX_TEXT} bytes"),
                ));
            }
        }
        let full = self.parties.len() >= MAX_PARTIES_KNOWN;
        let Some(known) = self.parties.get_mut(&registration.party_id) else {
            if full {
                return Err(Error::new(ErrorCode::RateLimited, "too many parties are registered"));
            }
            let name = registration.party_id.clone();
            self.restore(registration, now.wall);
            self.heartbeat(now, &name)?;
            return Ok(Registered { registered_at: now.wall, changed: true });
        };
        let mut registration = registration;
        match (known.registration.identity, registration.identity) {
            (Some(pinned), Some(given)) if pinned != given => {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    format!(
                        "{} is registered with another identity key; use that key or another name",
                        registration.party_id
                    ),
                ));
            }
            (pinned, None) => registration.identity = pinned,
            _ => {}
        }
        let changed = known.registration != registration;
        known.registration = registration;
        known.seen(now);
        Ok(Registered { registered_at: known.registered_at, changed })
    }

    /// A sign of life.
    pub fn heartbeat(&mut self, now: Moment, party: &PartyId) -> Result<()> {
        let known = self.parties.get_mut(party).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("{party} is not registered; register it first"))
        })?;
        known.seen(now);
        Ok(())
    }

    /// A stream of the party has opened.
    pub fn connected(&mut self, now: Moment, party: &PartyId) {
        if let Some(known) = self.parties.get_mut(party) {
            known.streams += 1;
            known.seen(now);
        }
    }

    /// A stream of the party has closed. The last one takes the party offline at once.
    pub fn disconnected(&mut self, now: Moment, party: &PartyId) {
        if let Some(known) = self.parties.get_mut(party) {
            known.streams = known.streams.saturating_sub(1);
            known.last_seen_at = now.wall;
            known.left = known.streams == 0;
        }
    }

    /// Registered parties by name.
    pub fn list(&self, now: Moment, role: Option<PartyRole>, only_online: bool) -> Vec<PartyView> {
        let view = |known: &Known| PartyView {
            registration: known.registration.clone(),
            online: known.is_online(now),
            offline: false,
            registered_at: known.registered_at,
            last_seen_at: known.last_seen_at,
        };
        self.parties
            .values()
            .filter(|known| role.is_none_or(|role| role == known.registration.role))
            .map(view)
            .filter(|view| view.online || !only_online)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str, identity: Option<[u8; 32]>) -> Registration {
        Registration {
            party_id: name.parse().unwrap(),
            role: PartyRole::Persistent,
            version: "1".into(),
            notification: NotificationChannel::default(),
            identity,
        }
    }

    /// Both clocks at the same number of milliseconds.
    fn at(millis: i64) -> Moment {
        let monotonic = Duration::from_millis(millis.unsigned_abs());
        Moment { wall: Timestamp(millis), monotonic }
    }

    fn online(presence: &Presence, now: i64) -> usize {
        presence.list(at(now), None, true).len()
    }

    #[test]
    fn setting_the_clock_takes_nobody_offline_or_back() {
        const HOUR: i64 = 3_600_000;
        let mut presence = Presence::default();
        presence.register(at(0), party("p", None)).unwrap();
        let online = |wall, monotonic| {
            let now = Moment { wall: Timestamp(wall), monotonic: Duration::from_secs(monotonic) };
            presence.list(now, None, true).len()
        };
        assert_eq!((online(HOUR, 29), online(-HOUR, 29)), (1, 1));
        assert_eq!((online(HOUR, 30), online(-HOUR, 30)), (0, 0));
    }

    #[test]
    fn a_party_is_online_while_it_streams_or_has_lately_lived() {
        let mut presence = Presence::default();
        presence.register(at(0), party("p", None)).unwrap();
        let name = "p".parse().unwrap();
        assert_eq!(online(&presence, 29_999), 1);
        assert_eq!(online(&presence, 30_000), 0);
        presence.connected(at(40_000), &name);
        assert_eq!(online(&presence, 1_000_000), 1);
        presence.disconnected(at(1_000_000), &name);
        assert_eq!(online(&presence, 1_000_000), 0);
        let view = presence.list(at(1_000_000), None, false).remove(0);
        assert_eq!(view.last_seen_at, Timestamp(1_000_000), "leaving is a sign of life too");
        presence.heartbeat(at(1_000_001), &name).unwrap();
        assert_eq!(online(&presence, 1_000_001), 1);
    }

    #[test]
    fn an_identity_key_cannot_be_replaced_but_may_be_left_out() {
        let mut presence = Presence::default();
        presence.register(at(0), party("p", Some([1; 32]))).unwrap();
        let error = presence.register(at(1), party("p", Some([2; 32]))).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        let again = presence.register(at(2), party("p", None)).unwrap();
        assert_eq!(again, Registered { registered_at: Timestamp(0), changed: false });
    }

    #[test]
    fn a_heartbeat_of_a_stranger_is_not_found() {
        let error = Presence::default().heartbeat(at(0), &"p".parse().unwrap()).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    }
}
