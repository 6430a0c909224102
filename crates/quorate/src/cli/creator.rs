//! What everybody says who creates a session.

use std::path::{Path, PathBuf};

use quorate_types::*;

use super::client::ClientArgs;
use super::request::SigningArgs;
use super::values::value;

/// Where a session is created, with whom and by whose signature.
#[derive(clap::Args)]
pub(crate) struct CreatorArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// A participant; give it once per party. Any remaining seats are filled by online server
    /// parties
    #[arg(short = 'p', long = "party", value_name = "PARTY", value_parser = value::<PartyId>)]
    pub(crate) participants: Vec<PartyId>,
    /// Seconds until the session expires: 1 to 604800 [default: 300, or 86400 if a participant is
    /// offline]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    expires_in: Option<u64>,
    /// File with an initiator's private key, PEM or JWK: signs the request, for server parties that
    /// do not accept the coordinator's service initiator. For a keygen or refresh, the identities of
    /// all holders must be recorded: see `quorate peers`
    #[arg(long, value_name = "FILE")]
    initiator_key: Option<PathBuf>,
    /// A webhook that is told how the session ends, by the name that the operator gave it
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
}

impl CreatorArgs {
    /// What `sign` signs with the initiator's key, where there is one.
    pub(crate) async fn authorize(
        &self,
        sign: impl AsyncFnOnce(&SigningArgs, &Path) -> Result<Authorization>,
    ) -> Result<Option<Authorization>> {
        match &self.initiator_key {
            Some(key) => sign(&self.signing, key).await.map(Some),
            None => Ok(None),
        }
    }

    /// The request for a ceremony.
    pub(crate) fn request(
        &self,
        ceremony: CeremonyRequest,
        authorization: Option<Authorization>,
    ) -> CreateSession {
        CreateSession {
            participants: plain(&self.participants),
            expires_in_seconds: self.expires_in,
            webhook: self.webhook.clone(),
            ..new_session(ceremony, authorization)
        }
    }
}

/// A request whose participants the coordinator chooses.
pub(crate) fn new_session(
    ceremony: CeremonyRequest,
    authorization: Option<Authorization>,
) -> CreateSession {
    CreateSession {
        ceremony,
        participants: Vec::new(),
        expires_in_seconds: None,
        idempotency_key: None,
        authorization,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

/// Participants without device particulars.
fn plain(parties: &[PartyId]) -> Vec<NewParticipant> {
    let plain = |party: &PartyId| NewParticipant {
        party_id: party.clone(),
        device: DeviceInfo::default(),
        on_behalf_of: None,
    };
    parties.iter().map(plain).collect()
}
