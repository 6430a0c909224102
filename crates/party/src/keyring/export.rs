//! A share in a file: sealed under a passphrase, to be kept elsewhere and taken in again.
//!
//! ```text
//! "quorate-share/2\n" (16) | salt (16) | nonce (12) | ChaCha20-Poly1305 over a postcard document
//! ```
//!
//! The key is made of the passphrase by Argon2id. The document holds the share sealed under the
//! same key, the public side of the key, the identities pinned when it was made, and the bans: a
//! restored share must not forget with whom it must not sign.

use std::sync::Arc;

use quorate_engine::{SealContext, SealKey, Share};
use quorate_ports::vault::{Ban, SealedShare, ShareState};
use quorate_types::*;
use serde::{Deserialize, Serialize};

use super::{Keyring, MIN_PASSPHRASE};
use crate::compute::Compute;

const MAGIC: &[u8; 16] = b"quorate-share/2\n";
/// The first version knew neither the execution nor confirmations: all its shares were active.
const FIRST_MAGIC: &[u8; 16] = b"quorate-share/1\n";
const SALT: usize = 16;

#[derive(Serialize, Deserialize)]
struct Document {
    party: PartyId,
    record: ExportedRecord,
    epoch: u32,
    identities: Vec<[u8; 32]>,
    bans: Vec<(PartyId, String, Timestamp)>,
    sealed: Vec<u8>,
}

/// The public side of a key as exports of every version have it.
#[derive(Serialize, Deserialize)]
struct ExportedRecord {
    key_id: KeyId,
    tenant: Tenant,
    scheme: Scheme,
    threshold: Threshold,
    public_key: PublicKey,
    holders: Vec<PartyId>,
    created_at: Timestamp,
}

impl From<KeyRecord> for ExportedRecord {
    fn from(record: KeyRecord) -> Self {
        let KeyRecord { key, tenant, created_at, label: _, frozen: _ } = record;
        let KeyEpoch { key_id, scheme, threshold, public_key, holders, epoch: _ } =
            Arc::unwrap_or_clone(key);
        Self { key_id, tenant, scheme, threshold, public_key, holders, created_at }
    }
}

impl ExportedRecord {
    fn in_epoch(self, epoch: u32) -> KeyRecord {
        let Self { key_id, tenant, scheme, threshold, public_key, holders, created_at } = self;
        let key = KeyEpoch { key_id, epoch, scheme, threshold, public_key, holders };
        // Only who checks requests knows a label, and those do not export.
        KeyRecord { key: Arc::new(key), tenant, created_at, label: None, frozen: None }
    }
}

/// What the second version adds, after the document of the first.
#[derive(Default, Serialize, Deserialize)]
struct Confirmed {
    active: bool,
    execution: [u8; 32],
    confirmations: Vec<u8>,
}

impl Keyring {
    /// The share of a key as bytes that only the passphrase opens.
    ///
    /// # Errors
    /// `not_found` when this party holds no share of the key; `invalid_request` for a passphrase of
    /// fewer than 10 bytes.
    pub async fn export(
        &self,
        key: KeyId,
        passphrase: &Secret<String>,
        compute: &Compute,
    ) -> Result<Vec<u8>> {
        if passphrase.expose().len() < MIN_PASSPHRASE {
            let why = format!("a passphrase has {MIN_PASSPHRASE} bytes or more");
            return Err(Error::invalid_field("passphrase", why));
        }
        let open = self.key(key, compute).await?.ok_or_else(|| Error::not_found("key", key))?;
        let mut bans = self.vault.bans(key).await?;
        bans.extend(self.bans.unwritten(&open.stored));
        let (party, stored) = (self.party.clone(), open.stored.clone());
        let passphrase = Secret::new(passphrase.expose().clone());
        let job = move || {
            let mut salt = [0; SALT];
            getrandom::fill(&mut salt).map_err(|_| Error::internal())?;
            let seal = SealKey::from_passphrase(passphrase.expose().as_bytes(), &salt)?;
            let context = SealContext { party_id: &party, key_id: key, epoch: stored.epoch };
            let document = Document {
                sealed: open.share.seal(&seal, &context)?,
                party: party.clone(),
                record: stored.record.into(),
                epoch: stored.epoch,
                identities: stored.identities,
                bans: bans.into_iter().map(|ban| (ban.peer, ban.reason, ban.at)).collect(),
            };
            let confirmed = Confirmed {
                active: stored.state == ShareState::Active,
                execution: stored.execution,
                confirmations: stored.confirmations,
            };
            let plain =
                postcard::to_allocvec(&(&document, &confirmed)).map_err(|_| Error::internal())?;
            Ok([&MAGIC[..], &salt, &seal.seal(&plain, MAGIC)?].concat())
        };
        compute.run(job).await
    }

