//! What this process may use of its machine, and what it leaves there when it dies.

use quorate_types::{Error, Result};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// File descriptors asked for where the limit allows any number.
const MANY_FILES: u64 = 1 << 20;

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

/// Raises the soft limit of open files to the hard one; answers with what is in force.
pub(crate) fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MANY_FILES).min(MANY_FILES);
    let now = limit.current.unwrap_or(MANY_FILES);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    let in_force =
        if now >= wanted || setrlimit(Resource::Nofile, raised).is_err() { now } else { wanted };
    usize::try_from(in_force).unwrap_or(usize::MAX)
}
