//! Lists: pages of items, and the cursor that leads to the next.

use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Result;
use crate::api::state::State;

/// Items of a page if the caller does not say.
const LIMIT: u32 = 50;
/// The most items of a page.
pub const LIMIT_MAX: u32 = 1_000;

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Go on here: the `next` of the page before.
    pub after: Option<String>,
    /// At most this many items (default 50, at most 1000).
    pub limit: Option<u32>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; null at the end of the list. A page may be short, even empty, while there is a next.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A list that is always whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// The number of items that are wanted.
pub fn limit(asked: Option<u32>) -> Result<u32> {
    match asked {
        None => Ok(LIMIT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(limit) => {
            let detail = format!("`limit` is {limit}; it must be from 1 to {LIMIT_MAX}");
            Err(Problem::new(Code::QueryInvalid, detail))
        }
    }
}

/// A page of a list that is in memory as a whole, sorted by the names that `name` gives.
pub fn of_names<T>(
    state: &State,
    owner: &str,
    list: &str,
    paging: &Paging,
    items: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Result<Page<T>> {
    let limit = limit(paging.limit)? as usize;
    let after = paging.after.as_deref().map(|cursor| state.cursors.read(owner, list, cursor)).transpose()?;
    let mut items: Vec<T> = match after {
        None => items,
        Some(after) => items.into_iter().filter(|item| name(item).as_bytes() > after.as_slice()).collect(),
    };
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|item| state.cursors.write(owner, list, name(item).as_bytes()));
    Ok(Page { items, next })
}
