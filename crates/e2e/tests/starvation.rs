//! Clients that take without giving: what they cost is bounded, and others are served meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use quorate_e2e::hostile::{connect, handshake, resident, upgrade};
use quorate_e2e::{Cluster, Role, call, free_ports, identity_in, refused_start_limited};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_client_that_pings_and_never_reads_costs_little() {
    let (cluster, _folder) = Cluster::temporary().await;
    let jsonrpc: SocketAddr =
        cluster.endpoints["jsonrpc"].as_str().expect("an address").parse().expect("host:port");
    let router = cluster.address("router", "http");
    // 1 MiB of pings of 100 bytes, masked with zeros.
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'x'; 100]].concat();
    let pings = ping.repeat((1 << 20) / ping.len());
    for (address, path) in
        [(jsonrpc, "/mpc"), (router, "/api/v1/events/subscribe?party_id=somebody")]
    {
        let mut stream = upgrade(address, path).await;
        let before = resident(cluster.pid());
        for _ in 0..200 {
            // A server that stops reading bounds the cost as well.
            if timeout(Duration::from_secs(1), stream.write_all(&pings)).await.is_err() {
                break;
            }
        }
        let cost = resident(cluster.pid()).saturating_sub(before);
        assert!(cost <= 64, "{path}: {cost} MiB");
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let (cluster, _folder) = Cluster::temporary().await;
    let address = cluster.address("coordinator", "http");
    let silent = [&b""[..], b"PRI * HT", b"GET /health HT"].map(async |start| {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(start).await.expect("it reads");
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{start:?} is cut after the time for a first request");
    });
    futures_util::future::join_all(silent).await;
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let url = cluster.url("coordinator", "/api/v1/sessions");
    assert_eq!(call("POST", &url, Some(&keygen)).await.0, 201);
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_limited(folder.path(), "ulimit -n 400").await;
    let relay: SocketAddr =
        cluster.endpoints["relay"][0].as_str().expect("an address").parse().expect("host:port");
    let mut silent = Vec::new();
    for n in 0..400 {
        let mut stream = connect(relay).await;
        // A connection that has become a WebSocket still counts.
        if n % 2 == 0 {
            let _ = stream.write_all(handshake(relay, "/v1/msg-relay").as_bytes()).await;
            let _ = stream.read(&mut [0; 12]).await;
        }
        silent.push(stream);
    }
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let (status, created) = call("POST", &sessions, Some(&keygen)).await;
    assert_eq!(status, 201, "{created}");
    let id = created["session_id"].as_str().expect("an id");
    let (_, ended) = call("GET", &format!("{sessions}/{id}?wait=end&wait_seconds=60"), None).await;
    assert_eq!(ended["status"], "completed", "{ended}");
}

/// A line of the limits of a process, in words.
fn limit(pid: u32, name: &str) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("Linux");
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_limited(folder.path(), "ulimit -Sn 256 && ulimit -Hn 4000").await;
    assert_eq!(limit(cluster.pid(), "Max open files")[..2], ["4000", "4000"]);
    let relay: SocketAddr =
        cluster.endpoints["relay"][0].as_str().expect("an address").parse().expect("host:port");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(relay).await);
    }
    assert_eq!(call("GET", &cluster.url("coordinator", "/ready"), None).await.0, 200);
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_too_small_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = refused_start_limited(folder.path(), "ulimit -n 32").await;
    assert!(said.contains("32 files") && said.contains("at least 192"), "{said}");
    assert!(said.contains("ulimit -n"), "{said}");
}

#[tokio::test]
async fn parties_of_one_process_need_no_connection_that_others_could_take() {
    let (cluster, _folder) = Cluster::temporary().await;
    let mut ports = Vec::new();
    let text = cluster.endpoints.to_string();
    for after in text.split("127.0.0.1:").skip(1) {
        let digits = after.split('"').next().expect("a port");
        ports.push(digits.parse::<u16>().expect("a port"));
    }
    assert!(ports.len() > 12, "two of each service, and the relays': {ports:?}");
    // Connected sockets have the state 01; addresses are hexadecimal.
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    for line in sockets.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let used = words[1..3].iter().filter_map(|at| at.split_once(':'));
        let mut used = used.filter_map(|(_, port)| u16::from_str_radix(port, 16).ok());
        assert!(words[3] != "01" || !used.any(|port| ports.contains(&port)), "{line}");
    }
}

#[tokio::test]
async fn a_local_client_cannot_keep_the_roles_from_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ports = free_ports::<8>();
    let url = |port: usize| format!("http://127.0.0.1:{}", ports[port]);
    let (router, coordinator) = (url(1), url(3));
    let mut more = vec!["--coordinator".to_owned(), coordinator];
    for name in ["alpha", "beta"] {
        let trusted = identity_in(&folder.join(name).join("party"), name).await;
        more.extend(["--trust".to_owned(), trusted]);
    }
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    let limit = "ulimit -n 400";
    let _router = Role::start_limited(folder, "router", [ports[0], ports[1]], &more, limit).await;
    // All that one address may have, and more that try: the roles come from the same address.
    let victim = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let (mut held, mut refused) = (Vec::new(), 0);
    for n in 0..130 {
        let mut stream = TcpStream::connect(victim).await.expect("it listens");
        let path = format!("/api/v1/events/subscribe?party_id=p{n}");
        let _ = stream.write_all(handshake(victim, &path).as_bytes()).await;
        let mut status = [0; 12];
        let answered = stream.read_exact(&mut status).await.is_ok();
        refused += usize::from(!answered || &status != b"HTTP/1.1 101");
        held.push(stream);
    }
    assert_eq!(refused, 30, "half of 200 are for one address");
    let to_router = ["--router", router.as_str()];
    let _coordinator = Role::start(folder, "coordinator", [ports[2], ports[3]], &to_router).await;
    let mut parties = Vec::new();
    for (name, at) in [("alpha", 4), ("beta", 6)] {
        let more = [&["--id", name][..], &to_router].concat();
        let own = folder.join(name);
        parties.push(Role::start(&own, "party", [ports[at], ports[at + 1]], &more).await);
    }
    let keygen = json!({"session_type": "keygen", "threshold_n": 2, "threshold_t": 2});
    let sessions = format!("{}/api/v1/sessions", url(2));
    let created = async {
        // The parties find their way in their own time.
        while call("POST", &sessions, Some(&keygen)).await.0 != 201 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), created).await.expect("the roles reach each other");
}
