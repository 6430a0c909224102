//! Which parties are registered, and which are online.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::*;

use crate::budget::{Budget, Over};
use crate::subscriptions::Account;

/// A party without an open stream is online for so long after its last sign of life.
const ALIVE: Duration = Duration::from_secs(30);
/// Registered parties at most; a registration takes about 0.5 KiB.
const MAX_PARTIES_KNOWN: usize = 100_000;
/// A registration without an identity key is forgotten after so long without a sign of life.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// One with an identity key or a notification channel holds its name longer: a device may lie in a
/// drawer.
const FORGET_IDENTITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Silent registrations are looked for at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Seconds after which one that was refused for want of room may try again.
const RETRY_SECONDS: u32 = 60;
/// Longest free text accepted in a registration, in bytes.
const MAX_TEXT: usize = 256;

#[derive(Clone, Debug)]
struct Known {
    registration: Registration,
    registered_at: Timestamp,
    last_seen_at: Timestamp,
    /// Its last sign of life in this process, on the monotonic clock.
    alive: Option<Duration>,
    /// Who pays for it. One found in the store pays nobody's share, only the whole.
    account: Account,
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

    /// Whether somebody without a proof may renew it like this: an identity is added by the
    /// account that registered the name, and what stands beside one stays, but for the version.
    fn allows(&self, account: &Account, renewal: &Registration) -> bool {
        let held = &self.registration;
        match (held.identity, renewal.identity) {
            (None, None) => true,
            (None, Some(_)) => self.account == *account,
            _ => {
                held.role == renewal.role
                    && held.notification == renewal.notification
                    && (held.delegate_key.is_none() || held.delegate_key == renewal.delegate_key)
            }
        }
    }

    fn is_online(&self, now: Moment) -> bool {
        let alive = self.alive.is_some_and(|seen| now.monotonic.saturating_sub(seen) < ALIVE);
        self.streams > 0 || (alive && !self.left)
    }
}

/// Whether an account speaks for a party by its proof, or for the installation.
fn proves(account: &Account, party: &PartyId) -> bool {
    match account {
        Account::Role => true,
        Account::Party(own) => own == party,
        Account::Tenant(_) => false,
    }
}

/// A registered name, and whose it is.
type Name = (PartyId, NameOwner);

/// What registering led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// When the party registered first.
    pub registered_at: Timestamp,
    /// Whether there is something to write.
    pub changed: bool,
    /// Whether a name of before owners was claimed: its old row goes.
    pub claimed: bool,
}

/// All registered parties.
#[derive(Clone, Debug)]
pub struct Presence {
    parties: BTreeMap<Name, Known>,
    accounts: Budget<Account>,
    /// When silent registrations were last looked for, on the monotonic clock.
    swept: Option<Duration>,
}

impl Default for Presence {
    fn default() -> Self {
        let (parties, accounts) = (BTreeMap::new(), Budget::new(MAX_PARTIES_KNOWN));
        Self { parties, accounts, swept: None }
    }
}

impl Presence {
    /// Puts back a registration found in the store.
    pub fn restore(
        &mut self,
        owner: NameOwner,
        registration: Registration,
        registered_at: Timestamp,
    ) {
        self.insert(owner, Account::Role, registration, registered_at);
    }

    fn insert(
        &mut self,
        owner: NameOwner,
        account: Account,
        registration: Registration,
        registered_at: Timestamp,
    ) {
        let last_seen_at = registered_at;
        let (alive, streams, left) = (None, 0, false);
        self.accounts.add(&account, 1);
        let known =
            Known { registration, registered_at, last_seen_at, alive, account, streams, left };
        self.parties.insert((known.registration.party_id.clone(), owner), known);
    }

