//! Counts what it sees per key and notices disorder: the plugin of the tests that crash the host.
//!
//! An event carries a key and a number that grows by one within the key. Afterwards the state says whether
//! anything was lost, applied twice or out of order, and the follow-up events and deliveries say the same
//! of effects:
//!
//! ```text
//! count:<key>     how many were applied; must equal how many were sent
//! last:<key>      the number of the last one
//! disorder:<key>  how many did not follow the one before; must be absent
//! checked         one event each, with the key
//! arrivals        one delivery each, if the setting asks for it
//! ```

use bulkhead_plugin::{Body, Draft, Event, Failure, context, effects, handler, state};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    key: String,
    /// 1 for the first of its key.
    seq: i64,
}

#[handler]
fn handle(event: Event<Step>) -> Result<(), Failure> {
    let Step { key, seq } = &event.data;
    let last_key = format!("last:{key}");
    let last: i64 = state::get(&last_key)?.unwrap_or(0);
    if *seq != last + 1 {
        state::increment(&format!("disorder:{key}"), 1)?;
    }
    state::set(&last_key, seq)?;
    state::increment(&format!("count:{key}"), 1)?;
    effects::emit(Draft::json("checked", &event.data)?.with_key(key))?;
    if context::config_or("deliver", false)? {
        effects::deliver("arrivals", Body::json(&event.data)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};

    use super::*;

    fn step(host: &mut Host, seq: i64) -> testing::Run {
        let run = host.handle(handle, testing::event("steps", Step { key: "k".to_owned(), seq }));
        run.success();
        run
    }

    #[test]
    fn order_is_silent_and_disorder_is_counted() {
        let mut host = Host::new();
        for seq in [1, 2, 3] {
            step(&mut host, seq);
        }
        assert_eq!(host.state_keys(), ["count:k", "last:k"]);
        step(&mut host, 5);
        step(&mut host, 5);
        step(&mut host, 6);
        let state = |key: &str| host.state::<i64>(key);
        assert_eq!((state("count:k"), state("last:k"), state("disorder:k")), (Some(6), Some(6), Some(2)));
    }

    #[test]
    fn each_step_is_followed_up_and_delivered_if_asked() {
        let run = step(&mut Host::new(), 1);
        assert_eq!((run.emitted.len(), run.delivered.len()), (1, 0));
        assert_eq!((run.emitted[0].kind.as_str(), run.emitted[0].key.as_deref()), ("checked", Some("k")));
        let run = step(&mut Host::new().with_config("deliver", true), 1);
        assert_eq!(run.delivered[0].sink, "arrivals");
        assert_eq!(run.delivered[0].body.bytes, br#"{"key":"k","seq":1}"#);
    }
}
