//! `fields`: headers and trailers.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::wasi::http::types::Fields;
use super::bindings::wasi::http::types::HeaderError;
use super::bindings::wasi::http::types::HostFields;
use super::held;
use crate::abi::host::Host;

/// Headers that say how a message travels, which is not for a guest to say.
const FORBIDDEN: [&str; 10] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// Headers of one message.
const COUNT_MAX: usize = 100;

type Answer<T> = wasmtime::Result<Result<T, HeaderError>>;

/// A name in lower case, if it is one that a guest may set.
fn name_of(name: &str) -> Result<String, HeaderError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        return Err(HeaderError::InvalidSyntax);
    }
    let name = name.to_ascii_lowercase();
    if FORBIDDEN.contains(&name.as_str()) || name.starts_with("proxy-") {
        return Err(HeaderError::Forbidden);
    }
    Ok(name)
}

/// A value without anything that ends a line.
fn value_of(value: Vec<u8>) -> Result<Bytes, HeaderError> {
    let plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if value.iter().all(plain) { Ok(value.into()) } else { Err(HeaderError::InvalidSyntax) }
}

impl Host {
    /// The entries of headers that may be changed.
    fn entries(&mut self, fields: &Resource<Fields>) -> Answer<Vec<(String, Bytes)>> {
        let fields = self.http.fields.get(fields.rep())?;
        Ok(if fields.immutable { Err(HeaderError::Immutable) } else { Ok(fields.entries.clone()) })
    }

    fn change(&mut self, fields: &Resource<Fields>, entries: Vec<(String, Bytes)>) -> Answer<()> {
        if entries.len() > COUNT_MAX {
            return Ok(Err(HeaderError::Forbidden));
        }
        self.http.change_fields(fields.rep(), entries)?;
        Ok(Ok(()))
    }

    /// Lends headers: a copy that cannot be changed.
    pub(super) fn lend(&mut self, fields: &held::Fields) -> wasmtime::Result<Resource<Fields>> {
        let lent = held::Fields { entries: fields.entries.clone(), immutable: true };
        Ok(Resource::new_own(self.http.add_fields(lent)?))
    }
}

impl HostFields for Host {
    fn new(&mut self) -> wasmtime::Result<Resource<Fields>> {
        self.run().enter()?;
        Ok(Resource::new_own(self.http.add_fields(held::Fields::default())?))
    }

    fn from_list(&mut self, list: Vec<(String, Vec<u8>)>) -> Answer<Resource<Fields>> {
        self.run().enter()?;
        if list.len() > COUNT_MAX {
            return Ok(Err(HeaderError::Forbidden));
        }
        let read = |(name, value): (String, Vec<u8>)| Ok((name_of(&name)?, value_of(value)?));
        match list.into_iter().map(read).collect::<Result<_, HeaderError>>() {
            Ok(entries) => Ok(Ok(Resource::new_own(self.http.add_fields(held::Fields { entries, immutable: false })?))),
            Err(error) => Ok(Err(error)),
        }
    }

    fn get(&mut self, fields: Resource<Fields>, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        self.run().enter()?;
        let name = name.to_ascii_lowercase();
        let entries = &self.http.fields.get(fields.rep())?.entries;
        Ok(entries.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.to_vec()).collect())
    }

    fn has(&mut self, fields: Resource<Fields>, name: String) -> wasmtime::Result<bool> {
        self.run().enter()?;
        let name = name.to_ascii_lowercase();
        Ok(self.http.fields.get(fields.rep())?.entries.iter().any(|(own, _)| *own == name))
    }

    fn set(&mut self, fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> Answer<()> {
        self.run().enter()?;
        let changed = self.entries(&fields)?.and_then(|mut entries| {
            let name = name_of(&name)?;
            entries.retain(|(own, _)| *own != name);
            for value in values {
                entries.push((name.clone(), value_of(value)?));
            }
            Ok(entries)
        });
        match changed {
            Ok(entries) => self.change(&fields, entries),
            Err(error) => Ok(Err(error)),
        }
    }

    fn delete(&mut self, fields: Resource<Fields>, name: String) -> Answer<()> {
        self.run().enter()?;
        match self.entries(&fields)? {
            Ok(mut entries) => {
                let name = name.to_ascii_lowercase();
                entries.retain(|(own, _)| *own != name);
                self.change(&fields, entries)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn append(&mut self, fields: Resource<Fields>, name: String, value: Vec<u8>) -> Answer<()> {
        self.run().enter()?;
        let changed = self.entries(&fields)?.and_then(|mut entries| {
            entries.push((name_of(&name)?, value_of(value)?));
            Ok(entries)
        });
        match changed {
            Ok(entries) => self.change(&fields, entries),
            Err(error) => Ok(Err(error)),
        }
    }

    fn entries(&mut self, fields: Resource<Fields>) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        self.run().enter()?;
        let entries = &self.http.fields.get(fields.rep())?.entries;
        Ok(entries.iter().map(|(name, value)| (name.clone(), value.to_vec())).collect())
    }

    fn clone(&mut self, fields: Resource<Fields>) -> wasmtime::Result<Resource<Fields>> {
        self.run().enter()?;
        let entries = self.http.fields.get(fields.rep())?.entries.clone();
        Ok(Resource::new_own(self.http.add_fields(held::Fields { entries, immutable: false })?))
    }

    fn drop(&mut self, fields: Resource<Fields>) -> wasmtime::Result<()> {
        self.http.drop_fields(fields.rep());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_smuggled_into_headers() {
        assert!(matches!(name_of("X-Token"), Ok(name) if name == "x-token"));
        for bad in ["", "a b", "a:b", "a\r\nb", "ä"] {
            assert!(matches!(name_of(bad), Err(HeaderError::InvalidSyntax)), "{bad:?}");
        }
        for forbidden in ["Host", "transfer-encoding", "Proxy-Authorization", "te"] {
            assert!(matches!(name_of(forbidden), Err(HeaderError::Forbidden)), "{forbidden}");
        }
        assert!(value_of(b"a\tb \xff".to_vec()).is_ok());
        for bad in [&b"a\r\nb"[..], b"\0", b"\x7f"] {
            assert!(value_of(bad.to_vec()).is_err());
        }
    }
}
