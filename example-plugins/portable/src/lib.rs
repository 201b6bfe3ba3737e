//! Counts orders, with everything that it asks of its host asked through WASI: keys and values, settings, the log.
//!
//! A component written for another host looks like this from inside. Only what it is called by, `handler`, is the
//! contract's.

use bulkhead_plugin::{Event, Failure, handler};
use serde_json::Value;
use wasi::config::store as config;
use wasi::keyvalue::atomics::{self, Cas, CasError};
use wasi::keyvalue::batch;
use wasi::keyvalue::store::{self, Error};
use wasi::logging::logging::{Level, log};

#[allow(unsafe_code, missing_docs, reason = "generated: the calls across the boundary")]
mod generated {
    wit_bindgen::generate!({
        path: "../../host/sandbox/wit",
        world: "bulkhead:portable/aliases",
        generate_all,
    });
}
use generated::wasi;

#[handler]
fn handle(event: Event<Value>) -> Result<(), Failure> {
    let bucket = store::open("default").map_err(failed)?;
    let currency = config::get("currency").ok().flatten().unwrap_or_default();
    let total = event.data["total"].as_f64().unwrap_or_default();

    let count = atomics::increment(&bucket, "orders", 1).map_err(failed)?;
    let cas = Cas::new(&bucket, "largest").map_err(failed)?;
    let largest = cas.current().map_err(failed)?.and_then(|bytes| serde_json::from_slice::<f64>(&bytes).ok());
    if largest.is_none_or(|largest| total > largest) {
        atomics::swap(cas, total.to_string().as_bytes()).map_err(|error| match error {
            CasError::StoreError(error) => failed(error),
            CasError::CasFailed(_) => Failure::retry("another run was faster"),
        })?;
    }
    batch::set_many(
        &bucket,
        &[
            ("last:id".to_owned(), event.id.clone().into_bytes()),
            ("last:currency".to_owned(), currency.clone().into_bytes()),
        ],
    )
    .map_err(failed)?;
    if let Some(Value::String(key)) = event.data.get("forget") {
        bucket.delete(key).map_err(failed)?;
    }

    let settings = config::get_all().map_or(0, |settings| settings.len());
    let keys = bucket.list_keys(None).map_err(failed)?.keys;
    let seen = batch::get_many(&bucket, &["orders".to_owned(), "nothing".to_owned()]).map_err(failed)?;
    let missing = seen.iter().filter(|pair| pair.is_none()).count();
    let there = bucket.exists("last:id").map_err(failed)?;
    let elsewhere = matches!(store::open("elsewhere"), Err(Error::NoSuchStore));
    let text = format!(
        "order {count} over {total} {currency}; settings {settings}, keys {}, missing {missing}, there {there}, \
         elsewhere refused {elsewhere}",
        keys.join(" ")
    );
    log(Level::Critical, "orders", &text);
    Ok(())
}

fn failed(error: Error) -> Failure {
    Failure::reject(match error {
        Error::NoSuchStore => "there is no such bucket".to_owned(),
        Error::AccessDenied => "the bucket is somebody else's".to_owned(),
        Error::Other(text) => text,
    })
}
