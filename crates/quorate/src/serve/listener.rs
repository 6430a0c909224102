//! One accept loop for every service: HTTP/1.1, HTTP/2 and WebSocket, with or without TLS.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::header::UPGRADE;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use quorate_types::{ClientAddress, Error, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::activity::{Activity, Placed, Tracked};
use super::bodies::{Bodies, Source, refused};
use super::connections::{Connections, Peer, Place, no_place};
use super::edge::is_grpc;
use super::handshake;
use super::proxies::Proxies;

/// A client must finish its TLS handshake, its first request's header after that, and each
/// further one's, in this time.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// HTTP/2 pings find peers that have vanished.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// HTTP/2 windows: several protocol messages of 150 kB in flight on a stream. What a handler has
/// not read yet waits there, so they are what one connection can cost unread.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Requests of one HTTP/2 connection at once: calls that wait for the end of a session among them.
const STREAMS: u32 = 256;
/// What is ready for a stream whose client does not read, in bytes.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes on their way, in each direction, of a connection within this process.
const PIPE: usize = 256 << 10;
/// How long an ended connection keeps its port, and a little more.
const LINGERING: Duration = Duration::from_secs(65);
/// Pause between attempts at such a port.
const BIND_PAUSE: Duration = Duration::from_millis(200);
/// Pause after `accept` failed, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address, or says which, why not, and by which option to choose an `other` one.
///
/// The gRPC ports lie where the system takes ports for outgoing connections from, and such a port
/// stays taken for a minute after its connection has ended. So a port that is taken and on which
/// nobody listens is waited for.
pub(crate) async fn bind(address: SocketAddr, other: &str) -> Result<TcpListener> {
    let deadline = Instant::now() + LINGERING;
    let mut told = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let lingers = error.kind() == ErrorKind::AddrInUse && !is_served(address).await;
        if !lingers || Instant::now() >= deadline {
            let why = match error.kind() {
                ErrorKind::AddrInUse => "the port is in use by another program".to_owned(),
                ErrorKind::AddrNotAvailable => "not an address of this machine".to_owned(),
                _ => error.to_string(),
            };
            return Err(Error::invalid(format!(
                "cannot listen on {address}: {why}; choose another with {other} or --host"
            )));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%address, "an outgoing connection holds the port; waiting for it");
        }
        // The system does not tell when a port becomes free.
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

/// Whether somebody listens there.
async fn is_served(address: SocketAddr) -> bool {
    let ip = match (address.ip().is_unspecified(), address.is_ipv4()) {
        (false, _) => address.ip(),
        (true, true) => Ipv4Addr::LOCALHOST.into(),
        (true, false) => Ipv6Addr::LOCALHOST.into(),
    };
    TcpStream::connect((ip, address.port())).await.is_ok()
}

/// Reads a certificate chain and its key.
pub(crate) fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let unreadable =
        |path: &Path| Error::invalid(format!("{} is not a readable PEM file", path.display()));
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|_| unreadable(cert))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            Error::invalid(format!("{} and {}: {error}", cert.display(), key.display()))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Bounds that a port shares with the others of its process.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// Places for connections.
    pub(crate) connections: Arc<Connections>,
    /// Room for request bodies.
    pub(crate) bodies: Arc<Bodies>,
    /// Who is believed about the addresses of others.
    pub(crate) proxies: Proxies,
    /// Who calls here.
    pub(crate) peers: Peer,
}

/// Serves until `stop`; open requests are tracked by `tracker` and get to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let proxy = bounds.proxies.trusts(peer.ip());
        let kind = if proxy { Peer::Proxy } else { bounds.peers };
        let Some(place) = bounds.connections.admit(peer.ip(), kind) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let client = if proxy {
            Client::Behind { proxy: peer.ip(), place: place.clone(), bounds: bounds.clone() }
        } else {
            let address = ClientAddress::of(peer.ip());
            let source = bounds.bodies.source(address);
            Client::Known { address, source, place: Some(place.clone()) }
        };
        let origin = Origin { at: stream.local_addr().ok().map(AcceptedAt), client };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        let stream = Placed::new(stream, place.clone(), tracker.token());
        let serving = async move {
            match tls {
                None => connection(stream, origin, router, stop).await,
                Some(tls) => match tokio::time::timeout(HEADER_TIME, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, origin, router, stop).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        };
        tracker.spawn(async move {
            tokio::select! {
                () = serving => {}
                () = place.trial_over() => {}
            }
        });
    }
}

/// A router of this process, reached without a port.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(super) at: SocketAddr,
    pub(super) router: Router,
    pub(super) bodies: Arc<Bodies>,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Inside {
    /// A new connection, served until the process stops.
    pub(crate) fn connect(&self) -> std::io::Result<DuplexStream> {
        if self.stop.is_cancelled() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(PIPE);
        let address = ClientAddress::default();
        let client = Client::Known { address, source: self.bodies.source(address), place: None };
        let origin = Origin { at: Some(AcceptedAt(self.at)), client };
        self.tracker.spawn(connection(far, origin, self.router.clone(), self.stop.clone()));
        Ok(near)
    }
}