    /// Forgets the parties that have been silent for too long: their names. Looks at all of them
    /// at most every ten minutes.
    pub fn forget_silent(&mut self, now: Moment) -> Vec<(PartyId, NameOwner)> {
        // Nobody has been heard of before the start: silence is counted from there.
        let swept = *self.swept.get_or_insert(now.monotonic);
        if now.monotonic.saturating_sub(swept) < SWEEP_EVERY {
            return Vec::new();
        }
        self.swept = Some(now.monotonic);
        let silent = |known: &Known| {
            let Registration { identity, notification, .. } = &known.registration;
            let lasting = identity.is_some() || !notification.is_empty();
            let limit = if lasting { FORGET_IDENTITY } else { FORGET };
            let quiet = now.monotonic.saturating_sub(known.alive.unwrap_or_default());
            known.streams == 0 && quiet >= limit
        };
        let gone = self.parties.iter().filter(|(_, known)| silent(known));
        let gone: Vec<_> = gone.map(|(party, _)| party.clone()).collect();
        for party in &gone {
            if let Some(known) = self.parties.remove(party) {
                self.accounts.give_back(&known.account, 1);
            }
        }
        gone
    }

    /// Forgets a party that registered for one session, which has ended; answers with whether it
    /// had. One with a notification channel wants to be told of the next, too, and stays.
    pub fn end_temporary(&mut self, party: &PartyId, owner: &NameOwner) -> bool {
        let name = (party.clone(), owner.clone());
        let temporary = |known: &Known| {
            let Registration { role, notification, .. } = &known.registration;
            *role == PartyRole::Temporary && notification.is_empty()
        };
        if !self.parties.get(&name).is_some_and(temporary) {
            return false;
        }
        if let Some(known) = self.parties.remove(&name) {
            self.accounts.give_back(&known.account, 1);
        }
        true
    }

    fn check_room(&self, account: &Account) -> Result<()> {
        let problem = match self.accounts.check(account, 1) {
            Ok(()) => return Ok(()),
            // The roles' own parties are few, and without them nothing works.
            Err(Over::Share) if *account == Account::Role => return Ok(()),
            Err(Over::Share) => "this tenant has as many parties registered as it may",
            Err(Over::Whole) => "too many parties are registered",
        };
        let message = format!("{problem}; those that are silent are forgotten after a day");
        Err(Error::rate_limited(message, RETRY_SECONDS))
    }

