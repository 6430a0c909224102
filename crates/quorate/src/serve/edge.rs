//! The outermost layer of every port that holds keys or rights: what a web page may send here.
//!
//! A browser on the operator's machine reaches loopback. Three facts of a request tell a page
//! from a program: the host it names (a page that rebinds DNS needs a name of its own), its
//! `Origin`, and the fetch metadata (`Sec-Fetch-*`) that a page cannot forge. The layer looks at
//! headers only, before routing and before a body is read, and answers in the caller's own
//! protocol. The relays have no such layer: phones reach them by any address and they hold no keys.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_front_rest::ApiError;
use quorate_types::{Error, ErrorCode, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// Pages that a link elsewhere may open.
const LANDING: [&str; 3] = ["/", "/docs", "/docs/"];
/// What a load balancer asks without a `Host`.
const PROBES: [&str; 2] = ["/health", "/ready"];

/// Which hosts and origins this server answers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edge {
    /// Names beside IP literals and `localhost`, in lower case.
    hosts: Vec<String>,
    /// Foreign origins that may call, as a browser writes them.
    origins: Vec<String>,
}

impl Edge {
    /// Reads `--allow-host`, `--allow-origin` and the names in the served certificate.
    ///
    /// # Errors
    /// Names the option that cannot be read.
    pub(crate) fn new(
        hosts: &[String],
        origins: &[String],
        certificate: Option<&Path>,
    ) -> Result<Self> {
        let mut names: Vec<_> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        if let Some(bad) = names.iter().find(|host| host.is_empty() || host.contains(['/', ':'])) {
            return Err(Error::invalid_field(
                "allow-host",
                format!("{bad:?} is not a host name; give the name alone, without scheme or port"),
            ));
        }
        if let Some(path) = certificate {
            names.extend(certified_names(path)?);
        }
        let origins = origins.iter().map(|origin| parse_origin(origin)).collect::<Result<_>>()?;
        Ok(Self { hosts: names, origins })
    }

    /// Refuses what only a web page, or a name that is not ours, would send.
    fn check(&self, request: &Head<'_>) -> Result<()> {
        let host = self.check_host(request)?;
        self.check_origin(request, host)
    }

    fn check_host<'a>(&self, request: &Head<'a>) -> Result<Option<&'a str>> {
        let mut named = request.headers.get_all(header::HOST).iter();
        let first = named.next().map(|value| value.to_str().unwrap_or_default());
        if named.next().is_some() {
            return Err(Error::invalid("send one Host header, not several"));
        }
        let authority = request.uri.authority().map(|authority| authority.as_str());
        let host = match (authority, first) {
            (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b) => {
                return Err(Error::invalid("the Host header differs from the request's address"));
            }
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => {
                let probe = request.method == Method::GET && PROBES.contains(&request.uri.path());
                if request.version == Version::HTTP_10 && probe {
                    return Ok(None);
                }
                return Err(Error::invalid("the Host header is missing"));
            }
        };
        if self.is_ours(host) {
            return Ok(Some(host));
        }
        let shown: String = host.chars().take(100).collect();
        Err(Error::new(
            ErrorCode::Forbidden,
            format!(
                "this server does not answer to the host {shown:?}; use its IP address or \
                 localhost, or start it with --allow-host NAME"
            ),
        ))
    }

    fn is_ours(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        if literal(name).parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || self.hosts.iter().any(|pattern| fits(pattern, &name))
    }

    /// Whether a caller that dialed `host:port` meant this server: a name that the operator gave,
    /// or the very address at which the connection was accepted.
    pub(crate) fn is_audience(&self, audience: &str, accepted: Option<SocketAddr>) -> bool {
        let Some(name) = host_name(audience) else { return false };
        if self.hosts.iter().any(|pattern| fits(pattern, name)) {
            return true;
        }
        let port = audience[name.len()..].strip_prefix(':').and_then(|port| port.parse().ok());
        let Some(accepted) = accepted.filter(|at| port == Some(at.port())) else { return false };
        let own = accepted.ip().to_canonical();
        match literal(name).parse::<IpAddr>() {
            Ok(named) => named.to_canonical() == own,
            Err(_) => name == "localhost" && own.is_loopback(),
        }
    }

    fn check_origin(&self, request: &Head<'_>, host: Option<&str>) -> Result<()> {
        let mut origins = request.headers.get_all(header::ORIGIN).iter();
        let origin = origins.next();
        if origins.next().is_some() {
            return Err(Error::invalid("send one Origin header, not several"));
        }
        if origin.is_some_and(|origin| self.allows(origin)) {
            return Ok(());
        }
        let same = |origin: &HeaderValue| {
            let bare = origin.to_str().ok().and_then(|text| text.split_once("://"));
            matches!((bare, host), (Some(("http" | "https", a)), Some(b)) if a.eq_ignore_ascii_case(b))
        };
        let site = request.headers.get(SITE).map(HeaderValue::as_bytes);
        let own_site = matches!(site, None | Some(b"same-origin" | b"none"));
        if origin.is_none_or(same) && (own_site || request.opens_a_page()) {
            return Ok(());
        }
        let who = origin.and_then(|origin| origin.to_str().ok()).unwrap_or("another site");
        let shown: String = who.chars().take(100).collect();
        Err(Error::new(
            ErrorCode::Forbidden,
            format!(
                "a web page of {shown:?} may not call this server; start it with \
                 --allow-origin ORIGIN if it should"
            ),
        ))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }
}

