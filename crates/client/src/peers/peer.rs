//! What every session of a device with its peers has, whichever relay carries it.

use std::sync::Arc;
use std::time::Duration;

use quorate_party::{Compute, Keyring, Worker};
use quorate_types::*;

use super::connect::relay_url;
use super::signer::MessageSigner;

/// How long a run may take when nothing else is said: a person must reach for the other phone.
const LIMIT: Duration = Duration::from_secs(300);

/// A device, and where its relay is.
pub(crate) struct Peer {
    pub(crate) worker: Worker,
    pub(crate) signer: Arc<dyn MessageSigner>,
    pub(crate) url: String,
    pub(crate) limit: Duration,
}

impl Peer {
    pub(crate) fn new(
        url: &str,
        signer: Arc<dyn MessageSigner>,
        keyring: Arc<Keyring>,
    ) -> Result<Self> {
        let url = relay_url(url)?;
        let own = signer.verifying_key().party_id();
        if *keyring.party() != own {
            let why = format!("the keyring is of {}, the signer is {own}", keyring.party());
            return Err(Error::invalid(why));
        }
        let worker = Worker { keyring, compute: Compute::default() };
        Ok(Self { worker, signer, url, limit: LIMIT })
    }

    /// The public side of a key that this device holds a share of.
    pub(crate) async fn key(&self, key: KeyId) -> Result<KeyRecord> {
        let open = self.worker.keyring.key(key, &self.worker.compute).await?;
        let open = open.ok_or_else(|| Error::not_found("key", key))?;
        Ok(open.stored.record.clone())
    }
}

/// The signature that a run ended with.
pub(crate) fn signature(outcome: PartyOutcome) -> Result<Signature> {
    match outcome {
        PartyOutcome::Signature { bytes, recovery_id } => {
            Signature::from_parts(&bytes, recovery_id)
        }
        _ => Err(Error::internal()),
    }
}
