//! `wasi:keyvalue@0.2.0-draft2` on the plugin's state.
//!
//! One bucket, the plugin's own. A swap compares with what the guest saw, in this run's view of the state; that no
//! other run comes in between is the commit's affair, as for every read that a write builds on.

use wasmtime::component::Resource;

use super::bindings::wasi::keyvalue::atomics;
use super::bindings::wasi::keyvalue::atomics::CasError;
use super::bindings::wasi::keyvalue::batch;
use super::bindings::wasi::keyvalue::store;
use super::bindings::wasi::keyvalue::store::Error;
use super::bindings::wasi::keyvalue::store::KeyResponse;
use crate::abi::host::Host;
use crate::capability::Fault;
use crate::capability::Refusal;

/// The names of the one bucket.
const NAMES: [&str; 2] = ["default", ""];
/// Keys of one batch.
const BATCH_MAX: usize = 1_000;

/// `bucket`; there is one, so it needs no number.
pub enum Bucket {}

/// `cas`: a key, and a fingerprint of the value that was under it. The value itself is read again when it is asked for.
#[derive(Debug)]
pub struct Cas {
    key: String,
    seen: Option<blake3::Hash>,
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// The answer of the state in the words of the draft; a stop ends the guest.
fn answer<T>(result: Result<T, Fault>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refused(Refusal::Denied(_))) => Ok(Err(Error::AccessDenied)),
        Err(Fault::Refused(Refusal::Limit(text) | Refusal::Invalid(text) | Refusal::NotFound(text))) => {
            Ok(Err(Error::Other(text)))
        }
        Err(Fault::Stopped(stop)) => Err(stop.into()),
    }
}

fn too_many(keys: usize) -> Option<Error> {
    (keys > BATCH_MAX).then(|| Error::Other(format!("there are {keys} keys; a batch may have {BATCH_MAX}")))
}

/// The state, one operation a host call, with the watch asked again after what may have blocked.
impl Host {
    fn read(&mut self, key: &str) -> Answer<Option<Vec<u8>>> {
        let run = self.run();
        run.enter()?;
        let found = run.state.get(&run.setup.limits, key);
        run.watch.check()?;
        answer(found.map(|value| value.map(Vec::from)))
    }

    fn write(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
        let run = self.run();
        run.enter()?;
        answer(run.state.set(&run.setup.limits, key, value, None))
    }

    fn erase(&mut self, key: String) -> Answer<()> {
        let run = self.run();
        run.enter()?;
        answer(run.state.delete(&run.setup.limits, key))
    }

    fn observe(&mut self, key: String) -> Answer<Resource<Cas>> {
        match self.read(&key)? {
            Ok(value) => {
                let seen = value.as_deref().map(blake3::hash);
                Ok(Ok(Resource::new_own(self.cas.add(Cas { key, seen })?)))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

impl store::Host for Host {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        self.run().enter()?;
        if NAMES.contains(&identifier.as_str()) {
            return Ok(Ok(Resource::new_own(0)));
        }
        Ok(Err(Error::NoSuchStore))
    }
}

impl store::HostBucket for Host {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key)
    }

    fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.write(key, value)
    }

    fn delete(&mut self, _: Resource<Bucket>, key: String) -> Answer<()> {
        self.erase(key)
    }

    fn exists(&mut self, _: Resource<Bucket>, key: String) -> Answer<bool> {
        Ok(self.read(&key)?.map(|value| value.is_some()))
    }

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        let run = self.run();
        run.enter()?;
        let page = run.state.keys(&run.setup.limits, "", cursor.as_deref(), 0);
        run.watch.check()?;
        answer(page.map(|page| KeyResponse { keys: page.keys, cursor: page.next }))
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl atomics::Host for Host {
    fn increment(&mut self, _: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        let run = self.run();
        run.enter()?;
        let sum = run.state.increment(&run.setup.limits, key, delta);
        run.watch.check()?;
        answer(sum)
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { key, seen } = self.cas.take(cas.rep())?;
        let present = match self.read(&key)? {
            Ok(value) => value.as_deref().map(blake3::hash),
            Err(error) => return Ok(Err(CasError::StoreError(error))),
        };
        if present == seen {
            return Ok(self.write(key, value)?.map_err(CasError::StoreError));
        }
        let renewed = self.cas.add(Cas { key, seen: present })?;
        Ok(Err(CasError::CasFailed(Resource::new_own(renewed))))
    }
}

impl atomics::HostCas for Host {
    fn new(&mut self, _: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        self.observe(key)
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let key = self.cas.get(cas.rep())?.key.clone();
        let value = self.read(&key)?;
        if let Ok(value) = &value {
            self.cas.get(cas.rep())?.seen = value.as_deref().map(blake3::hash);
        }
        Ok(value)
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.cas.remove(cas.rep());
        Ok(())
    }
}

/// Each key counts as a call into the host. A batch that is refused in the middle keeps what it has done, as the draft
/// says.
impl batch::Host for Host {
    fn get_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        if let Some(error) = too_many(keys.len()) {
            return Ok(Err(error));
        }
        let limit = self.run().setup.limits.state_bytes;
        let (mut found, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let value = match self.read(&key)? {
                Ok(value) => value,
                Err(error) => return Ok(Err(error)),
            };
            bytes += value.as_ref().map_or(0, Vec::len);
            if bytes > limit {
                return Ok(Err(Error::Other(format!(
                    "the values have more than {limit} bytes together; ask for fewer"
                ))));
            }
            found.push(value.map(|value| (key, value)));
        }
        Ok(Ok(found))
    }

    fn set_many(&mut self, _: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        if let Some(error) = too_many(pairs.len()) {
            return Ok(Err(error));
        }
        for (key, value) in pairs {
            if let Err(error) = self.write(key, value)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        if let Some(error) = too_many(keys.len()) {
            return Ok(Err(error));
        }
        for key in keys {
            if let Err(error) = self.erase(key)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}
