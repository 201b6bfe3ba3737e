//! The kernel's priority of one thread.
//!
//! A thread can be put behind the others of its process and the machine: it then gets what they leave, and about a quarter
//! of a core that all of them want. Threads of a database on the same machine are among those that go before it. Slow
//! batches are lowered so, and whatever compiles: whoever uploads can wait a while; the events of all tenants cannot.
//!
//! Where a priority is the whole process's, which is everywhere but on Linux, nothing is lowered.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Steps of niceness; each gives a tenth less of a core that others want, too.
#[cfg(target_os = "linux")]
const STEPS: i32 = 5;

/// A thread of this process.
#[derive(Debug)]
pub struct Thread {
    #[cfg(target_os = "linux")]
    id: libc::id_t,
    lowered: AtomicBool,
}

#[cfg(target_os = "linux")]
impl Thread {
    /// The one that asks.
    #[must_use]
    #[allow(unsafe_code, reason = "the standard library does not say the kernel's number of a thread")]
    pub fn current() -> Self {
        // SAFETY: it reads nothing but the thread's own number, and cannot fail.
        let id = unsafe { libc::gettid() };
        Self { id: id.cast_unsigned(), lowered: AtomicBool::new(false) }
    }

    /// Its niceness, from -20 (goes first) to 19.
    #[must_use]
    #[allow(unsafe_code, reason = "the standard library has no call for priorities")]
    pub fn niceness(&self) -> i32 {
        // SAFETY: the call takes numbers only.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, self.id) }
    }

    /// Puts it, and the threads that it starts from now on, behind the others, once and for good: only the privileged may
    /// raise a priority again. It must be alive, because numbers are given out again. Where the kernel refuses, the thread
    /// is only less polite.
    #[allow(unsafe_code, reason = "the standard library has no call for priorities")]
    pub fn lower(&self) -> io::Result<()> {
        if self.lowered.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: the call takes numbers only; for a thread that is gone it does nothing.
        match unsafe { libc::setpriority(libc::PRIO_PROCESS, self.id, self.niceness() + STEPS) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Thread {
    /// The one that asks.
    #[must_use]
    pub fn current() -> Self {
        Self { lowered: AtomicBool::new(false) }
    }

    /// Nothing to tell of one thread.
    #[must_use]
    pub fn niceness(&self) -> i32 {
        0
    }

    /// Does nothing.
    pub fn lower(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Thread {
    /// Whether it was lowered; it stays so.
    #[must_use]
    pub fn is_lowered(&self) -> bool {
        self.lowered.load(Ordering::Acquire)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_lowered_once_and_nobody_else_with_it() {
        let usual = Thread::current().niceness();
        let lowered = std::thread::spawn(|| {
            let thread = Thread::current();
            assert!(!thread.is_lowered());
            for _ in 0..2 {
                thread.lower().expect("because anybody may be lowered");
            }
            assert!(thread.is_lowered());
            (thread.niceness(), std::thread::spawn(|| Thread::current().niceness()).join())
        });
        let (lowered, child) = lowered.join().expect("because it does not panic");
        assert_eq!(lowered, (usual + STEPS).min(19));
        assert_eq!(child.expect("because it does not panic"), lowered, "what it starts is lowered, too");
        assert_eq!(Thread::current().niceness(), usual);
    }
}
