//! What is asked of Redis about one stream and one group. Commands and their answers, no decisions.

use std::collections::HashMap;
use std::time::Duration;

use redis::Client;
use redis::RedisResult;
use redis::Script;
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::source::redis::entry::Entry;
use crate::source::redis::entry::RawEntry;

/// A server that does not even accept a connection within this time is out of reach.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The library's usual limit of 500 ms is shorter than answers may take.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Removes consumers that have nothing pending and were not heard of for long. In one step: entries that a consumer
/// takes between the look and the removal would be in nobody's hands afterwards.
const REMOVE_GONE: &str = r"
local gone = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for at = 1, #row, 2 do consumer[row[at]] = row[at + 1] end
  if consumer.name ~= ARGV[2] and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    gone = gone + 1
  end
end
return gone
";

/// A stream, and who reads it.
#[derive(Debug)]
pub(super) struct Stream {
    pub key: String,
    pub group: String,
    pub consumer: String,
    /// Where refused entries go.
    pub rejected: String,
    /// About how many of them are kept.
    pub rejected_max: u32,
}

/// Entries of consumers that left them.
#[derive(Debug)]
pub(super) struct Claimed {
    /// Where to go on; `0-0` if that was all.
    pub next: String,
    pub entries: Vec<Entry>,
    /// How many were trimmed away before; nobody has them any more.
    pub gone: usize,
}

/// An entry that is no event, and why.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub entry: &'a Entry,
    pub code: &'static str,
    pub reason: String,
}

/// How a stream and its group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// The newest id that the stream ever gave.
    pub last: EntryId,
    /// How many entries it ever had. Redis 7 and later.
    pub added: Option<u64>,
    /// Entries that the group has not read. If Redis cannot tell, as after entries were deleted, all that the stream has.
    pub unread: u64,
    /// Entries that were read and not acknowledged.
    pub pending: u64,
    /// The oldest entry that is unread or pending.
    pub oldest: Option<EntryId>,
}

/// An entry's id, in the order of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    /// As a rule when it was added, in milliseconds since the epoch.
    pub millis: u64,
    pub sequence: u64,
}

impl EntryId {
    fn parse(text: &str) -> Option<Self> {
        let (millis, sequence) = text.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// A connection whose answers are waited for `answer`, and no longer: a cut wire tells nobody.
pub(super) async fn connect(client: &Client, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(Some(answer));
    client.get_multiplexed_async_connection_with_config(&config).await
}

impl Stream {
    /// Makes the group, and the stream if there is none. The group begins with what the stream has. Says whether it was
    /// made just now.
    pub async fn ensure_group(&self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.key).arg(&self.group).arg("0").arg("MKSTREAM");
        match create.query_async::<()>(connection).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Entries that this consumer read before and did not acknowledge, beyond `after`. At most `count`.
    pub async fn read_own(
        &self,
        connection: &mut MultiplexedConnection,
        after: &str,
        count: u32,
    ) -> RedisResult<Vec<Entry>> {
        let mut read = self.read_command(count);
        read.arg("STREAMS").arg(&self.key).arg(after);
        Ok(entries(read.query_async(connection).await?))
    }

    /// Entries that nobody has read. At most `count`; none if none came for as long as `block`.
    pub async fn read_new(
        &self,
        connection: &mut MultiplexedConnection,
        count: u32,
        block: Duration,
    ) -> RedisResult<Vec<Entry>> {
        let mut read = self.read_command(count);
        // 0 would wait for ever.
        read.arg("BLOCK").arg(millis(block).max(1)).arg("STREAMS").arg(&self.key).arg(">");
        Ok(entries(read.query_async(connection).await?))
    }

    fn read_command(&self, count: u32) -> redis::Cmd {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        read
    }

    /// Makes entries this consumer's that others read longer ago than `idle` and did not acknowledge.
    pub async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        start: &str,
        count: u32,
        idle: Duration,
    ) -> RedisResult<Claimed> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(&self.key).arg(&self.group).arg(&self.consumer).arg(millis(idle));
        claim.arg(start).arg("COUNT").arg(count);
        // Redis 7 adds the ids of entries that are gone, and forgets those itself; Redis 6 gives nil in their place, and
        // keeps them pending for whoever claims them, who finds them gone when it reads its own.
        let answer: Vec<Value> = claim.query_async(connection).await?;
        let mut answer = answer.into_iter();
        let mut part = || answer.next().unwrap_or(Value::Nil);
        let next: String = redis::from_redis_value(part())?;
        let entries: Vec<Option<RawEntry>> = redis::from_redis_value(part())?;
        let gone: Option<Vec<Value>> = redis::from_redis_value(part())?;
        let entries = entries.into_iter().flatten().map(Entry::from).collect();
        Ok(Claimed { next, entries, gone: gone.map_or(0, |ids| ids.len()) })
    }

    /// Says that entries are done with. Gives how many of them were pending until now.
    pub async fn acknowledge(&self, connection: &mut MultiplexedConnection, entries: &[Entry]) -> RedisResult<usize> {
        let mut ack = redis::cmd("XACK");
        ack.arg(&self.key).arg(&self.group);
        for entry in entries {
            ack.arg(&entry.id);
        }
        ack.query_async(connection).await
    }

