//! Offline parties and webhooks, told by the real binary through real sockets.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_e2e::sinks::{HttpSink, MailSink, Received, Reply};
use quorate_e2e::{Cluster, Role, binary, call, free_ports, identity_in, last_json, root};
use serde_json::{Value, json};
use tokio::process::Command;

const SECRET: &str = "a secret of the webhook";

/// Writes the operator's file, and answers with its path.
fn configure(folder: &Path, tables: &str) -> String {
    std::fs::write(folder.join("hook.secret"), SECRET).expect("writable");
    std::fs::write(folder.join("sms.secret"), "sms-password").expect("writable");
    let file = folder.join("notifications.toml");
    let text = format!("version = 1\nlink = \"https://sign.example\"\n{tables}");
    std::fs::write(&file, text).expect("writable");
    file.display().to_string()
}

fn mail_to(at: &std::net::SocketAddr) -> String {
    format!(
        "[email]\nserver = \"{at}\"\ntls = \"none\"\nfrom = \"Quorate <quorate@sign.example>\"\n"
    )
}

fn webhook(name: &str, url: &str, allow_private: bool) -> String {
    format!(
        "[webhooks.default.{name}]\nurl = \"{url}\"\nsecret_file = \"hook.secret\"\n\
         allow_private = {allow_private}\n"
    )
}

async fn register(cluster: &Cluster, party: &str, channels: Value) {
    let body = json!({"party_id": party, "party_role": "temporary", "notification": channels});
    let (status, answer) =
        call("POST", &cluster.url("router", "/api/v1/parties"), Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
}

async fn create(cluster: &Cluster, body: Value) -> Value {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let (status, answer) = call("POST", &url, Some(&body)).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

fn keygen(parties: &[&str]) -> Value {
    let parties: Vec<_> = parties.iter().map(|party| json!({"party_id": party})).collect();
    json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2, "participants": parties})
}

/// The rows of one session, as an operator sees them, once they fulfil a condition.
async fn rows(cluster: &Cluster, session: &Value, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let url = cluster.url("coordinator", "/api/v1/notifications?limit=200");
    loop {
        let (status, page) = call("GET", &url, None).await;
        assert_eq!(status, 200, "{page}");
        let rows = page["notifications"].as_array().expect("a list");
        let of_session = rows.iter().filter(|row| row["session_id"] == session["session_id"]);
        let of_session: Vec<_> = of_session.cloned().collect();
        if done(&of_session) {
            return of_session;
        }
        tokio::task::yield_now().await;
    }
}

fn step<'a>(rows: &'a [Value], channel: &str, step: &str) -> Option<&'a Value> {
    rows.iter().find(|row| row["channel"] == channel && row["step"] == step)
}

