//! request, approve and policy: what initiators sign, approvers approve and parties allow.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_app::{Clock as _, SystemClock};
use quorate_authority::{
    Action, Initiators, NamedHolder, Policy, Request, RequestedInput, Rule, Signers, Use, Verified,
};
use quorate_client::KnownPeers;
use quorate_ports::ManageSessions;
use quorate_types::*;
use quorate_wire::{AuthorizationJson, Base64Text};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Answer;
use super::ask::{lines, run_session, signed};
use super::client::ClientArgs;
use super::creator::new_session;
use super::input::InputArgs;
use super::output::Output;
use super::values::{find_key, select_key, value};
use crate::serve::authority::{read_initiator, read_policy};
use crate::serve::data::write_new_private;

/// Version of a request's file.
const VERSION: u32 = 1;
/// Seconds for which a request holds unless something else is said.
const LIFETIME: u64 = 3_600;

/// By whom a request is signed, and for how long.
#[derive(clap::Args, Clone)]
pub(crate) struct SigningArgs {
    /// Purpose, shown to approvers and callbacks
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    purpose: String,
    /// Seconds until the signed request expires
    #[arg(long, value_name = "SECONDS", default_value_t = LIFETIME)]
    valid_for: u64,
}

impl SigningArgs {
    /// The request for `action`, signed with the key in a file.
    fn sign(&self, key: &Path, action: Action) -> Result<Authorization> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| Error::internal())?;
        let expires_at = SystemClock.now().plus_seconds(self.valid_for);
        let purpose = self.purpose.clone();
        let request = Request { action, expires_at, nonce, purpose };
        // What no party would read is not signed.
        Request::decode(&request.encode())
            .and_then(|request| request.check_time(SystemClock.now()))
            .map_err(|denial| Error::invalid(denial.why))?;
        Ok(read_initiator(key)?.authorize(&request))
    }

    /// Signs for a new key of these parties, with the identities that are known of them.
    pub(crate) fn keygen(
        &self,
        key: &Path,
        scheme: Scheme,
        threshold: Threshold,
        parties: &[PartyId],
        label: Option<&KeyLabel>,
        peers: &KnownPeers,
    ) -> Result<Authorization> {
        self.keygen_for(key, scheme, threshold, None, parties, label, peers)
    }

    /// As [`SigningArgs::keygen`], with a user before the parties, whose identity its delegate makes.
    #[expect(clippy::too_many_arguments, reason = "each is a field of what is signed")]
    pub(crate) fn keygen_for(
        &self,
        key: &Path,
        scheme: Scheme,
        threshold: Threshold,
        user: Option<&PartyId>,
        parties: &[PartyId],
        label: Option<&KeyLabel>,
        peers: &KnownPeers,
    ) -> Result<Authorization> {
        let user = user.map(|user| NamedHolder { party_id: user.clone(), identity: None });
        if parties.len() + usize::from(user.is_some()) != usize::from(threshold.parties()) {
            let why = format!(
                "a signed keygen names its {} holders: give --party for each",
                threshold.parties()
            );
            return Err(Error::invalid_field("party", why));
        }
        let holders = user.into_iter().chain(named(parties, peers)?).collect();
        self.sign(key, Action::Keygen { scheme, threshold, holders, label: label.cloned() })
    }

    /// Signs for a refresh of a key by all its holders, with the identities that are known of them.
    pub(crate) fn refresh(
        &self,
        key: &Path,
        of: &KeyEpoch,
        peers: &KnownPeers,
    ) -> Result<Authorization> {
        let action = Action::Refresh {
            key_id: of.key_id,
            epoch: of.epoch,
            scheme: of.scheme,
            public_key: of.public_key.clone(),
            threshold: of.threshold,
            holders: named(&of.holders, peers)?,
        };
        self.sign(key, action)
    }

    /// Signs for a signature by `signers`, or by any holders where none are named.
    pub(crate) fn signature(
        &self,
        key: &Path,
        with: &KeyRecord,
        input: &SignInput,
        signers: &[PartyId],
    ) -> Result<Authorization> {
        let action = Action::Sign {
            key_id: with.key_id,
            epoch: with.epoch,
            scheme: with.scheme,
            public_key: with.public_key.clone(),
            input: RequestedInput::of(input),
            path: Vec::new(),
            signers: match signers {
                [] => Signers::Any,
                named => Signers::Named(named.to_vec()),
            },
        };
        self.sign(key, action)
    }
}

