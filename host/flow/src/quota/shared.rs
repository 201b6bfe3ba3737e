//! The buckets that the nodes of a store share, in Redis.
//!
//! No request asks Redis. A node takes from its own bucket, and ten times a second it tells the shared one what it took
//! and takes over the level that this leaves. So in the long run all nodes together keep to the rate; until they have
//! heard of each other, each of them may give away what was left of the burst, and that is paid back afterwards.
//!
//! Redis' own clock counts, and a bucket that Redis lost is a full one. Whatever stands there, no tenant owes more than
//! sixty buckets.

use std::time::Duration;

use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::quota::Flow;
use bulkhead_domain::policy::quota::Quota;
use redis::AsyncConnectionConfig;
use redis::Client;
use redis::RedisResult;
use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::link;
use crate::link::LinkError;

/// Longer than that nobody waits: the nodes' own buckets go on.
const ANSWER: Duration = Duration::from_secs(1);
/// Buckets in one call of the script, which holds Redis up for that long: about a millisecond.
const CHUNK: usize = 256;

/// KEYS: buckets. ARGV: for each of them tokens per second, its size, and tokens to take. Gives the levels.
const SCRIPT: &str = "
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local levels = {}
for i, key in ipairs(KEYS) do
    local rate, size, taken = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local kept = redis.call('HMGET', key, 'level', 'at')
    local level, at = tonumber(kept[1]) or size, math.min(tonumber(kept[2]) or now, now)
    level = math.min(size, level + (now - at) * rate) - taken
    -- Nobody is stopped for ever by a limit that was made narrower, or by what somebody wrote here (`nan`, too).
    if not (level >= -60 * size) then level = -60 * size end
    levels[i] = string.format('%.17g', level)
    redis.call('HSET', key, 'level', levels[i], 'at', string.format('%.6f', now))
    -- One that is full again need not be kept.
    redis.call('PEXPIRE', key, math.ceil(math.min((size - level) / rate, 86400) * 1000) + 1000)
end
return levels
";

/// What a node tells one bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) tenant: TenantId,
    pub(super) quota: Quota,
    pub(super) flow: Flow,
    pub(super) taken: f64,
}

/// The way to the shared buckets. The connection is made at the first use, and again after it broke.
pub struct Shared {
    client: Client,
    store: String,
    script: Script,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Shared {
    /// In the Redis at `url`, among the nodes that share the store `store` (any text that is only that store's).
    ///
    /// # Errors
    ///
    /// If that is no address. Nothing is connected to yet.
    pub fn new(url: &str, store: &str) -> Result<Self, LinkError> {
        let client = link::client(url)?;
        Ok(Self { client, store: store.to_owned(), script: Script::new(SCRIPT), connection: Mutex::default() })
    }

    /// Takes from buckets, into debt if need be; gives their levels, in the same order.
    pub(super) async fn take(&self, told: &[Told]) -> RedisResult<Vec<f64>> {
        let mut held = self.connection.lock().await;
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut levels = Vec::with_capacity(told.len());
        for chunk in told.chunks(CHUNK) {
            let mut call = self.script.prepare_invoke();
            for Told { tenant, quota, flow, taken } in chunk {
                call.key(format!("bulkhead:quota:{}:{}:{}", self.store, tenant.0, quota.name()));
                call.arg(flow.per_second).arg(flow.size).arg(*taken);
            }
            let answer: Vec<f64> = call.invoke_async(&mut connection).await?;
            levels.extend(answer);
        }
        // One that failed is not kept.
        *held = Some(connection);
        Ok(levels)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}
