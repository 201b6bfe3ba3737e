//! Worker threads for guests: as many at work as there are cores, and a way out for those that take long.
//!
//! Guests run synchronously, so a worker cannot be taken from one that computes. Instead its *place* is: a job that
//! overruns its slice goes on where it is, as a slow one, and another thread takes its place beside it. The kernel shares
//! the cores among them, and gives less to the slow ones. So an ordinary batch never waits behind a slow one for longer
//! than the slice, nothing is trapped and repeated, and the number of slow ones is bounded.
//!
//! A job that waits for another host gives its place up at once ([`wait`]) and takes one again when it goes on: waiting
//! costs a thread, computing always costs a place.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_sandbox::priority::Thread;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads, and when a job counts as slow.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Jobs at work at a time, slow ones not counted: the number of cores.
    pub places: usize,
    /// Slow jobs at a time; when there are as many, further ones keep their place.
    pub slow_max: usize,
    /// Jobs that wait for other hosts at a time.
    pub waiting_max: usize,
    /// After this long a job gives its place up.
    pub slice: Duration,
}

impl Default for Options {
    /// Two epoch ticks: ordinary batches are far below; 14 slow ones cost 14 stacks and one plugin instance each.
    fn default() -> Self {
        let places = std::thread::available_parallelism().map_or(2, usize::from);
        Self { places, slow_max: 14, waiting_max: 24, slice: Duration::from_millis(20) }
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<(Job, Arc<Place>)>,
    /// Jobs that hold a place.
    placed: usize,
    slow: usize,
    /// Jobs that wait for other hosts.
    away: usize,
    /// Jobs that have waited and need a place to go on; they go before the queue.
    returning: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Whether a job holds a place.
#[derive(Default)]
struct Place {
    state: Mutex<Standing>,
    /// Who runs it, once somebody does.
    thread: OnceLock<Thread>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    #[default]
    Waiting,
    Placed,
    Slow,
    Away,
    Over,
}

struct Shared {
    options: Options,
    inner: Mutex<Inner>,
    work: Condvar,
    /// A place is free for one that returns.
    place: Condvar,
}

thread_local! {
    /// The job that this thread is at.
    static CURRENT: RefCell<Option<(Arc<Shared>, Arc<Place>)>> = const { RefCell::new(None) };
}

/// A job that waits for another host. Dropping it takes a place again, and blocks until there is one.
pub(crate) struct Away(Option<(Arc<Shared>, Arc<Place>)>);

/// Gives the place of this thread's job up for as long as what is returned lives. None if too many wait already. On a
/// thread that is no worker there is no place, and nothing to give up.
pub(crate) fn wait() -> Option<Away> {
    let Some((shared, place)) = CURRENT.with_borrow(Clone::clone) else { return Some(Away(None)) };
    let mut inner = shared.lock();
    let mut state = place.lock();
    if inner.away >= shared.options.waiting_max {
        return None;
    }
    match *state {
        Standing::Placed => inner.placed -= 1,
        Standing::Slow => inner.slow -= 1,
        Standing::Waiting | Standing::Away | Standing::Over => return Some(Away(None)),
    }
    *state = Standing::Away;
    inner.away += 1;
    drop(state);
    if inner.idle == 0 && !inner.queue.is_empty() {
        start(&shared, &mut inner);
    }
    drop(inner);
    shared.freed();
    Some(Away(Some((shared, place))))
}

impl Drop for Away {
    fn drop(&mut self) {
        let Some((shared, place)) = self.0.take() else { return };
        let mut inner = shared.lock();
        inner.away -= 1;
        inner.returning += 1;
        while inner.placed >= shared.options.places && !inner.closed {
            inner = shared.place.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.returning -= 1;
        inner.placed += 1;
        *place.lock() = Standing::Placed;
    }
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. Dropping the last clone ends them when their jobs end.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Closer>,
}

struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
        self.0.place.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place is free: for one that returns, else for the queue.
    fn freed(&self) {
        self.place.notify_one();
        self.work.notify_one();
    }
}

fn start(shared: &Arc<Shared>, inner: &mut Inner) {
    let worker = Arc::clone(shared);
    // The stack holds the guest's (512 KiB) and the host's frames above it; untouched pages cost nothing.
    let thread = std::thread::Builder::new().name("guest".to_owned()).stack_size(4 << 20);
    if thread.spawn(move || work(&worker)).is_ok() {
        inner.threads += 1;
    }
}

impl Workers {
    /// No thread is started before there is work.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let shared = Shared { options, inner: Mutex::default(), work: Condvar::new(), place: Condvar::new() };
        Self { shared: Arc::new(Closer(Arc::new(shared))) }
    }

    /// Runs a job on a worker thread. None if it panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, mut receiver) = oneshot::channel();
        let place = Arc::new(Place::default());
        let boxed: Job = Box::new(move || {
            // A panic drops the sender, which the caller sees; the thread goes on.
            if let Ok(value) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)) {
                let _ = sender.send(value);
            }
        });
        self.submit(boxed, Arc::clone(&place));
        let shared = &self.shared.0;
        loop {
            match tokio::time::timeout(shared.options.slice, &mut receiver).await {
                Ok(result) => return result.ok(),
                Err(_) => self.overrun(&place),
            }
        }
    }

    fn submit(&self, job: Job, place: Arc<Place>) {
        let shared = &self.shared.0;
        let mut inner = shared.lock();
        inner.queue.push_back((job, place));
        if inner.idle == 0 && inner.threads < shared.options.places + shared.options.slow_max + inner.away {
            start(shared, &mut inner);
        }
        drop(inner);
        shared.work.notify_one();
    }

    /// The slice is over: if the job holds a place, it gives it up, as far as slow ones are allowed.
    fn overrun(&self, place: &Place) {
        let shared = &self.shared.0;
        let mut inner = shared.lock();
        let mut state = place.lock();
        if *state != Standing::Placed || inner.slow >= shared.options.slow_max {
            return;
        }
        *state = Standing::Slow;
        inner.placed -= 1;
        inner.slow += 1;
        // While it is at this job for certain, as the state is locked.
        if let Some(Err(error)) = place.thread.get().map(Thread::lower) {
            tracing::debug!(%error, "a slow batch keeps its priority");
        }
        if inner.idle == 0 && !inner.queue.is_empty() {
            start(shared, &mut inner);
        }
        drop((state, inner));
        metrics::counter!("bulkhead_batches_slow_total").increment(1);
        shared.freed();
    }
}