/// The link in a mail or request.
fn link(text: &str) -> String {
    let start = text.find("https://sign.example/s/").unwrap_or_else(|| panic!("no link in {text}"));
    let rest = &text[start..];
    let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// No text may have these; a token stands behind the # of a link only.
fn assert_no_secrets(text: &str, token: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for (at, _) in text.match_indices(token) {
        assert!(matches!(text[..at].chars().last(), Some('#')), "a bare token in {text}");
    }
}

#[tokio::test]
async fn an_offline_party_is_told_by_mail_sms_and_push_and_its_messages_wait_over_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut mails = MailSink::start(0).await;
    let mut sms = HttpSink::start(Reply::Status(201)).await;
    let mut push = HttpSink::start(Reply::Status(200)).await;
    let file = configure(
        folder.path(),
        &format!(
            "{}[sms]\nurl = \"http://{}/messages\"\nallow_private = true\nfrom = \"+15550100\"\n\
             username = \"AC1\"\npassword_file = \"sms.secret\"\n\
             [push]\nurl = \"http://{}/send\"\nallow_private = true\n\
             token_command = [\"printf\", \"%s\", \"access-token\"]\n",
            mail_to(&mails.address),
            sms.address,
            push.address
        ),
    );
    let arguments = ["--notifications", file.as_str()];
    let cluster = Cluster::start_with(folder.path(), &arguments).await;
    let channels = json!({"email": "phone@x.example", "phone": "+15550199", "push_token": "tok"});
    register(&cluster, "phone", channels).await;
    let session = create(&cluster, keygen(&["phone", "laptop", "server-party-1"])).await;
    let id = session["session_id"].as_str().expect("an id");
    let lifetime = session["expires_at"].as_i64().expect("a time") * 1000
        - session["created_at"].as_i64().expect("a time");
    assert!((86_399_000..=86_401_000).contains(&lifetime), "24 hours: {session}");
    let token = session["join_tokens"]["phone"].as_str().expect("a token");

    let mail = mails.next().await;
    let expected = format!("https://sign.example/s/{id}#{token}");
    assert_eq!(link(&mail), expected);
    for part in ["RCPT TO:<phone@x.example>", "Subject: default asks you for a new key"] {
        assert!(mail.contains(part), "{part} in {mail}");
    }
    let text = sms.next().await;
    assert_eq!(text.headers["authorization"], "Basic QUMxOnNtcy1wYXNzd29yZA==");
    assert!(text.body.contains("To=%2B15550199&From=%2B15550100&Body=default%20asks"), "{text:?}");
    let pushed = push.next().await;
    assert_eq!(pushed.headers["authorization"], "Bearer access-token");
    let pushed: Value = serde_json::from_str(&pushed.body).expect("JSON");
    assert_eq!(pushed["message"]["token"], "tok");
    assert_eq!(pushed["message"]["data"]["link"], expected);
    let sent = |rows: &[Value]| rows.iter().filter(|row| row["state"] == "sent").count() == 3;
    let told = rows(&cluster, &session, sent).await;
    for channel in ["email", "sms", "push"] {
        let row = step(&told, channel, "session_created").expect("a row");
        assert_eq!((&row["attempts"], &row["party_id"]), (&json!(1), &json!("phone")), "{row}");
    }
    let email = step(&told, "email", "session_created").expect("a row");
    let delivery = email["notification_id"].as_str().expect("an id");
    assert!(mail.contains(&format!("Message-ID: <{delivery}@sign.example>")), "{mail}");
    let sms_row = step(&told, "sms", "session_created").expect("a row");
    assert_eq!(
        text.headers["idempotency-key"],
        sms_row["notification_id"].as_str().expect("an id")
    );
    let listed = serde_json::to_string(&told).expect("JSON");
    for address in ["phone@x.example", "15550199", "\"tok\""] {
        assert!(!listed.contains(address), "{address} is shown to nobody");
    }
    assert_eq!(told.len(), 15, "a row for each step and channel");

    // What is sent to the party waits for it, also when the server is killed.
    let messages = format!("/api/v1/sessions/{id}/messages");
    let message = json!({"from_party": "laptop", "to_parties": ["phone"], "round_number": 1,
                         "message_type": "x", "payload": "aGVsbG8="});
    let (status, routed) = call("POST", &cluster.url("router", &messages), Some(&message)).await;
    assert_eq!(status, 200, "{routed}");
    cluster.kill().await;
    let cluster = Cluster::start_with(folder.path(), &arguments).await;
    let pending = cluster.url("router", &format!("{messages}?party_id=phone"));
    let (_, pending) = call("GET", &pending, None).await;
    assert_eq!(pending["messages"][0]["payload"], "aGVsbG8=", "{pending}");
    let join = json!({"join_token": token, "party_id": "phone"});
    let url = cluster.url("coordinator", "/api/v1/sessions/join");
    let (status, joined) = call("POST", &url, Some(&join)).await;
    assert_eq!(status, 200, "{joined}");
    let url = cluster.url("coordinator", &format!("/api/v1/sessions/{id}"));
    call("DELETE", &url, None).await;
    let mail = mails.next().await;
    assert!(
        mail.contains("Subject: Failed: a new key for default") && !mail.contains('#'),
        "{mail}"
    );
    let ended = |rows: &[Value]| rows.iter().filter(|row| row["state"] == "sent").count() == 6;
    assert_eq!(rows(&cluster, &session, ended).await.len(), 6, "reminders are pointless now");
    assert!(mails.is_empty(), "each mail came once");
}

