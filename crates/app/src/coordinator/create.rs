//! Creating a session: idempotency, the key, the parties, the tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::admission::Admission;
use quorate_core::budget::Over;
use quorate_core::choice::choose;
use quorate_core::session::{Command, Effects, NewSession, Reserve, Session};
use quorate_ports::store::{IdempotencyRow, LentShareRow};
use quorate_ports::{Commit, Urgency, Write};
use quorate_types::*;

use super::authorize;
use super::state::SessionEntry;
use super::{CoordinatorApp, encode, fingerprint, lending};
use crate::lock;
use crate::tokens::JoinTokens;

/// How long a session lives that waits for a party which is told by mail, SMS or push.
const OFFLINE_LIFETIME: u64 = 24 * 3600;
/// Longest idempotency key accepted, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Seconds after which one that has too many sessions open may try again.
const RETRY_SECONDS: u32 = 5;

/// What became of a request to create.
enum Entered {
    New(Box<SessionView>, Commit),
    /// An earlier request with the same key.
    Known(IdempotencyRow),
}

fn too_many_open(over: Over) -> Error {
    let whose = match over {
        Over::Whole => "too many sessions are open",
        Over::Share => "this tenant has as many sessions open as it may",
    };
    Error::rate_limited(format!("{whose}; close some, or wait for some to end"), RETRY_SECONDS)
}

fn too_many_waiting((party, over): (PartyId, Over)) -> Error {
    let whose = match over {
        Over::Whole => "",
        Over::Share => " of this tenant",
    };
    let problem = format!(
        "{party} waits for people in as many sessions{whose} as it may; close some, or wait for \
         some to end"
    );
    Error::rate_limited(problem, RETRY_SECONDS)
}

/// Refuses what makes shares and would hardly have its turn before its deadline. Half of its lifetime is
/// left to what cannot be foreseen: other work on the same machines.
fn check_turn(admission: &Admission, session: &Session) -> Result<()> {
    if !session.kind().makes_shares() || session.servers().is_empty() {
        return Ok(());
    }
    let lifetime = session.expires_at().millis_since(session.created_at());
    let expected = admission.expected(session.tenant(), session.servers());
    let late = (expected * 2).saturating_sub(Duration::from_millis(lifetime));
    // The first in the line has its turn at once, however long it takes.
    if late.is_zero() || expected == admission.expected(session.tenant(), &[]) {
        return Ok(());
    }
    let problem = format!(
        "so many keygens and refreshes of this tenant and others wait that this one would take about {} \
         seconds; try again later, or give it more time with expires_in_seconds",
        expected.as_secs()
    );
    Err(Error::rate_limited(problem, u32::try_from(late.as_secs()).unwrap_or(u32::MAX).max(1)))
}

/// Who takes part in a new session.
struct Selection {
    participants: Vec<NewParticipant>,
    /// The server parties among them.
    servers: Vec<PartyId>,
    /// The identity that each participant has registered, where it has one.
    identities: Vec<Option<[u8; 32]>>,
    /// Who may take their places, where the session may be tried again.
    reserve: Option<Reserve>,
    /// Those that need not be online: they are told by a notification.
    offline: Vec<PartyId>,
}

impl Selection {
    fn known(&self) -> Vec<authorize::Known<'_>> {
        let participants = self.participants.iter().map(NewParticipant::holder);
        participants.zip(self.identities.iter().copied()).collect()
    }
}

