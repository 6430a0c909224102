//! verify: a signature against a key, without any server.

use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::ask::{WhatArgs, lines};
use super::output::Output;
use super::values::value;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    /// The public key in hex, compressed or not
    #[arg(short = 'k', long, value_name = "HEX")]
    public_key: String,
    /// The signature in hex: r ‖ s, with or without a recovery id behind it
    #[arg(short = 's', long, value_name = "HEX")]
    signature: String,
    #[command(flatten)]
    what: WhatArgs,
    /// The signature scheme
    #[arg(long, default_value_t = Scheme::default(), value_parser = value::<Scheme>)]
    scheme: Scheme,
}

/// Says whether the signature is valid.
pub(crate) fn run(args: &VerifyArgs, out: Output) -> Result<Answer> {
    let unhex = |field: &str, text: &str| {
        let text = text.strip_prefix("0x").unwrap_or(text);
        hex::decode(text).map_err(|_| Error::invalid_field(field, format!("{field} is not hex")))
    };
    let key = unhex("public_key", &args.public_key)?;
    let key = quorate_schemes::normalize_public_key(args.scheme, &key)?;
    let digest = args.what.digest()?;
    let signature = unhex("signature", &args.signature)?;
    let signature = quorate_schemes::parse_signature(args.scheme, &signature, None)?;
    let input = SignInput::Digest(digest);
    let verified = quorate_schemes::complete_signature(args.scheme, &key, &input, signature);
    let signature = match verified {
        Ok(signature) => signature,
        Err(error) if error.details.fields.contains_key("signature") => {
            let value = json!({
                "valid": false,
                "reason": error.message,
                "message_hash": hex::encode(digest.0),
            });
            out.show(&value, || format!("not valid: {}", error.message));
            return Ok(Answer::No);
        }
        Err(error) => return Err(error),
    };
    let value = json!({
        "valid": true,
        "message_hash": hex::encode(digest.0),
        "recovery_id": signature.recovery_id,
        "ethereum_address": quorate_schemes::ethereum_address(args.scheme, &key),
    });
    out.show(&value, || format!("the signature is valid\n{}", lines(&value)));
    Ok(Answer::Yes)
}
