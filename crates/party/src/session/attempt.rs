//! The computing part: check the roster, run the protocol, keep what comes out.

use std::sync::Arc;

use quorate_engine::{HandshakeSecret, Member, Output, Run, Share, Shown, Task};
use quorate_ports::vault::SealedShare;
use quorate_types::*;

use super::Worker;
use super::failure::{could_not, of_error, of_fault};
use crate::clock;
use crate::drive::{Ended, Progress, drive};
use crate::gate::Gate;
use crate::keyring::{FIRST_EPOCH, NewShare, OpenKey, foreign_identity};
use crate::transport::Transport;

/// Checks whether this party can take part: for signing it opens the share and looks at the
/// holders and bans. A keygen must not be of a key that it holds already.
pub(super) async fn prepare(
    worker: &Worker,
    view: &SessionView,
) -> Result<Option<Arc<OpenKey>>, Failure> {
    let me = worker.id();
    let Ceremony::Sign { key: shown, .. } = &view.ceremony else {
        let key = view.session_id.into();
        return match worker.keyring.holds(key).await {
            Ok(false) => match worker.keyring.too_many_pending(&view.tenant).await {
                Ok(false) => Ok(None),
                Ok(true) => Err(could_not(
                    me,
                    format!(
                        "{me} keeps too many shares of this tenant that are not confirmed; its \
                         operator can discard them with `quorate party shares`"
                    ),
                )),
                Err(error) => Err(of_error(me, error)),
            },
            Ok(true) => Err(could_not(
                me,
                format!(
                    "{me} holds a share of key {key} already and does not replace it; start a \
                     new keygen"
                ),
            )),
            Err(error) => Err(of_error(me, error)),
        };
    };
    let key_id = shown.key_id;
    let opened = worker.keyring.key(key_id, &worker.compute).await;
    let Some(key) = opened.map_err(|error| of_error(me, error))? else {
        let message = format!(
            "{me} holds no share of key {key_id}; choose signers that took part in its keygen"
        );
        return Err(could_not(me, message));
    };
    let holders = &key.stored.record.holders;
    let signers: Vec<_> = view.participants.iter().map(|p| p.party_id.clone()).collect();
    if let Some(stranger) = signers.iter().find(|signer| !holders.contains(signer)) {
        let mut failure = could_not(me, format!("{stranger} is no holder of key {key_id}"));
        failure.parties = vec![stranger.clone()];
        return Err(failure);
    }
    if key.pinned(me) != Some(worker.keyring.identity().public()) {
        let message = format!(
            "{me} has another identity than when key {key_id} was made; restore its identity file"
        );
        return Err(could_not(me, message));
    }
    worker.keyring.check_bans(&key, &signers).map_err(|error| of_error(me, error))?;
    Ok(Some(key))
}

/// One attempt at one session, joined and waiting to compute.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Worker,
    pub(super) session: SessionId,
    /// The handshake this attempt joined with.
    pub(super) handshake: Handshake,
    pub(super) secret: HandshakeSecret,
}

