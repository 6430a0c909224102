//! Where a service is, and how we show who we are on each call.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate_types::{Error, Result, Secret};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::authorized::Authorized;
use crate::unreachable::{Place, ROUTER};

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Pings on an open connection, so that a vanished peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Windows for several protocol messages of 150 kB in flight.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The header in which a server gives a nonce: with the refusal of a call that needs one, and
/// with an answer when the nonce in use grows old.
pub const NONCE: &str = "quorate-nonce";

/// One call, as its credentials see it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The `host:port` that is dialed, in lower case.
    pub audience: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The whole body; `None` for a stream of calls, whose opening alone is authorized.
    pub body: Option<&'a [u8]>,
}

/// Gives the `authorization` header of each call.
pub trait Credentials: Send + Sync + 'static {
    /// The header's value for this call. Credentials that need a nonce and hold none give a value
    /// that makes the server answer with one.
    fn authorization(&self, call: &Call<'_>) -> String;

    /// Takes the nonce that the server at `audience` gave. Answers whether a call that it refused
    /// is worth another try.
    fn take_nonce(&self, audience: &str, nonce: &str) -> bool {
        let _ = (audience, nonce);
        false
    }

    /// The value that makes any server answer with a nonce, where these credentials need one. It
    /// is asked for before a stream of calls, which cannot be sent twice.
    fn challenge(&self) -> Option<String> {
        None
    }
}

/// An API key as a bearer token.
pub struct ApiKey(pub Secret<String>);

impl Credentials for ApiKey {
    fn authorization(&self, _: &Call<'_>) -> String {
        format!("Bearer {}", self.0.expose())
    }
}

/// Where a service is, and how we show who we are.
#[derive(Clone)]
pub struct Endpoint {
    channel: Channel,
    place: Place,
    audience: Arc<str>,
    credentials: Option<Arc<dyn Credentials>>,
    clear_text: bool,
    pub(crate) forwards: bool,
}

impl Endpoint {
    /// An address such as `http://127.0.0.1:50052`; without a scheme it is `http` on loopback and
    /// `https` anywhere else. With `https` the certificate is checked against `ca`, a PEM file, or
    /// the authorities that the system trusts.
    ///
    /// # Errors
    /// `invalid_request` when the address or the authority cannot be used.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self> {
        let url = &*with_scheme(url);
        let (mut endpoint, audience) = settings(url)?;
        if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
            return Err(malformed(url, NO_ADDRESS));
        }
        if url.starts_with("https://") {
            let (tls, unusable) = match ca {
                Some(ca) => {
                    let told = |why: String| malformed(url, &format!("{}: {why}", ca.display()));
                    let pem = std::fs::read(ca).map_err(|error| told(error.to_string()))?;
                    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                    (tls, told("this is not a PEM file with a certificate authority".into()))
                }
                None => {
                    let why = "this system has no certificate authorities: install them, or give \
                               the server's as --tls-ca";
                    (ClientTlsConfig::new().with_native_roots(), malformed(url, why))
                }
            };
            endpoint = endpoint.tls_config(tls).map_err(|_| unusable)?;
        }
        Ok(Self::over(endpoint.connect_lazy(), url, audience))
    }

    /// A service that `connect` leads to, such as one of this process by a pipe. Nothing is dialed:
    /// `url` is what the service is called.
    ///
    /// # Errors
    /// `invalid_request` when the address cannot be used.
    pub fn through<S>(
        url: &str,
        connect: impl Fn() -> io::Result<S> + Clone + Send + Sync + 'static,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (endpoint, audience) = settings(url)?;
        let connector = tower::service_fn(move |_: Uri| {
            let connected = connect().map(TokioIo::new);
            async { connected }
        });
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Self::over(channel, url, audience).allow_clear_text())
    }

    fn over(channel: Channel, url: &str, audience: String) -> Self {
        Self {
            channel,
            place: Place { url: url.into(), service: ROUTER, advice: "".into() },
            audience: audience.into(),
            credentials: None,
            clear_text: false,
            forwards: false,
        }
    }

    /// The same address; errors say what to do when nothing answers there.
    #[must_use]
    pub fn advise(mut self, advice: &str) -> Self {
        self.place.advice = advice.into();
        self
    }

    /// The same address, which may be shown credentials in clear text: something else encrypts
    /// the way there.
    #[must_use]
    pub fn allow_clear_text(mut self) -> Self {
        self.clear_text = true;
        self
    }

    /// The same address with credentials on every call.
    ///
    /// # Errors
    /// `invalid_request` when they would travel in clear text off this machine and
    /// [`Endpoint::allow_clear_text`] has not been called.
    pub fn with_credentials(mut self, credentials: Arc<dyn Credentials>) -> Result<Self> {
        if !self.clear_text {
            check_clear_text(&self.place.url)?;
        }
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// The same address for a role that asks for its own callers: every call says for whom.
    #[must_use]
    pub fn forwarding(mut self) -> Self {
        self.forwards = true;
        self
    }

    pub(crate) fn service(self) -> Authorized {
        Authorized::new(self.channel, self.place, self.audience, self.credentials)
    }
}

