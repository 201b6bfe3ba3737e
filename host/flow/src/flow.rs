//! The flow as a whole: makes the services of this crate, starts them in order, and ends them in the opposite one.
//!
//! ```text
//! start: leases ─▶ dispatch, deliver ─▶ keeper (wakes what was left)       stop: dispatch, deliver ─▶ keeper ─▶ leases
//! ```

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bulkhead_domain::clock::Clock;
use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::deliveries::Deliveries;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::deliver;
use crate::deliver::Deliver;
use crate::deliver::SinkDirectory;
use crate::dispatch;
use crate::dispatch::Dispatch;
use crate::inbox;
use crate::inbox::Inbox;
use crate::keeper;
use crate::keeper::Keeper;
use crate::live::Live;
use crate::outbound::Requests;
use crate::preview::Previewer;
use crate::quota::Limiter;
use crate::quota::Shared;
use crate::shards::Fences;
use crate::shards::Held;
use crate::sink::Outlets;
use crate::tenants::Directory;
use crate::vault::Vault;

/// How the services work.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of publishers' requests.
    pub inbox: inbox::Limits,
    /// Events that may follow from one first event.
    pub descendants: u32,
    /// What any plugin may use.
    pub ceiling: Limits,
    /// What any plugin may be granted at most.
    pub grants: Ceiling,
    /// What tenants may use whose own quotas are unset.
    pub quotas: Quotas,
    /// Of dispatch.
    pub dispatch: dispatch::Options,
    /// Of delivery.
    pub deliver: deliver::Options,
    /// Of the keeper.
    pub keeper: keeper::Options,
}

/// What the services work on.
pub struct Parts {
    /// Where everything is.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where plugins run.
    pub sandbox: Sandbox,
    /// Seals and opens secrets.
    pub vault: Arc<Vault>,
    /// Ways out.
    pub outlets: Outlets,
    /// Effect ids and guests' randomness follow from it. The same at every start, or repeats would not be known again.
    pub effect_secret: [u8; 32],
    /// Tells other nodes of the store what happened here.
    pub bus: Bus,
    /// Where nodes share what tenants have used; none: each node by itself.
    pub shared: Option<Shared>,
}

/// The services at work. What others may ask of them is public.
pub struct Flow {
    /// Where events go in.
    pub inbox: Inbox,
    /// Wakes and pauses dispatch.
    pub dispatch: dispatch::Handle,
    /// Wakes and pauses delivery.
    pub deliver: deliver::Handle,
    /// Says that there are new events.
    pub live: Live,
    /// Keeps tenants to their quotas.
    pub limiter: Limiter,
    /// The cache of tenants' settings.
    pub directory: Arc<Directory>,
    /// Tries versions of plugins on past events.
    pub previewer: Previewer,
    /// Which shards are this node's.
    pub fences: Arc<Fences>,
    /// Ended as soon as a service ended without being asked to: the process should end, too, and start anew.
    pub broken: CancellationToken,
    store: Store,
    node: String,
    /// Ends dispatch and delivery; then guests at work; then the keeper.
    stop: CancellationToken,
    stop_now: CancellationToken,
    stop_keeper: CancellationToken,
    working: [JoinHandle<()>; 2],
    keeping: [JoinHandle<()>; 2],
}

