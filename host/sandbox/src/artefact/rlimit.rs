//! Limits on this process, and its priority, for the compile worker.

use std::io;

use crate::priority::Thread;

/// Address space. The heaviest real plugins need 1 GiB.
const ADDRESS_SPACE: u64 = 2 << 30;
/// Seconds of CPU. The heaviest real plugins need 21.
const CPU: u64 = 60;
/// Bytes of a file; the worker writes none.
const FILE_SIZE: u64 = 64 << 20;
/// Open descriptors.
const DESCRIPTORS: u64 = 16;

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Limits this process for good.
pub(super) fn lower() -> io::Result<()> {
    set(libc::RLIMIT_AS, ADDRESS_SPACE)?;
    set(libc::RLIMIT_CPU, CPU)?;
    set(libc::RLIMIT_FSIZE, FILE_SIZE)?;
    set(libc::RLIMIT_NOFILE, DESCRIPTORS)?;
    set(libc::RLIMIT_CORE, 0)?;
    // The compiler's threads are started by this one. Where that fails, compiling is only less polite.
    let _ = Thread::current().lower();
    Ok(())
}

#[allow(unsafe_code, reason = "the standard library has no call for resource limits")]
fn set(resource: Resource, limit: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` lives over the call, which only writes it.
    if unsafe { libc::getrlimit(resource, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // A hard limit that is lower already may not be raised.
    let limit = limit.min(now.rlim_max);
    let wanted = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `wanted` lives over the call, which only reads it.
    match unsafe { libc::setrlimit(resource, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
