//! What a web page can send to a default `quorate up`: nothing of it creates, opens or reads.

use std::net::SocketAddr;

use quorate_e2e::{Cluster, call};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends a request as written and reads the answer's head.
async fn raw(address: SocketAddr, request: String) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        match stream.read(&mut part).await.expect("it answers") {
            0 => break,
            read => head.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Every port of `up` that holds rights: all but the relays'.
fn ports(cluster: &Cluster) -> Vec<(String, SocketAddr)> {
    let services = ["coordinator", "router", "accounts"].map(|name| &cluster.endpoints[name]);
    let parties = cluster.endpoints["parties"].as_array().expect("a list");
    let pairs = services.into_iter().chain(parties);
    let ports = pairs.flat_map(|pair| {
        ["http", "grpc"].map(|protocol| {
            let address = pair[protocol].as_str().expect("an address");
            (format!("{protocol} of {pair}"), address.parse().expect("host:port"))
        })
    });
    ports.collect()
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn every_port_refuses_what_a_page_sends() {
    let (cluster, _folder) = Cluster::temporary().await;
    for (port, address) in ports(&cluster) {
        let host = format!("Host: {address}\r\n");
        let refused = [
            ("rebinding", "GET /api/v1/keys", "Host: evil.example\r\n".to_owned()),
            ("health under a foreign name", "GET /health", "Host: evil.example\r\n".into()),
            ("script", "POST /api/v1/sessions", format!("{host}Origin: https://evil.example\r\n")),
            ("sandboxed frame", "POST /api/v1/sessions", format!("{host}Origin: null\r\n")),
            ("image", "GET /metrics", format!("{host}Sec-Fetch-Site: cross-site\r\n")),
            ("other port", "GET /api/v1/keys", format!("{host}Sec-Fetch-Site: same-site\r\n")),
            (
                "frame",
                "GET /docs",
                format!(
                    "{host}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n"
                ),
            ),
            (
                "socket",
                "GET /api/v1/events/subscribe?party_id=server-party-1",
                format!("{host}Origin: https://evil.example\r\n{UPGRADE}"),
            ),
            (
                "gRPC-web",
                "POST /mpc.router.v1.MessageRouter/GetRegisteredParties",
                format!(
                    "{host}Origin: https://evil.example\r\nContent-Type: application/grpc-web+proto\r\n"
                ),
            ),
        ];
        for (what, line, headers) in refused {
            let request = format!("{line} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n");
            let answer = raw(address, request).await;
            let grpc = answer.contains("grpc-status: 7");
            assert!(answer.starts_with("HTTP/1.1 403") || grpc, "{port}, {what}: {answer}");
            assert!(!answer.to_lowercase().contains("access-control"), "{port}, {what}: {answer}");
        }
        let program = format!("GET /health HTTP/1.1\r\n{host}\r\n");
        let answer = raw(address, program).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{port}: {answer}");
        let link = format!(
            "GET /docs HTTP/1.1\r\n{host}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n\
             Sec-Fetch-Dest: document\r\n\r\n"
        );
        let answer = raw(address, link).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{port}: {answer}");
    }
    let (_, sessions) = call("GET", &cluster.url("coordinator", "/api/v1/sessions"), None).await;
    assert_eq!(sessions["sessions"], json!([]), "no page made one");
}

#[tokio::test]
async fn bytes_without_a_content_type_start_nothing() {
    let (cluster, _folder) = Cluster::temporary().await;
    let address = cluster.address("coordinator", "http");
    let body = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2}).to_string();
    // `fetch` with `no-cors` and a byte body, in a browser too old for fetch metadata.
    let request = format!(
        "POST /api/v1/sessions HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(address, request).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
}

#[tokio::test]
async fn an_allowed_origin_calls_and_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let allow = ["--allow-origin", "https://wallet.example", "--allow-host", "signer.test"];
    let cluster = Cluster::start_with(folder.path(), &allow).await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let client = reqwest::Client::new();
    let preflight = client
        .request(reqwest::Method::OPTIONS, &url)
        .header("origin", "https://wallet.example")
        .header("sec-fetch-site", "cross-site")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .expect("an answer");
    assert_eq!(preflight.status(), 204);
    let names = preflight.headers()["access-control-allow-headers"].to_str().expect("text");
    for name in ["authorization", "content-type", "idempotency-key"] {
        assert!(names.contains(name), "{names}");
    }
    let answer = client
        .get(&url)
        .header("host", "signer.test")
        .header("origin", "https://wallet.example")
        .header("sec-fetch-site", "cross-site")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://wallet.example");
    let exposed = answer.headers()["access-control-expose-headers"].to_str().expect("text");
    assert!(exposed.contains("retry-after"), "{exposed}");
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["sessions"], json!([]));
}

#[tokio::test]
async fn a_browser_that_opens_an_address_is_told_what_is_there() {
    let (cluster, _folder) = Cluster::temporary().await;
    let client = reqwest::Client::builder().build().expect("a client");
    for (service, title) in [
        ("coordinator", "Quorate session coordinator API"),
        ("router", "Quorate message router API"),
        ("accounts", "Quorate account service API"),
    ] {
        let answer = client.get(cluster.url(service, "/")).send().await.expect("an answer");
        assert_eq!(answer.url().path(), "/docs", "{service}");
        let page = answer.text().await.expect("text");
        assert!(page.contains(title), "{service}");
        assert!(page.contains("quorate api-keys create"), "{service}");
        assert!(page.contains("API keys need the scope"), "{service}");
    }
    let relays = [&cluster.endpoints["jsonrpc"], &cluster.endpoints["relay"][0]];
    for relay in relays.map(|relay| relay.as_str().expect("an address")) {
        for (path, part) in [("/", ""), ("/health", "healthy"), ("/ready", "ready")] {
            let url = format!("http://{relay}{path}");
            let answer = client.get(&url).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{url}");
            let text = answer.text().await.expect("text");
            assert!(!text.is_empty() && text.contains(part), "{url}: {text}");
        }
    }
}