/// Parties with the one identity that is known of each.
fn named(parties: &[PartyId], peers: &KnownPeers) -> Result<Vec<NamedHolder>> {
    let holder = |party: &PartyId| {
        let mut known = peers.iter().filter(|(name, _)| *name == party);
        match (known.next(), known.next()) {
            (Some((_, identity)), None) => {
                Ok(NamedHolder { party_id: party.clone(), identity: Some(*identity) })
            }
            (None, _) => Err(Error::invalid_field(
                "party",
                format!(
                    "the identity of {party} is not known here: note it with `quorate peers add \
                     {party}=HEX`, as its --print-identity prints it"
                ),
            )),
            _ => Err(Error::invalid_field(
                "party",
                format!("several identities of {party} are known here; remove the wrong ones"),
            )),
        }
    };
    parties.iter().map(holder).collect()
}

/// A key as the coordinator lists it. What it says of it is signed, so the parties notice a lie.
pub(crate) async fn record(
    coordinator: &dyn ManageSessions,
    key: &KeySelector,
) -> Result<KeyRecord> {
    let id = match key {
        KeySelector::Id(id) => *id,
        KeySelector::PublicKey(key) => find_key(coordinator, &hex::encode(&key.0)).await?,
        KeySelector::ByParticipants => return Err(Error::internal()),
    };
    Ok(coordinator.key(&Caller::Open, id).await?.record)
}

/// A signed request in a file, with the message that its hash stands for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    version: u32,
    authorization: AuthorizationJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Base64Text>,
}

impl RequestFile {
    fn read(path: &Path) -> Result<Self> {
        let named = |error: Error| Error::invalid(format!("{}: {}", path.display(), error.message));
        let bytes = std::fs::read(path)
            .map_err(|error| Error::invalid(format!("cannot read {}: {error}", path.display())))?;
        let file: Self = quorate_wire::parse(&bytes).map_err(named)?;
        if file.version != VERSION {
            return Err(named(Error::invalid(
                "the request was written by another version of this program; sign it again",
            )));
        }
        Ok(file)
    }

    fn opened(&self) -> Result<(Authorization, Request)> {
        let authorization: Authorization = self.authorization.clone().try_into()?;
        let request = Request::decode(&authorization.request)?;
        Ok((authorization, request))
    }

    /// What is signed, whole: a message must be the one that was asked for.
    fn input(&self, request: &Request) -> Result<Option<SignInput>> {
        let Action::Sign { input, .. } = &request.action else { return Ok(None) };
        let found = match (input, &self.message) {
            (RequestedInput::Digest(digest), _) => SignInput::Digest(*digest),
            (RequestedInput::Message(_), Some(message)) => SignInput::Message(message.0.clone()),
            (RequestedInput::Message(_), None) => {
                return Err(Error::invalid("the file lacks the message that the request is for"));
            }
        };
        if RequestedInput::of(&found) != *input {
            return Err(Error::invalid(
                "the message in the file is not the one that was signed for",
            ));
        }
        Ok(Some(found))
    }
}

/// Arguments of `request`.
#[derive(clap::Args)]
pub(crate) struct RequestArgs {
    #[command(subcommand)]
    command: RequestCommand,
}

