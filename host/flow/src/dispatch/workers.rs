//! Worker threads for guests: as many at work as there are cores, and a way out for those that take long.
//!
//! Guests run synchronously, so a worker cannot be taken from one that computes. Instead its *place* is: a job that
//! overruns its slice goes on where it is, as a slow one, and another thread takes its place beside it. The kernel shares
//! the cores among them. So an ordinary batch never waits behind a slow one for longer than the slice, nothing is
//! trapped and repeated, and the number of slow ones is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads, and when a job counts as slow.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Jobs at work at a time, slow ones not counted: the number of cores.
    pub places: usize,
    /// Slow jobs at a time; when there are as many, further ones keep their place.
    pub slow_max: usize,
    /// After this long a job gives its place up.
    pub slice: Duration,
}

impl Default for Options {
    /// Two epoch ticks: ordinary batches are far below; 14 slow ones cost 14 stacks and one plugin instance each.
    fn default() -> Self {
        let places = std::thread::available_parallelism().map_or(2, usize::from);
        Self { places, slow_max: 14, slice: Duration::from_millis(20) }
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<(Job, Arc<Place>)>,
    /// Jobs that hold a place.
    placed: usize,
    slow: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Whether a job holds a place.
#[derive(Default)]
struct Place {
    state: Mutex<Standing>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    #[default]
    Waiting,
    Placed,
    Slow,
    Over,
}

struct Shared {
    options: Options,
    inner: Mutex<Inner>,
    work: Condvar,
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
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// No thread is started before there is work.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let shared = Shared { options, inner: Mutex::default(), work: Condvar::new() };
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
        if inner.idle == 0 && inner.threads < shared.options.places + shared.options.slow_max {
            self.start(&mut inner);
        }
        drop(inner);
        shared.work.notify_one();
    }

    fn start(&self, inner: &mut Inner) {
        let shared = Arc::clone(&self.shared.0);
        // The stack holds the guest's (512 KiB) and the host's frames above it; untouched pages cost nothing.
        let thread = std::thread::Builder::new().name("guest".to_owned()).stack_size(4 << 20);
        if thread.spawn(move || work(&shared)).is_ok() {
            inner.threads += 1;
        }
    }

    /// The slice is over: if the job holds a place, it gives it up, as far as slow ones are allowed.
    fn overrun(&self, place: &Place) {
        let shared = &self.shared.0;
        let mut inner = shared.lock();
        let mut state = place.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != Standing::Placed || inner.slow >= shared.options.slow_max {
            return;
        }
        *state = Standing::Slow;
        inner.placed -= 1;
        inner.slow += 1;
        if inner.idle == 0 && !inner.queue.is_empty() {
            self.start(&mut inner);
        }
        drop((state, inner));
        metrics::counter!("bulkhead_batches_slow_total").increment(1);
        shared.work.notify_one();
    }
}

fn work(shared: &Shared) {
    let mut inner = shared.lock();
    loop {
        let free = inner.placed < shared.options.places || inner.closed;
        let next = if free { inner.queue.pop_front() } else { None };
        match next {
            Some((job, place)) => {
                inner.placed += 1;
                *place.state.lock().unwrap_or_else(PoisonError::into_inner) = Standing::Placed;
                drop(inner);
                job();
                inner = shared.lock();
                let mut state = place.state.lock().unwrap_or_else(PoisonError::into_inner);
                match *state {
                    Standing::Slow => inner.slow -= 1,
                    Standing::Waiting | Standing::Placed | Standing::Over => inner.placed -= 1,
                }
                *state = Standing::Over;
                drop(state);
                shared.work.notify_one();
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
        Workers::new(Options { places, slow_max, slice: Duration::from_millis(5) })
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