const NO_ADDRESS: &str = "not an address such as http://127.0.0.1:50052";

fn malformed(url: &str, why: &str) -> Error {
    Error::invalid_field("url", format!("{url}: {why}"))
}

/// The address with the scheme that it leaves out: `http` on loopback, `https` anywhere else.
pub fn with_scheme(url: &str) -> Cow<'_, str> {
    if url.contains("://") {
        return Cow::Borrowed(url);
    }
    let host = url.parse().ok().and_then(|uri: Uri| uri.host().map(is_loopback));
    let scheme = if host.unwrap_or(false) { "http" } else { "https" };
    Cow::Owned(format!("{scheme}://{url}"))
}

/// Whether a host, as an address names it, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    literal.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// How a service at an address is spoken to, and the address as its audience.
fn settings(url: &str) -> Result<(tonic::transport::Endpoint, String)> {
    let endpoint = Channel::from_shared(url.to_owned())
        .map_err(|_| malformed(url, NO_ADDRESS))?
        .connect_timeout(CONNECT_TIME)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let audience = audience(endpoint.uri()).ok_or_else(|| malformed(url, "it names no host"))?;
    Ok((endpoint, audience))
}

/// The `host:port` of an address, in lower case, with the scheme's port where none is named.
pub fn audience(uri: &Uri) -> Option<String> {
    let port = match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("https")) => 443,
        (None, _) => 80,
    };
    Some(format!("{}:{port}", uri.host()?.to_ascii_lowercase()))
}

/// Refuses an address where credentials would leave this machine in clear text.
///
/// # Errors
/// `invalid_request`, naming the ways out.
pub fn check_clear_text(url: &str) -> Result<()> {
    let uri: Uri =
        url.parse().map_err(|_| Error::invalid_field("url", format!("{url}: unreadable")))?;
    let host = uri.host().unwrap_or_default();
    if is_loopback(host) || matches!(uri.scheme_str(), Some("https" | "wss")) {
        return Ok(());
    }
    Err(Error::invalid_field(
        "url",
        format!(
            "credentials would be sent to {url} in clear text: use https:// (gRPC, with --tls-ca), or \
             --insecure if a tunnel or proxy encrypts the connection"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_this_machine_encrypted_only() {
        for url in [
            "http://127.0.0.1:50052",
            "http://127.8.0.1:1",
            "http://[::1]:50052",
            "http://localhost:50052",
            "http://LOCALHOST",
            "https://signer.example",
            "wss://signer.example",
        ] {
            assert!(check_clear_text(url).is_ok(), "{url}");
        }
        for url in [
            "http://signer.example:50052",
            "http://10.0.0.1:50052",
            "http://0.0.0.0:50052",
            "http://localhost.example:50052",
            "http://127.0.0.1.example:50052",
            "http://localhost@signer.example",
            "ws://signer.example",
        ] {
            let error = check_clear_text(url).unwrap_err();
            assert!(error.message.contains("--insecure"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_in_clear_text_takes_no_credentials() {
        let key = || Arc::new(ApiKey(Secret::new("k".into())));
        let endpoint = || Endpoint::new("http://signer.example:50052", None).unwrap();
        assert!(endpoint().with_credentials(key()).is_err());
        assert!(endpoint().allow_clear_text().with_credentials(key()).is_ok());
    }

    #[test]
    fn an_address_of_another_scheme_is_refused() {
        for url in ["ftp://signer.example:50052", "ws://127.0.0.1:50052"] {
            let refused = Endpoint::new(url, None).err().unwrap();
            assert_eq!(refused.message, format!("{url}: {NO_ADDRESS}"));
        }
    }

    #[test]
    fn an_address_without_a_scheme_has_one() {
        for (short, whole) in [
            ("127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("localhost:50051", "http://localhost:50051"),
            ("[::1]:50051", "http://[::1]:50051"),
            ("signer.example:50051", "https://signer.example:50051"),
            ("10.0.0.1:50051", "https://10.0.0.1:50051"),
            ("http://signer.example", "http://signer.example"),
        ] {
            assert_eq!(with_scheme(short), whole);
        }
    }

    #[test]
    fn an_audience_has_a_port() {
        let of = |url: &str| audience(&url.parse().unwrap()).unwrap();
        assert_eq!(of("https://Router.example"), "router.example:443");
        assert_eq!(of("http://[::1]:50052/x"), "[::1]:50052");
        assert_eq!(of("ws://127.0.0.1"), "127.0.0.1:80");
    }
}