/// The address at which a request's connection was accepted.
#[derive(Clone, Copy)]
pub(crate) struct AcceptedAt(pub(crate) SocketAddr);

/// Where a connection was accepted, and for whom.
struct Origin {
    at: Option<AcceptedAt>,
    client: Client,
}

/// Whom the requests of a connection count for.
enum Client {
    /// All for one address.
    Known { address: ClientAddress, source: Arc<Source>, place: Option<Arc<Place>> },
    /// Each for the address that a trusted proxy names.
    Behind { proxy: IpAddr, place: Arc<Place>, bounds: Bounds },
}

impl Origin {
    /// Bounds a request by what its client may take, and notes whose it is.
    fn admit(&self, mut request: hyper::Request<Incoming>) -> Result<Request, Box<Response>> {
        let (address, source) = match &self.client {
            Client::Known { address, source, place } => {
                if let Some(place) = place {
                    // What has become a WebSocket is out of reach.
                    if place.is_on_trial() && request.headers().contains_key(UPGRADE) {
                        return Err(refused(no_place(), request.headers()));
                    }
                    request.extensions_mut().insert(place.clone());
                }
                (*address, source.clone())
            }
            Client::Behind { proxy, place, bounds } => {
                let address = bounds.proxies.client(*proxy, request.headers());
                if let Err(error) = place.serves(address) {
                    return Err(refused(error, request.headers()));
                }
                (address, bounds.bodies.source(address))
            }
        };
        request.extensions_mut().insert(address);
        if let Some(at) = self.at {
            request.extensions_mut().insert(at);
        }
        source.admit(request)
    }
}

async fn connection<S>(stream: S, origin: Origin, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER);
    let activity = Activity::default();
    let (requests, stopping) = (activity.clone(), stop.clone());
    let origin = Arc::new(origin);
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        let open = requests.begin();
        let (router, origin) = (router.clone(), origin.clone());
        request.extensions_mut().insert(stopping.clone());
        async move {
            let checked = handshake::check(&mut request);
            let response = match checked.and_then(|()| origin.admit(request)) {
                Ok(request) => router.oneshot(request).await?,
                Err(refusal) => *refusal,
            };
            Ok::<_, Infallible>(response.map(|body| Tracked { body, _open: open }))
        }
    });
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    // The library's own limit for headers begins with the first bytes only, and which protocol
    // they are may never become clear.
    tokio::select! {
        biased;
        () = activity.asked() => {}
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended before its first request");
            }
            return;
        }
        () = stop.cancelled() => {}
        () = tokio::time::sleep(HEADER_TIME) => {
            tracing::debug!("a connection asked for nothing");
            return;
        }
    }
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = activity.idle() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Sends gRPC calls to one router and everything else to the other: one port speaks all.
pub(crate) fn by_content_type(rest: Router, grpc: Router) -> Router {
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let router = if is_grpc(request.headers()) { grpc.clone() } else { rest.clone() };
        router.oneshot(request)
    }))
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    /// Whose a request is for the services, when it comes from an address of the loopback and names
    /// another one.
    async fn whose(trusted: &str, from: &str, named: &str) -> String {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--port").await.unwrap();
        let server = listener.local_addr().unwrap();
        let bounds = Bounds {
            connections: Connections::new(1_000),
            bodies: Bodies::new(),
            proxies: Proxies::new(&[trusted.parse().unwrap()]),
            peers: Peer::Client,
        };
        let tell =
            |Extension(address): Extension<ClientAddress>| async move { address.to_string() };
        let router = Router::new().route("/", get(tell));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let serving = serve(listener, None, router, bounds, tracker.clone(), stop.clone());
        tracker.spawn(serving);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {named}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.cancel();
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn services_hear_whose_a_request_is() {
        let named = "198.51.100.1, 203.0.113.7";
        assert_eq!(whose("127.0.0.2", "127.0.0.3", named).await, "127.0.0.3");
        assert_eq!(whose("127.0.0.2", "127.0.0.2", named).await, "203.0.113.7");
    }

    #[tokio::test]
    async fn a_port_that_is_served_is_refused_at_once() {
        let held = bind("127.0.0.1:0".parse().unwrap(), "--port").await.unwrap();
        let address = held.local_addr().unwrap();
        let error = bind(address, "--port").await.unwrap_err();
        assert!(error.message.contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_port_of_an_outgoing_connection_is_waited_for() {
        let server = bind("127.0.0.1:0".parse().unwrap(), "--port").await.unwrap();
        let outgoing = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let address = outgoing.local_addr().unwrap();
        let incoming = server.accept().await.unwrap().0;
        let mut binding = std::pin::pin!(bind(address, "--port"));
        tokio::select! {
            biased;
            _ = &mut binding => panic!("the port was taken"),
            () = tokio::time::sleep(BIND_PAUSE * 2) => {}
        }
        // Who ends a connection first keeps its port: here that is the other side.
        drop(incoming);
        let _ = outgoing.readable().await;
        drop(outgoing);
        assert_eq!(binding.await.unwrap().local_addr().unwrap(), address);
    }
}
