//! Starts that fail: they say which option helps, and leave nothing behind.

use std::net::TcpListener;

use quorate_e2e::{binary, free_ports, quiet};
use tokio::process::Command;

/// Runs a command line that fails: what it says.
async fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(arguments);
    let output = quiet(command).output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_no_folder_and_names_the_roles_own_option() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let data = path.display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|at| (at.port().to_string(), taken)).expect("bound");
    let free = free_ports::<1>()[0].to_string();
    for role in ["coordinator", "router", "accounts", "party"] {
        for (port, other) in [("--http-port", "--grpc-port"), ("--grpc-port", "--http-port")] {
            let said = refused(&[role, "--data", &data, port, &taken.0, other, &free]).await;
            assert!(said.contains("cannot listen on 127.0.0.1"), "{said}");
            assert!(said.contains(port) && !said.contains("--ports"), "{said}");
        }
    }
    let said = refused(&["relay", "--data", &data, "--only", "jsonrpc", "--port", &taken.0]).await;
    assert!(said.contains("with --port or --host"), "{said}");
    let no_address = ["up", "--data", &data, "--ports", "ephemeral", "--host", "192.0.2.1"];
    let said = refused(&[&no_address[..], &["--insecure"]].concat()).await;
    assert!(said.contains("not an address of this machine"), "{said}");
    refused(&["up", "--data", &data, "--ports", "ephemeral", "--trust", "nonsense"]).await;
    assert!(!path.exists(), "a start that failed made {data}");
}

#[tokio::test]
async fn an_address_to_listen_on_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let said =
        refused(&["relay", "--data", &data, "--only", "binary", "--listen", "nonsense"]).await;
    assert!(said.contains("\"nonsense\"") && said.contains("HOST:PORT"), "{said}");
}

#[tokio::test]
async fn a_command_on_a_device_that_is_not_there_makes_no_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("alice");
    let device = path.display().to_string();
    let mut command = Command::new(binary());
    command.args(["device", "--folder", &device, "show"]);
    let output = quiet(command).output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("device init"), "{said}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_relay_that_is_away_is_named_with_the_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let [port] = free_ports();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (alice, bob) = (at("alice"), at("bob"));
    let relay = format!("ws://127.0.0.1:{port}/v1/msg-relay");
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments);
        let output = quiet(command).output().await.expect("the binary starts");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), text)
    };
    for device in [&alice, &bob] {
        let init = ["device", "--folder", device, "init", "--relay", &relay];
        assert_eq!(run(&init).await.0, Some(0));
    }
    let (_, [shown, _]) = run(&["device", "--folder", &bob, "show", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let link = shown["link"].as_str().expect("a link");
    assert_eq!(run(&["device", "--folder", &alice, "pair", link]).await.0, Some(0));
    let (code, [_, said]) = run(&["device", "--folder", &alice, "keygen"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&relay) && said.contains("connection refused"), "{said}");
    let url = format!("ws://127.0.0.1:{port}/mpc");
    let (code, [_, said]) = run(&["group", "--folder", &alice, "--url", &url, "create"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&url) && said.contains("connection refused"), "{said}");
}
