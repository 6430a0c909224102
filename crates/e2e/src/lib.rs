//! The harness of the end-to-end tests: the real binary as a process of its own.

pub mod hostile;
pub mod sinks;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The binary under test: `$QUORATE_BIN`, or the one built beside the running test.
pub fn binary() -> PathBuf {
    beside_test("QUORATE_BIN", "quorate")
}

/// A program of this workspace: named by an environment variable, or found beside the test.
pub fn beside_test(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// Prometheus: `$QUORATE_PROMETHEUS`, or Debian's on the path. `cargo xtask test` installs it where
/// there is none.
pub fn prometheus() -> PathBuf {
    std::env::var_os("QUORATE_PROMETHEUS").unwrap_or_else(|| "prometheus".into()).into()
}

/// The browser of the tests: `$QUORATE_CHROMIUM`, or Debian's on the path. `cargo xtask test`
/// installs it.
pub fn chromium() -> PathBuf {
    std::env::var_os("QUORATE_CHROMIUM").unwrap_or_else(|| "chromium".into()).into()
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `quorate up` in a folder of its own.
pub struct Cluster {
    process: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
    /// What it serves where, as `--endpoints` tells it.
    pub endpoints: Value,
}

impl Cluster {
    /// Starts on free ports with the data in `folder`, and returns when it is ready.
    pub async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// As [`Cluster::start`], with more arguments.
    pub async fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        Self::run(Command::new(binary()), folder, arguments).await
    }

    /// As [`Cluster::start`], after a shell's `ulimit` command.
    pub async fn start_limited(folder: &Path, ulimit: &str) -> Self {
        Self::run(limited(ulimit), folder, &[]).await
    }

    async fn run(mut command: Command, folder: &Path, arguments: &[&str]) -> Self {
        let file = folder.join("endpoints.json");
        let mut process = command
            .args(["up", "--ports", "ephemeral", "--json", "--data"])
            .arg(folder.join("data"))
            .arg("--endpoints")
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut stdout = BufReader::new(stdout).lines();
        // `up --json` prints its addresses when it is ready: no polling.
        let line = stdout.next_line().await.expect("stdout is readable");
        let line = line.expect("`up` ended before it was ready; its log is above");
        let endpoints: Value = serde_json::from_str(&line).expect("one line of JSON");
        let written = std::fs::read(&file).expect("the endpoints file is there by then");
        assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), endpoints);
        Self { process, _stdout: stdout, endpoints }
    }

    /// Starts in a temporary folder that lives as long as the returned handle.
    pub async fn temporary() -> (Self, TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        (Self::start(folder.path()).await, folder)
    }

    /// An address: `cluster.address("router", "grpc")`.
    pub fn address(&self, service: &str, protocol: &str) -> SocketAddr {
        let text = self.endpoints[service][protocol].as_str().expect("an address");
        text.parse().expect("host:port")
    }

    /// The URL of a service's REST interface.
    pub fn url(&self, service: &str, path: &str) -> String {
        format!("http://{}{path}", self.address(service, "http"))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// SIGKILL, as a power cut would.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("it can be killed");
    }

    /// SIGTERM, and waits for the end. Answers whether it left with success.
    pub async fn stop(mut self) -> bool {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs");
        assert!(sent.success());
        self.process.wait().await.expect("it ends").success()
    }
}

/// The binary, after a shell's `ulimit` command.
fn limited(ulimit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{ulimit} && exec \"$0\" \"$@\"")).arg(binary());
    shell
}

/// Writes a self-signed certificate for this host and its key.
pub fn certificate(folder: &Path) -> (String, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    (cert.display().to_string(), key.display().to_string())
}

/// Makes an API key in the data folder that [`Cluster::start`] uses in `folder`.
pub async fn api_key(folder: &Path, arguments: &[&str]) -> String {
    api_key_in(&folder.join("data"), arguments).await
}

/// Makes an API key in a data folder.
pub async fn api_key_in(data: &Path, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(["api-keys", "--json", "--data"])
        .arg(data)
        .arg("create")
        .args(arguments)
        .output()
        .await
        .expect("the binary starts");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["api_key"].as_str().expect("a key").to_owned()
}