#[tokio::test]
async fn a_provider_that_is_away_is_tried_again_and_a_mistake_in_the_file_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = free_ports::<1>();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let file = configure(folder.path(), &mail_to(&address));
    let cluster = Cluster::start_with(folder.path(), &["--notifications", &file]).await;
    register(&cluster, "phone", json!({"email": "phone@x.example"})).await;
    let mut request = keygen(&["phone", "laptop", "server-party-1"]);
    request["expires_in_seconds"] = json!(600);
    let session = create(&cluster, request).await;
    let failed = |rows: &[Value]| {
        step(rows, "email", "session_created").is_some_and(|row| row["last_error"].is_string())
    };
    let row = rows(&cluster, &session, failed).await;
    let row = step(&row, "email", "session_created").expect("a row");
    assert_eq!(row["state"], "waiting", "{row}");
    let metrics = reqwest::get(cluster.url("coordinator", "/metrics")).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    assert!(
        metrics.contains("quorate_notifications_total{channel=\"email\",outcome=\"failed\"}")
            && metrics.contains("quorate_notifications_waiting 5"),
        "{metrics}"
    );
    // What is wrong with a new file is told, and the old one serves.
    std::fs::write(&file, "version = 1\nlink = 7\n").expect("writable");
    let hangup = Command::new("kill").args(["-HUP", &cluster.pid().to_string()]).status().await;
    assert!(hangup.expect("kill runs").success());
    let mut mails = MailSink::start(port).await;
    assert!(mails.next().await.contains("phone@x.example"));
    let sent = |rows: &[Value]| {
        step(rows, "email", "session_created").is_some_and(|row| row["state"] == "sent")
    };
    rows(&cluster, &session, sent).await;
    assert!(mails.is_empty(), "it came once");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Whether an independent program takes a webhook's signature at this time.
async fn verified(hook: &Received, secret: &str, body: &str, at: u64) -> bool {
    let python = std::env::var("QUORATE_PYTHON")
        .unwrap_or_else(|_| root().join("target/venv/bin/python").display().to_string());
    let script = root().join("crates/e2e/python/webhook.py");
    let mut command = Command::new(&python);
    command.arg(script).args([secret, &hook.headers["quorate-signature"], body, &at.to_string()]);
    command.status().await.unwrap_or_else(|error| panic!("{python}: {error}")).success()
}

