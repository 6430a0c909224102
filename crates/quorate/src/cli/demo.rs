//! demo: the main job from nothing, over real sockets.

use std::time::Instant;

use clap::Parser;
use quorate_rpc::remote::RemoteCoordinator;
use quorate_schemes::HashKind;
use quorate_types::*;
use serde_json::json;

use super::ask::run_session;
use super::creator::new_session;
use super::output::Output;
use super::up::{PartyOptions, Running};
use super::values::value;
use crate::serve::endpoints::Ports;
use crate::serve::options::ServeOptions;
use crate::serve::peers;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// The message to sign; for ECDSA it is hashed with Keccak-256, as Ethereum does
    #[arg(long, default_value = "Hello, Quorate!")]
    message: String,
    /// The signature scheme: ecdsa-secp256k1 or ed25519
    #[arg(long, default_value_t = Scheme::default(), value_parser = value::<Scheme>)]
    scheme: Scheme,
}

/// The serving options of a throw-away installation.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    options: ServeOptions,
}

/// Starts everything on free ports with its data in a temporary folder, makes a key, signs, shows
/// the result and clears up.
pub(crate) async fn run(args: DemoArgs, out: Output) -> Result<()> {
    let folder = temporary_folder()?;
    let mut options = Defaults::parse_from(["demo"]).options;
    options.data.data = folder.0.clone();
    options.auth = None;
    let bar = out
        .progress("starting a coordinator, a router, an account service and three server parties");
    let running =
        Running::start(options, None, Ports::Ephemeral, PartyOptions::default(), None).await?;
    bar.finish_and_clear();
    let done = make_and_sign(&running, &args, out).await;
    running.stop().await;
    done
}

async fn make_and_sign(running: &Running, args: &DemoArgs, out: Output) -> Result<()> {
    let DemoArgs { message, scheme } = args;
    let url = peers::url(running.endpoints.coordinator.grpc, false);
    let coordinator = RemoteCoordinator::new(peers::endpoint(&url, None, None, false)?);
    let began = Instant::now();
    let made = run_session(&coordinator, keygen(*scheme)?, "making a 2-of-3 key", out).await?;
    let keygen_ms = began.elapsed().as_secs_f64() * 1e3;
    let key_id = made.key_id().ok_or_else(Error::internal)?;
    let public_key = made.public_key().cloned().ok_or_else(Error::internal)?;
    let input = match quorate_schemes::signs_messages(*scheme) {
        true => SignInput::Message(message.clone().into()),
        false => {
            let digest = quorate_schemes::hash_message(HashKind::Keccak256, message.as_bytes());
            SignInput::Digest(digest)
        }
    };
    let digest = input.digest().map(|digest| hex::encode(digest.0));
    let began = Instant::now();
    let signed = run_session(&coordinator, sign(key_id, input.clone()), "signing", out).await?;
    let sign_ms = began.elapsed().as_secs_f64() * 1e3;
    let Some(Outcome::Signature(signature)) = &signed.outcome else {
        return Err(Error::internal());
    };
    let (scheme, threshold) = (made.ceremony.scheme(), made.ceremony.threshold());
    quorate_schemes::verify(scheme, &public_key, &input, signature)?;
    let value = json!({
        "scheme": scheme.name(),
        "threshold_t": threshold.signers(),
        "threshold_n": threshold.parties(),
        "public_key": hex::encode(&public_key.0),
        "message": message,
        "message_hash": digest,
        "signature": hex::encode(signature.bytes()),
        "recovery_id": signature.recovery_id(),
        "ethereum_address": quorate_schemes::ethereum_address(scheme, &public_key),
        "keygen_ms": round(keygen_ms),
        "sign_ms": round(sign_ms),
    });
    out.show(&value, || {
        let names = |view: &SessionView, between: &str| {
            let names: Vec<_> = view.parties().map(PartyId::as_str).collect();
            names.join(between)
        };
        let (signers, parties) = (threshold.signers(), threshold.parties());
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let story = [
            ("parties", names(&made, ", ")),
            ("key", format!("{signers} of {parties}, made in {}", duration(keygen_ms))),
            ("public key", text("public_key")),
            ("address", text("ethereum_address")),
            ("message", message.clone()),
            ("digest", digest.map(|d| format!("{d} (Keccak-256)")).unwrap_or_default()),
            ("signature", text("signature")),
            ("signed by", format!("{} in {}", names(&signed, " and "), duration(sign_ms))),
            ("verified", "the signature is valid for this key and message".to_owned()),
        ];
        let told = story.iter().filter(|(_, value)| !value.is_empty());
        let story: Vec<_> = told.map(|(name, value)| format!("{name:<10}  {value}")).collect();
        format!(
            "{}\n\nnext: `quorate up` runs such servers until you stop them; then `quorate keygen`",
            story.join("\n")
        )
    });
    Ok(())
}

/// Milliseconds as people say them.
fn duration(ms: f64) -> String {
    if ms < 1e3 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}

fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

fn keygen(scheme: Scheme) -> Result<CreateSession> {
    let threshold = Threshold::new(2, 3)?;
    Ok(new_session(CeremonyRequest::Keygen { scheme, threshold }, None))
}

fn sign(key: KeyId, input: SignInput) -> CreateSession {
    let key = KeySelector::Id(key);
    new_session(CeremonyRequest::Sign { key, threshold: None, input }, None)
}

/// A folder that goes when the demo ends.
struct TemporaryFolder(std::path::PathBuf);

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn temporary_folder() -> Result<TemporaryFolder> {
    let mut name = [0_u8; 8];
    getrandom::fill(&mut name).map_err(|_| Error::internal())?;
    Ok(TemporaryFolder(std::env::temp_dir().join(format!("quorate-demo-{}", hex::encode(name)))))
}