fn work(shared: &Arc<Shared>) {
    let mut inner = shared.lock();
    loop {
        let free = inner.placed + inner.returning < shared.options.places || inner.closed;
        let next = if free { inner.queue.pop_front() } else { None };
        match next {
            Some((job, place)) => {
                inner.placed += 1;
                // A job is run once, by one thread.
                let _ = place.thread.set(Thread::current());
                *place.lock() = Standing::Placed;
                drop(inner);
                CURRENT.set(Some((Arc::clone(shared), Arc::clone(&place))));
                job();
                CURRENT.set(None);
                inner = shared.lock();
                let mut state = place.lock();
                match *state {
                    Standing::Slow => inner.slow -= 1,
                    Standing::Waiting | Standing::Placed | Standing::Away | Standing::Over => inner.placed -= 1,
                }
                *state = Standing::Over;
                drop(state);
                shared.freed();
                // Only the privileged may raise a priority again, so the next job gets a thread that was never lowered.
                if place.thread.get().is_some_and(Thread::is_lowered) {
                    if inner.idle == 0 && !inner.queue.is_empty() {
                        start(shared, &mut inner);
                    }
                    break;
                }
            }
            None if inner.closed => break,
            None => {
                inner.idle += 1;
                let (woken, waited) =
                    shared.work.wait_timeout(inner, Duration::from_secs(10)).unwrap_or_else(PoisonError::into_inner);
                inner = woken;
                inner.idle -= 1;
                // Threads that slow jobs made necessary go again.
                if waited.timed_out() && inner.queue.is_empty() && inner.threads > shared.options.places {
                    break;
                }
            }
        }
    }
    inner.threads -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    fn workers(places: usize, slow_max: usize) -> Workers {
        Workers::new(Options { places, slow_max, waiting_max: 3, slice: Duration::from_millis(5) })
    }

    /// Neither slow jobs nor the slice let the others go on here: only that waiting gives places up does.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_waits_holds_no_place_and_takes_one_again() {
        let workers = Workers::new(Options { places: 1, slow_max: 0, waiting_max: 3, slice: Duration::from_millis(5) });
        let (entered, enters) = mpsc::channel();
        let mut releases = Vec::new();
        let mut jobs = Vec::new();
        for _ in 0..4 {
            let (release, blocked) = mpsc::channel::<()>();
            let (workers, entered) = (workers.clone(), entered.clone());
            releases.push(release);
            jobs.push(tokio::spawn(async move {
                let job = move || {
                    let away = wait();
                    let waits = away.is_some();
                    entered.send(waits).expect("because the test listens");
                    if waits {
                        let _ = blocked.recv();
                    }
                    drop(away);
                    // Whoever goes on computes, so it is alone.
                    let inner = CURRENT.with_borrow(|current| Arc::clone(&current.as_ref().expect("a worker").0));
                    let inner = inner.lock();
                    (waits, inner.placed)
                };
                workers.run(job).await
            }));
        }
        let waits: Vec<bool> = (0..4)
            .map(|_| enters.recv_timeout(Duration::from_secs(5)).expect("because nobody holds the place"))
            .collect();
        assert_eq!(waits.iter().filter(|waits| **waits).count(), 3, "the fourth is told that too many wait");
        let quick = tokio::time::timeout(Duration::from_secs(5), workers.run(|| 7)).await;
        assert_eq!(quick.expect("because waiting takes no place"), Some(7));
        drop(releases);
        for job in jobs {
            let (_, placed) = job.await.expect("because it ended").expect("because it did not panic");
            assert_eq!(placed, 1);
        }
        assert!(wait().is_some_and(|away| away.0.is_none()), "elsewhere there is no place to give up");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_job_does_not_hold_up_the_others() {
        let workers = workers(1, 4);
        let (release, blocked) = mpsc::channel::<()>();
        let slow = tokio::spawn({
            let workers = workers.clone();
            async move { workers.run(move || blocked.recv().is_ok()).await }
        });
        let quick = tokio::time::timeout(Duration::from_secs(5), workers.run(|| 7)).await;
        assert_eq!(quick.expect("because it takes the slow one's place"), Some(7));
        release.send(()).expect("because it waits");
        assert_eq!(slow.await.expect("because it ended"), Some(true));
        // A job gives its answer before its thread gives up the place.
        let until = Instant::now() + Duration::from_secs(5);
        let taken = || {
            let inner = workers.shared.0.lock();
            inner.slow + inner.placed
        };
        while taken() > 0 {
            assert!(Instant::now() < until, "the places come back");
            std::thread::yield_now();
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_job_comes_after_others_for_the_kernel_and_leaves_its_thread_to_nobody() {
        /// The kernel has none below it: a suite that is itself run so sees nothing lowered.
        const LAST: i32 = 19;
        let workers = workers(1, 4);
        let niceness = || Thread::current().niceness();
        let usual = niceness();
        let lowered = workers
            .run(move || {
                let until = Instant::now() + Duration::from_secs(5);
                while niceness() == usual && usual < LAST && Instant::now() < until {
                    std::thread::yield_now();
                }
                niceness()
            })
            .await;
        let lowered = lowered.expect("because it does not panic");
        assert!(lowered > usual || usual == LAST, "{usual} became {lowered}");
        for _ in 0..8 {
            assert_eq!(workers.run(niceness).await, Some(usual), "the next jobs have a thread as usual");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn slow_jobs_are_bounded_and_a_panic_is_none() {
        let workers = workers(1, 1);
        let peak = Arc::new(Mutex::new((0, 0)));
        let jobs: Vec<_> = (0..6)
            .map(|_| {
                let (workers, peak) = (workers.clone(), Arc::clone(&peak));
                tokio::spawn(async move {
                    workers
                        .run(move || {
                            {
                                let mut peak = peak.lock().expect("because nobody panics here");
                                peak.0 += 1;
                                peak.1 = peak.1.max(peak.0);
                            }
                            let until = Instant::now() + Duration::from_millis(20);
                            while Instant::now() < until {
                                std::hint::spin_loop();
                            }
                            peak.lock().expect("because nobody panics here").0 -= 1;
                        })
                        .await
                })
            })
            .collect();
        for job in jobs {
            assert_eq!(job.await.expect("because it ended"), Some(()));
        }
        assert!(peak.lock().expect("because nobody panics here").1 <= 2, "one place and one slow");
        assert_eq!(workers.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(workers.run(|| 1).await, Some(1));
    }
}