impl Attempt<'_> {
    /// Runs the protocol among the participants of the started session.
    pub(super) async fn compute(
        self,
        view: &SessionView,
        transport: &mut dyn Transport,
        mut progress: impl FnMut(u16) + Send,
    ) -> Result<PartyOutcome, Failure> {
        let (worker, session) = (self.worker, self.session);
        let me = worker.id();
        // The view of the start counts, not what was shown before it: it may differ.
        let mut key = prepare(worker, view).await?;
        let task = task(me, &view.ceremony, key.as_deref())?;
        let roster = roster(me, &self.handshake, view)?;
        let run = self.run(roster, task).await?;
        let peers: Vec<_> = run.identities().into_iter().zip(run.shown().cloned()).collect();
        check_identities(worker, view, &peers, key.as_deref()).await?;
        if let Some(pending) = key.as_ref().filter(|key| !key.active()) {
            key = Some(confirmed_late(worker, pending, &peers).await?);
        }
        if let Err(error) = transport.expect(&run.expected()).await {
            return Err(of_error(me, error));
        }
        let gate = match &key {
            Some(key) => {
                let signers = view.participants.iter().map(|p| p.party_id.clone()).collect();
                Gate::new(&worker.keyring, key, signers)
            }
            None => Gate::open(),
        };
        transport.guard(&gate);
        let mut told = |p| note(p, &mut progress);
        let driven = drive(run, transport, &worker.compute, &gate, &mut told).await;
        let other = || could_not(me, "the protocol made something else than was asked for");
        match (driven, key) {
            (Ok((mut run, Output::Key { share, public_key })), None) => {
                let execution = run.execution();
                let made =
                    keep(worker, session, view, &peers, execution, share, public_key).await?;
                run.kept(made.statement());
                let driven = drive(run, transport, &worker.compute, &gate, &mut told).await;
                let (_, output) = match driven {
                    Ok(driven) => driven,
                    Err(ended) => return Err(settle(worker, ended, &gate, None).await),
                };
                let Output::Confirmed(confirmations) = output else { return Err(other()) };
                let made = worker.keyring.activate(&made, confirmations).await;
                let made = made.map_err(|error| of_error(me, error))?;
                // Only now: a keygen that fails must not bind a name for good.
                let SealedShare { record, identities, .. } = &made.stored;
                let holders = record.holders.iter().zip(identities);
                let pinned = worker.keyring.pin_holders(&record.tenant, holders).await;
                pinned.map_err(|error| of_error(me, error))?;
                Ok(PartyOutcome::Key {
                    public_key: made.stored.record.public_key.0.clone(),
                    attestation: made.stored.attestation().map(Box::new),
                })
            }
            (Ok((_, Output::Signature(signature))), Some(_)) => {
                let Signature { bytes, recovery_id } = signature;
                Ok(PartyOutcome::Signature { bytes, recovery_id })
            }
            (Ok(_), _) => Err(other()),
            (Err(ended), key) => Err(settle(worker, ended, &gate, key.as_deref()).await),
        }
    }

    async fn run(self, roster: Vec<Member>, task: Task) -> Result<Run, Failure> {
        let Self { worker, session, secret, .. } = self;
        let me = worker.id().clone();
        let identity = Arc::clone(worker.keyring.identity());
        let start = move || Run::new(&identity, secret, session, &me, roster, task);
        let started = worker.compute.run_unless_stopped(start).await;
        started.map_err(|error| of_error(worker.id(), error))?.map_err(of_fault)
    }
}

fn task(me: &PartyId, ceremony: &Ceremony, key: Option<&OpenKey>) -> Result<Task, Failure> {
    match (ceremony, key) {
        (Ceremony::Keygen { scheme, threshold }, None) => {
            Ok(Task::Keygen { scheme: *scheme, threshold: *threshold })
        }
        // The key is the one that this party holds, whatever the session says of it.
        (Ceremony::Sign { input, .. }, Some(key)) => Ok(Task::Sign {
            share: Arc::clone(&key.share),
            key: Arc::clone(&key.stored.record.key),
            made_by: key.stored.execution,
            input: input.clone(),
        }),
        _ => Err(could_not(me, "the session has changed its kind")),
    }
}

/// The participants with their handshakes, in their order; ours must be the one we sent.
fn roster(me: &PartyId, mine: &Handshake, view: &SessionView) -> Result<Vec<Member>, Failure> {
    let mut roster = Vec::with_capacity(view.participants.len());
    for participant in &view.participants {
        let party_id = participant.party_id.clone();
        let Some(handshake) = participant.handshake.clone() else {
            let mut failure = could_not(
                me,
                format!(
                    "{party_id} joined without a handshake; only parties with one can compute \
                     with {me}"
                ),
            );
            failure.parties = vec![party_id];
            return Err(failure);
        };
        if party_id == *me && handshake != *mine {
            let message = format!(
                "{me} is shown with another handshake than it sent; it may have restarted while \
                 the session was starting"
            );
            return Err(could_not(me, message));
        }
        roster.push(Member { party_id, handshake });
    }
    Ok(roster)
}

/// Everybody must be who its name is pinned to be and, for signing, who it was when the key was
/// made.
async fn check_identities(
    worker: &Worker,
    view: &SessionView,
    peers: &[([u8; 32], Shown)],
    key: Option<&OpenKey>,
) -> Result<(), Failure> {
    let me = worker.id();
    for (participant, (identity, shown)) in view.participants.iter().zip(peers) {
        let identity = *identity;
        let peer = &participant.party_id;
        if peer == me {
            continue;
        }
        if key.is_some_and(|key| key.pinned(peer) != Some(identity)) {
            return Err(of_error(me, foreign_identity(peer, "it had when the key was made")));
        }
        let keyring = &worker.keyring;
        let checked = keyring.check_pin(&view.tenant, peer, identity).await;
        checked.map_err(|error| of_error(me, error))?;
        if let (Some(_), Some(handshake)) = (key, &participant.handshake) {
            let checked = keyring.check_generation(peer, identity, shown, handshake).await;
            checked.map_err(|error| of_error(me, error))?;
        }
    }
    Ok(())
}