#[tokio::test]
async fn a_creators_webhook_gets_the_result_signed_and_again_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut hook = HttpSink::start(Reply::Silence).await;
    let url = format!("http://{}/hook", hook.address);
    let file = configure(folder.path(), &webhook("settlement", &url, true));
    let arguments = ["--notifications", file.as_str()];
    let cluster = Cluster::start_with(folder.path(), &arguments).await;
    let mut request =
        json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2, "webhook": "nobodys"});
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let (status, refused) = call("POST", &sessions, Some(&request)).await;
    assert_eq!((status, &refused["error"]), (400, &json!("invalid_request")), "{refused}");
    assert!(refused["details"]["webhook"].is_string(), "{refused}");
    request["webhook"] = json!("settlement");
    let session = create(&cluster, request).await;
    let first = hook.next().await;
    assert_eq!(first.line, "POST /hook HTTP/1.1");
    assert_eq!(first.headers["quorate-attempt"], "1");
    // It was sent, and the outcome is not known.
    cluster.kill().await;
    hook.reply(Reply::Status(302));
    let cluster = Cluster::start_with(folder.path(), &arguments).await;
    let second = hook.next().await;
    assert_eq!(second.headers["quorate-delivery"], first.headers["quorate-delivery"]);
    assert_eq!(second.body, first.body);
    // A redirect is followed nowhere; it is tried again.
    hook.reply(Reply::Status(204));
    let third = hook.next().await;
    assert_eq!(
        (third.line.as_str(), third.headers["quorate-attempt"].as_str()),
        ("POST /hook HTTP/1.1", "2")
    );
    let sent = |rows: &[Value]| rows.iter().all(|row| row["state"] == "sent");
    let told = rows(&cluster, &session, sent).await;
    assert_eq!((told.len(), &told[0]["webhook"]), (1, &json!("settlement")), "{told:?}");

    let body: Value = serde_json::from_str(&third.body).expect("JSON");
    assert_eq!(body["event"], "session_completed");
    assert_eq!(body["session_id"], session["session_id"]);
    let url = cluster
        .url("coordinator", &format!("/api/v1/keys/{}", body["key_id"].as_str().expect("an id")));
    let (_, key) = call("GET", &url, None).await;
    assert_eq!(body["public_key"], key["public_key"], "{body}");
    let at: u64 = third.headers["quorate-signature"][2..12].parse().expect("seconds");
    assert!(now().abs_diff(at) < 60, "it is fresh");
    assert!(verified(&third, SECRET, &third.body, at + 299).await);
    assert!(!verified(&third, SECRET, &third.body, at + 301).await, "a replay");
    assert!(!verified(&third, "another secret!!", &third.body, at).await);
    assert!(!verified(&third, SECRET, &third.body.replace("completed", "failed"), at).await);

    // The message that is signed goes nowhere.
    let digest = "8d".repeat(32);
    let sign = json!({"session_type": "sign", "key_id": body["key_id"], "message_hash": digest,
                      "webhook": "settlement"});
    let signed = create(&cluster, sign).await;
    let told = hook.next().await;
    let result: Value = serde_json::from_str(&told.body).expect("JSON");
    assert_eq!(
        (&result["status"], &result["session_id"]),
        (&json!("completed"), &signed["session_id"])
    );
    assert_eq!(result["signature"].as_str().map(str::len), Some(128));
    for (_, token) in signed["join_tokens"].as_object().expect("tokens") {
        assert_no_secrets(&told.body, token.as_str().expect("text"), &[&digest, SECRET]);
        assert!(!told.body.contains(token.as_str().expect("text")));
    }
    assert!(hook.is_empty());
}

#[tokio::test]
async fn a_private_address_is_not_called_and_410_stops_a_webhook() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut hook = HttpSink::start(Reply::Status(410)).await;
    let inside = format!("https://{}/hook", hook.address);
    let gone = format!("http://{}/hook", hook.address);
    let file = configure(
        folder.path(),
        &format!("{}{}", webhook("inside", &inside, false), webhook("gone", &gone, true)),
    );
    let cluster = Cluster::start_with(folder.path(), &["--notifications", &file]).await;
    for (name, state, error) in
        [("gone", "dead", "status 410"), ("inside", "waiting", "no public address")]
    {
        let mut request = keygen(&["a", "b", "c"]);
        request["webhook"] = json!(name);
        let session = create(&cluster, request).await;
        let id = session["session_id"].as_str().expect("an id");
        let url = cluster.url("coordinator", &format!("/api/v1/sessions/{id}"));
        call("DELETE", &url, None).await;
        let tried = |rows: &[Value]| rows[0]["last_error"].is_string();
        let row = rows(&cluster, &session, tried).await.remove(0);
        assert_eq!(row["state"], state, "{row}");
        assert!(row["last_error"].as_str().expect("text").contains(error), "{row}");
    }
    assert!(hook.next().await.body.contains("\"reason\":\"closed\""));
    assert!(hook.is_empty(), "the private address was not called");
}

/// A command with its answer, again while parties are still connecting.
async fn must(mut command: impl FnMut() -> Command) -> Value {
    loop {
        let (done, answer) = last_json(command()).await;
        match answer["error"].as_str() {
            None if done => return answer,
            Some("threshold_not_met" | "unavailable") => tokio::task::yield_now().await,
            _ => panic!("{answer}"),
        }
    }
}