    /// Imports what [`Keyring::export`] gave, with the share, the pins and the bans.
    ///
    /// # Errors
    /// `invalid_request` when the bytes do not open or are of another party; `conflict` when this
    /// party holds a share of that key already.
    pub async fn import(
        &self,
        exported: &[u8],
        passphrase: &Secret<String>,
        compute: &Compute,
    ) -> Result<KeyRecord> {
        let bytes = exported.to_vec();
        let passphrase = Secret::new(passphrase.expose().clone());
        let own = self.party.clone();
        let (document, confirmed, share) =
            compute.run(move || open(&bytes, passphrase.expose(), &own)).await?;
        let key_id = document.record.key_id;
        if self.vault.share(key_id).await?.is_some() {
            let why = format!("this party already holds a share of key {key_id}");
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        let Document { record, epoch, identities, bans, .. } = document;
        let ban = |(peer, reason, at)| {
            let evidence = Vec::new();
            Ban { key_id, epoch, peer, reason, at, evidence }
        };
        let bans: Vec<_> = bans.into_iter().map(ban).collect();
        let record = record.in_epoch(epoch);
        // Bans first: a share that is here without them could be used.
        for ban in &bans {
            self.vault.ban(ban.clone()).await?;
        }
        let stored = SealedShare {
            key_id,
            epoch,
            state: if confirmed.active { ShareState::Active } else { ShareState::Pending },
            share_index: self.index_among(&record.holders)?,
            record: record.clone(),
            identities,
            execution: confirmed.execution,
            confirmations: confirmed.confirmations,
            sealed: Vec::new(),
        };
        self.insert(Arc::new(share), stored, bans, compute).await?;
        Ok(record)
    }
}

fn open(bytes: &[u8], passphrase: &str, own: &PartyId) -> Result<(Document, Confirmed, Share)> {
    let unusable = |why: &str| Error::invalid_field("share", format!("this {why}"));
    let (magic, rest) = bytes
        .split_first_chunk::<16>()
        .filter(|(magic, _)| [MAGIC, FIRST_MAGIC].contains(magic))
        .ok_or_else(|| unusable("is not an exported share"))?;
    let (salt, sealed) =
        rest.split_first_chunk::<SALT>().ok_or_else(|| unusable("share is cut off"))?;
    let seal = SealKey::from_passphrase(passphrase.as_bytes(), salt)?;
    let wrong = || unusable("share does not open: wrong passphrase, or it is damaged");
    let plain = seal.open(sealed, magic).ok_or_else(wrong)?;
    let (document, confirmed) = read(magic, &plain).ok_or_else(wrong)?;
    if document.party != *own {
        let why = format!("share is of {}, not of {own}", document.party);
        return Err(unusable(&why));
    }
    let key_id = document.record.key_id;
    let context = SealContext { party_id: own, key_id, epoch: document.epoch };
    let share = Share::open(&document.sealed, &seal, &context)?;
    Ok((document, confirmed, share))
}

fn read(magic: &[u8; 16], plain: &[u8]) -> Option<(Document, Confirmed)> {
    if magic == MAGIC {
        return postcard::from_bytes(plain).ok();
    }
    let document = postcard::from_bytes(plain).ok()?;
    Some((document, Confirmed { active: true, ..Confirmed::default() }))
}