impl Flow {
    /// Starts everything. What was left to do at the last end is under way when this returns.
    pub async fn start(options: Options, parts: Parts) -> bulkhead_store::Result<Self> {
        let Parts { store, clock, sandbox, vault, outlets, effect_secret, bus, shared } = parts;
        let live = Live::new(bus.clone());
        let fences = Arc::new(ArcSwap::from_pointee(Held::default()));
        let wakes = dispatch::Handle::new(store.host_shards(), Arc::clone(&fences), bus);
        let limiter = Limiter::new(options.quotas, Arc::clone(&store), Arc::clone(&clock), wakes.clone(), shared);
        let directory =
            Arc::new(Directory::new(Arc::clone(&store), vault, options.ceiling).with_grants(options.grants));
        let outbox: Arc<dyn Deliveries> = Arc::<dyn bulkhead_store::Backend>::clone(&store);
        let sinks: Arc<dyn SinkDirectory> = Arc::<Directory>::clone(&directory);
        let previewer = Previewer {
            store: Arc::clone(&store),
            sandbox: sandbox.clone(),
            directory: Arc::clone(&directory),
            effect_secret,
        };
        // Only what is dispatched has a way out: a preview sends nothing.
        let requests = Requests::new(outlets.egress.clone(), options.dispatch.outbound.clone(), Handle::current());
        let sandbox = sandbox.with_outbound(Arc::new(requests));
        let delivering = Deliver::new(options.deliver, outbox, sinks, outlets, Arc::clone(&clock), Arc::clone(&fences));
        let deliver = delivering.handle();
        let dispatching = Dispatch::new(
            wakes.clone(),
            Arc::clone(&store),
            sandbox,
            Arc::clone(&directory),
            live.clone(),
            deliver.clone(),
            Arc::clone(&clock),
            limiter.clone(),
            options.dispatch,
            Arc::clone(&fences),
            effect_secret,
        );
        let dispatching = Arc::new(dispatching.shadowed(previewer.clone()));
        let node = options.keeper.node.clone();
        let keeper = Arc::new(Keeper::new(
            options.keeper,
            Arc::clone(&store),
            Arc::clone(&clock),
            wakes.clone(),
            Arc::clone(&dispatching),
            deliver.clone(),
            live.clone(),
            Arc::clone(&fences),
        ));
        let inbox = Inbox::new(
            Arc::clone(&store),
            clock,
            wakes.clone(),
            live.clone(),
            limiter.clone(),
            options.inbox,
            options.descendants,
        );
        // The operator's switch holds over restarts: nothing may slip out before somebody looks at it.
        let paused = store.operator_paused().await?;
        wakes.set_paused(paused);
        deliver.set_paused(paused);
        let backlog = keeper.recover().await?;
        if backlog > 0 {
            tracing::info!(backlog, "going on with what was left to do");
        }
        let [stop, stop_now, stop_keeper, broken] = std::array::from_fn(|_| CancellationToken::new());
        let working = [
            watched("dispatch", dispatching.run(stop.clone(), stop_now.clone()), &stop, &broken),
            watched("deliver", delivering.run(stop.clone()), &stop, &broken),
        ];
        let keeping = [
            watched("keeper", keeper.run(stop_keeper.clone()), &stop_keeper, &broken),
            watched("quotas", limiter.clone().run(stop_keeper.clone()), &stop_keeper, &broken),
        ];
        let (dispatch, deliver) = (wakes, deliver);
        Ok(Self {
            inbox,
            dispatch,
            deliver,
            live,
            limiter,
            directory,
            previewer,
            fences,
            broken,
            store,
            node,
            stop,
            stop_now,
            stop_keeper,
            working,
            keeping,
        })
    }

    /// Begins nothing new, ends what is under way, and gives the leases back. After `grace`, guests are interrupted; what
    /// they did is not committed, and is done after the next start.
    pub async fn stop(self, grace: Duration) {
        self.stop.cancel();
        let working = async {
            for service in self.working {
                // A panic was reported when it happened.
                let _ = service.await;
            }
        };
        tokio::pin!(working);
        if tokio::time::timeout(grace, &mut working).await.is_err() {
            tracing::warn!("the grace is over; what is still under way is done after the next start");
            self.stop_now.cancel();
            // A guest sees it at its next tick, 10 ms later; what hangs for longer hangs in the store.
            let _ = tokio::time::timeout(Duration::from_secs(2), working).await;
        }
        self.stop_now.cancel();
        self.stop_keeper.cancel();
        for service in self.keeping {
            let _ = service.await;
        }
        if let Err(error) = self.store.host_release(&self.node).await {
            tracing::warn!(%error, "the leases were not given back; they run out by themselves");
        }
    }
}

/// Spawns a service; if it ends before it is asked to, that is said.
fn watched(
    name: &'static str,
    service: impl Future<Output = ()> + Send + 'static,
    stop: &CancellationToken,
    broken: &CancellationToken,
) -> JoinHandle<()> {
    let service = tokio::spawn(service);
    let (stop, broken) = (stop.clone(), broken.clone());
    tokio::spawn(async move {
        let ended = service.await;
        if let Err(error) = &ended {
            tracing::error!(service = name, %error, "a service ended by a fault of the host");
        }
        if !stop.is_cancelled() {
            broken.cancel();
        }
    })
}
