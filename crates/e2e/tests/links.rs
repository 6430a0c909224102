//! The link of each role: it makes the calls of its role, for its callers or as itself, and no others.

use hmac::{Hmac, KeyInit as _, Mac as _};
use prost_types::FileDescriptorSet;
use quorate_e2e::{Role, free_ports};
use reqwest::header::AUTHORIZATION;
use sha2::Sha256;

/// What a role shows, made of the installation's secret as the documentation says.
fn credential(secret: &str, role: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(b"quorate/link/v1");
    mac.update(role.as_bytes());
    format!("Quorate-Link {role} {}", hex::encode(mac.finalize().into_bytes()))
}

/// Every gRPC call of the protos, by its path.
fn calls() -> Vec<String> {
    let set: FileDescriptorSet =
        prost::Message::decode(quorate_rpc::DESCRIPTORS).expect("descriptors");
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths
}

/// Makes a call with an empty message; the refusal of its link, if that is how it ends.
async fn call(server: &str, path: &str, shown: &str, behalf: Option<&str>) -> Option<String> {
    let mut request = reqwest::Client::new()
        .post(format!("{server}{path}"))
        .header("content-type", "application/grpc-web+proto")
        .header(AUTHORIZATION, shown)
        .body(vec![0_u8; 5]);
    if let Some(caller) = behalf {
        request = request.header("quorate-on-behalf-of", caller);
    }
    let answer = request.send().await.expect("an answer");
    let message = answer.headers().get("grpc-message")?.to_str().expect("text");
    let message = message.replace("%20", " ");
    ["the link of", "the link secret"].iter().any(|s| message.contains(s)).then_some(message)
}

/// What each role may: the call, and whether for callers or as itself.
const ALLOWED: [(&str, &str, bool); 15] = [
    ("accounts", "SessionCoordinator/CreateSession", true),
    ("accounts", "SessionCoordinator/GetSessionStatus", true),
    ("accounts", "SessionCoordinator/GetSessionStatus", false),
    ("coordinator", "MessageRouter/GetRegisteredParties", true),
    ("coordinator", "MessageRouter/PublishSessionEvent", false),
    ("coordinator", "MessageRouter/SubscribeSessionEvents", false),
    ("coordinator", "MessageRouter/GetContacts", false),
    ("router", "SessionCoordinator/GetSessionStatus", true),
    ("router", "SessionCoordinator/JoinSession", true),
    ("router", "SessionCoordinator/MarkPartyReady", true),
    ("router", "SessionCoordinator/ReportCompletion", true),
    ("router", "SessionCoordinator/SubmitDelegateShare", true),
    ("router", "SessionCoordinator/FetchDelegateShare", true),
    ("router", "SessionCoordinator/ConfirmDelegateShare", true),
    ("router", "SessionCoordinator/ReportProgress", false),
];

#[tokio::test]
async fn a_link_makes_its_roles_calls_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = free_ports::<4>();
    let url = |port: usize| format!("http://127.0.0.1:{}", ports[port]);
    let (router, coordinator) = (url(1), url(3));
    let to_coordinator = ["--auth", "required", "--coordinator", &coordinator];
    let to_router = ["--auth", "required", "--router", &router];
    let _router = Role::start(folder.path(), "router", [ports[0], ports[1]], &to_coordinator).await;
    let _coordinator =
        Role::start(folder.path(), "coordinator", [ports[2], ports[3]], &to_router).await;
    let secret = std::fs::read_to_string(folder.path().join("link.key")).expect("made");
    let mut allowed = 0;
    for role in ["accounts", "coordinator", "router"] {
        let shown = credential(secret.trim(), role);
        for path in calls() {
            let server = if path.contains("MessageRouter") { &router } else { &coordinator };
            for (behalf, for_callers) in
                [(Some("open"), true), (Some("system"), false), (None, false)]
            {
                let refused = call(server, &path, &shown, behalf).await;
                let named = |(who, end, whom): &&(&str, &str, bool)| {
                    *who == role && path.ends_with(end) && *whom == for_callers
                };
                let may = ALLOWED.iter().find(named).is_some();
                assert_eq!(refused.is_none(), may, "{role} {path} for {behalf:?}: {refused:?}");
                allowed += usize::from(may);
            }
        }
    }
    assert_eq!(allowed, ALLOWED.len() + 5, "as itself is said in two ways");
    let shown = credential(&"0".repeat(64), "router");
    let path = "/mpc.coordinator.v1.SessionCoordinator/ReportProgress";
    assert!(call(&coordinator, path, &shown, None).await.is_some(), "another secret");
}