/// The head of a request.
struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
}

impl Head<'_> {
    /// Somebody follows a link to a page for people.
    fn opens_a_page(&self) -> bool {
        let is = |name, value: &str| self.headers.get(name).is_some_and(|v| v == value);
        self.method == Method::GET
            && LANDING.contains(&self.uri.path())
            && is(MODE, "navigate")
            && is(DEST, "document")
    }
}

/// Whether a request is a gRPC or gRPC-web call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Middleware around everything a port serves.
pub(crate) async fn guard(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let head = Head {
        method: request.method(),
        uri: request.uri(),
        version: request.version(),
        headers: request.headers(),
    };
    let origin = head.headers.get(header::ORIGIN).filter(|origin| edge.allows(origin)).cloned();
    let preflight = head.method == Method::OPTIONS
        && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match edge.check(&head) {
        Err(error) if is_grpc(head.headers) => {
            quorate_rpc::status::to_status(error).into_http::<Body>()
        }
        Err(error) => ApiError(error).into_response(),
        Ok(()) if preflight && origin.is_some() => permissions(),
        Ok(()) => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after, quorate-nonce, grpc-status, grpc-message"),
        );
    }
    response
}

/// What an allowed origin may send.
fn permissions() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, PUT, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, fetch-token, idempotency-key, x-grpc-web, x-user-agent, grpc-timeout",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The name of `name:port`, if that is what it is.
fn host_name(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let port_is_fine = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    (port_is_fine && !name.is_empty()).then_some(name)
}

/// A host without the brackets of an IPv6 literal.
fn literal(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name)
}

/// Whether a name is the pattern, where `*.` stands for one label as in a certificate.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => name.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => pattern == name,
    }
}

fn parse_origin(text: &str) -> Result<String> {
    let malformed = || {
        let message = format!("{text:?} is not an origin such as https://wallet.example:8443");
        Error::invalid_field("allow-origin", message)
    };
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(malformed)?;
    let is_origin = matches!(scheme, "http" | "https")
        && !rest.contains(['/', '?', '#', '@', '*'])
        && host_name(rest).is_some();
    if is_origin { Ok(lower) } else { Err(malformed()) }
}

