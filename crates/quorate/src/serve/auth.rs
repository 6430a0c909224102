//! Who is calling: nobody asks (`open`), or an API key or a party's identity proves it (`required`).
//!
//! Another role of the installation proves in both modes that it belongs, by the link secret or an
//! API key with the scope `system`, and says for whom it asks; nobody else may say that.
//!
//! A party proves itself with `Authorization: Quorate-Party` and a [`PartyProof`], its signature
//! over this very call: to whom, what, with which body, under which nonce of ours. `Quorate-Party
//! NAME` alone asks for a nonce, which comes as `quorate-nonce` with the refusal. A WebSocket of a
//! browser shows a ticket instead.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_app::{ApiKeys, Clock};
use quorate_client::{NONCE, PARTY_SCHEME};
use quorate_core::links::LinkRole;
use quorate_engine::PartyProof;
use quorate_front_rest::Lapse;
use quorate_rpc::{MAX_MESSAGE, ON_BEHALF_OF, behalf_in, streams_calls};
use quorate_types::{Caller, Error, ErrorCode, PartyId, Result};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::connections::Place;
use super::edge::{Edge, is_grpc};
use super::lapse::until_lapsed;
use super::link::{LINK_SCHEME, LinkSecret};
use super::listener::AcceptedAt;
use super::nonces::Nonces;
use super::tickets::{TicketDesk, split_ticket};

/// Largest body that a proof covers: the largest of gRPC and its five bytes of framing.
const PROVEN_BODY: usize = MAX_MESSAGE + 5;

/// How callers are told apart.
pub(crate) struct Gate {
    /// The installation's API keys; `None` believes every caller to be the party it says.
    keys: Option<Arc<ApiKeys>>,
    /// Parties that prove themselves, with their identity keys.
    trusted: RwLock<HashMap<PartyId, [u8; 32]>>,
    /// What other roles prove.
    link: Option<LinkSecret>,
    nonces: Nonces,
    tickets: Arc<TicketDesk>,
    /// The names of this server.
    edge: Arc<Edge>,
    clock: Arc<dyn Clock>,
}

/// What a request's credentials are worth.
enum Found {
    Nobody,
    Known(Caller, Lapse),
    /// Another role of the installation.
    Link(LinkRole),
    /// A party signed for this request, if the body is the one it signed.
    Proven(Box<PartyProof>),
}

/// Credentials that are refused.
struct Denied {
    error: Error,
    /// Whether another nonce is the way out.
    challenge: bool,
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self { error, challenge: false }
    }
}

fn unauthorized(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::Unauthorized, why)
}

type Checked = std::result::Result<Found, Denied>;

impl Gate {
    /// A gate that checks API keys, or believes everybody where there are none to check.
    pub(crate) fn new(
        keys: Option<Arc<ApiKeys>>,
        trusted: HashMap<PartyId, [u8; 32]>,
        link: Option<LinkSecret>,
        edge: Arc<Edge>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let tickets = Arc::new(TicketDesk::new(clock.clone()));
        let (trusted, nonces) = (RwLock::new(trusted), Nonces::new()?);
        Ok(Self { keys, trusted, link, nonces, tickets, edge, clock })
    }

    /// Lets a party in that proves this identity.
    pub(crate) fn trust(&self, party: PartyId, identity: [u8; 32]) {
        let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
        trusted.insert(party, identity);
    }

    /// The parties that prove themselves.
    pub(crate) fn trusted_parties(&self) -> Vec<PartyId> {
        self.trusted().keys().cloned().collect()
    }

    /// Where tickets for this gate are made.
    pub(crate) fn tickets(&self) -> Arc<TicketDesk> {
        Arc::clone(&self.tickets)
    }

