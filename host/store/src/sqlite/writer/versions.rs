//! The part of a group that is about state: what was read must still be so, and what is written gets a version.

use std::collections::BTreeMap;
use std::collections::HashMap;

use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;

use crate::Result;
use crate::sqlite::fault;
use crate::sqlite::row::Columns;
use crate::sqlite::state::list_keys;
use crate::sqlite::text::Rows;
use crate::sqlite::writer::transaction::Transaction;
use crate::work::Commit;
use crate::work::StateRead;

static FIND_VERSIONS: Rows = Rows::new(
    "WITH want (tenant, plugin, key) AS (VALUES ",
    "(?,?,?)",
    ") SELECT s.tenant, s.plugin, s.key, s.version FROM want CROSS JOIN state s \
     WHERE s.tenant = want.tenant AND s.plugin = want.plugin AND s.key = want.key",
);

static PUT_STATE: Rows = Rows::new(
    "INSERT INTO state (tenant, plugin, key, value, version, expires) VALUES ",
    "(?,?,?,?,?,?)",
    " ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires",
);

static DELETE_STATE: Rows = Rows::new("DELETE FROM state WHERE (tenant, plugin, key) IN (VALUES ", "(?,?,?)", ")");

/// Versions kept; an entry takes about 40 bytes.
const VERSIONS_MAX: usize = 200_000;

/// Names a key of a plugin of a tenant: a hash, so that an entry is small whatever the key's length. 128 bits of BLAKE3
/// do not collide by accident, and on purpose only at a cost beyond anybody's means.
pub(super) type Name = [u8; 16];

fn name(tenant: TenantId, plugin: PluginId, key: &str) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tenant.0.to_le_bytes());
    hasher.update(&plugin.0.to_le_bytes());
    hasher.update(key.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// Versions as committed, of keys that were read or written lately; 0 is "not there".
#[derive(Debug, Default)]
pub(super) struct Versions(HashMap<Name, i64>);

impl Versions {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn put(&mut self, name: Name, version: i64) {
        if self.0.len() >= VERSIONS_MAX {
            self.0.clear();
        }
        self.0.insert(name, version);
    }

    /// Looks up what the commits read and is not known yet; gives the versions of everything that they read.
    pub(super) async fn look_up(
        &mut self,
        tx: &mut Transaction<'_>,
        commits: impl Iterator<Item = &Commit>,
    ) -> Result<HashMap<Name, i64>> {
        let mut found = HashMap::new();
        let mut unknown: Vec<(TenantId, PluginId, &str)> = Vec::new();
        for commit in commits {
            for read in &commit.reads {
                let StateRead::Key { plugin, key, .. } = read else { continue };
                let name = name(commit.tenant, *plugin, key);
                if let std::collections::hash_map::Entry::Vacant(entry) = found.entry(name) {
                    entry.insert(self.0.get(&name).copied().unwrap_or_else(|| {
                        unknown.push((commit.tenant, *plugin, key));
                        0
                    }));
                }
            }
        }
        let rows = FIND_VERSIONS
            .fetch(
                tx.conn,
                &[],
                &unknown,
                |(tenant, plugin, key), args| _ = args.int(tenant.0).int(plugin.0).text(key),
                &[],
            )
            .await
            .map_err(fault::outward)?;
        for row in &rows {
            let mut columns = Columns::new(row);
            let (tenant, plugin) = (TenantId(columns.int()?), PluginId(columns.int()?));
            let key = columns.text()?;
            found.insert(name(tenant, plugin, &key), columns.int()?);
        }
        for (tenant, plugin, key) in unknown {
            let name = name(tenant, plugin, key);
            self.put(name, found[&name]);
        }
        Ok(found)
    }
}

/// State as a group has it so far.
#[derive(Default)]
pub(super) struct States<'a> {
    /// Before the group.
    pub(super) before: HashMap<Name, i64>,
    /// What the group writes, last write per key, in the order of the index.
    writes: BTreeMap<(TenantId, PluginId, &'a str), (&'a StateWrite, i64)>,
}