/// The DNS names for which a certificate was issued.
fn certified_names(path: &Path) -> Result<Vec<String>> {
    let unreadable = || Error::invalid(format!("{} is not a readable certificate", path.display()));
    let leaf = CertificateDer::from_pem_file(path).map_err(|_| unreadable())?;
    let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(|_| unreadable())?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Edge {
        let (hosts, origins) =
            (["signer.internal".into(), "*.corp".into()], ["https://w.example".into()]);
        Edge::new(&hosts, &origins, None).unwrap()
    }

    fn ask(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<()> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        edge().check(&Head {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        })
    }

    fn allowed(headers: &[(&str, &str)]) -> bool {
        ask("POST", "/api/v1/sessions", headers).is_ok()
    }

    #[test]
    fn addresses_localhost_and_known_names_are_hosts() {
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "10.1.2.3",
            "localhost",
            "LocalHost.:8080",
            "signer.internal:1",
            "a.corp",
        ] {
            assert!(allowed(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "a.b.corp",
            "corp",
            "",
            "localhost:x",
            "127.0.0.1.evil.example",
            "[::1",
            "localhost@evil.example",
            "127.0.0.1:8080:1",
        ] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn an_audience_is_a_name_of_ours_or_the_accepting_address() {
        let is = |audience: &str, at: &str| edge().is_audience(audience, at.parse().ok());
        for (audience, at) in [
            ("signer.internal:443", "10.0.0.1:50052"),
            ("a.corp:1", "10.0.0.1:50052"),
            ("10.0.0.1:50052", "10.0.0.1:50052"),
            ("127.0.0.1:50052", "[::ffff:127.0.0.1]:50052"),
            ("[::1]:50052", "[::1]:50052"),
            ("localhost:50052", "127.0.0.1:50052"),
            ("localhost:50052", "[::1]:50052"),
        ] {
            assert!(is(audience, at), "{audience} at {at}");
        }
        for (audience, at) in [
            ("127.0.0.1:50051", "127.0.0.1:50052"),
            ("127.0.0.1", "127.0.0.1:50052"),
            ("10.0.0.2:50052", "10.0.0.1:50052"),
            ("localhost:50052", "10.0.0.1:50052"),
            ("evil.example:50052", "10.0.0.1:50052"),
            ("10.0.0.1:50052", "unknown"),
            ("", "10.0.0.1:50052"),
        ] {
            assert!(!is(audience, at), "{audience} at {at}");
        }
    }

    #[test]
    fn one_host_is_named_and_it_is_the_address() {
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(ask("GET", "/x", &two).unwrap_err().code, ErrorCode::InvalidRequest);
        assert_eq!(ask("GET", "/x", &[]).unwrap_err().code, ErrorCode::InvalidRequest);
        assert!(ask("GET", "http://127.0.0.1/x", &[("host", "localhost")]).is_err());
        assert!(ask("GET", "http://evil.example/x", &[]).is_err());
        assert!(ask("GET", "http://localhost:5/x", &[("host", "localhost:5")]).is_ok());
    }

    #[test]
    fn only_probes_of_old_http_need_no_host() {
        let old = |path: &str| {
            let (method, headers) = (Method::GET, HeaderMap::new());
            let uri = path.parse().unwrap();
            let version = Version::HTTP_10;
            edge().check(&Head { method: &method, uri: &uri, version, headers: &headers })
        };
        assert!(old("/health").is_ok() && old("/ready").is_ok());
        assert!(old("/api/v1/keys").is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:8080");
        assert!(allowed(&[host]), "programs send neither header");
        assert!(allowed(&[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(allowed(&[
            host,
            ("origin", "https://w.example"),
            ("sec-fetch-site", "cross-site")
        ]));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8081", "file://"] {
            assert!(!allowed(&[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "new-word"] {
            assert!(!allowed(&[host, ("sec-fetch-site", site)]), "{site}");
            let both = [host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", site)];
            assert!(!allowed(&both), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert!(allowed(&[host, ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn a_link_opens_the_documentation_and_nothing_else() {
        let follow = |path: &str, mode: &str, dest: &str| {
            let headers = [
                ("host", "localhost"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            ask("GET", path, &headers).is_ok()
        };
        assert!(follow("/", "navigate", "document") && follow("/docs", "navigate", "document"));
        assert!(!follow("/docs", "navigate", "iframe"));
        assert!(!follow("/docs", "no-cors", "document"));
        assert!(!follow("/api/v1/keys", "navigate", "document"));
    }

    #[test]
    fn options_that_are_no_hosts_or_origins_are_refused() {
        for host in ["", "http://x", "x:8080"] {
            assert!(Edge::new(&[host.into()], &[], None).is_err(), "{host}");
        }
        for origin in ["*", "x.example", "https://x.example/", "ftp://x", "null"] {
            assert!(Edge::new(&[], &[origin.into()], None).is_err(), "{origin}");
        }
    }
}