    fn trusted(&self) -> RwLockReadGuard<'_, HashMap<PartyId, [u8; 32]>> {
        self.trusted.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sent a request, by its head. A ticket is taken out of the query.
    fn find(&self, request: &mut Request) -> Checked {
        let found = match redeemable(request) {
            Some(ticket) => {
                let (caller, lapse) = self.tickets.redeem(&ticket)?;
                Found::Known(caller, lapse)
            }
            None => self.peer(request)?,
        };
        let behalf = request.headers().get(ON_BEHALF_OF);
        let behalf = behalf.map(|value| {
            value.to_str().map_err(|_| Error::invalid("unreadable")).and_then(behalf_in)
        });
        let behalf = behalf.transpose()?;
        match (&found, behalf) {
            (Found::Link(role), caller) => {
                let caller = caller.unwrap_or(Caller::System);
                role.may(request.uri().path(), &caller)?;
                keep_place(request);
                return Ok(Found::Known(caller, Lapse::default()));
            }
            (Found::Known(peer, lapse), Some(caller)) if peer.is_system() => {
                return Ok(Found::Known(caller, lapse.clone()));
            }
            (_, None) => return Ok(found),
            (_, Some(_)) => {}
        }
        // A role without the link secret cannot ask for others, and a stranger not for anybody.
        Err(Denied::from(Error::new(
            ErrorCode::Forbidden,
            "only another role of this installation may ask for somebody else; start the roles \
             with the same --link-key",
        )))
    }

    fn peer(&self, request: &Request) -> Checked {
        let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(secret) = value.and_then(|value| value.strip_prefix(LINK_SCHEME)) {
            if let Some(role) = self.link.as_ref().and_then(|link| link.role(secret)) {
                return Ok(Found::Link(role));
            }
            return Err(Denied::from(unauthorized(
                "the link secret is not this installation's; start the roles with the same \
                 --link-key",
            )));
        }
        if let Some(proof) = value.and_then(|value| value.strip_prefix(PARTY_SCHEME)) {
            return self.check_proof(proof, request);
        }
        let Some(keys) = &self.keys else {
            return Ok(Found::Known(Caller::Open, Lapse::default()));
        };
        let Some(value) = value else { return Ok(Found::Nobody) };
        let key = value.strip_prefix("Bearer ").ok_or_else(|| {
            unauthorized(
                "use `Authorization: Bearer <API key>`, or a party's own proof of identity",
            )
        })?;
        let known = keys.authenticate(key.trim())?;
        let expires = known.lifetime.map(|lifetime| Instant::now() + lifetime);
        Ok(Found::Known(known.caller, Lapse { revoked: known.revoked, expires }))
    }