#[derive(Subcommand)]
enum RequestCommand {
    /// Sign a request for a signature and write it to a file, without sending it
    Sign(SignRequestArgs),
    /// Show what a signed request asks for, who signed it and who has approved
    Show {
        /// File with the signed request
        file: PathBuf,
    },
    /// Send a signed request and wait for the result
    Send {
        #[command(flatten)]
        client: ClientArgs,
        /// File with the signed request
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct SignRequestArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// File with the initiator's private key, PEM or JWK
    #[arg(long, value_name = "FILE")]
    initiator_key: PathBuf,
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short = 'k', long)]
    key: String,
    #[command(flatten)]
    signed: InputArgs,
    /// A party that may sign; give it once per party. Without one any holder may
    #[arg(short = 'p', long = "party", value_name = "PARTY", value_parser = value::<PartyId>)]
    participants: Vec<PartyId>,
    #[command(flatten)]
    signing: SigningArgs,
    /// File to write the signed request to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs a command on signed requests.
pub(crate) async fn run(args: RequestArgs, out: Output) -> Result<()> {
    match args.command {
        RequestCommand::Sign(args) => sign(args, out).await,
        RequestCommand::Show { file } => {
            let file = RequestFile::read(&file)?;
            let (authorization, request) = file.opened()?;
            let mut shown = described(&authorization, &request);
            shown["message"] = json!(file.input(&request)?.and_then(|input| text_of(&input)));
            out.show(&shown, || lines(&shown));
            Ok(())
        }
        RequestCommand::Send { client, file } => {
            send(&client, &RequestFile::read(&file)?, out).await
        }
    }
}

async fn sign(args: SignRequestArgs, out: Output) -> Result<()> {
    let coordinator = args.client.connect()?;
    let (key, scheme) = select_key(&*coordinator, &args.key).await?;
    let record = record(&*coordinator, &key).await?;
    let input = args.signed.input(scheme)?;
    let SignRequestArgs { signing, initiator_key, participants, .. } = &args;
    let authorization = signing.signature(initiator_key, &record, &input, participants)?;
    let request = Request::decode(&authorization.request)?;
    let shown = described(&authorization, &request);
    let file = RequestFile {
        version: VERSION,
        authorization: authorization.into(),
        message: input.message().cloned().map(Base64Text),
    };
    write(&args.out, &file)?;
    out.show(&shown, || format!("{}\n\nsigned request in {}", lines(&shown), args.out.display()));
    Ok(())
}

fn write(path: &Path, file: &RequestFile) -> Result<()> {
    let text = serde_json::to_string_pretty(file).expect("plain data") + "\n";
    write_new_private(path, text.as_bytes())
        .map_err(|error| Error::invalid(format!("cannot write {}: {error}", path.display())))
}

async fn send(client: &ClientArgs, file: &RequestFile, out: Output) -> Result<()> {
    let (authorization, request) = file.opened()?;
    let input = file.input(&request)?;
    let (Action::Sign { key_id, .. }, Some(input)) = (&request.action, input) else {
        return Err(Error::invalid("the file does not hold a request for a signature"));
    };
    let key = KeySelector::Id(*key_id);
    let ceremony = CeremonyRequest::Sign { key, threshold: None, input };
    let request = new_session(ceremony, Some(authorization));
    let coordinator = client.connect()?;
    let view = run_session(&*coordinator, request, "sending a signed request", out).await?;
    let value = signed(&view)?;
    out.show(&value, || lines(&value));
    Ok(())
}

/// A message that people can read.
fn text_of(input: &SignInput) -> Option<String> {
    let message = input.message()?;
    let text = std::str::from_utf8(message).ok().filter(|text| !text.contains(char::is_control));
    Some(text.map_or_else(|| hex::encode(message), str::to_owned))
}

