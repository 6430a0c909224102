//! A client in another language, generated from the published proto, works unchanged.

use quorate_e2e::{Cluster, root};
use tokio::process::Command;

fn python() -> String {
    std::env::var("QUORATE_PYTHON")
        .unwrap_or_else(|_| root().join("target/venv/bin/python").display().to_string())
}

/// Whether a script has come to its end.
fn check(python: &str, output: std::io::Result<std::process::Output>) {
    let output =
        output.unwrap_or_else(|error| panic!("{python}: {error}; `cargo xtask test` sets it up"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with("ok"), "{out}\n{err}");
}

#[tokio::test]
async fn a_python_client_opens_and_seals_packages() {
    let python = python();
    let output = Command::new(&python)
        .arg(root().join("crates/e2e/python/packages.py"))
        .arg(root().join("crates/schemes/vectors/package.json"))
        .output();
    check(&python, output.await);
}

#[tokio::test]
async fn a_python_client_registers_joins_routes_subscribes_and_acknowledges() {
    let python = python();
    let (cluster, folder) = Cluster::temporary().await;
    let output = Command::new(&python)
        .arg(root().join("crates/e2e/python/router_client.py"))
        .arg(root().join("proto"))
        .arg(folder.path().join("generated"))
        .arg(cluster.address("router", "grpc").to_string())
        .arg(cluster.address("coordinator", "http").to_string())
        .output();
    check(&python, output.await);
}
