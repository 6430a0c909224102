//! The computing part: check the roster, run the protocol, keep what comes out.

use std::sync::Arc;

use quorate_engine::{Fault, HelloSecret, Member, Output, Run, Severity, Share, Task};
use quorate_types::*;

use super::Worker;
use super::failure::{could_not, of_error, of_fault};
use crate::clock;
use crate::drive::{Ended, Progress, drive};
use crate::keyring::{OpenKey, foreign_identity};
use crate::transport::Transport;

/// The epoch of a key that keygen has just made.
const FIRST_EPOCH: u32 = 0;

/// Checks whether this party can take part: for signing it opens the share and looks at the
/// holders and bans. For keygen there is nothing to check.
pub(super) async fn prepare(
    worker: &Worker,
    view: &SessionView,
) -> Result<Option<Arc<OpenKey>>, Failure> {
    if view.kind == SessionKind::Keygen {
        return Ok(None);
    }
    let me = worker.id();
    let Some(key_id) = view.key_id else {
        return Err(could_not(me, "the session does not say which key to sign with"));
    };
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
    /// The introduction this attempt joined with.
    pub(super) hello: Hello,
    pub(super) secret: HelloSecret,
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
        let key = prepare(worker, view).await?;
        let task = task(me, view, key.as_deref())?;
        let roster = roster(me, &self.hello, view)?;
        let run = self.run(roster, task).await?;
        let identities = run.identities();
        check_identities(worker, view, &identities, key.as_deref()).await?;
        if let Err(error) = transport.expect(&run.expected()).await {
            return Err(of_error(me, error));
        }
        let outcome = drive(run, transport, &worker.compute, |p| note(p, &mut progress)).await;
        match (outcome, key) {
            (Ok(Output::Key { share, public_key }), None) => {
                keep(worker, session, view, share, public_key.clone(), identities).await?;
                Ok(PartyOutcome::PublicKey(public_key.0))
            }
            (Ok(Output::Signature(signature)), Some(_)) => {
                let Signature { bytes, recovery_id } = signature;
                Ok(PartyOutcome::Signature { bytes, recovery_id })
            }
            (Ok(_), _) => Err(could_not(me, "the protocol made something else than was asked for")),
            (Err(Ended::Transport(error)), _) => Err(of_error(me, error)),
            (Err(Ended::Fault(fault)), key) => Err(settle(worker, fault, key.as_deref()).await),
        }
    }

    async fn run(self, roster: Vec<Member>, task: Task) -> Result<Run, Failure> {
        let Self { worker, session, secret, .. } = self;
        let me = worker.id().clone();
        let identity = Arc::clone(worker.keyring.identity());
        let start = move || Run::new(&identity, secret, session, &me, roster, task);
        worker.compute.run(start).await.map_err(of_fault)
    }
}

fn task(me: &PartyId, view: &SessionView, key: Option<&OpenKey>) -> Result<Task, Failure> {
    let Some(key) = key else {
        return Ok(Task::Keygen { scheme: view.scheme, threshold: view.threshold });
    };
    let Some(digest) = view.digest else {
        return Err(could_not(me, "the session does not say what to sign"));
    };
    Ok(Task::Sign {
        share: Arc::clone(&key.share),
        key_id: key.stored.key_id,
        epoch: key.stored.epoch,
        holders: key.stored.record.holders.clone(),
        digest,
    })
}

/// The participants with their introductions, in their order; ours must be the one we sent.
fn roster(me: &PartyId, mine: &Hello, view: &SessionView) -> Result<Vec<Member>, Failure> {
    let mut roster = Vec::with_capacity(view.participants.len());
    for participant in &view.participants {
        let party_id = participant.party_id.clone();
        let Some(hello) = participant.hello.clone() else {
            let mut failure = could_not(
                me,
                format!(
                    "{party_id} joined without an introduction; only parties with one can compute \
                     with {me}"
                ),
            );
            failure.parties = vec![party_id];
            return Err(failure);
        };
        if party_id == *me && hello != *mine {
            let message = format!(
                "{me} is shown with another introduction than it sent; it may have restarted while \
                 the session was starting"
            );
            return Err(could_not(me, message));
        }
        roster.push(Member { party_id, hello });
    }
    Ok(roster)
}

/// Everybody must be who it was when first seen and, for signing, when the key was made.
async fn check_identities(
    worker: &Worker,
    view: &SessionView,
    identities: &[[u8; 32]],
    key: Option<&OpenKey>,
) -> Result<(), Failure> {
    let me = worker.id();
    for (participant, identity) in view.participants.iter().zip(identities) {
        let peer = &participant.party_id;
        if peer == me {
            continue;
        }
        if key.is_some_and(|key| key.pinned(peer) != Some(*identity)) {
            return Err(of_error(me, foreign_identity(peer, "it had when the key was made")));
        }
        worker.keyring.check_pin(peer, *identity).await.map_err(|error| of_error(me, error))?;
    }
    Ok(())
}

/// Puts the new share on disk.
async fn keep(
    worker: &Worker,
    session: SessionId,
    view: &SessionView,
    share: Share,
    public_key: PublicKey,
    identities: Vec<[u8; 32]>,
) -> Result<(), Failure> {
    let record = KeyRecord {
        key_id: session.into(),
        tenant: view.tenant.clone(),
        scheme: view.scheme,
        threshold: view.threshold,
        public_key,
        holders: view.participants.iter().map(|p| p.party_id.clone()).collect(),
        created_at: clock::now(),
    };
    let stored =
        worker.keyring.store(share, FIRST_EPOCH, record, identities, &worker.compute).await;
    stored.map_err(|error| {
        tracing::error!(%error, "a new share could not be stored");
        could_not(worker.id(), format!("{} could not store its share", worker.id()))
    })
}

/// A fault as it is reported; a ban is on disk before.
async fn settle(worker: &Worker, fault: Fault, key: Option<&OpenKey>) -> Failure {
    let banned = match (&fault.blame, fault.severity, key) {
        (Some(peer), Severity::Ban, Some(key)) => {
            worker.keyring.ban(key, peer.clone(), fault.message.clone()).await
        }
        _ => Ok(()),
    };
    let mut failure = of_fault(fault);
    if let Err(error) = banned {
        tracing::error!(%error, "a ban could not be stored: it holds until this party restarts");
        failure.message.push_str("; the ban could not be stored and holds until a restart");
    }
    failure
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
    use quorate_engine::FaultCode;
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
        }
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
            kind: SessionKind::Sign,
            key_id: Some(session.into()),
            digest: Some(Digest([3; 32])),
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
        let failure = settle(&party.worker, ban(), Some(&key)).await;
        assert_eq!(failure.reason, FailureReason::PartyCheated);
        assert_eq!(failure.parties, parties(&["b"]));
        let bans = a.vault.bans(key.stored.key_id).await.unwrap();
        assert_eq!((&bans[0].peer, bans[0].epoch), (&"b".parse().unwrap(), 0));
        let locked = prepare(&party.worker, &view).await.err().unwrap();
        assert!(locked.message.starts_with("key_locked"), "{}", locked.message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_exported_share_comes_back_with_its_bans_and_opens_for_its_party_only() {
        let (a, party, view) = holders().await;
        let key = prepare(&party.worker, &view).await.ok().flatten().unwrap();
        settle(&party.worker, ban(), Some(&key)).await;
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
        let failure = settle(&party.worker, fault, Some(&key)).await;
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