/// A signed request for people and machines.
fn described(authorization: &Authorization, request: &Request) -> Value {
    let genuine = quorate_authority::verify(
        &authorization.initiator,
        &authorization.request,
        &authorization.signature,
    );
    let message = quorate_authority::approval_message(&authorization.request);
    let approved = authorization.approvals.iter().filter(|approval| {
        quorate_authority::verify(&approval.approver, &message, &approval.signature)
    });
    let approved: Vec<_> = approved.map(|approval| approval.approver.to_string()).collect();
    let mut value = json!({
        "kind": request.kind(),
        "scheme": request.scheme().name(),
        "key_id": request.key_id(),
        "purpose": request.purpose,
        "expires_at": quorate_wire::Rfc3339(request.expires_at),
        "nonce": hex::encode(request.nonce),
        "initiator": authorization.initiator,
        "signature": if genuine { "valid" } else { "not valid" },
        "approved_by": approved,
        "sha256": hex::encode(quorate_authority::hash(&authorization.request)),
    });
    let holders = |holders: &[NamedHolder]| {
        let one = |holder: &NamedHolder| match holder.identity {
            Some(identity) => format!("{}={}", holder.party_id, hex::encode(identity)),
            None => holder.party_id.to_string(),
        };
        json!(holders.iter().map(one).collect::<Vec<_>>())
    };
    match &request.action {
        Action::Keygen { threshold, holders: all, .. } => {
            value["threshold"] =
                json!(format!("{} of {}", threshold.signers(), threshold.parties()));
            value["holders"] = holders(all);
            if let Some(label) = request.label() {
                value["label"] = json!(label);
            }
        }
        Action::Sign { epoch, public_key, input, signers, .. } => {
            value["epoch"] = json!(epoch);
            value["public_key"] = json!(hex::encode(&public_key.0));
            match input {
                RequestedInput::Digest(digest) => {
                    value["message_hash"] = json!(hex::encode(digest.0));
                }
                RequestedInput::Message(hash) => {
                    value["message_sha256"] = json!(hex::encode(hash));
                }
            }
            value["signers"] = match signers {
                Signers::Any => json!("any"),
                Signers::Named(names) => json!(names),
            };
        }
        Action::Refresh { epoch, public_key, holders: all, .. } => {
            value["epoch"] = json!(epoch);
            value["public_key"] = json!(hex::encode(&public_key.0));
            value["holders"] = holders(all);
        }
    }
    value
}

/// Arguments of `approve`.
#[derive(clap::Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// File with the approver's private key, PEM or JWK
    #[arg(long, value_name = "FILE")]
    approver_key: PathBuf,
    /// The session that waits for approvals
    #[arg(value_parser = value::<SessionId>, required_unless_present = "request")]
    session: Option<SessionId>,
    /// Add the approval to a signed request in a file, before it is sent
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    request: Option<PathBuf>,
}

/// Approves a request after showing what it asks for.
pub(crate) async fn approve(args: ApproveArgs, out: Output) -> Result<()> {
    let approver = read_initiator(&args.approver_key)?;
    let (authorization, request, input) = match (&args.session, &args.request) {
        (Some(session), _) => {
            let coordinator = args.client.connect()?;
            let view = coordinator.status(&Caller::Open, *session, None).await?;
            let Some(authorization) = view.authorization.as_deref().cloned() else {
                let why = format!("the request of session {session} is not signed");
                return Err(Error::new(ErrorCode::Conflict, why));
            };
            let request = checked(&authorization)?;
            let input = view.ceremony.input().cloned();
            // What is approved is the request: the session must not show something else.
            if let (Action::Sign { input: asked, .. }, Some(shown)) = (&request.action, &input)
                && RequestedInput::of(shown) != *asked
            {
                let why = "the session shows another message than the one that was signed for";
                return Err(quorate_authority::Denial::new(Rule::Input, why).into());
            }
            let approval = approver.approve(&authorization.request);
            let view = coordinator.approve(&Caller::Open, *session, approval).await?;
            let authorization = view.authorization.as_deref().cloned().unwrap_or(authorization);
            (authorization, request, input)
        }
        (None, Some(path)) => {
            let mut file = RequestFile::read(path)?;
            let (mut authorization, _) = file.opened()?;
            let request = checked(&authorization)?;
            let input = file.input(&request)?;
            let approval = approver.approve(&authorization.request);
            let known = authorization.approvals.iter();
            if known.clone().all(|known| known.approver != approval.approver) {
                authorization.approvals.push(approval);
                file.authorization = authorization.clone().into();
                let text = serde_json::to_string_pretty(&file).expect("plain data") + "\n";
                crate::serve::data::write_private(path, text.as_bytes()).map_err(|error| {
                    Error::invalid(format!("cannot write {}: {error}", path.display()))
                })?;
            }
            (authorization, request, input)
        }
        (None, None) => return Err(Error::invalid("give a session, or --request FILE")),
    };
    let mut shown = described(&authorization, &request);
    shown["message"] = json!(input.as_ref().and_then(text_of));
    out.show(&shown, || format!("{}\n\napproved by {}", lines(&shown), approver.public()));
    Ok(())
}