    /// Adds refused entries to the stream of those, as they were, followed by what was wrong.
    pub async fn reject(&self, connection: &mut MultiplexedConnection, refused: &[Refused<'_>]) -> RedisResult<()> {
        let mut adds = redis::pipe();
        for Refused { entry, code, reason } in refused {
            let add = adds.cmd("XADD").arg(&self.rejected);
            add.arg("MAXLEN").arg("~").arg(self.rejected_max).arg("*");
            for (name, value) in entry.fields.iter().flatten() {
                add.arg(&**name).arg(&**value);
            }
            add.arg("code").arg(code).arg("reason").arg(reason);
            add.arg("entry").arg(&entry.id).arg("group").arg(&self.group).ignore();
        }
        adds.query_async(connection).await
    }

    /// How the stream and the group are.
    pub async fn look(&self, connection: &mut MultiplexedConnection) -> RedisResult<Look> {
        let mut asked = redis::pipe();
        asked.cmd("XINFO").arg("STREAM").arg(&self.key);
        asked.cmd("XINFO").arg("GROUPS").arg(&self.key);
        asked.cmd("XPENDING").arg(&self.key).arg(&self.group);
        type Row = HashMap<String, Value>;
        type Summary = (u64, Option<String>, Value, Value);
        let (stream, groups, (pending, oldest_pending, ..)): (Row, Vec<Row>, Summary) =
            asked.query_async(connection).await?;
        let name = |row: &Row| text(row, "name");
        let group = groups.into_iter().find(|row| name(row).as_ref() == Some(&self.group)).unwrap_or_default();
        let last = id(&stream, "last-generated-id");
        let read = id(&group, "last-delivered-id");
        let unread = match number(&group, "lag") {
            Some(lag) => lag,
            None if read >= last => 0,
            None => number(&stream, "length").unwrap_or_default(),
        };
        let oldest_unread = if unread > 0 { self.first_after(connection, read).await? } else { None };
        let oldest_pending = oldest_pending.and_then(|id| EntryId::parse(&id));
        let oldest = [oldest_pending, oldest_unread].into_iter().flatten().min();
        Ok(Look { last, added: number(&stream, "entries-added"), unread, pending, oldest })
    }

    async fn first_after(&self, connection: &mut MultiplexedConnection, read: EntryId) -> RedisResult<Option<EntryId>> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.key).arg(format!("({}-{}", read.millis, read.sequence)).arg("+").arg("COUNT").arg(1);
        let first: Vec<RawEntry> = range.query_async(connection).await?;
        Ok(first.first().and_then(|(id, _)| EntryId::parse(id)))
    }

    /// Removes other consumers that have nothing pending and were idle for `idle`. Gives how many.
    pub async fn remove_gone(&self, connection: &mut MultiplexedConnection, idle: Duration) -> RedisResult<u64> {
        let script = Script::new(REMOVE_GONE);
        let mut call = script.key(&self.key);
        call.arg(&self.group).arg(&self.consumer).arg(millis(idle)).invoke_async(connection).await
    }
}

/// What a read of one stream gave; nothing at all if it waited in vain.
fn entries(streams: Vec<(String, Vec<RawEntry>)>) -> Vec<Entry> {
    streams.into_iter().flat_map(|(_, entries)| entries).map(Entry::from).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn text(row: &HashMap<String, Value>, name: &str) -> Option<String> {
    redis::from_redis_value_ref(row.get(name)?).ok()
}

fn number(row: &HashMap<String, Value>, name: &str) -> Option<u64> {
    redis::from_redis_value_ref(row.get(name)?).ok()
}

fn id(row: &HashMap<String, Value>, name: &str) -> EntryId {
    text(row, name).and_then(|id| EntryId::parse(&id)).unwrap_or(EntryId { millis: 0, sequence: 0 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use bulkhead_services::shared;

    use super::*;

    #[tokio::test]
    async fn consumers_are_removed_that_are_gone_and_hold_nothing() {
        let redis = shared::redis().expect("because Redis is installed");
        let client = Client::open(redis.url()).expect("because the address reads");
        let mut connection = connect(&client, ANSWER_LIMIT).await.expect("because Redis is there");
        let key = format!("stream-{}", uuid::Uuid::new_v4().simple());
        let stream = |consumer: &str| Stream {
            key: key.clone(),
            group: "bulkhead".to_owned(),
            consumer: consumer.to_owned(),
            rejected: format!("{key}:rejected"),
            rejected_max: 10,
        };
        let ours = stream("ours");
        assert!(ours.ensure_group(&mut connection).await.expect("because Redis is there"));
        // Whoever reads last finds nothing more, and holds nothing.
        for consumer in ["ours", "holder", "gone"] {
            if consumer != "gone" {
                let mut add = redis::cmd("XADD");
                add.arg(&[&key, "*", "type", "a"]);
                add.exec_async(&mut connection).await.expect("because Redis is there");
            }
            let mut make = redis::cmd("XGROUP");
            make.arg(&["CREATECONSUMER", &key, "bulkhead", consumer]);
            make.exec_async(&mut connection).await.expect("because the group is there");
            let read = stream(consumer).read_new(&mut connection, 10, Duration::from_millis(1)).await;
            read.expect("because the group is there");
        }
        let none = ours.remove_gone(&mut connection, Duration::from_secs(3_600)).await;
        assert_eq!(none.expect("because the group is there"), 0, "all were heard of");
        let (began, mut gone) = (Instant::now(), 0);
        while gone == 0 && began.elapsed() < Duration::from_secs(10) {
            let removed = ours.remove_gone(&mut connection, Duration::from_millis(50)).await;
            gone = removed.expect("because the group is there");
        }
        assert_eq!(gone, 1);
        let mut left = redis::cmd("XINFO");
        left.arg(&["CONSUMERS", &key, "bulkhead"]);
        let left: Vec<HashMap<String, Value>> = left.query_async(&mut connection).await.expect("because it is there");
        let left: BTreeSet<_> = left.iter().filter_map(|row| text(row, "name")).collect();
        assert_eq!(left, BTreeSet::from(["holder".to_owned(), "ours".to_owned()]));
    }
}
