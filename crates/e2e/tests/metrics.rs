//! What operators scrape, read by a Prometheus that knows nothing of Quorate.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use quorate_e2e::{Cluster, api_key, call, free_ports, prometheus};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The HTTP addresses of all services, with the names by which `/metrics` calls them.
fn services(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let at = |value: &Value| value["http"].as_str().expect("an address").to_owned();
    let all = &cluster.endpoints;
    vec![
        ("session-coordinator", at(&all["coordinator"])),
        ("message-router", at(&all["router"])),
        ("account-service", at(&all["accounts"])),
        ("server-party", at(&all["parties"][0])),
    ]
}

async fn scrape(address: &str, key: Option<&str>) -> (u16, String) {
    let mut request = reqwest::Client::new().get(format!("http://{address}/metrics"));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// The values by their names with labels.
fn values(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name, value.parse().expect("a number"))
        })
        .collect()
}

/// Makes a key for Ed25519 and signs with it; what fails is counted, too.
async fn work(cluster: &Cluster) {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = json!({ "session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
                         "scheme": "ed25519" });
    let (status, created) = call("POST", &url, Some(&keygen)).await;
    assert_eq!(status, 201, "{created}");
    let ended = |created: Value| {
        let url = format!("{url}/{}?wait=end", created["session_id"].as_str().expect("an id"));
        async move { call("GET", &url, None).await.1 }
    };
    let key = ended(created).await["key_id"].clone();
    let sign = json!({ "session_type": "sign", "key_id": key, "message": "cGF5" });
    for _ in 0..3 {
        let (status, created) = call("POST", &url, Some(&sign)).await;
        assert_eq!(status, 201, "{created}");
        assert_eq!(ended(created).await["status"], "completed");
    }
    let (status, _) = call("POST", &url, Some(&json!({ "session_type": "dance" }))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn every_service_tells_what_it_does() {
    let (cluster, _folder) = Cluster::temporary().await;
    work(&cluster).await;
    for (name, address) in services(&cluster) {
        let (status, text) = scrape(&address, None).await;
        assert_eq!(status, 200, "{name}");
        assert!(text.contains(&format!(r#"service="{name}""#)), "{text}");
        assert!(text.ends_with("# EOF\n"), "{name}");
        let read = values(&text);
        let expected: &[(&str, f64)] = match name {
            "session-coordinator" => &[
                (r#"quorate_sessions_created_total{kind="sign",scheme="ed25519"}"#, 3.0),
                (
                    r#"quorate_sessions_ended_total{kind="sign",scheme="ed25519",outcome="completed"}"#,
                    3.0,
                ),
                (r#"quorate_session_duration_seconds_count{kind="keygen",scheme="ed25519"}"#, 1.0),
                (r#"quorate_requests_total{protocol="rest",code="invalid_request"}"#, 1.0),
                ("quorate_open_sessions", 0.0),
                ("quorate_store_healthy", 1.0),
            ],
            "message-router" => &[("quorate_parties_online", 3.0), ("quorate_waiting_bytes", 0.0)],
            "server-party" => &[("quorate_party_connected", 1.0)],
            _ => &[("quorate_store_healthy", 1.0)],
        };
        for (what, value) in expected {
            assert_eq!(read.get(what), Some(value), "{what} in {text}");
        }
        if name == "message-router" {
            assert!(
                read["quorate_messages_total"] > 0.0 && read["quorate_message_bytes_total"] > 0.0
            );
        }
        for secret in ["server-party-", "default"] {
            assert!(!text.contains(secret), "no party and no tenant is named: {secret}");
        }
        lint(&text).await;
    }
}

/// Prometheus' own opinion of a page. Its linter knows the older text format only, where a counter
/// has the name of its value and there are no infos.
async fn lint(text: &str) {
    let promtool = prometheus().with_file_name("promtool");
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let kind = |line: &str| {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let info = text.contains(&format!("# TYPE {} info\n", words[2]));
        let counter = text.contains(&format!("# TYPE {} counter\n", words[2]));
        words[2].push_str(if info {
            "_info"
        } else if counter {
            "_total"
        } else {
            ""
        });
        words.join(" ").replace(" info", " gauge")
    };
    let lines = text.lines().filter(|line| *line != "# EOF");
    let lines = lines.map(|line| if line.starts_with('#') { kind(line) } else { line.to_owned() });
    let plain = lines.map(|line| line + "\n").collect::<String>();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(plain.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{text}");
}

#[tokio::test]
async fn prometheus_scrapes_all_of_an_installation() {
    let (cluster, folder) = Cluster::temporary().await;
    work(&cluster).await;
    let targets: Vec<_> = services(&cluster).into_iter().map(|(_, address)| address).collect();
    let jobs = json!([{ "job_name": "quorate", "static_configs": [{ "targets": targets }] }]);
    let config = json!({ "global": { "scrape_interval": "200ms", "scrape_timeout": "200ms" },
                         "scrape_configs": jobs });
    let file = folder.path().join("prometheus.yml");
    // JSON is YAML.
    std::fs::write(&file, config.to_string()).expect("a file");
    let [port] = free_ports();
    let mut server = Command::new(prometheus())
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Prometheus");
    let ask = |query: &'static str| async move {
        let url = format!("http://127.0.0.1:{port}/api/v1/query");
        let query = reqwest::Client::new().get(url).query(&[("query", query)]);
        let answer: Value = query.send().await.ok()?.json().await.ok()?;
        let results = answer["data"]["result"].as_array()?.clone();
        Some(results)
    };
    let scraped = async {
        loop {
            // Nothing tells when it has scraped; it is asked until it has.
            let up = ask("up == 1").await.unwrap_or_default();
            let signed = ask(r#"quorate_sessions_ended_total{kind="sign"}"#).await;
            if let (4, Some([signed])) = (up.len(), signed.as_deref()) {
                return signed["value"][1].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let signed = tokio::time::timeout(Duration::from_secs(60), scraped).await;
    assert_eq!(signed.expect("all four are scraped within a minute"), "3");
    server.kill().await.expect("it ends");
}

#[tokio::test]
async fn only_the_operator_reads_metrics_of_a_server_with_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let operator = api_key(folder.path(), &["--scope", "system"]).await;
    let tenant = ["--tenant", "acme", "--scope", "sessions", "--scope", "read"];
    let tenant = api_key(folder.path(), &tenant).await;
    let cluster = Cluster::start_with(folder.path(), &["--auth", "required"]).await;
    for (name, address) in services(&cluster) {
        assert_eq!(scrape(&address, None).await.0, 401, "{name}");
        assert_eq!(scrape(&address, Some(&tenant)).await.0, 403, "{name}");
        let (status, text) = scrape(&address, Some(&operator)).await;
        assert_eq!(status, 200, "{name}");
        let refused = r#"quorate_requests_total{protocol="rest",code="forbidden"}"#;
        assert_eq!(values(&text).get(refused), Some(&1.0), "{text}");
    }
}