/// The request, signed and in time.
fn checked(authorization: &Authorization) -> Result<Request> {
    let mut initiators = Initiators::default();
    initiators.pin("initiator", authorization.initiator.clone())?;
    Ok(initiators.verify(Some(authorization), SystemClock.now())?.request)
}

/// Arguments of `policy`.
#[derive(clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Check a policy file, and optionally evaluate a signed request against it
    Check {
        /// File with the policy
        file: PathBuf,
        /// File with a signed request to evaluate
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// An initiator that the party accepts in addition to those of the policy: NAME=KEY
        #[arg(long = "initiator", value_name = "NAME=KEY")]
        initiator: Vec<String>,
        /// The label of the key in the request
        #[arg(long, value_name = "LABEL", requires = "request", value_parser = value::<KeyLabel>)]
        label: Option<KeyLabel>,
    },
}

/// Checks a policy.
pub(crate) fn policy(args: &PolicyArgs, out: Output) -> Result<Answer> {
    let PolicyCommand::Check { file, request, initiator, label } = &args.command;
    let policy = read_policy(file)?;
    let mut known = Initiators::default();
    for pinned in initiator {
        let (name, key) = pinned
            .split_once('=')
            .ok_or_else(|| Error::invalid_field("initiator", "give --initiator NAME=KEY"))?;
        known.pin(name, crate::serve::authority::public_key(key)?)?;
    }
    for (name, key) in &policy.initiators {
        known.pin(name, key.clone())?;
    }
    let Some(request) = request else {
        let unknown = policy.check_initiators(&known).err().map(|error| error.message);
        let value = json!({
            "valid": true,
            "rules": policy.keys.iter().chain(&policy.keygen).chain(&policy.default).count(),
            "initiators": known.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "note": unknown,
        });
        out.show(&value, || lines(&value));
        return Ok(Answer::Yes);
    };
    let (authorization, _) = RequestFile::read(request)?.opened()?;
    let value = tried(&policy, &known, &authorization, label.as_ref());
    out.show(&value, || lines(&value));
    Ok(if value["decision"] == "deny" { Answer::No } else { Answer::Yes })
}

/// What a party with this policy and no memory would do about a request.
fn tried(
    policy: &Policy,
    known: &Initiators,
    authorization: &Authorization,
    label: Option<&KeyLabel>,
) -> Value {
    use quorate_authority::Decision;
    let verified: Verified = match known.verify(Some(authorization), SystemClock.now()) {
        Ok(verified) => verified,
        Err(denial) => {
            return json!({"decision": "deny", "rule": denial.rule.name(), "reason": denial.why});
        }
    };
    let used = Use { total: 0, since: &|_| 0 };
    let entry = policy.entry(&verified.request, label).map(|entry| entry.name.clone());
    let mut value =
        match policy.decide(SystemClock.now(), &verified, authorization, &used, label, false) {
            Decision::Allow => json!({"decision": "allow"}),
            Decision::AwaitApproval { needed, given } => json!({
                "decision": "await_approval", "approvals_needed": needed, "approvals_given": given,
            }),
            Decision::AskCallback(callback) => {
                json!({"decision": "ask_callback", "callback": callback.url})
            }
            Decision::Deny(denial) => {
                json!({"decision": "deny", "rule": denial.rule.name(), "reason": denial.why})
            }
        };
    value["policy_rule"] = json!(entry);
    value["initiator"] = json!(verified.initiator);
    value
}