impl CoordinatorApp {
    pub(super) async fn create_session(
        &self,
        caller: &Caller,
        request: CreateSession,
    ) -> Result<CreatedSession> {
        caller.may(Scope::Sessions)?;
        self.0.parts.store.health()?;
        let tenant = caller.tenant().unwrap_or_default();
        if let Some(earlier) = self.repeated(&tenant, &request).await? {
            return Ok(earlier);
        }
        let now = self.0.parts.clock.now();
        let asked = request.authorization.as_ref();
        let asked = asked.map(|signed| authorize::asked(signed, now)).transpose()?;
        let named = asked.as_ref().and_then(authorize::named);
        let ceremony = self.ceremony(caller, &request).await?;
        let mut seated = request.clone();
        lending::seat(&mut seated, &ceremony)?;
        let selection = self.select_participants(caller, &seated, &ceremony, named.as_deref());
        let selection = selection.await?;
        self.check_packages(&tenant, &selection.participants).await?;
        let waits = !selection.offline.is_empty();
        let expires_at = now.plus_seconds(self.lifetime(&request, waits)?);
        let webhook = request.webhook.as_deref();
        let recipients = self.recipients(&tenant, webhook, &selection.offline).await?;
        let label = self.label(&request, asked.as_ref(), &ceremony).await?;
        let authorization = match (asked, &self.0.parts.service_initiator) {
            (Some(asked), _) => {
                authorize::check_fits(&asked, &ceremony, &selection.known())?;
                request.authorization.clone().map(Arc::new)
            }
            (None, Some(service)) => {
                let known = selection.known();
                Some(authorize::sign(service, &ceremony, &known, label.as_ref(), expires_at)?)
            }
            (None, None) => None,
        };
        let Selection { participants, servers, reserve, .. } = selection;
        let session_id = SessionId(uuid::Uuid::new_v4());
        let mut effects = Effects::default();
        let hashed = |participant: NewParticipant| {
            let token = self.0.parts.join_tokens.token(session_id, &participant.party_id);
            let hash = JoinTokens::hash(&token);
            (participant, hash)
        };
        let session = Session::create(
            NewSession {
                session_id,
                tenant: tenant.clone(),
                ceremony,
                participants: participants.into_iter().map(hashed).collect(),
                servers,
                reserve,
                authorization,
                label,
                now,
                expires_at,
            },
            &mut effects,
        )?;
        let idempotency = request.idempotency_key.clone().map(|key| IdempotencyRow {
            tenant: tenant.clone(),
            key,
            version: fingerprint::VERSION,
            request_hash: fingerprint::of(&request),
            session_id,
        });
        let lent = request.lent.clone();
        match self.enter(session, effects, lent, idempotency, &recipients)? {
            Entered::New(view, commit) => match self.durable(session_id, commit).await {
                Ok(()) => Ok(self.created(*view)),
                Err(error) => match self.repeated(&tenant, &request).await? {
                    Some(earlier) if error.code == ErrorCode::Conflict => Ok(earlier),
                    _ => Err(error),
                },
            },
            // The same request came twice at once: the first one won.
            Entered::Known(first) => self.same_or_mismatch(&request, first).await,
        }
    }

    /// Waits until a new session is on the disk; one that lost its idempotency key is closed.
    async fn durable(&self, id: SessionId, commit: Commit) -> Result<()> {
        let app = self.clone();
        // Who asks again waits for this, also when this caller hangs up.
        let durable = tokio::spawn(async move {
            let written = commit.await;
            if matches!(&written, Err(error) if error.code == ErrorCode::Conflict) {
                lock(&app.0.state).unclaim(id);
                app.told_of(id, false);
                app.execute(id, Command::Close).await?;
            }
            app.told_of(id, written.is_ok());
            lock(&app.0.state).created(id);
            written
        });
        durable.await.map_err(|_| Error::internal())?
    }

    /// Those who are told of a new session are told now, or never where it was not written.
    fn told_of(&self, id: SessionId, written: bool) {
        if let Some(notifications) = &self.0.notifications {
            notifications.created(id, written);
        }
    }

