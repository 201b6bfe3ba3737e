//! Rows of releases: entries of the history, and candidates under way.

use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;

use crate::Error;
use crate::Result;
use crate::releases::Action;
use crate::releases::Entry;
use crate::releases::Kind;
use crate::releases::Rollout;
use crate::releases::Tally;
use crate::row::Columns;

macro_rules! rollout_columns {
    () => {
        "o.plugin, o.kind, o.number, o.version, o.author, o.started, o.terms, o.tally"
    };
}
pub(crate) use rollout_columns;

/// A plugin's history before an entry, newest first. Both databases know parameters by these names.
pub(crate) const HISTORY: &str = "SELECT h.number, h.action, h.version, h.author, h.at, h.detail FROM plugin_history h
     WHERE h.tenant = $1 AND h.plugin = $2 AND h.number < $3 ORDER BY h.number DESC LIMIT $4";

/// Candidates that are under way in a plugin.
pub(crate) const ROLLOUTS: &str =
    concat!("SELECT ", rollout_columns!(), " FROM rollouts o WHERE o.tenant = $1 AND o.plugin = $2 ORDER BY o.kind");

pub(crate) fn entry(columns: &mut Columns<'_>) -> Result<Entry> {
    let (number, action) = (columns.int()?, columns.text()?);
    let action = serde_json::from_value(action.into())
        .map_err(|error| Error::Damaged(format!("an entry of a plugin's history does not read: {error}")))?;
    Ok(Entry {
        number,
        action,
        version: columns.narrow()?,
        author: columns.text()?,
        at: columns.time()?,
        detail: columns.text()?,
    })
}

pub(crate) fn rollout(columns: &mut Columns<'_>) -> Result<Rollout> {
    let plugin = PluginId(columns.int()?);
    let kind = match columns.int()? {
        0 => Kind::Canary,
        1 => Kind::Shadow,
        other => return Err(Error::Damaged(format!("a candidate is tried as {other}"))),
    };
    let (number, version, author) = (columns.int()?, columns.narrow()?, columns.text()?);
    let (started, terms, tally) = (columns.time()?, columns.text()?, columns.text()?);
    let tally = serde_json::from_str(&tally)
        .map_err(|error| Error::Damaged(format!("what a candidate came to does not read: {error}")))?;
    Ok(Rollout { plugin, kind, number, version, author, started, terms, tally })
}

/// How a candidate is tried, as a number.
pub(crate) const fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Canary => 0,
        Kind::Shadow => 1,
    }
}

/// An action, as it is stored.
pub(crate) fn action_text(action: Action) -> String {
    match serde_json::to_value(action) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

pub(crate) fn tally_text(tally: &Tally) -> String {
    serde_json::to_string(tally).expect("because numbers and JSON are always JSON")
}

/// What a switch says of itself: from which version it leads away, and the preview that let it.
pub(crate) fn switch_text(from: Option<u32>, proof: Option<&Preview>) -> String {
    let mut detail = serde_json::Map::new();
    if let Some(from) = from {
        detail.insert("from".to_owned(), from.into());
    }
    proven_text(detail, proof)
}

/// How a candidate is tried, and the preview that let it.
pub(crate) fn start_text(terms: &str, proof: Option<&Preview>) -> String {
    match proof {
        None => terms.to_owned(),
        Some(_) => proven_text(serde_json::from_str(terms).unwrap_or_default(), proof),
    }
}

fn proven_text(mut detail: serde_json::Map<String, serde_json::Value>, proof: Option<&Preview>) -> String {
    if let Some(proof) = proof {
        detail.insert("preview".to_owned(), serde_json::to_value(proof).unwrap_or_default());
    }
    serde_json::Value::Object(detail).to_string()
}

/// No version, as a number.
const NONE: u32 = 0;

/// The version that another is compared with, as a number.
pub(crate) fn against_number(against: Option<u32>) -> i64 {
    i64::from(against.unwrap_or(NONE))
}

/// The last preview of a version against another.
pub(crate) const FIND_PREVIEW: &str = "SELECT w.version, w.against, w.author, w.at, w.counts FROM plugin_previews w
     WHERE w.tenant = $1 AND w.plugin = $2 AND w.version = $3 AND w.against = $4";

/// Those of a plugin, newest first.
pub(crate) const PREVIEWS: &str = "SELECT w.version, w.against, w.author, w.at, w.counts FROM plugin_previews w
     WHERE w.tenant = $1 AND w.plugin = $2 ORDER BY w.at DESC, w.version DESC, w.against";

pub(crate) fn preview(columns: &mut Columns<'_>) -> Result<Preview> {
    let (version, against) = (columns.narrow()?, columns.narrow()?);
    let (author, at, counts) = (columns.text()?, columns.time()?, columns.text()?);
    let counts = serde_json::from_str(&counts)
        .map_err(|error| Error::Damaged(format!("what a preview came to does not read: {error}")))?;
    Ok(Preview { version, against: Some(against).filter(|against| *against != NONE), author, at, counts })
}

pub(crate) fn counts_text(preview: &Preview) -> String {
    serde_json::to_string(&preview.counts).expect("because numbers are always JSON")
}

/// What somebody asks of versions, as it is stored.
pub(crate) fn asks_text(policy: &ReleasePolicy) -> String {
    serde_json::to_string(policy).expect("because numbers are always JSON")
}

/// What the operator asks of versions of a tenant's plugins.
pub(crate) const ASKS: &str = "SELECT t.asks FROM tenants t WHERE t.id = $1";

/// Which actions begin and end a candidate of a kind.
pub(crate) const fn actions(kind: Kind) -> (Action, Action) {
    match kind {
        Kind::Canary => (Action::CanaryStarted, Action::CanaryEnded),
        Kind::Shadow => (Action::ShadowStarted, Action::ShadowEnded),
    }
}

/// Why one ended, with what it came to.
pub(crate) fn end_text(detail: &serde_json::Map<String, serde_json::Value>, tally: &Tally) -> String {
    let mut detail = detail.clone();
    detail.insert("tally".to_owned(), serde_json::to_value(tally).unwrap_or_default());
    serde_json::Value::Object(detail).to_string()
}
