//! Web pages in a real browser against a real `quorate up`: what they can send there neither makes
//! a session, opens a subscription nor reads anything. A control server without our layer shows
//! that the same pages succeed where nothing stops them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use quorate_e2e::{Cluster, call, chromium};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Longest that a browser may take for all it tries: it slows down WebSockets that fail.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a page tries at each base address, and how it tells its own server what came of it.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const bases = BASES;
const keygen = JSON.stringify({session_type: "keygen", threshold_n: 3, threshold_t: 2});
const bytes = new TextEncoder().encode(keygen);
const told = promise => promise.catch(() => "error");
const once = start => new Promise(start);
function form(base) {
  return once(done => {
    const frame = document.createElement("iframe");
    frame.name = "f" + Math.random();
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {method: "post", action: base + "/api/v1/sessions", target: frame.name, enctype: "text/plain"});
    const field = document.createElement("input");
    [field.name, field.value] = [keygen.slice(0, -1) + ',"label":"', '"}'];
    form.append(field);
    document.body.append(form);
    frame.onload = () => done("sent");
    form.submit();
  });
}
async function attempts(base) {
  const sessions = base + "/api/v1/sessions";
  const subscribe = "/api/v1/events/subscribe?party_id=server-party-1";
  const json = {"content-type": "application/json"};
  const grpc = {"content-type": "application/grpc-web+proto"};
  return {
    no_cors: await told(fetch(sessions, {method: "POST", mode: "no-cors", body: bytes}).then(r => r.type)),
    simple: await told(fetch(sessions, {method: "POST", mode: "no-cors", body: keygen}).then(r => r.type)),
    read: await told(fetch(sessions).then(r => r.text()).then(() => "read")),
    json: await told(fetch(sessions, {method: "POST", headers: json, body: keygen}).then(() => "read")),
    grpc_web: await told(fetch(base + "/mpc.router.v1.MessageRouter/GetRegisteredParties",
      {method: "POST", headers: grpc, body: new Uint8Array(5)}).then(() => "read")),
    socket: await once(done => {
      const socket = new WebSocket(base.replace("http", "ws") + subscribe);
      socket.onopen = () => done("open");
      socket.onerror = () => done("error");
    }),
    events: await once(done => {
      const events = new EventSource(base + subscribe);
      events.onopen = () => { events.close(); done("open"); };
      events.onerror = () => { events.close(); done("error"); };
    }),
    image: await once(done => {
      const image = new Image();
      image.onload = image.onerror = () => done("sent");
      image.src = base + "/api/v1/keys";
    }),
    form: await form(base),
  };
}
(async () => {
  const results = {};
  await Promise.all(bases.map(async base => { results[base] = await attempts(base); }));
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
</script>"#;

/// A request that reached the control server: method, path and body.
type Arrival = (String, String, Bytes);

/// Serves a router on a free port of loopback.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Answers like a server that trusts every page: the routes of ours, without the layer.
async fn trusting(
    State(arrived): State<mpsc::UnboundedSender<Arrival>>,
    request: Request,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let preflight = method == Method::OPTIONS;
    let events = request.headers().get("accept").is_some_and(|value| value == "text/event-stream");
    let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap_or_default();
    if !preflight {
        let _ = arrived.send((method.to_string(), path, body));
    }
    let kind = if events { "text/event-stream" } else { "application/json" };
    let headers = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "content-type"),
        ("content-type", kind),
    ];
    (headers, "\n").into_response()
}

/// The control server: its address, and what arrives.
async fn control() -> (SocketAddr, mpsc::UnboundedReceiver<Arrival>) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let subscribe = |headers: HeaderMap, state: State<_>, request: Request| async move {
        if !headers.contains_key("upgrade") {
            return trusting(state, request).await;
        }
        let (mut parts, _) = request.into_parts();
        let upgrade = <WebSocketUpgrade as axum::extract::FromRequestParts<()>>::from_request_parts(
            &mut parts,
            &(),
        );
        upgrade.await.expect("a handshake").on_upgrade(|_| async {})
    };
    let router = Router::new()
        .route("/api/v1/events/subscribe", get(subscribe))
        .fallback(trusting)
        .with_state(arrived);
    (serve(router).await, arrivals)
}