    /// Takes a new session in, unless its idempotency key has made one in the meantime.
    fn enter(
        &self,
        session: Session,
        effects: Effects,
        lent: Option<LentShare>,
        idempotency: Option<IdempotencyRow>,
        recipients: &[Recipient],
    ) -> Result<Entered> {
        let entry = idempotency.as_ref().map(|row| (row.tenant.clone(), row.key.clone()));
        let mut state = lock(&self.0.state);
        if let Some(entry) = &entry
            && let Some(first) = state.idempotency.get(entry)
        {
            return Ok(Entered::Known(first.clone()));
        }
        state.open.check(session.tenant(), 1).map_err(too_many_open)?;
        state.check_waiting(&session).map_err(too_many_waiting)?;
        if let Some(lent) = &lent {
            let bytes = lent.package.len();
            state.lent.check(session.tenant(), bytes).map_err(lending::too_many)?;
        }
        check_turn(&state.admission, &session)?;
        state.check_epoch(&session)?;
        let told = match &self.0.notifications {
            Some(notifications) if !recipients.is_empty() => {
                notifications.enter(self.0.parts.clock.moment(), &session, recipients)?
            }
            _ => Vec::new(),
        };
        state.health.chosen(session.servers());
        let session_id = session.id();
        let mut writes = vec![Write::Session(encode(&session))];
        writes.extend(lent.clone().map(|lent| Write::LentShare(LentShareRow { session_id, lent })));
        writes.extend(told);
        if let (Some(entry), Some(row)) = (entry.clone(), idempotency) {
            state.idempotency.insert(entry, row.clone());
            writes.push(Write::Idempotency(row));
        }
        let commit = self.0.parts.store.submit(writes, Urgency::Now);
        self.0.counts.created(&session);
        let view = session.view();
        let monotonic = self.0.parts.clock.monotonic();
        state.insert(SessionEntry::new(session, monotonic, lent.clone(), entry), monotonic);
        self.0.sooner.notify_one();
        // The parties may start while the disk works: a session lost in a crash is created again
        // by its creator, who has had no answer yet.
        for kind in effects.events {
            self.publish(&view, kind, lent.as_ref());
        }
        Ok(Entered::New(Box::new(view), commit))
    }

    fn created(&self, session: SessionView) -> CreatedSession {
        let token = |p: &ParticipantView| {
            (p.party_id.clone(), self.0.parts.join_tokens.token(session.session_id, &p.party_id))
        };
        let join_tokens = session.participants.iter().map(token).collect();
        let fetch_tokens = self.fetch_tokens(&session);
        CreatedSession { session, join_tokens, fetch_tokens }
    }

