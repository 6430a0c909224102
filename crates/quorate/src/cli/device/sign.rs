//! device sign: propose and wait, or look at what is proposed and agree.

use std::io::IsTerminal as _;

use quorate_client::peers::{
    DeviceLink, InstanceId, MessageHash, Observer, SigningRequest, VerifyingKey,
};
use quorate_types::{Error, ErrorCode, KeyId, KeyRecord, PartyId, Result, Scheme};
use serde_json::json;

use super::super::ask::lines;
use super::super::input::Given;
use super::super::output::{Output, prompt, tell};
use super::super::values::{key_among, value};
use super::folder::{Folder, PairingRoom};
use super::{RunArgs, Steps, qr};

/// Arguments of `device sign`.
#[derive(clap::Args)]
pub(in crate::cli) struct SignArgs {
    /// The link shown by the device that started it
    #[arg(value_name = "LINK", conflicts_with_all = ["key", "what", "with"])]
    link: Option<String>,
    /// Start a signature with this key
    #[arg(short, long, required_unless_present = "link")]
    key: Option<String>,
    #[command(flatten)]
    what: What,
    /// Another signer; give it once per device [default: the first holders of the key]
    #[arg(long, value_name = "DEVICE", value_parser = value::<PartyId>)]
    with: Vec<PartyId>,
    /// Approve without asking
    #[arg(short, long, requires = "link")]
    yes: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// What is proposed.
#[derive(clap::Args)]
#[group(skip)]
pub(in crate::cli) struct What {
    /// The message; an ECDSA key signs its hash (--hash), an Ed25519 key the message itself
    #[arg(long, value_name = "TEXT", group = "what")]
    message: Option<String>,
    /// The message in hex
    #[arg(long, value_name = "HEX", group = "what")]
    message_hex: Option<String>,
    /// The 32-byte digest in hex, for an ECDSA key
    #[arg(long, value_name = "HEX", group = "what")]
    digest: Option<String>,
    /// How a message is hashed: keccak256, sha256, raw when it is the digest, or none [default: as
    /// the key's scheme signs, keccak256 or none]
    #[arg(long, value_parser = value::<MessageHash>)]
    hash: Option<MessageHash>,
}

impl What {
    /// What a key of this scheme is to sign.
    pub(in crate::cli) fn request(&self, scheme: Scheme) -> Result<SigningRequest> {
        let Self { message, message_hex, digest, hash } = self;
        let given = Given { message, message_hex, digest, hash: *hash };
        let (message, hash) = given.hashed_for(scheme)?;
        SigningRequest::new(message, hash)
    }
}

/// Where a signature is made.
struct Meeting {
    relay: String,
    instance: InstanceId,
    key: KeyId,
    members: Vec<VerifyingKey>,
}

/// Signs, as the one who starts it or as one who takes part.
pub(in crate::cli) async fn run(folder: &Folder, args: SignArgs, out: Output) -> Result<()> {
    let keyring = folder.keyring().await?;
    let (meeting, request) = match (&args.link, &args.key) {
        (Some(link), _) => (meeting(link.parse()?)?, None),
        (None, Some(key)) => {
            let key = key_among(keyring.keys().await?, key)?;
            let request = args.what.request(key.scheme)?;
            (start(folder, key.key_id, &args.with)?, Some(request))
        }
        (None, None) => return Err(Error::invalid("give --key to start, or a link to take part")),
    };
    let Meeting { relay, instance, key, members } = meeting;
    let session = folder.session(&relay, keyring, args.run.limit())?;
    let record = session.key(key).await?;
    if request.is_some() {
        let link = DeviceLink::Sign { relay, instance, key, members: members.clone() }.to_string();
        out.show(&json!({ "link": link }), || {
            format!("{}{link}\n\nthe others take part with `device sign LINK`", qr::code(&link))
        });
    }
    let names = folder.members(key).map(|room| room.names()).unwrap_or_default();
    let steps = Steps::new(out, "signing", names.clone());
    let mut seen = request.clone();
    let mut declined = false;
    let approve = |proposer: &PartyId, request: &SigningRequest| {
        seen = Some(request.clone());
        steps.finish();
        let agreed = args.yes || asked(&names.full(proposer), &record, request);
        declined = !agreed;
        agreed
    };
    let mut observer = Observer { approve: Box::new(approve), ..steps.observer() };
    let signed = session.sign(instance, &members, key, request, &mut observer).await;
    drop(observer);
    steps.finish();
    if declined {
        return Err(declined_here());
    }
    let signature = signed?;
    let digest = seen.as_ref().and_then(|request| request.input().digest());
    let value = json!({
        "key_id": key,
        "public_key": hex::encode(&record.public_key.0),
        "message_hash": digest.map(|digest| hex::encode(digest.0)),
        "signature": hex::encode(signature.bytes()),
        "recovery_id": signature.recovery_id(),
        "signers": members.iter().map(VerifyingKey::party_id).collect::<Vec<_>>(),
    });
    out.show(&value, || lines(&value));
    Ok(())
}

fn meeting(link: DeviceLink) -> Result<Meeting> {
    match link {
        DeviceLink::Sign { relay, instance, key, members } => {
            Ok(Meeting { relay, instance, key, members })
        }
        _ => Err(Error::invalid_field("link", "this link is for pairing, not for a signature")),
    }
}

/// This device first, then who was named, or the first of the other holders.
fn start(folder: &Folder, key: KeyId, with: &[PartyId]) -> Result<Meeting> {
    let room: PairingRoom = folder.members(key)?;
    let own = folder.verifying_key();
    let others: Vec<_> = room.members().iter().filter(|member| **member != own).collect();
    let mut members = vec![own.clone()];
    if with.is_empty() {
        let wanted = usize::from(room.threshold()?.signers()) - 1;
        members.extend(others.into_iter().take(wanted).cloned());
    } else {
        for name in with {
            let member = others.iter().find(|member| member.party_id() == *name);
            let member = member.ok_or_else(|| {
                let all: Vec<_> = others.iter().map(|m| m.party_id().to_string()).collect();
                let why = format!("{name} holds no share; the others are {}", all.join(", "));
                Error::invalid_field("with", why)
            })?;
            members.push((*member).clone());
        }
    }
    let relay = room.relay().to_owned();
    Ok(Meeting { relay, instance: InstanceId::random(), key, members })
}

/// That the person at this device said no.
pub(in crate::cli) fn declined_here() -> Error {
    Error::new(ErrorCode::Conflict, "you declined to sign this")
}

/// Shows who asks for what, and asks the person at the terminal.
pub(in crate::cli) fn asked(proposer: &str, key: &KeyRecord, request: &SigningRequest) -> bool {
    let address = quorate_schemes::ethereum_address(key.scheme, &key.public_key);
    tell(&format!("{proposer} asks for a signature"));
    tell(&format!("key: {} ({})", key.key_id, address.unwrap_or_default()));
    match (request.hash(), std::str::from_utf8(request.message())) {
        (MessageHash::Raw, _) => tell("a digest whose message is not shown"),
        // Control characters of another device do not belong on this terminal.
        (hash, Ok(text)) => tell(&format!("message ({}): {}", hash.name(), text.escape_debug())),
        (hash, Err(_)) => {
            tell(&format!("message ({}): 0x{}", hash.name(), hex::encode(request.message())))
        }
    }
    if let Some(digest) = request.input().digest() {
        tell(&format!("digest: {}", hex::encode(digest.0)));
    }
    agrees("sign it?")
}

/// Asks the person at the terminal, where there is one.
pub(in crate::cli) fn agrees(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        tell("standard input is not a terminal: give --yes to approve without asking");
        return false;
    }
    prompt(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = tokio::task::block_in_place(|| std::io::stdin().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        what: What,
    }

    #[test]
    fn a_message_goes_with_its_hash_and_with_no_other_message() {
        let parse = |words: &[&str]| Line::try_parse_from([&["x"], words].concat());
        let line = parse(&["--message", "hello", "--hash", "sha256"]).ok().unwrap();
        let ecdsa = Scheme::EcdsaSecp256k1;
        assert_eq!(line.what.request(ecdsa).unwrap().hash(), MessageHash::Sha256);
        assert!(line.what.request(Scheme::Ed25519).is_err(), "it signs no hashes");
        let line = parse(&["--message", "hello"]).ok().unwrap();
        assert_eq!(line.what.request(ecdsa).unwrap().hash(), MessageHash::Keccak256);
        assert_eq!(line.what.request(Scheme::Ed25519).unwrap().hash(), MessageHash::None);
        let line = parse(&["--message", "hello", "--hash", "none"]).ok().unwrap();
        assert!(line.what.request(ecdsa).is_err(), "it signs no messages");
        assert!(parse(&["--message", "hello", "--digest", "00"]).is_err());
        assert!(parse(&["--message-hex", "00", "--digest", "00"]).is_err());
    }
}