/// A share that missed confirmations signs once another signer shows those of all holders.
async fn confirmed_late(
    worker: &Worker,
    key: &OpenKey,
    peers: &[([u8; 32], Shown)],
) -> Result<Arc<OpenKey>, Failure> {
    let me = worker.id();
    let statement = key.statement();
    let all = peers.iter().find(|(_, shown)| statement.confirmed_by(&shown.confirmations));
    let Some((_, shown)) = all else {
        let message = format!(
            "the share of {me} is not confirmed by all holders of key {}: it signs with a holder \
             that has all confirmations, or make another key",
            key.stored.key_id
        );
        return Err(could_not(me, message));
    };
    let activated = worker.keyring.activate(key, shown.confirmations.clone()).await;
    activated.map_err(|error| of_error(me, error))
}

/// Puts the new share on disk.
async fn keep(
    worker: &Worker,
    session: SessionId,
    view: &SessionView,
    peers: &[([u8; 32], Shown)],
    execution: [u8; 32],
    share: Share,
    public_key: PublicKey,
) -> Result<Arc<OpenKey>, Failure> {
    let key = KeyEpoch {
        key_id: session.into(),
        epoch: FIRST_EPOCH,
        scheme: view.ceremony.scheme(),
        threshold: view.ceremony.threshold(),
        public_key,
        holders: view.participants.iter().map(|p| p.party_id.clone()).collect(),
    };
    let tenant = view.tenant.clone();
    let record = KeyRecord { key: Arc::new(key), tenant, created_at: clock::now() };
    let identities = peers.iter().map(|(identity, _)| *identity).collect();
    let new = NewShare { share, record, identities, execution };
    worker.keyring.store(new, &worker.compute).await.map_err(|error| {
        tracing::error!(%error, "a new share could not be stored");
        could_not(worker.id(), format!("{} could not store its share", worker.id()))
    })
}

/// How a run ended, as it is reported; the bans of its key are on disk before, whichever run of
/// the key has made them. A run that a ban has not ended itself says so too if there is one by now.
async fn settle(worker: &Worker, ended: Ended, gate: &Gate, key: Option<&OpenKey>) -> Failure {
    let stored = match key {
        Some(key) => worker.keyring.store_bans(key).await,
        None => Ok(()),
    };
    if let Err(error) = &stored {
        tracing::error!(%error, "a ban could not be stored: its key is locked until it is");
    }
    match gate.last_word(ended) {
        Ended::Fault(fault) => {
            let mut failure = of_fault(fault);
            if stored.is_err() {
                failure.message.push_str(
                    "; the ban could not be stored: until it is, the key is locked for all its \
                     holders",
                );
            }
            failure
        }
        Ended::Locked(error) | Ended::Transport(error) => of_error(worker.id(), error),
    }
}