    /// Checks all of a proof but the body.
    fn check_proof(&self, text: &str, request: &Request) -> Checked {
        if text.split_ascii_whitespace().count() == 1 {
            let error = unauthorized("sign the call under the nonce in the header quorate-nonce");
            return Err(Denied { error, challenge: true });
        }
        let proof: PartyProof = text.parse()?;
        let Some(identity) = self.trusted().get(&proof.party).copied() else {
            // Believed anyway where nobody is asked; a proof only says more.
            return match &self.keys {
                None => Ok(Found::Known(Caller::Open, Lapse::default())),
                Some(_) => Err(Denied::from(unauthorized(
                    "this party is not trusted here; start the server with --trust NAME=HEX",
                ))),
            };
        };
        let accepted = request.extensions().get::<AcceptedAt>().map(|at| at.0);
        if !self.edge.is_audience(&proof.audience, accepted) {
            return Err(Denied::from(unauthorized(format!(
                "the proof is for {}, which is not known to be this server; start it with \
                 --allow-host and that name if it is",
                proof.audience
            ))));
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        if !proof.is_for(&identity, request.method().as_str(), target) {
            return Err(Denied::from(unauthorized(
                "the party's identity key did not sign this call",
            )));
        }
        let now = self.clock.monotonic();
        match self.nonces.spend(now, &proof.party, proof.nonce, proof.count) {
            Ok(()) => Ok(Found::Proven(Box::new(proof))),
            Err(why) => {
                let error = unauthorized(format!("{why}; sign under the one in quorate-nonce"));
                Err(Denied { error, challenge: true })
            }
        }
    }

    /// A nonce as the header's value.
    fn nonce(&self) -> HeaderValue {
        let text = hex::encode(self.nonces.issue(self.clock.monotonic()));
        HeaderValue::try_from(text).expect("hex is header text")
    }
}

/// The ticket of a WebSocket's handshake, taken out of its query.
fn redeemable(request: &mut Request) -> Option<String> {
    let upgrades = |headers: &HeaderMap| {
        headers
            .get(UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
    };
    if request.method() != Method::GET || !upgrades(request.headers()) {
        return None;
    }
    let (ticket, rest) = split_ticket(request.uri())?;
    *request.uri_mut() = rest;
    Some(ticket)
}

/// The request with its body read, if it is the one that was signed for. Of a stream of calls the
/// opening alone is signed.
async fn with_body(request: Request, signed: [u8; 32]) -> Result<Request> {
    if streams_calls(request.uri().path()) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, PROVEN_BODY)
        .await
        .map_err(|_| Error::invalid("the body broke off, or is larger than this server reads"))?;
    if <[u8; 32]>::from(Sha256::digest(&body)) != signed {
        return Err(unauthorized("the body is not the one that the party signed for"));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// The connection of a role or a trusted party is not refused for what others have taken.
fn keep_place(request: &Request) {
    if let Some(place) = request.extensions().get::<Arc<Place>>() {
        place.prove();
    }
}

/// Middleware: puts the [`Caller`] where the fronts look for it, or refuses a false proof.
///
/// A request without any proof goes on without a caller, so that health and documentation stay
/// reachable. REST asks for the caller before it reads a body; gRPC decodes first, so its calls
/// are refused here, before a byte of their messages is held.
pub(crate) async fn identify(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let denied = match gate.find(&mut request) {
        Ok(Found::Known(caller, lapse)) => {
            let follows = is_grpc(request.headers()) && matches!(caller, Caller::Key { .. });
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(lapse.clone());
            let response = next.run(request).await;
            return if follows { until_lapsed(response, lapse) } else { response };
        }
        Ok(Found::Proven(proof)) => return proven(&gate, request, &proof, next).await,
        Ok(Found::Nobody | Found::Link(_)) => None,
        Err(denied) => Some(denied),
    };
    refused(&gate, request, denied, next).await
}

/// Serves a call that a party signed.
async fn proven(gate: &Gate, request: Request, proof: &PartyProof, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    let mut request = match with_body(request, proof.body).await {
        Ok(request) => request,
        Err(error) if grpc => return quorate_rpc::status::to_status(error).into_http(),
        Err(error) => return quorate_front_rest::ApiError(error).into_response(),
    };
    keep_place(&request);
    request.extensions_mut().insert(Caller::Party(proof.party.clone()));
    let mut response = next.run(request).await;
    if gate.nonces.is_old(gate.clock.monotonic(), proof.nonce) {
        response.headers_mut().insert(NONCE, gate.nonce());
    }
    response
}

/// Refuses a gRPC call, and leaves it to REST's routes whether they ask for a caller.
async fn refused(
    gate: &Gate,
    mut request: Request,
    denied: Option<Denied>,
    next: Next,
) -> Response {
    let challenge = denied.as_ref().is_some_and(|denied| denied.challenge);
    let is_call = is_grpc(request.headers()) && !is_public(request.uri().path());
    let mut response = match denied.map(|denied| denied.error) {
        None if is_call => {
            quorate_rpc::status::to_status(quorate_front_grpc::no_credentials()).into_http()
        }
        Some(error) if is_call => quorate_rpc::status::to_status(error).into_http(),
        None => next.run(request).await,
        Some(error) => {
            // REST renders it in its own way.
            request.extensions_mut().insert(error);
            next.run(request).await
        }
    };
    if challenge {
        response.headers_mut().insert(NONCE, gate.nonce());
    }
    response
}

/// gRPC services that answer anybody, with messages of a few bytes.
fn is_public(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.")
}

/// Reads `--trust NAME=HEX` and other options of this form.
pub(crate) fn parse_identities(
    option: &str,
    entries: &[String],
) -> Result<HashMap<PartyId, [u8; 32]>> {
    let mut identities = HashMap::new();
    for entry in entries {
        let malformed = || {
            Error::invalid_field(
                option,
                format!(
                    "{entry:?} is not NAME=HEX with 64 hex digits, as `quorate party \
                     --print-identity` prints it"
                ),
            )
        };
        let (name, key) = entry.split_once('=').ok_or_else(malformed)?;
        let mut identity = [0_u8; 32];
        hex::decode_to_slice(key, &mut identity).map_err(|_| malformed())?;
        identities.insert(name.parse()?, identity);
    }
    Ok(identities)
}

#[cfg(test)]
mod tests;
