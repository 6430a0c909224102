//! One POST to an address that may be hostile: over TLS or on request without, to public addresses
//! only unless the operator allows others, without redirects, with a bounded answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest answer that is read, in bytes.
const ANSWER: usize = 4 << 10;
/// So many of a name's addresses are tried.
const ADDRESSES: usize = 4;
/// A request is answered by then, from the look-up of the name on.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Which addresses a name may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any.
    Anywhere,
    /// Those of the public internet.
    Public,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// Reads a URL of http or https.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it begins with neither https:// nor http://".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has credentials in it, which have files of their own".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }

    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    async fn connect(&self, reach: Reach) -> Result<TcpStream, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| format!("{} cannot be resolved: {error}", self.host))?;
        let allowed = |at: &SocketAddr| reach == Reach::Anywhere || is_public(at.ip());
        let allowed: Vec<_> = found.filter(allowed).take(ADDRESSES).collect();
        // The address that was looked at is the one that is called: a name cannot lead elsewhere.
        let mut failed =
            format!("{} has no public address; allow_private allows others", self.host);
        for at in allowed {
            match TcpStream::connect(at).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = format!("{} cannot be reached: {error}", self.host),
            }
        }
        Err(failed)
    }
}

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // "This network", shared NAT, protocol assignments, 6to4 relays, benchmarks, reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Of what is assigned, 2000::/3, not protocol assignments, documentation and 6to4, which leads to
    // any IPv4 address.
    let special =
        (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    (0x2000..0x4000).contains(&a) && !special
}

/// Authorities whose certificates count: the system's, and those of the operator's own.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    /// The system's authorities, and those in a PEM file.
    ///
    /// # Errors
    /// Where the file holds no certificate, in words.
    pub fn open(more: Option<&[u8]>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = more {
            let mut found = 0;
            for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
                found += 1;
            }
            if found == 0 {
                return Err("it holds no certificate".to_owned());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
}

/// Sends one POST, and reads the answer whatever its status. Nothing bounds the time but its caller.
///
/// # Errors
/// What failed, in words without the request's secrets.
pub async fn post(
    target: &Target,
    reach: Reach,
    trust: &Trust,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Vec<u8>,
) -> Result<Answer, String> {
    let mut request = Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    request.headers_mut().extend(headers);
    let stream = target.connect(reach).await?;
    if !target.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    let stream = trust.0.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let mut answering = pin!(async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    });
    // The connection lives as long as the exchange, and no task outlives it. A service may close it
    // with its answer, which has been received then.
    tokio::select! {
        biased;
        answer = &mut answering => answer,
        closed = connection => match closed {
            Ok(()) => answering.await,
            Err(error) => Err(words(error)),
        },
    }
}

/// As [`post`], answered in [`TIMEOUT`]; the status alone.
pub(crate) async fn tell(
    target: &Target,
    reach: Reach,
    trust: &Trust,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Vec<u8>,
) -> Result<u16, String> {
    let posting = post(target, reach, trust, headers, body);
    match tokio::time::timeout(TIMEOUT, posting).await {
        Ok(answer) => Ok(answer?.status),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "192.0.0.1",
            "192.88.99.1",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_url_is_http_or_https_and_has_no_credentials() {
        let target = Target::parse("https://[2001:db8::1]:8443/a?b=c").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("2001:db8::1", 8443));
        assert_eq!(target.path, "/a?b=c");
        assert_eq!(Target::parse("http://x.example").unwrap().port, 80);
        for wrong in ["", "x.example", "ftp://x", "https://", "https://u:p@x.example/", "file:///x"]
        {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_private_address_is_not_called_unless_it_is_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        for host in [format!("http://{at}/"), format!("http://localhost:{}/", at.port())] {
            let target = Target::parse(&host).unwrap();
            let refused = target.connect(Reach::Public).await.unwrap_err();
            assert!(refused.contains("no public address"), "{refused}");
            target.connect(Reach::Anywhere).await.unwrap();
        }
    }
}
