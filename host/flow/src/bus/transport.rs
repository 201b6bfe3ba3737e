//! The transport: one connection to Redis that carries signals both ways, and is made anew whenever it breaks.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::PushInfo;
use redis::PushKind;
use redis::RedisResult;
use redis::Value;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::Bus;
use crate::bus::Handler;
use crate::bus::Signal;
use crate::bus::pending::Pending;
use crate::bus::signal;
use crate::link;
use crate::link::LinkError;

/// The shortest time between two messages: what is signalled meanwhile goes into one.
const PAUSE: Duration = Duration::from_millis(2);
/// A peer that is silent for longer is given up: until then its signals are missed without anybody knowing.
const ANSWER: Duration = Duration::from_secs(1);
/// How often the connection is tried while nothing else goes over it.
const PING: Duration = Duration::from_millis(500);
/// Waits before the connection is made anew, doubled from the first to the last.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LAST: Duration = Duration::from_secs(1);

/// The service.
pub struct Transport {
    client: Client,
    channel: String,
    /// Tells one's own messages from others'. New at every start.
    node: u64,
    outgoing: Arc<Pending>,
}

impl Transport {
    /// A bus over the Redis at `url`, among the nodes that share the store `store` (any text that is only that store's).
    ///
    /// # Errors
    ///
    /// If that is no address. Nothing is connected to yet.
    pub fn new(url: &str, store: &str) -> Result<Self, LinkError> {
        let client = link::client(url)?;
        let (node, _) = Uuid::new_v4().as_u64_pair();
        Ok(Self { client, channel: format!("bulkhead:bus:{store}"), node, outgoing: Arc::default() })
    }

    /// A handle.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus { outgoing: Some(Arc::clone(&self.outgoing)) }
    }

    /// Carries signals until `stop`, then sends what still waits if that is possible at once.
    pub async fn run(self, handler: Arc<dyn Handler>, stop: CancellationToken) {
        let incoming = Arc::<Pending>::default();
        let hearing = async {
            loop {
                for signal in incoming.take().await {
                    handler.heard(signal).await;
                }
            }
        };
        tokio::select! {
            () = self.carry(&incoming, &stop) => {}
            () = hearing => {}
        }
    }

    async fn carry(&self, incoming: &Arc<Pending>, stop: &CancellationToken) {
        let mut wait = RECONNECT_FIRST;
        let mut was_connected = true;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = match self.connect(incoming).await {
                Ok((connection, broken)) => {
                    // Before that, nobody listened.
                    incoming.add(Signal::Missed);
                    tracing::info!("signals go between nodes");
                    metrics::gauge!("bulkhead_bus_connected").set(1.0);
                    was_connected = true;
                    self.serve(connection, &broken, stop).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            metrics::gauge!("bulkhead_bus_connected").set(0.0);
            metrics::counter!("bulkhead_bus_reconnects_total").increment(1);
            if std::mem::take(&mut was_connected) {
                tracing::warn!(%error, "no signals go between nodes; they look by themselves until that is mended");
            }
            // Whatever was under way may not have arrived.
            self.outgoing.add(Signal::Missed);
            // One that does not last is not made at once again and again.
            wait = if began.elapsed() > RECONNECT_LAST { RECONNECT_FIRST } else { (wait * 2).min(RECONNECT_LAST) };
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    /// Connects and subscribes. The second part tells that the connection ended.
    async fn connect(&self, incoming: &Arc<Pending>) -> RedisResult<(MultiplexedConnection, Arc<Notify>)> {
        let broken = Arc::<Notify>::default();
        let ear = Ear { node: self.node, incoming: Arc::clone(incoming), broken: Arc::clone(&broken) };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(move |push| {
                ear.hear(&push);
                Ok::<_, ()>(())
            });
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(&self.channel).await?;
        Ok((connection, broken))
    }

    /// Sends what is to be sent, until the connection fails (an error) or it is time to stop.
    async fn serve(
        &self,
        mut connection: MultiplexedConnection,
        broken: &Notify,
        stop: &CancellationToken,
    ) -> RedisResult<()> {
        let mut ping = tokio::time::interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signals = self.outgoing.take() => {
                    let next = Instant::now() + PAUSE;
                    self.send(&mut connection, &signals).await?;
                    tokio::time::sleep_until(next).await;
                }
                // The next command fails, and says why.
                () = broken.notified() => cmd("PING").exec_async(&mut connection).await?,
                _ = ping.tick() => cmd("PING").exec_async(&mut connection).await?,
                () = stop.cancelled() => {
                    let signals = self.outgoing.take_now();
                    return if signals.is_empty() { Ok(()) } else { self.send(&mut connection, &signals).await };
                }
            }
        }
    }

    async fn send(&self, connection: &mut MultiplexedConnection, signals: &[Signal]) -> RedisResult<()> {
        let message = signal::encode(self.node, signals);
        cmd("PUBLISH").arg(&self.channel).arg(message).exec_async(connection).await?;
        metrics::counter!("bulkhead_bus_messages_sent_total").increment(1);
        metrics::counter!("bulkhead_bus_signals_sent_total").increment(signals.len() as u64);
        Ok(())
    }
}

/// What the connection tells its messages to, from within: it does not wait.
struct Ear {
    node: u64,
    incoming: Arc<Pending>,
    broken: Arc<Notify>,
}

impl Ear {
    fn hear(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Disconnection, _) => self.broken.notify_one(),
            (PushKind::Message, [_, Value::BulkString(bytes)]) => self.message(bytes),
            _ => {}
        }
    }

    fn message(&self, bytes: &[u8]) {
        let Some(message) = signal::decode(bytes) else {
            metrics::counter!("bulkhead_bus_messages_refused_total").increment(1);
            return;
        };
        if message.node == self.node {
            return;
        }
        metrics::counter!("bulkhead_bus_signals_received_total").increment(message.signals.len() as u64);
        for signal in message.signals {
            self.incoming.add(signal);
        }
    }
}
