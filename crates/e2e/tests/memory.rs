//! What a party's memory leaves behind when its process dies.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use quorate_e2e::binary;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The user `nobody`.
const NOBODY: &str = "65534";
const SIGABRT: i32 = 6;

/// Starts a program in `folder` with core files of any size; as another user, where we may.
fn dumping(folder: &Path, program: &Path, arguments: &[&str]) -> Child {
    let shell = match rustix::process::getuid().is_root() {
        true => format!(
            "ulimit -c unlimited && exec setpriv --reuid {NOBODY} --regid {NOBODY} \
             --clear-groups \"$0\" \"$@\""
        ),
        false => "ulimit -c unlimited && exec \"$0\" \"$@\"".to_owned(),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(shell).arg(program).args(arguments);
    command.env("HOME", folder).env_remove("XDG_STATE_HOME");
    command.current_dir(folder).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("a shell")
}

/// Crashes a process that has printed a line; answers whether a core file lies in `folder` then.
async fn crashed(mut process: Child, folder: &Path) -> bool {
    let stdout = process.stdout.take().expect("piped");
    let line = BufReader::new(stdout).lines().next_line().await.expect("readable");
    assert!(line.is_some(), "it says that it runs");
    let id = process.id().expect("it runs").to_string();
    let killed = Command::new("kill").args(["-ABRT", &id]).status().await.expect("kill");
    assert!(killed.success());
    let status = process.wait().await.expect("it ends");
    assert_eq!(status.signal(), Some(SIGABRT));
    let mut files = std::fs::read_dir(folder).expect("the folder").flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("core"))
}

#[tokio::test]
async fn a_crash_leaves_no_core_file_where_another_program_leaves_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let own = folder.join("quorate");
    // The other user may not reach where it was built.
    std::fs::copy(binary(), &own).expect("a copy");
    if rustix::process::getuid().is_root() {
        let nobody = NOBODY.parse().ok();
        std::os::unix::fs::chown(folder, nobody, nobody).expect("a folder of its own");
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("Linux");
    // Elsewhere the system hands core files to a program, or puts them where we do not look.
    if pattern.trim().starts_with("core") {
        let control = dumping(folder, Path::new("sh"), &["-c", "echo runs; exec sleep 60"]);
        assert!(crashed(control, folder).await, "nothing leaves a core file here: {pattern}");
        for file in std::fs::read_dir(folder).expect("the folder").flatten() {
            if file.file_name().to_string_lossy().starts_with("core") {
                std::fs::remove_file(file.path()).expect("removed");
            }
        }
    }
    let data = folder.join("data");
    let data = data.to_str().expect("text");
    let up = ["up", "--ports", "ephemeral", "--json", "--data", data];
    assert!(!crashed(dumping(folder, &own, &up), folder).await, "a core file may hold shares");
}
