//! Delegated seats and the packages of their users.

use bytes::Bytes;
use quorate_types::*;

use crate::proto::router::v1 as ro;

fn key_in(key: ro::SealKey) -> Result<PackageKey> {
    PackageKey::new(key.kem.parse()?, key.key)
}

fn key_out(key: &PackageKey) -> ro::SealKey {
    ro::SealKey { kem: key.kem().name().into(), key: key.bytes().clone() }
}

pub(super) fn delegate_key_in(published: ro::DelegateKey) -> Result<DelegateKey> {
    let missing = || Error::invalid_field("delegate_key", "a delegate_key has a key");
    Ok(DelegateKey {
        key: key_in(published.key.ok_or_else(missing)?)?,
        signature: KeySignature::read(&published.signature)?,
    })
}

pub(super) fn delegate_key_out(published: DelegateKey) -> ro::DelegateKey {
    ro::DelegateKey {
        key: Some(key_out(&published.key)),
        signature: Bytes::copy_from_slice(&published.signature.0),
    }
}

pub(super) fn lent_in(lent: ro::DelegateUserShare) -> Result<LentShare> {
    let delegate = lent.delegate_party_id.parse();
    Ok(LentShare {
        delegate: delegate.map_err(|error: Error| error.with_field("delegate_party_id"))?,
        holder_index: index_in(lent.party_index)?,
        package: lent.encrypted_share,
    })
}

pub(super) fn lent_out(lent: LentShare) -> ro::DelegateUserShare {
    ro::DelegateUserShare {
        delegate_party_id: lent.delegate.to_string(),
        encrypted_share: lent.package,
        party_index: lent.holder_index.0.into(),
    }
}

pub(super) fn behalf_in(of: ro::OnBehalfOf) -> Result<OnBehalfOf> {
    Ok(OnBehalfOf {
        user_id: of.user_id.parse().map_err(|error: Error| error.with_field("user_id"))?,
        seal_key: of.seal_key.map(key_in).transpose()?,
    })
}

pub(super) fn behalf_out(of: OnBehalfOf) -> ro::OnBehalfOf {
    let seal_key = of.seal_key.as_ref().map(key_out);
    ro::OnBehalfOf { user_id: of.user_id.to_string(), seal_key }
}

fn index_in(index: i32) -> Result<PartyIndex> {
    let index = u16::try_from(index);
    index
        .map(PartyIndex)
        .map_err(|_| Error::invalid_field("party_index", "party_index is 0 or more"))
}

/// A package that is handed in, as it comes in.
pub fn submitted_in(request: ro::SubmitDelegateShareRequest) -> Result<SubmitShare> {
    Ok(SubmitShare {
        session_id: request.session_id.parse()?,
        party_id: request.party_id.parse()?,
        party_index: index_in(request.party_index)?,
        public_key: request.public_key.to_vec(),
        package: request.encrypted_share,
    })
}

/// A package that is handed in, as it goes out.
pub fn submitted_out(submitted: SubmitShare) -> ro::SubmitDelegateShareRequest {
    ro::SubmitDelegateShareRequest {
        session_id: submitted.session_id.to_string(),
        party_id: submitted.party_id.to_string(),
        encrypted_share: submitted.package,
        public_key: submitted.public_key.into(),
        party_index: submitted.party_index.0.into(),
    }
}

fn asked(session_id: &str, party_id: &str, fetch_token: String) -> Result<FetchShare> {
    if fetch_token.is_empty() {
        let why = "fetching a share needs its fetch_token";
        return Err(Error::new(ErrorCode::Unauthorized, why));
    }
    Ok(FetchShare {
        session_id: session_id.parse()?,
        party_id: party_id.parse()?,
        token: Secret::new(fetch_token),
    })
}

/// Which package is meant, as it comes in.
pub fn fetch_in(request: ro::FetchDelegateShareRequest) -> Result<FetchShare> {
    asked(&request.session_id, &request.party_id, request.fetch_token)
}

/// Which package is meant, as it comes in.
pub fn confirm_in(request: ro::ConfirmDelegateShareRequest) -> Result<FetchShare> {
    asked(&request.session_id, &request.party_id, request.fetch_token)
}

/// Which package is meant, as it goes out.
pub fn fetch_out(asked: &FetchShare) -> ro::FetchDelegateShareRequest {
    ro::FetchDelegateShareRequest {
        session_id: asked.session_id.to_string(),
        party_id: asked.party_id.to_string(),
        fetch_token: asked.token.expose().clone(),
    }
}

/// Which package is meant, as it goes out.
pub fn confirm_out(asked: &FetchShare) -> ro::ConfirmDelegateShareRequest {
    ro::ConfirmDelegateShareRequest {
        session_id: asked.session_id.to_string(),
        party_id: asked.party_id.to_string(),
        fetch_token: asked.token.expose().clone(),
    }
}

/// A fetched package.
pub fn fetched_out(share: DelegatedShare) -> ro::FetchDelegateShareResponse {
    ro::FetchDelegateShareResponse {
        session_id: share.session_id.to_string(),
        party_id: share.party_id.to_string(),
        user_id: share.user_id.to_string(),
        party_index: share.party_index.0.into(),
        encrypted_share: share.package,
    }
}

/// A fetched package, as it comes back.
pub fn fetched_in(response: ro::FetchDelegateShareResponse) -> Result<DelegatedShare> {
    Ok(DelegatedShare {
        session_id: response.session_id.parse()?,
        party_id: response.party_id.parse()?,
        user_id: response.user_id.parse()?,
        party_index: index_in(response.party_index)?,
        package: response.encrypted_share,
    })
}
