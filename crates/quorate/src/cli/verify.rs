//! verify: a signature against a key, without any server.

use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::ask::lines;
use super::input::InputArgs;
use super::output::Output;
use super::values::value;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    /// The public key in hex: 33 or 65 bytes for ECDSA, 32 for Ed25519
    #[arg(short = 'k', long, value_name = "HEX")]
    public_key: String,
    /// The signature in hex: 64 bytes (r and s), or for ECDSA also 65 with the recovery id (0 to 3, 27
    /// or 28), `r||s` with the bars, or DER
    #[arg(short = 's', long, value_name = "HEX")]
    signature: String,
    #[command(flatten)]
    signed: InputArgs,
    /// The signature scheme: ecdsa-secp256k1 or ed25519 [default: that of the public key]
    #[arg(long, value_parser = value::<Scheme>)]
    scheme: Option<Scheme>,
}

/// Says whether the signature is valid.
pub(crate) fn run(args: &VerifyArgs, out: Output) -> Result<Answer> {
    let unhex = |field: &str, text: &str| {
        let bytes = quorate_wire::decode_hex(text.trim());
        bytes.map_err(|error| Error::invalid_field(field, format!("{field}: {}", error.message)))
    };
    let key = unhex("public_key", &args.public_key)?;
    let (scheme, key) = match args.scheme {
        Some(scheme) => (scheme, quorate_schemes::normalize_public_key(scheme, &key)?),
        None => quorate_schemes::identify_public_key(&key)?,
    };
    let input = args.signed.input(scheme)?;
    let digest = input.digest().map(|digest| hex::encode(digest.0));
    let parts = args.signature.split("||").map(|part| unhex("signature", part));
    let signature = parts.collect::<Result<Vec<_>>>()?.concat();
    let signature = quorate_schemes::parse_foreign_signature(scheme, &signature)?;
    let verified = quorate_schemes::complete_signature(scheme, &key, &input, signature);
    let signature = match verified {
        Ok(signature) => signature,
        Err(error) if error.details.fields.contains_key("signature") => {
            let value = json!({
                "valid": false,
                "reason": error.message,
                "message_hash": digest,
            });
            out.show(&value, || format!("not valid: {}", error.message));
            return Ok(Answer::No);
        }
        Err(error) => return Err(error),
    };
    let value = json!({
        "valid": true,
        "message_hash": digest,
        "recovery_id": signature.recovery_id(),
        "ethereum_address": quorate_schemes::ethereum_address(scheme, &key),
    });
    out.show(&value, || format!("the signature is valid\n{}", lines(&value)));
    Ok(Answer::Yes)
}