impl<'a> States<'a> {
    /// Whether everything that the commit read is still so, what the group wrote before it included.
    pub(super) async fn holds(&self, tx: &mut Transaction<'_>, commit: &Commit) -> Result<bool> {
        for read in &commit.reads {
            let holds = match read {
                StateRead::Key { plugin, key, version } => self.version(commit.tenant, *plugin, key) == *version,
                StateRead::Keys { plugin, prefix, after, limit, keys } => {
                    let listed = self.list(tx, commit.tenant, *plugin, prefix, after.as_deref(), *limit).await?;
                    listed == *keys
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn version(&self, tenant: TenantId, plugin: PluginId, key: &str) -> i64 {
        match self.writes.get(&(tenant, plugin, key)) {
            Some((write, version)) => write.value.as_ref().map_or(0, |_| *version),
            None => self.before.get(&name(tenant, plugin, key)).copied().unwrap_or_default(),
        }
    }

    async fn list(
        &self,
        tx: &mut Transaction<'_>,
        tenant: TenantId,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let own: Vec<_> = self
            .writes
            .range((tenant, plugin, prefix)..)
            .take_while(|((t, p, key), _)| (*t, *p) == (tenant, plugin) && key.starts_with(prefix))
            .filter(|((_, _, key), _)| after.is_none_or(|after| *key > after))
            .map(|((_, _, key), (write, _))| (*key, write.value.is_some()))
            .collect();
        // The group may have deleted as many keys as it wrote; beyond those the first `limit` are certain.
        let ask = limit.saturating_add(u32::try_from(own.len()).unwrap_or(u32::MAX));
        let mut keys = list_keys(tx.conn, tenant, plugin, prefix, after, ask).await?;
        keys.retain(|key| own.binary_search_by(|(own, _)| (*own).cmp(key)).is_err());
        keys.extend(own.iter().filter(|(_, there)| *there).map(|(key, _)| (*key).to_owned()));
        keys.sort_unstable();
        keys.truncate(limit as usize);
        Ok(keys)
    }

    /// Takes a commit's writes in.
    pub(super) fn add(&mut self, commit: &'a Commit, version: i64) {
        for write in &commit.writes {
            self.writes.insert((commit.tenant, write.plugin, &write.key), (write, version));
        }
    }

    pub(super) async fn flush(&self, tx: &mut Transaction<'_>) -> Result<()> {
        let (put, gone): (Vec<_>, Vec<_>) = self.writes.iter().partition(|(_, (write, _))| write.value.is_some());
        PUT_STATE
            .execute(tx.conn, &put, |((tenant, plugin, key), (write, version)), args| {
                let value = write.value.as_deref().unwrap_or_default();
                args.int(tenant.0).int(plugin.0).text(key).blob(value).int(*version);
                args.int_opt(write.expires.map(|expires| expires.0));
            })
            .await
            .map_err(fault::outward)?;
        DELETE_STATE
            .execute(tx.conn, &gone, |((tenant, plugin, key), _), args| _ = args.int(tenant.0).int(plugin.0).text(key))
            .await
            .map_err(fault::outward)?;
        Ok(())
    }

    /// The versions that the group leaves, for [`Versions`] once it is durable.
    pub(super) fn left(&self) -> Vec<(Name, i64)> {
        let left = |(write, version): &(&StateWrite, i64)| write.value.as_ref().map_or(0, |_| *version);
        self.writes.iter().map(|((tenant, plugin, key), entry)| (name(*tenant, *plugin, key), left(entry))).collect()
    }
}

impl Extend<(Name, i64)> for Versions {
    fn extend<T: IntoIterator<Item = (Name, i64)>>(&mut self, versions: T) {
        for (name, version) in versions {
            self.put(name, version);
        }
    }
}
