//! A row as it comes. What it means is its reader's business.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::outbox::Error;
use crate::outbox::Result;
use crate::outbox::fault;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number, and its place in the order.
    pub id: i64,
    /// Whose it is, as the column has it.
    pub tenant: String,
    /// About how large it is.
    pub bytes: u64,
    /// The rest.
    pub body: Body,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Everything.
    Fields(Box<Fields>),
    /// More bytes than were asked for; it was not read.
    TooLarge,
    /// What the server cannot show, in its words.
    Unreadable(String),
}

/// Columns as texts; the very long ones cut, far behind what any of them may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// `event_id`
    pub event_id: Option<String>,
    /// `source`
    pub source: Option<String>,
    /// `type`
    pub kind: Option<String>,
    /// `subject`
    pub subject: Option<String>,
    /// `time`, in UTC, as Postgres shows it: `2026-01-31 12:00:00.5+00`, also `infinity`, or with ` BC` behind.
    pub time: Option<String>,
    /// `datacontenttype`
    pub content_type: Option<String>,
    /// `partitionkey`
    pub key: Option<String>,
    /// `attributes`, in JSON
    pub attributes: Option<String>,
    /// `data`, in JSON
    pub json: Option<String>,
    /// `data_bytes`
    pub data: Option<Vec<u8>>,
}

impl Row {
    /// In the order of the columns of [`Table::next`](crate::outbox::Table).
    pub(super) fn read(row: &PgRow) -> Result<Self> {
        Self::columns(row).map_err(|error| fault::outward("the outbox", error))
    }

    fn columns(row: &PgRow) -> sqlx::Result<Self> {
        let whole: bool = row.try_get(3)?;
        let body = if whole {
            Body::Fields(Box::new(Fields {
                event_id: row.try_get(4)?,
                source: row.try_get(5)?,
                kind: row.try_get(6)?,
                subject: row.try_get(7)?,
                time: row.try_get(8)?,
                content_type: row.try_get(9)?,
                key: row.try_get(10)?,
                attributes: row.try_get(11)?,
                json: row.try_get(12)?,
                data: row.try_get(13)?,
            }))
        } else {
            Body::TooLarge
        };
        let bytes: i64 = row.try_get(2)?;
        let (id, tenant) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Self { id, tenant, bytes: u64::try_from(bytes).unwrap_or_default(), body })
    }

    /// Of which only its id and its tenant can be read.
    pub(super) fn unreadable(row: &PgRow, reason: &str) -> Result<Self> {
        let place = |error| -> Error { fault::outward("the outbox", error) };
        let (id, tenant) = (row.try_get(0).map_err(place)?, row.try_get(1).map_err(place)?);
        Ok(Self { id, tenant, bytes: 0, body: Body::Unreadable(reason.to_owned()) })
    }
}