/// The identity of a server party with its data in `data`, as `NAME=HEX`; made where it is missing.
pub async fn identity_in(data: &Path, name: &str) -> String {
    let mut command = Command::new(binary());
    command.args(["party", "--json", "--print-identity", "--id", name, "--data"]).arg(data);
    let (_, identity) = last_json(command).await;
    format!("{name}={}", identity["identity"].as_str().expect("an identity"))
}

/// The private key of an initiator or approver in a file, as openssl would write it, from a fixed
/// seed: its path and its public key.
pub fn initiator(folder: &Path, name: &str, seed: u8) -> (String, String) {
    let secret = quorate_types::Secret::new([seed; 32]);
    let secret = quorate_authority::AuthoritySecret::from_seed(&secret);
    let path = folder.join(name);
    std::fs::write(&path, secret.to_pem().expect("PEM").expose()).expect("writable");
    (path.display().to_string(), secret.public().to_string())
}

/// The private key of the initiator that the roles of this machine share, as a file.
pub fn initiator_of_roles() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME")
        .unwrap_or_else(|| format!("{}/.local/state", variable("HOME").expect("a home")));
    format!("{state}/quorate/initiator.pem")
}

/// Sends JSON and reads JSON: the status and the body.
pub async fn call(method: &str, url: &str, body: Option<&Value>) -> (u16, Value) {
    let method = method.parse().expect("an HTTP method");
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.expect("the server answers");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// A program that is to run to its end: nothing to type, both outputs piped.
pub fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command to its end: whether it succeeded, and its last line of JSON.
pub async fn last_json(command: Command) -> (bool, Value) {
    let output = quiet(command).output().await.expect("it starts");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    let last = text.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    (output.status.success(), serde_json::from_slice(last.unwrap_or_default()).unwrap_or_default())
}

/// What `up` says that does not start with the data that [`Cluster::start`] uses in `folder`.
pub async fn refused_start(folder: &Path, arguments: &[&str]) -> String {
    refusal(Command::new(binary()), folder, arguments).await
}

/// As [`refused_start`], after a shell's `ulimit` command.
pub async fn refused_start_limited(folder: &Path, ulimit: &str) -> String {
    refusal(limited(ulimit), folder, &[]).await
}

async fn refusal(mut command: Command, folder: &Path, arguments: &[&str]) -> String {
    command.args(["up", "--ports", "ephemeral", "--json", "--data"]).arg(folder.join("data"));
    command.args(arguments);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), last_json(command)).await;
    let (success, said) = ended.expect("it starts though it must not");
    assert!(!success);
    said["message"].as_str().unwrap_or_default().to_owned()
}

/// A role of an installation in a process of its own.
pub struct Role {
    /// The running role, killed when this is dropped.
    pub process: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Role {
    /// Starts a role on these HTTP and gRPC ports with its data in `folder`, and returns when it
    /// says that it serves. All roles of one `folder` share a link secret.
    pub async fn start(folder: &Path, role: &str, ports: [u16; 2], more: &[&str]) -> Self {
        Self::run(Command::new(binary()), folder, role, ports, more).await
    }

    /// As [`Role::start`], after a shell's `ulimit` command.
    pub async fn start_limited(
        folder: &Path,
        role: &str,
        ports: [u16; 2],
        more: &[&str],
        ulimit: &str,
    ) -> Self {
        Self::run(limited(ulimit), folder, role, ports, more).await
    }

    async fn run(
        mut command: Command,
        folder: &Path,
        role: &str,
        ports: [u16; 2],
        more: &[&str],
    ) -> Self {
        let mut process = command
            .args([role, "--json", "--data"])
            .arg(folder.join(role))
            .arg("--link-key")
            .arg(folder.join("link.key"))
            .args(["--http-port", &ports[0].to_string(), "--grpc-port", &ports[1].to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped")).lines();
        let ready = stdout.next_line().await.expect("readable");
        assert!(ready.is_some(), "{role} says when it is ready");
        Self { process, _stdout: stdout }
    }
}

/// How much of something: `cargo xtask soak` asks for the long form of a test.
pub fn amount(short: usize, soak: usize) -> usize {
    if std::env::var_os("QUORATE_SOAK").is_some() { soak } else { short }
}

/// Ports that were free a moment ago: roles must know each other's before they start.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}
