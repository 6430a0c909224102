//! What this process may use of its machine, and what it leaves there when it dies.

use quorate_types::{Error, Result};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use tokio::signal::unix::{SignalKind, signal};

/// File descriptors asked for where the limit allows any number.
const MANY_FILES: u64 = 1 << 20;
/// The fewest with which a server works: half of them go to its listeners and databases, half to
/// connections.
const FEWEST_FILES: u64 = 192;
/// What a person is told to allow instead.
const ADVISED_FILES: u64 = 4096;

/// Keeps shares and keys out of core files, and this process's memory from other processes of its
/// user.
///
/// # Errors
/// When the system refuses.
pub(crate) fn keep_memory_private() -> Result<()> {
    let refused = |_| Error::invalid("core dumps cannot be turned off on this system");
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}

/// Leaves a write beyond the file size limit to fail, which the store answers for, where the system
/// would end the process without a word. Must be called on the runtime.
///
/// # Errors
/// When the signal cannot be handled.
pub(crate) fn survive_file_size_limit() -> Result<()> {
    /// The same on every system this runs on.
    const SIGXFSZ: i32 = 25;
    // Handled once, it is handled until the process ends.
    let handled = signal(SignalKind::from_raw(SIGXFSZ));
    handled.map(drop).map_err(|_| Error::invalid("SIGXFSZ cannot be handled on this system"))
}

/// Raises the soft limit of open files to the hard one; answers with what is in force.
///
/// # Errors
/// When that is too little to work with, naming what is needed.
pub(crate) fn raise_open_files() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MANY_FILES).min(MANY_FILES);
    let now = limit.current.unwrap_or(MANY_FILES);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    let in_force =
        if now >= wanted || setrlimit(Resource::Nofile, raised).is_err() { now } else { wanted };
    if in_force < FEWEST_FILES {
        return Err(Error::invalid(format!(
            "this process may have {in_force} files and connections open and needs at least \
             {FEWEST_FILES}: raise the limit, for example with `ulimit -n {ADVISED_FILES}`"
        )));
    }
    Ok(usize::try_from(in_force).unwrap_or(usize::MAX))
}
