//! Delegated seats and the packages of their users.

use quorate_types::*;

use crate::proto::router::v1 as ro;

pub(super) fn behalf_in(of: ro::OnBehalfOf) -> Result<OnBehalfOf> {
    let key = |key: ro::SealKey| PackageKey::new(key.kem.parse()?, key.key);
    Ok(OnBehalfOf {
        user_id: of.user_id.parse().map_err(|error: Error| error.with_field("user_id"))?,
        seal_key: of.seal_key.map(key).transpose()?,
    })
}

pub(super) fn behalf_out(of: OnBehalfOf) -> ro::OnBehalfOf {
    let key =
        |key: PackageKey| ro::SealKey { kem: key.kem().name().into(), key: key.bytes().clone() };
    ro::OnBehalfOf { user_id: of.user_id.to_string(), seal_key: of.seal_key.map(key) }
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
