//! Which retired versions go, and what is to be said to either database about that. The statements stand here once where
//! both understand them; when they are run is told in [`crate::releases`].

use std::collections::HashMap;

use bulkhead_domain::id::PluginId;

use crate::Error;
use crate::Result;
use crate::catalogue::Kept;
use crate::catalogue::Plugin;
use crate::catalogue::Storage;
use crate::row::Columns;

/// How many of a plugin's versions are retired.
pub(crate) const COUNT: &str =
    "SELECT count(*) FROM plugin_versions v WHERE v.tenant = $1 AND v.plugin = $2 AND v.retired";

/// Bytes of the components of a tenant's versions that are not retired: what nobody else can let go.
pub(crate) const LIVE: &str = "SELECT CAST(coalesce(sum(c.size), 0) AS BIGINT)
     FROM (SELECT DISTINCT v.digest, v.size FROM plugin_versions v WHERE v.tenant = $1 AND NOT v.retired) c";

/// Bytes of all of a tenant's components, and whether one of them has this digest.
pub(crate) const KEPT: &str =
    "SELECT CAST(coalesce(sum(c.size), 0) AS BIGINT), coalesce(max(CASE WHEN c.digest = $2 THEN 1 ELSE 0 END), 0)
     FROM (SELECT DISTINCT v.digest, v.size FROM plugin_versions v WHERE v.tenant = $1) c";

pub(crate) const DROP_PREVIEWS: &str =
    "DELETE FROM plugin_previews WHERE tenant = $1 AND plugin = $2 AND (version = $3 OR against = $3)";

pub(crate) const DROP_VERSION: &str =
    "DELETE FROM plugin_versions WHERE tenant = $1 AND plugin = $2 AND number = $3 AND retired";

/// The newest version's number; nothing of an unknown plugin. It never goes: the next one's number follows from it, so
/// what is not there and has a smaller number was let go.
pub(crate) const NEWEST: &str = "SELECT max(v.number) FROM plugin_versions v WHERE v.tenant = $1 AND v.plugin = $2";

/// Retired versions that nothing holds, oldest first: of a plugin, or (0) of all of the tenant's. A run that began with one
/// does not hold it: it moves to the active version as soon as its own is retired.
pub(crate) const FREE: &str = "SELECT v.plugin, v.number, v.digest, v.size,
            (SELECT count(*) FROM plugin_versions s WHERE s.tenant = $1 AND s.digest = v.digest)
     FROM plugin_versions v JOIN plugins p ON p.id = v.plugin
     WHERE v.tenant = $1 AND (v.plugin = $2 OR $2 = 0) AND v.retired
     AND v.number IS DISTINCT FROM p.active AND v.number IS DISTINCT FROM p.previous
     AND v.number < (SELECT max(n.number) FROM plugin_versions n WHERE n.plugin = v.plugin)
     AND NOT EXISTS (SELECT 1 FROM rollouts o WHERE o.plugin = v.plugin AND o.version = v.number)
     ORDER BY v.created, v.plugin, v.number LIMIT $3";

/// How many go at most when one more is retired or added, and to make room: others wait while large components go. What is
/// left goes the next time.
pub(crate) const BEYOND_MAX: i64 = 16;
pub(crate) const ROOM_MAX: i64 = 64;

/// All plugins, in the place of one's number.
pub(crate) const ALL: PluginId = PluginId(0);

/// Why a version is not there.
pub(crate) fn missing(plugin: &Plugin, number: u32, newest: i64) -> Error {
    if number > 0 && i64::from(number) < newest {
        Error::LetGo { plugin: plugin.name.clone(), version: number }
    } else {
        Error::NotFound { what: "version", name: format!("{}@{number}", plugin.name) }
    }
}

/// A version that may go.
#[derive(Debug)]
pub(crate) struct Free {
    pub(crate) plugin: PluginId,
    pub(crate) number: i64,
    pub(crate) digest: String,
    /// Bytes of its component.
    pub(crate) size: u64,
    /// How many versions of the tenant have that.
    pub(crate) uses: u64,
}

pub(crate) fn free_row(columns: &mut Columns<'_>) -> Result<Free> {
    let (plugin, number, digest) = (PluginId(columns.int()?), columns.int()?, columns.text()?);
    Ok(Free { plugin, number, digest, size: columns.count()?, uses: columns.count()? })
}

pub(crate) fn kept_row(columns: &mut Columns<'_>) -> Result<Kept> {
    Ok(Kept { bytes: columns.count()?, has: columns.int()? != 0 })
}

/// The first of these that have to go for a component to fit; `Crowded` if all of them are not enough. Decided before
/// anything is touched: to delete large components only to undo it would hold others up.
pub(crate) fn enough(storage: Storage, kept: Kept, added: usize, free: Vec<Free>) -> Result<Vec<Free>> {
    let mut left = kept;
    let mut uses: HashMap<String, u64> = HashMap::new();
    let mut go = Vec::new();
    for version in free {
        if storage.check(left, added).is_ok() {
            break;
        }
        let uses = uses.entry(version.digest.clone()).or_insert(version.uses);
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            left.bytes = left.bytes.saturating_sub(version.size);
        }
        go.push(version);
    }
    if storage.check(left, added).is_err() {
        storage.check(kept, added)?;
    }
    Ok(go)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(versions: &[(i64, &str, u64, u64)]) -> Vec<Free> {
        let one = |&(number, digest, size, uses): &(i64, &str, u64, u64)| Free {
            plugin: PluginId(1),
            number,
            digest: digest.to_owned(),
            size,
            uses,
        };
        versions.iter().map(one).collect()
    }

    #[test]
    fn no_more_go_than_have_to() {
        let storage = Storage { limit: 100, state: 10 };
        let kept = Kept { bytes: 90, has: false };
        let go = |added, versions: &[_]| {
            let went = enough(storage, kept, added, free(versions))?;
            Ok::<_, Error>(went.into_iter().map(|version| version.number).collect::<Vec<_>>())
        };
        let three = [(1, "a", 20, 1), (2, "b", 20, 1), (3, "c", 20, 1)];
        assert_eq!(go(0, &three).expect("because it is full to the byte"), [0; 0]);
        assert_eq!(go(20, &three).expect("because one is enough"), [1]);
        assert_eq!(go(21, &three).expect("because two are enough"), [1, 2]);
        // What another version has goes with the last of them.
        assert_eq!(go(20, &[(1, "a", 20, 2), (2, "a", 20, 2)]).expect("because both go"), [1, 2]);
        let short = go(21, &[(1, "a", 20, 1), (2, "b", 20, 2)]);
        let told = |error| matches!(error, Error::Crowded { limit: 100, state: 10, components: 90, added: 21 });
        assert!(short.is_err_and(told), "what is kept is told as it is");
        let known = Kept { bytes: 200, has: true };
        assert!(enough(storage, known, 50, free(&three)).is_ok_and(|go| go.is_empty()), "it is there already");
    }
}