fn note(progress: Progress, tell: &mut impl FnMut(u16)) {
    match progress {
        Progress::Round { round, .. } => {
            tracing::debug!(round, "waiting for messages");
            tell(round);
        }
        Progress::Refused { from, fault } => {
            tracing::warn!(%from, code = fault.code.name(), "refused a message: {}", fault.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_engine::{Fault, FaultCode, Severity};
    use quorate_ports::Vault as _;

    use super::*;
    use crate::Compute;
    use crate::session::Party;
    use crate::testkit::{Machine, Net, parties, party};

    fn ban() -> Fault {
        Fault {
            code: FaultCode::OtCheckFailed,
            severity: Severity::Ban,
            blame: Some(party("b")),
            message: "b failed the check".into(),
            evidence: vec![bytes::Bytes::from_static(b"an envelope")],
        }
    }

    /// The report of a run between `a` and `b` that has come upon a fault.
    async fn faulted(worker: &Worker, fault: Fault, key: &Arc<OpenKey>) -> Failure {
        let gate = Gate::new(&worker.keyring, key, parties(&["a", "b"]));
        settle(worker, gate.settle(fault), &gate, Some(key)).await
    }

    /// Two parties with a key, and a view of a session that signs with it.
    async fn holders() -> (Machine, Party, SessionView) {
        let net = Net::new();
        let (a, b) = (Machine::new("a"), Machine::new("b"));
        let _servers = (a.serve(&net).await, b.serve(&net).await);
        let session = net.keygen(2, &["a", "b"]);
        assert_eq!(net.ended(session).await.status, SessionStatus::Completed);
        let view = SessionView {
            tenant: Tenant::default(),
            ceremony: Ceremony::Sign {
                key: net.key(session.into()),
                input: SignInput::Digest(Digest([3; 32])),
            },
            ..net.view(session)
        };
        let party = Party {
            worker: Worker { keyring: a.keyring.clone(), compute: Compute::default() },
            router: net.clone(),
            coordinator: net,
            device: DeviceInfo::default(),
        };
        (a, party, view)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ban_is_in_the_vault_before_it_is_reported_and_locks_the_pair() {
        let (a, party, view) = holders().await;
        let key = prepare(&party.worker, &view).await.ok().flatten().unwrap();
        let failure = faulted(&party.worker, ban(), &key).await;
        assert_eq!(failure.reason, FailureReason::PartyCheated);
        assert_eq!(failure.parties, parties(&["b"]));
        let bans = a.vault.bans(key.stored.key_id).await.unwrap();
        assert_eq!((&bans[0].peer, bans[0].epoch), (&"b".parse().unwrap(), 0));
        assert_eq!(bans[0].evidence, ban().evidence);
        let locked = prepare(&party.worker, &view).await.err().unwrap();
        assert!(locked.message.starts_with("key_locked"), "{}", locked.message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_the_faults_of_a_pair_only_the_first_is_told() {
        let (a, party, view) = holders().await;
        let key = prepare(&party.worker, &view).await.ok().flatten().unwrap();
        let gate = |signers: &[&str]| Gate::new(&a.keyring, &key, parties(signers));
        let (first, second) = (gate(&["a", "b"]), gate(&["a", "b"]));
        assert!(matches!(first.settle(ban()), Ended::Fault(_)), "the first says what it found");
        assert!(matches!(second.settle(ban()), Ended::Locked(_)), "the second does not");
        let other = Fault { severity: Severity::Recoverable, ..ban() };
        assert!(matches!(second.settle(other), Ended::Locked(_)), "whatever it found");
        let broken = Ended::Transport(Error::unavailable("away"));
        assert!(matches!(second.last_word(broken), Ended::Locked(_)), "however it ended");
        assert!(gate(&["a", "c"]).check().is_ok(), "another pair goes on");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_keygen_of_a_key_that_is_held_is_refused() {
        let (a, party, mut view) = holders().await;
        let (scheme, threshold) = (view.ceremony.scheme(), view.ceremony.threshold());
        view.ceremony = Ceremony::Keygen { scheme, threshold };
        let before = a.vault.share(view.session_id.into()).await.unwrap();
        let refused = prepare(&party.worker, &view).await.err().unwrap();
        assert!(refused.message.contains("does not replace it"), "{}", refused.message);
        assert!(a.vault.share(view.session_id.into()).await.unwrap() == before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_exported_share_comes_back_with_its_bans_and_opens_for_its_party_only() {
        let (a, party, view) = holders().await;
        let key = prepare(&party.worker, &view).await.ok().flatten().unwrap();
        faulted(&party.worker, ban(), &key).await;
        let (key_id, compute) = (key.stored.key_id, &party.worker.compute);
        let secret = Secret::new("correct horse".to_owned());
        let file = a.keyring.export(key_id, &secret, compute).await.unwrap();
        let held = a.keyring.import(&file, &secret, compute).await.unwrap_err();
        assert_eq!(held.code, ErrorCode::Conflict);

        let new = Machine::new("a");
        let wrong = Secret::new("wrong passphrase".to_owned());
        assert!(new.keyring.import(&file, &wrong, compute).await.is_err());
        for at in [0, 20, 40, file.len() - 1] {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(new.keyring.import(&bad, &secret, compute).await.is_err(), "byte {at}");
        }
        assert!(Machine::new("b").keyring.import(&file, &secret, compute).await.is_err());
        let record = new.keyring.import(&file, &secret, compute).await.unwrap();
        assert_eq!(record, key.stored.record);
        let again = new.keyring.key(key_id, compute).await.unwrap().unwrap();
        assert_eq!(again.stored.identities, key.stored.identities);
        let locked = new.keyring.check_bans(&again, &parties(&["b"])).unwrap_err();
        assert_eq!(locked.code, ErrorCode::KeyLocked);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fault_that_is_no_ban_bans_nobody() {
        let (a, party, view) = holders().await;
        let key = prepare(&party.worker, &view).await.ok().flatten().unwrap();
        let fault = Fault { severity: Severity::Recoverable, ..ban() };
        let failure = faulted(&party.worker, fault, &key).await;
        assert_eq!(failure.reason, FailureReason::PartyFailed);
        assert_eq!(failure.message, "ot_check_failed: b failed the check");
        assert!(a.vault.bans(key.stored.key_id).await.unwrap().is_empty());
        assert!(prepare(&party.worker, &view).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_signer_that_holds_no_share_is_named() {
        let (_, party, mut view) = holders().await;
        view.participants[1].party_id = "stranger".parse().unwrap();
        let failure = prepare(&party.worker, &view).await.err().unwrap();
        assert_eq!(failure.parties, parties(&["stranger"]));
    }
}