#[tokio::test]
async fn a_user_that_was_offline_signs_by_the_link_in_its_mail_with_roles_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut mails = MailSink::start(0).await;
    let names = "[names]\ndefault = \"Acme Treasury\"\n";
    let file = configure(folder, &format!("{names}{}", mail_to(&mails.address)));
    let ports = free_ports::<10>();
    let pair = |at: usize| [ports[at], ports[at + 1]];
    let router = format!("http://127.0.0.1:{}", ports[1]);
    let coordinator = format!("http://127.0.0.1:{}", ports[3]);
    let to_router = ["--router", router.as_str()];
    let to_coordinator = ["--coordinator", coordinator.as_str()];
    let with_file = [&to_router[..], &["--notifications", &file]].concat();
    let _router = Role::start(folder, "router", pair(0), &to_coordinator).await;
    let _coordinator = Role::start(folder, "coordinator", pair(2), &with_file).await;
    let mut parties = Vec::new();
    for (name, at) in [("alpha", 4), ("beta", 6)] {
        identity_in(&folder.join(name).join("party"), name).await;
        let more = [&["--id", name][..], &to_router].concat();
        parties.push(Role::start(&folder.join(name), "party", pair(at), &more).await);
    }
    let more = [&["--id", "delegate-1", "--role", "delegate"][..], &to_router].concat();
    parties.push(Role::start(&folder.join("delegate"), "party", pair(8), &more).await);

    let user = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["user", "--json", "--folder"]).arg(folder.join("alice")).args(arguments);
        command.env("QUORATE_COORDINATOR", &coordinator).env("QUORATE_ROUTER", &router);
        command
    };
    must(|| user(&["init", "--name", "alice"])).await;
    let key = must(|| user(&["keygen", "--delegate", "delegate-1"])).await;
    last_json(user(&["fetch"])).await;
    must(|| user(&["register", "--email", "alice@x.example"])).await;

    // Nobody is there for alice when the session is created.
    let url = format!("http://127.0.0.1:{}/api/v1/sessions", ports[2]);
    let digest = "8d".repeat(32);
    let request = json!({"session_type": "sign", "key_id": key["key_id"], "message_hash": digest,
                         "participants": [{"party_id": "alice"}, {"party_id": "alpha"}]});
    let (status, session) = call("POST", &url, Some(&request)).await;
    assert_eq!(status, 201, "{session}");
    let mail = mails.next().await;
    assert!(mail.contains("Acme Treasury asks you for a signature"), "{mail}");
    let token = session["join_tokens"]["alice"].as_str().expect("a token");
    let public_key = key["public_key"].as_str().expect("text");
    let key_id = key["key_id"].as_str().expect("text");
    assert_no_secrets(&mail, token, &[&digest, public_key, key_id]);
    let link = link(&mail);
    let signed = must(|| user(&["join", &link])).await;
    let mut verify = Command::new(binary());
    verify.args(["verify", "--json", "--digest", &digest, "--public-key", public_key]);
    verify.args(["--signature", signed["signature"].as_str().expect("text")]);
    assert!(last_json(verify).await.0, "{signed}");
    let mail = mails.next().await;
    assert!(mail.contains("Subject: Completed: a signature for Acme Treasury"), "{mail}");
    assert_no_secrets(&mail, "#", &[&digest, public_key, key_id, token]);

    let mut list = Command::new(binary());
    list.args(["notifications", "list", "--json", "--state", "sent"]);
    list.env("QUORATE_COORDINATOR", &coordinator);
    let (done, listed) = last_json(list).await;
    assert!(done, "{listed}");
    let mut check = Command::new(binary());
    check.args(["notifications", "check", "--json", &file]);
    let (valid, checked) = last_json(check).await;
    assert!(valid && checked["configured"] == json!(["email"]), "{checked}");
    tokio::time::timeout(Duration::ZERO, mails.next()).await.expect_err("each came once");
}