    async fn repeated(
        &self,
        tenant: &Tenant,
        request: &CreateSession,
    ) -> Result<Option<CreatedSession>> {
        let Some(key) = &request.idempotency_key else {
            return Ok(None);
        };
        if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(Error::invalid_field(
                "idempotency_key",
                format!("an idempotency key is 1 to {MAX_IDEMPOTENCY_KEY} bytes"),
            ));
        }
        let known = lock(&self.0.state).idempotency.get(&(tenant.clone(), key.clone())).cloned();
        let known = match known {
            Some(known) => Some(known),
            None => self.0.parts.store.idempotency(tenant, key).await?,
        };
        match known {
            Some(first) => self.same_or_mismatch(request, first).await.map(Some),
            None => Ok(None),
        }
    }

    async fn same_or_mismatch(
        &self,
        request: &CreateSession,
        first: IdempotencyRow,
    ) -> Result<CreatedSession> {
        let made = self.find_durable(first.session_id).await?.view();
        if !fingerprint::is_same(request, &first, &made) {
            return Err(Error::new(
                ErrorCode::IdempotencyMismatch,
                "this idempotency key was used for a different request; use a new one",
            ));
        }
        Ok(self.created(made))
    }

    /// The session of an earlier request, once its creation is on the disk.
    async fn find_durable(&self, id: SessionId) -> Result<Session> {
        loop {
            let undurable = lock(&self.0.state)
                .sessions
                .get(&id)
                .filter(|entry| !entry.created)
                .map(|entry| entry.changed.subscribe());
            match undurable {
                Some(changed) => self.next_change(changed).await?,
                None => return self.find(id).await,
            }
        }
    }

    /// What is asked for, with the key that it means.
    async fn ceremony(&self, caller: &Caller, request: &CreateSession) -> Result<Ceremony> {
        match &request.ceremony {
            CeremonyRequest::Keygen { scheme, threshold } => {
                Ok(Ceremony::Keygen { scheme: *scheme, threshold: *threshold })
            }
            CeremonyRequest::Sign { key, threshold, input } => {
                let key = self.key_of(caller, request, key, *threshold).await?;
                Ok(Ceremony::Sign { key, input: input.clone() })
            }
            CeremonyRequest::Refresh { key, threshold } => {
                let key = self.key_of(caller, request, key, *threshold).await?;
                Ok(Ceremony::Refresh { key })
            }
        }
    }

    /// What the key is called that a session makes, or that it refreshes.
    async fn label(
        &self,
        request: &CreateSession,
        asked: Option<&quorate_authority::Request>,
        ceremony: &Ceremony,
    ) -> Result<Option<KeyLabel>> {
        let said = request.label.as_ref();
        match (ceremony, asked) {
            (Ceremony::Keygen { .. }, Some(asked)) => authorize::label(asked, said),
            (Ceremony::Keygen { .. }, None) => Ok(said.cloned()),
            _ if said.is_some() => {
                Err(Error::invalid_field("label", "only a key that is made gets a label"))
            }
            (Ceremony::Refresh { key }, _) => {
                let record = self.key_by_id(key.key_id).await?;
                Ok(record.and_then(|record| record.label.clone()))
            }
            (Ceremony::Sign { .. }, _) => Ok(None),
        }
    }

    /// The named participants, filled up with those online server parties that have least to do.
    /// `allowed` are those whom a signed request lets take part.
    async fn select_participants(
        &self,
        caller: &Caller,
        request: &CreateSession,
        ceremony: &Ceremony,
        allowed: Option<&[PartyId]>,
    ) -> Result<Selection> {
        let key = ceremony.key().map(AsRef::as_ref);
        let wanted = match ceremony {
            Ceremony::Keygen { threshold, .. } => usize::from(threshold.parties()),
            Ceremony::Sign { key, .. } => usize::from(key.threshold.signers()),
            Ceremony::Refresh { key } => key.holders.len(),
        };
        let known = self.0.parts.directory.parties(caller, None, false).await?;
        let mut participants = match ceremony {
            Ceremony::Refresh { key } => all_holders(key, &request.participants, &known),
            _ => request.participants.clone(),
        };
        if let (true, Some(all)) = (participants.is_empty(), allowed.filter(|a| a.len() == wanted))
        {
            participants.extend(all.iter().cloned().map(|party_id| NewParticipant {
                party_id,
                device: DeviceInfo::default(),
                on_behalf_of: None,
            }));
        }
        let may = |party: &PartyId| {
            key.is_none_or(|key| key.holders.contains(party))
                && allowed.is_none_or(|allowed| allowed.contains(party))
        };
        super::delegates::check_roles(&participants, &known)?;
        let fixed: Vec<_> = participants.iter().map(|one| one.holder().clone()).collect();
        let mut others = self.ranked(&known, &participants, may, key.map(|key| key.key_id));
        participants.extend(self.fill(key, &fixed, &others, wanted).await?.into_iter().map(server));
        if participants.len() < wanted {
            let absent = key.map(|key| key.holders.clone()).unwrap_or_default();
            let absent =
                absent.into_iter().filter(|h| participants.iter().all(|p| p.party_id != *h));
            let available = match participants.len() {
                0 => "none is".to_owned(),
                1 => "only 1 is".to_owned(),
                more => format!("only {more} are"),
            };
            return Err(Error::new(
                ErrorCode::ThresholdNotMet,
                format!(
                    "{wanted} parties are needed and {available} available: name more parties, or \
                     start more server parties"
                ),
            )
            .with_field("participants")
            .waiting_for(absent.collect()));
        }
        let takes_part = |view: &&PartyView| {
            participants.iter().any(|p| p.party_id == view.registration.party_id)
        };
        let ours: Vec<_> = known.iter().filter(takes_part).collect();
        // How a party is reached is not shown to the caller, but that it is.
        let offline =
            |view: &&&PartyView| view.offline || !view.registration.notification.is_empty();
        let offline = ours.iter().filter(offline);
        let offline = offline.map(|view| view.registration.party_id.clone()).collect();
        let ours = ours.iter().map(|view| &view.registration);
        let servers = ours.filter(|registration| registration.role == PartyRole::Persistent);
        let servers = servers.map(|registration| registration.party_id.clone()).collect();
        let identity = |participant: &NewParticipant| {
            let known = known.iter().map(|view| &view.registration);
            // The identity of a delegated seat is made in the session.
            let own = participant.on_behalf_of.is_none();
            let known = known.filter(|one| own && one.party_id == participant.party_id);
            known.into_iter().find_map(|one| one.identity)
        };
        let identities = participants.iter().map(identity).collect();
        let reserve = matches!(ceremony, Ceremony::Sign { .. }).then(|| {
            others.retain(|(party, _)| participants.iter().all(|one| one.party_id != *party));
            let holders = others.into_iter().map(|(party, _)| party).collect();
            // A share is lent to one delegate: nobody else takes its seat.
            let stays = |one: &&NewParticipant| !request.replace || one.on_behalf_of.is_some();
            let named = participants.iter().take(fixed.len());
            let fixed = named.filter(stays).map(|one| one.party_id.clone()).collect();
            Reserve { holders, fixed }
        });
        Ok(Selection { participants, servers, identities, reserve, offline })
    }

    /// Server parties that may fill a session, the best first, and whether each is online.
    fn ranked(
        &self,
        known: &[PartyView],
        named: &[NewParticipant],
        may: impl Fn(&PartyId) -> bool,
        key: Option<KeyId>,
    ) -> Vec<(PartyId, bool)> {
        let fits = |view: &&PartyView| {
            let id = &view.registration.party_id;
            let takes_part = named.iter().any(|one| one.party_id == *id || one.holder() == id);
            view.registration.role == PartyRole::Persistent && !takes_part && may(id)
        };
        let online: HashMap<_, _> = known
            .iter()
            .filter(fits)
            .map(|view| (view.registration.party_id.clone(), view.online))
            .collect();
        let mut ids: Vec<_> = online.keys().cloned().collect();
        let now = self.0.parts.clock.monotonic();
        let state = lock(&self.0.state);
        state.health.rank(now, key, &mut ids, |id| state.busy(id));
        ids.into_iter().map(|id| (online[&id], id)).map(|(online, id)| (id, online)).collect()
    }

    /// Whom a session is filled with, by name: the best of those online that have not banned each
    /// other. Where there are too few of them, all there are.
    async fn fill(
        &self,
        key: Option<&KeyEpoch>,
        fixed: &[PartyId],
        others: &[(PartyId, bool)],
        wanted: usize,
    ) -> Result<Vec<PartyId>> {
        let missing = wanted.saturating_sub(fixed.len());
        let online = others.iter().filter(|(_, online)| *online);
        let online: Vec<_> = online.map(|(party, _)| party.clone()).collect();
        let apart = match key {
            Some(key) if missing > 0 => self.banned_pairs(key).await?,
            _ => Vec::new(),
        };
        let mut filled = match choose(fixed, &online, wanted, &apart) {
            Some(chosen) => chosen.into_iter().filter(|party| !fixed.contains(party)).collect(),
            None => online,
        };
        filled.truncate(missing);
        filled.sort_unstable();
        Ok(filled)
    }

    fn lifetime(&self, request: &CreateSession, offline: bool) -> Result<u64> {
        let config = self.0.parts.config;
        let default = if offline { OFFLINE_LIFETIME } else { config.default_lifetime };
        let seconds = request.expires_in_seconds.unwrap_or(default);
        if (1..=config.max_lifetime).contains(&seconds) {
            return Ok(seconds);
        }
        Err(Error::invalid_field(
            "expires_in_seconds",
            format!("expires_in_seconds is 1 to {}", config.max_lifetime),
        ))
    }
}

/// A server party as a participant that nobody has named.
fn server(party_id: PartyId) -> NewParticipant {
    let device = DeviceInfo { device_type: "server".into(), ..DeviceInfo::default() };
    NewParticipant { party_id, device, on_behalf_of: None }
}

/// All holders of a key in their order, whether named or not, and whoever else was named.
fn all_holders(
    key: &KeyEpoch,
    named: &[NewParticipant],
    known: &[PartyView],
) -> Vec<NewParticipant> {
    let holder = |holder: &PartyId| {
        let server = known.iter().any(|view| {
            view.registration.party_id == *holder && view.registration.role == PartyRole::Persistent
        });
        let device_type = if server { "server".into() } else { String::new() };
        let unnamed = NewParticipant {
            party_id: holder.clone(),
            device: DeviceInfo { device_type, ..DeviceInfo::default() },
            on_behalf_of: None,
        };
        named.iter().find(|named| named.party_id == *holder).cloned().unwrap_or(unnamed)
    };
    let others = named.iter().filter(|named| !key.holders.contains(&named.party_id));
    key.holders.iter().map(holder).chain(others.cloned()).collect()
}