/// Opens a page of `host` in a browser, which tries everything at each base address.
async fn visit(host: &str, bases: &[String]) -> Value {
    let page = PAGE.replace("BASES", &json!(bases).to_string());
    let (done, mut results) = mpsc::unbounded_channel();
    let take = move |body: Bytes| async move {
        let _ = done.send(serde_json::from_slice(&body).expect("JSON"));
    };
    let site =
        Router::new().route("/", get(|| async move { Html(page) })).route("/results", post(take));
    let port = serve(site).await.port();
    let profile = tempfile::tempdir().expect("a folder");
    let mut browser = browser(profile.path(), &format!("http://{host}:{port}/"));
    tokio::select! {
        results = results.recv() => results.expect("the page's server runs"),
        ended = browser.wait() => panic!("the browser ended first: {ended:?}"),
        () = tokio::time::sleep(PATIENCE) => panic!("the page did not tell its results"),
    }
}

fn browser(profile: &Path, url: &str) -> tokio::process::Child {
    Command::new(chromium())
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .arg("--host-resolver-rules=MAP evil.example 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser starts")
}

/// The ports of `up` that hold rights: all but the relays'.
fn ports(cluster: &Cluster) -> Vec<u16> {
    let services = ["coordinator", "router", "accounts"].map(|name| &cluster.endpoints[name]);
    let pairs =
        services.into_iter().chain(cluster.endpoints["parties"].as_array().expect("a list"));
    let port = |address: &Value| {
        let address: SocketAddr = address.as_str().expect("text").parse().expect("host:port");
        address.port()
    };
    pairs.flat_map(|pair| [port(&pair["http"]), port(&pair["grpc"])]).collect()
}

/// A page of `host` tries the server under each of the names `dialed`.
async fn a_page_of(host: &str, dialed: &[&str]) {
    let (cluster, _folder) = Cluster::temporary().await;
    let (control, mut arrivals) = control().await;
    let address = |name: &&str, port: u16| format!("http://{name}:{port}");
    let ours: Vec<String> = ports(&cluster)
        .into_iter()
        .flat_map(|port| dialed.iter().map(move |name| address(name, port)))
        .collect();
    let trusting = address(&dialed[0], control.port());
    let all = [&ours[..], std::slice::from_ref(&trusting)].concat();
    let results = visit(host, &all).await;

    let free = &results[&trusting];
    for (attempt, outcome) in [
        ("read", "read"),
        ("json", "read"),
        ("grpc_web", "read"),
        ("socket", "open"),
        ("events", "open"),
    ] {
        assert_eq!(free[attempt], outcome, "where nothing stops it: {free}");
    }
    arrivals.close();
    let mut created = 0;
    while let Some((method, path, body)) = arrivals.recv().await {
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        let keygen = body.is_some_and(|body| body["session_type"] == "keygen");
        created += usize::from(method == "POST" && path == "/api/v1/sessions" && keygen);
    }
    assert_eq!(created, 4, "both blind posts, the scripted one and the form arrive");

    for base in &ours {
        let stopped = &results[base];
        for attempt in ["read", "json", "grpc_web", "socket", "events"] {
            assert_eq!(stopped[attempt], "error", "{base}: {stopped}");
        }
    }
    let (_, sessions) = call("GET", &cluster.url("coordinator", "/api/v1/sessions"), None).await;
    assert_eq!(sessions["sessions"], json!([]), "no page made one");
}

#[tokio::test]
async fn a_foreign_page_in_a_browser_does_nothing() {
    a_page_of("evil.example", &["127.0.0.1", "localhost", "evil.example"]).await;
}

#[tokio::test]
async fn a_page_of_another_local_port_does_nothing() {
    a_page_of("localhost", &["localhost", "127.0.0.1"]).await;
}
