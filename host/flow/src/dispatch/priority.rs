//! The kernel's priority of one thread.
//!
//! A thread can be put behind the others of its process and the machine: it then gets what they leave, and about a quarter
//! of a core that all of them want. Threads of a database on the same machine are among those that go before it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Steps of niceness; each gives a tenth less of a core that others want, too.
#[cfg(target_os = "linux")]
const STEPS: libc::c_int = 5;

/// A thread of this process.
pub(super) struct Thread {
    #[cfg(target_os = "linux")]
    id: libc::id_t,
    lowered: AtomicBool,
}

impl Thread {
    /// Whether it was lowered; it stays so.
    pub(super) fn is_lowered(&self) -> bool {
        self.lowered.load(Ordering::Acquire)
    }
}

/// The one that asks.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library does not say the kernel's number of a thread")]
pub(super) fn this_thread() -> Thread {
    // SAFETY: it reads nothing but the thread's own number, and cannot fail.
    let id = unsafe { libc::gettid() };
    Thread { id: id.cast_unsigned(), lowered: AtomicBool::new(false) }
}

/// The one that asks.
#[cfg(not(target_os = "linux"))]
pub(super) fn this_thread() -> Thread {
    Thread { lowered: AtomicBool::new(false) }
}

/// Puts a thread behind the others, once and for good. It must be alive: numbers are given out again.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no call for priorities")]
pub(super) fn lower(thread: &Thread) {
    if thread.lowered.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the call takes numbers only; for a thread that is gone it does nothing.
    let (now, failed) = unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, thread.id);
        (now, libc::setpriority(libc::PRIO_PROCESS, thread.id, now + STEPS))
    };
    if failed != 0 {
        tracing::debug!(now, error = %std::io::Error::last_os_error(), "a slow batch keeps its priority");
    }
}

/// Elsewhere a priority is the whole process's.
#[cfg(not(target_os = "linux"))]
pub(super) fn lower(_thread: &Thread) {}

/// Of the thread that asks.
#[cfg(all(test, target_os = "linux"))]
#[allow(unsafe_code, reason = "the standard library has no call for priorities")]
pub(super) fn niceness() -> i32 {
    // SAFETY: the call takes numbers only.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}