    /// Registers a party under a name of `owner` for an account, or renews its registration. An
    /// identity key, once given, stays.
    ///
    /// # Errors
    /// `invalid_request` for a text that is too long, `forbidden` for another identity key,
    /// `rate_limited` when the account or all have as many as they may.
    pub fn register(
        &mut self,
        now: Moment,
        owner: NameOwner,
        account: Account,
        registration: Registration,
    ) -> Result<Registered> {
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
        let name = (registration.party_id.clone(), owner.clone());
        let old = (registration.party_id.clone(), NameOwner::Unclaimed);
        let claimed = !self.parties.contains_key(&name) && self.parties.contains_key(&old);
        let Some(known) = self.parties.get_mut(if claimed { &old } else { &name }) else {
            self.check_room(&account)?;
            let party = registration.party_id.clone();
            self.insert(owner.clone(), account, registration, now.wall);
            self.heartbeat(now, &owner, &party)?;
            return Ok(Registered { registered_at: now.wall, changed: true, claimed });
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
        if !proves(&account, &registration.party_id) && !known.allows(&account, &registration) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!(
                    "{} is registered already: only its own proof of identity changes that; start \
                     the server with --trust for it, or use another name",
                    registration.party_id
                ),
            ));
        }
        let changed = known.registration != registration;
        known.registration = registration;
        known.seen(now);
        let registered_at = known.registered_at;
        if claimed && let Some(known) = self.parties.remove(&old) {
            self.parties.insert(name, known);
        }
        Ok(Registered { registered_at, changed: changed || claimed, claimed })
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `not_found` where the owner has registered no such name.
    pub fn heartbeat(&mut self, now: Moment, owner: &NameOwner, party: &PartyId) -> Result<()> {
        let known = self.parties.get_mut(&(party.clone(), owner.clone())).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("{party} is not registered; register it first"))
        })?;
        known.seen(now);
        Ok(())
    }

    /// A stream of the party has opened.
    pub fn connected(&mut self, now: Moment, owner: &NameOwner, party: &PartyId) {
        if let Some(known) = self.parties.get_mut(&(party.clone(), owner.clone())) {
            known.streams += 1;
            known.seen(now);
        }
    }

    /// A stream of the party has closed. The last one takes the party offline at once.
    pub fn disconnected(&mut self, now: Moment, owner: &NameOwner, party: &PartyId) {
        if let Some(known) = self.parties.get_mut(&(party.clone(), owner.clone())) {
            known.streams = known.streams.saturating_sub(1);
            known.last_seen_at = now.wall;
            known.left = known.streams == 0;
        }
    }

    /// How those of these parties are reached that `tenant`, the operator or nobody owns.
    pub fn contacts(&self, tenant: &Tenant, parties: &[PartyId]) -> Vec<Contact> {
        let owners = [NameOwner::Tenant(tenant.clone()), NameOwner::Operator, NameOwner::Unclaimed];
        let contact = |party_id: &PartyId| {
            let known = owners.iter().find_map(|owner| {
                let known = self.parties.get(&(party_id.clone(), owner.clone()))?;
                Some(&known.registration.notification).filter(|channel| !channel.is_empty())
            });
            Some(Contact { party_id: party_id.clone(), channel: known?.clone() })
        };
        parties.iter().filter_map(contact).collect()
    }

    /// Registered parties whose names a caller may know, by name.
    pub fn list(
        &self,
        now: Moment,
        knows: impl Fn(&NameOwner) -> bool,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Vec<PartyView> {
        let view = |known: &Known| PartyView {
            registration: known.registration.clone(),
            online: known.is_online(now),
            offline: false,
            registered_at: known.registered_at,
            last_seen_at: known.last_seen_at,
        };
        self.parties
            .iter()
            .filter(|((_, owner), _)| knows(owner))
            .map(|(_, known)| known)
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
            delegate_key: None,
        }
    }

    fn tenant(name: &str) -> Account {
        Account::Tenant(name.parse().unwrap())
    }

    /// Both clocks at the same number of milliseconds.
    fn at(millis: i64) -> Moment {
        let monotonic = Duration::from_millis(millis.unsigned_abs());
        Moment { wall: Timestamp(millis), monotonic }
    }

    /// Of the tenant `name`.
    fn of(name: &str) -> NameOwner {
        NameOwner::Tenant(name.parse().unwrap())
    }

    fn online(presence: &Presence, now: i64) -> usize {
        presence.list(at(now), |_| true, None, true).len()
    }

    #[test]
    fn setting_the_clock_takes_nobody_offline_or_back() {
        const HOUR: i64 = 3_600_000;
        let mut presence = Presence::default();
        presence.register(at(0), of("a"), tenant("a"), party("p", None)).unwrap();
        let online = |wall, monotonic| {
            let now = Moment { wall: Timestamp(wall), monotonic: Duration::from_secs(monotonic) };
            presence.list(now, |_| true, None, true).len()
        };
        assert_eq!((online(HOUR, 29), online(-HOUR, 29)), (1, 1));
        assert_eq!((online(HOUR, 30), online(-HOUR, 30)), (0, 0));
    }

    #[test]
    fn a_party_is_online_while_it_streams_or_has_lately_lived() {
        let mut presence = Presence::default();
        presence.register(at(0), of("a"), tenant("a"), party("p", None)).unwrap();
        let name = "p".parse().unwrap();
        assert_eq!(online(&presence, 29_999), 1);
        assert_eq!(online(&presence, 30_000), 0);
        presence.connected(at(40_000), &of("a"), &name);
        assert_eq!(online(&presence, 1_000_000), 1);
        presence.disconnected(at(1_000_000), &of("a"), &name);
        assert_eq!(online(&presence, 1_000_000), 0);
        let view = presence.list(at(1_000_000), |_| true, None, false).remove(0);
        assert_eq!(view.last_seen_at, Timestamp(1_000_000), "leaving is a sign of life too");
        presence.heartbeat(at(1_000_001), &of("a"), &name).unwrap();
        assert_eq!(online(&presence, 1_000_001), 1);
    }

    #[test]
    fn an_identity_key_cannot_be_replaced_but_may_be_left_out() {
        let mut presence = Presence::default();
        presence.register(at(0), of("a"), tenant("a"), party("p", Some([1; 32]))).unwrap();
        let error =
            presence.register(at(1), of("a"), tenant("a"), party("p", Some([2; 32]))).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        let again = presence.register(at(2), of("a"), tenant("a"), party("p", None)).unwrap();
        assert_eq!(
            again,
            Registered { registered_at: Timestamp(0), changed: false, claimed: false }
        );
    }

    #[test]
    fn a_registration_with_an_identity_is_changed_by_its_proof_only() {
        let mut presence = Presence::default();
        let own = party("p", Some([1; 32]));
        presence.register(at(0), of("a"), tenant("a"), own.clone()).unwrap();
        let mut changed = own.clone();
        changed.role = PartyRole::Delegate;
        changed.notification.email = "thief@evil.example".into();
        for identity in [None, Some([1; 32])] {
            let posed = Registration { identity, ..changed.clone() };
            for account in [tenant("a"), tenant("evil"), Account::Party("q".parse().unwrap())] {
                let error = presence.register(at(1), of("a"), account, posed.clone()).unwrap_err();
                assert_eq!(error.code, ErrorCode::Forbidden);
            }
        }
        let newer = Registration { version: "2".into(), ..own };
        assert!(presence.register(at(2), of("a"), tenant("a"), newer).unwrap().changed);
        let proven = Account::Party("p".parse().unwrap());
        assert!(presence.register(at(3), of("a"), proven, changed).unwrap().changed);
    }

    #[test]
    fn another_tenant_binds_no_identity_to_a_name() {
        let mut presence = Presence::default();
        presence.register(at(0), of("a"), tenant("a"), party("p", None)).unwrap();
        let claim = party("p", Some([1; 32]));
        let error = presence.register(at(1), of("a"), tenant("evil"), claim.clone()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        assert!(presence.register(at(2), of("a"), tenant("a"), claim).unwrap().changed);
    }

    #[test]
    fn two_tenants_have_a_party_of_the_same_name() {
        let mut presence = Presence::default();
        presence
            .register(at(0), of("evil"), tenant("evil"), party("phone", Some([1; 32])))
            .unwrap();
        presence
            .register(at(1), of("acme"), tenant("acme"), party("phone", Some([2; 32])))
            .unwrap();
        let of_acme = presence.list(at(1), |owner| *owner == of("acme"), None, true);
        assert_eq!(of_acme.len(), 1);
        assert_eq!(of_acme[0].registration.identity, Some([2; 32]));
        presence.disconnected(at(2), &of("evil"), &"phone".parse().unwrap());
        let still = presence.list(at(2), |owner| *owner == of("acme"), None, true);
        assert_eq!(still.len(), 1, "another's leaving is not its own");
    }

    #[test]
    fn a_name_without_an_owner_goes_to_who_registers_it_again() {
        let mut presence = Presence::default();
        presence.restore(NameOwner::Unclaimed, party("p", Some([1; 32])), Timestamp(5));
        let other = party("p", Some([2; 32]));
        assert!(presence.register(at(9), of("a"), tenant("a"), other).is_err(), "its key stays");
        let again = party("p", Some([1; 32]));
        let claimed = presence.register(at(9), of("a"), tenant("a"), again.clone()).unwrap();
        assert_eq!(
            claimed,
            Registered { registered_at: Timestamp(5), changed: true, claimed: true }
        );
        assert_eq!(presence.list(at(9), |_| true, None, false).len(), 1);
        assert!(!presence.register(at(9), of("a"), tenant("a"), again).unwrap().claimed);
    }

    #[test]
    fn a_heartbeat_of_a_stranger_is_not_found() {
        let error =
            Presence::default().heartbeat(at(0), &of("a"), &"p".parse().unwrap()).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    }

    #[test]
    fn one_tenant_cannot_register_for_all() {
        let mut presence = Presence::default();
        let names = |prefix: &'static str| (0..).map(move |n| party(&format!("{prefix}{n}"), None));
        let mut squatters = names("evil-");
        let taken = squatters
            .by_ref()
            .take_while(|one| {
                presence.register(at(0), of("evil"), tenant("evil"), one.clone()).is_ok()
            })
            .count();
        assert_eq!(taken, MAX_PARTIES_KNOWN / 2);
        presence.register(at(0), of("acme"), tenant("acme"), party("alice", None)).unwrap();
        let own = party("server-party-1", Some([1; 32]));
        presence
            .register(at(0), NameOwner::Operator, Account::Party(own.party_id.clone()), own)
            .unwrap();
    }

    #[test]
    fn a_temporary_party_is_forgotten_with_its_session_and_no_other() {
        let mut presence = Presence::default();
        for (name, role) in [
            ("guest", PartyRole::Temporary),
            ("server", PartyRole::Persistent),
            ("delegate", PartyRole::Delegate),
        ] {
            let registration = Registration { role, ..party(name, Some([1; 32])) };
            presence.register(at(0), of("a"), tenant("a"), registration).unwrap();
        }
        let name = |text: &str| text.parse::<PartyId>().unwrap();
        assert!(!presence.end_temporary(&name("guest"), &of("b")), "another tenant's name");
        let ended = ["guest", "server", "delegate", "nobody", "guest"]
            .map(|party| presence.end_temporary(&name(party), &of("a")));
        assert_eq!(ended, [true, false, false, false, false]);
        assert_eq!(
            (presence.list(at(0), |_| true, None, false).len(), presence.accounts.used()),
            (2, 2)
        );
        let again = Registration { role: PartyRole::Temporary, ..party("guest", Some([2; 32])) };
        presence.register(at(0), of("a"), tenant("a"), again).unwrap();
    }

    #[test]
    fn a_channel_outlives_a_session_and_a_day_and_is_known_to_its_tenant() {
        const DAY: i64 = 24 * 3_600_000;
        let mut presence = Presence::default();
        let mut phone = Registration { role: PartyRole::Temporary, ..party("phone", None) };
        phone.notification.email = "phone@a.example".into();
        presence.register(at(0), of("a"), tenant("a"), phone.clone()).unwrap();
        presence.register(at(0), of("b"), tenant("b"), party("phone", None)).unwrap();
        let name: PartyId = "phone".parse().unwrap();
        assert!(!presence.end_temporary(&name, &of("a")));
        presence.forget_silent(at(0));
        assert_eq!(presence.forget_silent(at(2 * DAY)), [(name.clone(), of("b"))]);
        let reached =
            |tenant: &str| presence.contacts(&tenant.parse().unwrap(), std::slice::from_ref(&name));
        let contact = Contact { party_id: name.clone(), channel: phone.notification };
        assert_eq!((reached("a"), reached("b")), (vec![contact], vec![]));
    }

    #[test]
    fn silent_registrations_are_forgotten_after_a_day_or_a_season() {
        const DAY: i64 = 24 * 3_600_000;
        let mut presence = Presence::default();
        presence.restore(NameOwner::Unclaimed, party("old", None), Timestamp(0));
        for (name, identity) in [("plain", None), ("pinned", Some([1; 32])), ("here", None)] {
            presence.register(at(1), of("a"), tenant("a"), party(name, identity)).unwrap();
        }
        let name = |text: &str| text.parse::<PartyId>().unwrap();
        presence.connected(at(2), &of("a"), &name("here"));
        assert!(presence.forget_silent(at(2)).is_empty());
        assert_eq!(presence.forget_silent(at(DAY)), [(name("old"), NameOwner::Unclaimed)]);
        assert!(presence.forget_silent(at(DAY + 1)).is_empty(), "not looked at yet");
        assert_eq!(presence.forget_silent(at(2 * DAY)), [(name("plain"), of("a"))]);
        assert_eq!(presence.forget_silent(at(91 * DAY)), [(name("pinned"), of("a"))]);
        assert_eq!(presence.list(at(91 * DAY), |_| true, None, false).len(), 1, "a stream is life");
        assert_eq!(presence.accounts.used(), 1);
    }
}
