//! Who is calling: nobody asks (`open`), or an API key or a party's identity proves it (`required`).
//!
//! Another role of the installation proves in both modes that it belongs, by the link secret or an
//! API key with the scope `system`, and says for whom it asks; nobody else may say that.
//!
//! A party proves itself with `Authorization: Quorate-Party <name> <ms> <signature hex>`, an
//! Ed25519 signature by its identity key over its name and the time. It is accepted for a minute
//! either way, which is why such calls need TLS anywhere but on loopback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use quorate_app::{ApiKeys, Clock};
use quorate_engine::{Identity, verify_identity};
use quorate_rpc::{ON_BEHALF_OF, behalf_in};
use quorate_types::{Caller, Error, ErrorCode, PartyId, Result, Timestamp};

use super::edge::is_grpc;
use super::link::{LINK_SCHEME, LinkSecret};

const DOMAIN: &str = "quorate/party-call/v1";
const SCHEME: &str = "Quorate-Party";
/// How far a party's clock may be off, and how long its proof can be replayed, in milliseconds.
const WINDOW: u64 = 60_000;
/// A party makes a new proof after this time, well inside the window.
const RENEW: u64 = 20_000;

/// How callers are told apart.
pub(crate) struct Gate {
    /// The installation's API keys; `None` believes every caller to be the party it says.
    keys: Option<Arc<ApiKeys>>,
    /// Parties that prove themselves, with their identity keys.
    trusted: RwLock<HashMap<PartyId, [u8; 32]>>,
    /// What other roles prove.
    link: Option<LinkSecret>,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// A gate that checks API keys, or believes everybody where there are none to check.
    pub(crate) fn new(
        keys: Option<Arc<ApiKeys>>,
        trusted: HashMap<PartyId, [u8; 32]>,
        link: Option<LinkSecret>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { keys, trusted: RwLock::new(trusted), link, clock }
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

    fn trusted(&self) -> RwLockReadGuard<'_, HashMap<PartyId, [u8; 32]>> {
        self.trusted.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>> {
        let peer = self.peer(headers.get(AUTHORIZATION))?;
        let Some(value) = headers.get(ON_BEHALF_OF) else { return Ok(peer) };
        let caller = value.to_str().map_err(|_| Error::invalid("unreadable"));
        let caller = caller.and_then(behalf_in)?;
        if peer.as_ref().is_some_and(Caller::is_system) {
            return Ok(Some(caller));
        }
        // A role without the link secret cannot ask for others, and a stranger not for anybody.
        Err(Error::new(
            ErrorCode::Forbidden,
            "only another role of this installation may ask for somebody else; start the roles \
             with the same --link-key",
        ))
    }

    fn peer(&self, authorization: Option<&HeaderValue>) -> Result<Option<Caller>> {
        let value = authorization.and_then(|value| value.to_str().ok());
        if let Some(secret) = value.and_then(|value| value.strip_prefix(LINK_SCHEME)) {
            if self.link.as_ref().is_some_and(|link| link.is(secret.trim())) {
                return Ok(Some(Caller::System));
            }
            return Err(Error::new(
                ErrorCode::Unauthorized,
                "the link secret is not this installation's; start the roles with the same \
                 --link-key",
            ));
        }
        let Some(keys) = &self.keys else {
            // Believed anyway; a proof that holds says more.
            let proof = value.and_then(|value| value.strip_prefix(SCHEME));
            let party = proof.map(|proof| check_proof(proof, &self.trusted(), self.clock.now()));
            return Ok(Some(match party {
                Some(Ok(party)) => Caller::Party(party),
                _ => Caller::Open,
            }));
        };
        let Some(value) = value else {
            return Ok(None);
        };
        if let Some(key) = value.strip_prefix("Bearer ") {
            return keys.authenticate(key.trim()).map(Some);
        }
        let proof = value.strip_prefix(SCHEME).ok_or_else(|| {
            Error::new(
                ErrorCode::Unauthorized,
                "use `Authorization: Bearer <API key>`, or a party's own proof of identity",
            )
        })?;
        check_proof(proof, &self.trusted(), self.clock.now())
            .map(|party| Some(Caller::Party(party)))
    }
}

fn check_proof(
    proof: &str,
    trusted: &HashMap<PartyId, [u8; 32]>,
    now: Timestamp,
) -> Result<PartyId> {
    let refused = |why: &str| Error::new(ErrorCode::Unauthorized, why);
    let malformed = || refused("a party's proof is `<name> <milliseconds> <signature in hex>`");
    let mut parts = proof.split_whitespace();
    let (Some(party), Some(at), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let party: PartyId = party.parse()?;
    let millis: i64 = at.parse().map_err(|_| malformed())?;
    if now.0.abs_diff(millis) > WINDOW {
        return Err(refused("the party's proof is older than a minute; check both clocks"));
    }
    let identity = trusted.get(&party).ok_or_else(|| {
        refused("this party is not trusted here; start the server with --trust NAME=HEX")
    })?;
    let mut bytes = [0_u8; 64];
    hex::decode_to_slice(signature, &mut bytes).map_err(|_| malformed())?;
    if verify_identity(identity, DOMAIN, &message(&party, millis), &bytes) {
        return Ok(party);
    }
    Err(refused("the party's proof was not signed by its identity key"))
}

fn message(party: &PartyId, millis: i64) -> Vec<u8> {
    format!("{party} {millis}").into_bytes()
}

/// A party's own proofs, renewed as they age.
pub(crate) struct PartyProof {
    party: PartyId,
    identity: Arc<Identity>,
    clock: Arc<dyn Clock>,
    latest: Mutex<Option<(Timestamp, String)>>,
}

impl PartyProof {
    /// Proofs of `party` by its identity key.
    pub(crate) fn new(party: PartyId, identity: Arc<Identity>, clock: Arc<dyn Clock>) -> Self {
        Self { party, identity, clock, latest: Mutex::default() }
    }

    /// The value of the `Authorization` header for a call made now.
    pub(crate) fn header(&self) -> String {
        let now = self.clock.now();
        let mut latest = self.latest.lock().expect("no panic while the lock is held");
        if let Some((made, value)) = latest.as_ref()
            && now.millis_since(*made) < RENEW
        {
            return value.clone();
        }
        let signature = self.identity.sign(DOMAIN, &message(&self.party, now.0));
        let value = format!("{SCHEME} {} {} {}", self.party, now.0, hex::encode(signature));
        *latest = Some((now, value.clone()));
        value
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
    let refusal = match gate.caller(request.headers()) {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Ok(None) => quorate_front_grpc::no_credentials(),
        Err(error) => {
            // REST renders it in its own way.
            request.extensions_mut().insert(error.clone());
            error
        }
    };
    if is_grpc(request.headers()) && !is_public(request.uri().path()) {
        return quorate_rpc::status::to_status(refusal).into_http();
    }
    next.run(request).await
}

/// gRPC services that answer anybody, with messages of a few bytes.
fn is_public(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.")
}

/// Reads `--trust NAME=HEX`.
pub(crate) fn parse_trust(entries: &[String]) -> Result<HashMap<PartyId, [u8; 32]>> {
    let mut trusted = HashMap::new();
    for entry in entries {
        let malformed = || {
            Error::invalid_field(
                "trust",
                format!("{entry:?} is not NAME=64 hex digits; `quorate party` prints its own"),
            )
        };
        let (name, key) = entry.split_once('=').ok_or_else(malformed)?;
        let mut identity = [0_u8; 32];
        hex::decode_to_slice(key, &mut identity).map_err(|_| malformed())?;
        trusted.insert(name.parse()?, identity);
    }
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    use quorate_app::ManualClock;

    use super::*;

    fn party() -> (PartyId, Arc<Identity>, HashMap<PartyId, [u8; 32]>) {
        let identity = Arc::new(Identity::generate());
        let name: PartyId = "p".parse().unwrap();
        let trusted = HashMap::from([(name.clone(), identity.public())]);
        (name, identity, trusted)
    }

    fn proof(clock: &Arc<ManualClock>, name: &PartyId, identity: &Arc<Identity>) -> String {
        let proof = PartyProof::new(name.clone(), identity.clone(), clock.clone());
        proof.header().strip_prefix(SCHEME).unwrap().to_owned()
    }

    #[test]
    fn a_trusted_party_is_known_by_its_proof_for_a_minute() {
        let (name, identity, trusted) = party();
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let proof = proof(&clock, &name, &identity);
        assert_eq!(check_proof(&proof, &trusted, Timestamp(1_060_000)).unwrap(), name);
        let late = check_proof(&proof, &trusted, Timestamp(1_060_001)).unwrap_err();
        assert_eq!(late.code, ErrorCode::Unauthorized);
    }

    #[test]
    fn another_key_another_name_or_junk_is_unauthorized() {
        let (name, identity, trusted) = party();
        let clock = Arc::new(ManualClock::at(Timestamp(5)));
        let forged = proof(&clock, &name, &Arc::new(Identity::generate()));
        let foreign = proof(&clock, &"q".parse().unwrap(), &identity);
        for proof in [forged.as_str(), foreign.as_str(), "", " p", " p 5", " p x y", " p 5 00 z"] {
            let error = check_proof(proof, &trusted, Timestamp(5)).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthorized, "{proof}");
        }
    }

    #[tokio::test]
    async fn a_call_without_a_key_is_refused_before_its_body() {
        let store = tempfile::tempdir().unwrap();
        let store = Arc::new(quorate_store::SqliteStore::open(store.path()).unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let keys = Arc::new(ApiKeys::open(store, clock.clone()).await.unwrap());
        let gate = Arc::new(Gate::new(Some(keys), HashMap::new(), None, clock));
        let read = |body: axum::body::Bytes| async move { body.len().to_string() };
        let router = axum::Router::new()
            .fallback(axum::routing::any(read))
            .layer(axum::middleware::from_fn_with_state(gate, identify));
        let silent = futures_util::stream::pending::<std::io::Result<axum::body::Bytes>>();
        let request = Request::builder()
            .uri("/mpc.router.v1.MessageRouter/RouteMessage")
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from_stream(silent))
            .unwrap();
        let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "16");
    }

    #[test]
    fn trust_entries_are_name_and_key() {
        let key = "ab".repeat(32);
        assert_eq!(parse_trust(&[format!("p={key}")]).unwrap().len(), 1);
        for bad in ["p", "p=", "p=zz", &format!("={key}")] {
            assert!(parse_trust(&[(*bad).to_owned()]).is_err(), "{bad}");
        }
    }
}
