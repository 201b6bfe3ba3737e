//! What goes out: `outgoing-request`, its options and body, and `outgoing-handler`.

use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::wasi::http::outgoing_handler;
use super::bindings::wasi::http::types::ErrorCode;
use super::bindings::wasi::http::types::Fields;
use super::bindings::wasi::http::types::FutureIncomingResponse;
use super::bindings::wasi::http::types::HostOutgoingBody;
use super::bindings::wasi::http::types::HostOutgoingRequest;
use super::bindings::wasi::http::types::HostRequestOptions;
use super::bindings::wasi::http::types::Method;
use super::bindings::wasi::http::types::OutgoingBody;
use super::bindings::wasi::http::types::OutgoingRequest;
use super::bindings::wasi::http::types::RequestOptions;
use super::bindings::wasi::http::types::Scheme;
use super::code;
use super::held;
use super::held::Future;
use super::held::Outgoing;
use crate::abi::host::Host;
use crate::abi::wasi::Output;
use crate::capability::http::Asked;
use crate::capability::http::URL_MAX;
use crate::outbound::Fault;

type Done = wasmtime::Result<Result<(), ()>>;

/// The method in capitals, if it is one. `CONNECT` would be a tunnel.
fn method_of(method: Method) -> Option<String> {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Connect => return None,
        Method::Other(name) => {
            let fits = !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            let name = name.to_ascii_uppercase();
            return (fits && name != "CONNECT").then_some(name);
        }
    };
    Some(name.to_owned())
}

fn method_text(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Neither spaces nor control characters, and no longer than an URL may be: nothing that an URL cannot have.
fn is_plain(text: &str) -> bool {
    text.len() <= URL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl HostOutgoingRequest for Host {
    fn new(&mut self, headers: Resource<Fields>) -> wasmtime::Result<Resource<OutgoingRequest>> {
        self.run().enter()?;
        let headers = self.http.take_fields(headers.rep())?;
        let request = held::OutgoingRequest {
            method: "GET".to_owned(),
            path: None,
            scheme: None,
            authority: None,
            headers,
            body: None,
        };
        Ok(Resource::new_own(self.http.requests.add(request)?))
    }

    fn body(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Result<Resource<OutgoingBody>, ()>> {
        self.run().enter()?;
        if self.http.requests.get(request.rep())?.body.is_some() {
            return Ok(Err(()));
        }
        let body = self.http.outgoing.add(Outgoing::default())?;
        self.http.requests.get(request.rep())?.body = Some(body);
        Ok(Ok(Resource::new_own(body)))
    }

    fn method(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Method> {
        self.run().enter()?;
        Ok(method_text(&self.http.requests.get(request.rep())?.method))
    }

    fn set_method(&mut self, request: Resource<OutgoingRequest>, method: Method) -> Done {
        self.run().enter()?;
        let request = self.http.requests.get(request.rep())?;
        Ok(method_of(method).map(|method| request.method = method).ok_or(()))
    }

    fn path_with_query(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Option<String>> {
        self.run().enter()?;
        Ok(self.http.requests.get(request.rep())?.path.clone())
    }

    fn set_path_with_query(&mut self, request: Resource<OutgoingRequest>, path: Option<String>) -> Done {
        self.run().enter()?;
        let request = self.http.requests.get(request.rep())?;
        if path.as_ref().is_some_and(|path| !is_plain(path)) {
            return Ok(Err(()));
        }
        request.path = path;
        Ok(Ok(()))
    }

    fn scheme(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Option<Scheme>> {
        self.run().enter()?;
        Ok(self.http.requests.get(request.rep())?.scheme.clone())
    }

    fn set_scheme(&mut self, request: Resource<OutgoingRequest>, scheme: Option<Scheme>) -> Done {
        self.run().enter()?;
        let request = self.http.requests.get(request.rep())?;
        if matches!(scheme, Some(Scheme::Other(_))) {
            return Ok(Err(()));
        }
        request.scheme = scheme;
        Ok(Ok(()))
    }

    fn authority(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Option<String>> {
        self.run().enter()?;
        Ok(self.http.requests.get(request.rep())?.authority.clone())
    }

    fn set_authority(&mut self, request: Resource<OutgoingRequest>, authority: Option<String>) -> Done {
        self.run().enter()?;
        let request = self.http.requests.get(request.rep())?;
        if authority.as_ref().is_some_and(|authority| !is_plain(authority) || authority.contains(['/', '?', '#', '@']))
        {
            return Ok(Err(()));
        }
        request.authority = authority;
        Ok(Ok(()))
    }

    fn headers(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<Resource<Fields>> {
        self.run().enter()?;
        let headers = self.http.requests.get(request.rep())?.headers.clone();
        self.lend(&headers)
    }

    fn drop(&mut self, request: Resource<OutgoingRequest>) -> wasmtime::Result<()> {
        self.http.requests.remove(request.rep());
        Ok(())
    }
}

/// Getters and setters of the three times.
macro_rules! times {
    ($($get:ident $set:ident $field:ident;)*) => {
        $(
            fn $get(&mut self, options: Resource<RequestOptions>) -> wasmtime::Result<Option<u64>> {
                self.run().enter()?;
                Ok(self.http.options.get(options.rep())?.$field)
            }

            fn $set(&mut self, options: Resource<RequestOptions>, time: Option<u64>) -> Done {
                self.run().enter()?;
                self.http.options.get(options.rep())?.$field = time;
                Ok(Ok(()))
            }
        )*
    };
}

impl HostRequestOptions for Host {
    fn new(&mut self) -> wasmtime::Result<Resource<RequestOptions>> {
        self.run().enter()?;
        Ok(Resource::new_own(self.http.options.add(held::Options::default())?))
    }

    times! {
        connect_timeout set_connect_timeout connect;
        first_byte_timeout set_first_byte_timeout first_byte;
        between_bytes_timeout set_between_bytes_timeout between_bytes;
    }

    fn drop(&mut self, options: Resource<RequestOptions>) -> wasmtime::Result<()> {
        self.http.options.remove(options.rep());
        Ok(())
    }
}

impl HostOutgoingBody for Host {
    fn write(&mut self, body: Resource<OutgoingBody>) -> wasmtime::Result<Result<Resource<Output>, ()>> {
        self.run().enter()?;
        let number = body.rep();
        let body = self.http.outgoing.get(number)?;
        if std::mem::replace(&mut body.lent, true) {
            return Ok(Err(()));
        }
        Ok(Ok(crate::abi::wasi::body_stream(number)?))
    }

    fn finish(
        &mut self,
        body: Resource<OutgoingBody>,
        trailers: Option<Resource<Fields>>,
    ) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.run().enter()?;
        let number = body.rep();
        if let Some(trailers) = trailers {
            // Nothing that is called here reads them.
            self.http.drop_fields(trailers.rep());
        }
        let limit = self.request_bytes();
        let body = self.http.outgoing.get(number)?;
        if body.too_large {
            self.give_up(number, Fault::RequestTooLarge(limit));
            return Ok(Err(code(Fault::RequestTooLarge(limit))));
        }
        body.finished = true;
        if let Some(future) = body.future {
            let bytes = self.http.outgoing.take(number)?.bytes.freeze();
            self.send(future, bytes)?;
        }
        Ok(Ok(()))
    }

    fn drop(&mut self, body: Resource<OutgoingBody>) -> wasmtime::Result<()> {
        let number = body.rep();
        // One that is finished belongs to its request.
        if self.http.outgoing.get(number).is_ok_and(|body| !body.finished) {
            self.give_up(number, Fault::Invalid("the request's body was dropped before it was finished".into()));
        }
        Ok(())
    }
}

impl Host {
    /// The body comes to nothing, and with it the exchange that waits for it.
    fn give_up(&mut self, body: u32, fault: Fault) {
        let future = self.http.outgoing.remove(body).and_then(|body| body.future);
        if let Some(future) = future.and_then(|future| self.http.futures.get(future).ok()) {
            *future = Future::Failed(fault);
        }
    }

    /// The body is there: the exchange begins.
    fn send(&mut self, future: u32, body: Bytes) -> wasmtime::Result<()> {
        // The guest may have dropped what it would learn the answer by; then nothing is sent.
        let Ok(held) = self.http.futures.get(future) else { return Ok(()) };
        if let Future::Unsent(asked) = std::mem::replace(held, Future::Taken) {
            let begun = match self.run().http_begin(*asked, body) {
                Ok(number) => Future::Begun(number),
                Err(fault) => Future::Failed(fault),
            };
            *self.http.futures.get(future)? = begun;
        }
        Ok(())
    }
}

impl outgoing_handler::Host for Host {
    fn handle(
        &mut self,
        request: Resource<OutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> wasmtime::Result<Result<Resource<FutureIncomingResponse>, ErrorCode>> {
        self.run().enter()?;
        let held::OutgoingRequest { method, path, scheme, authority, headers, body } =
            self.http.requests.take(request.rep())?;
        let options = options.and_then(|options| self.http.options.remove(options.rep())).unwrap_or_default();
        let path = match path {
            Some(path) if path.starts_with('/') => path,
            Some(path) if path.starts_with('?') => format!("/{path}"),
            None => "/".to_owned(),
            Some(_) => return Ok(Err(ErrorCode::HttpRequestUriInvalid)),
        };
        let Some(authority) = authority else { return Ok(Err(ErrorCode::HttpRequestUriInvalid)) };
        // The connection says how long a body is.
        let headers = headers.entries.into_iter().filter(|(name, _)| name != "content-length").collect();
        let asked = Asked {
            method,
            tls: !matches!(scheme, Some(Scheme::Http)),
            authority,
            path,
            headers,
            timeout: options.first_byte.map(Duration::from_nanos),
        };
        if let Err(fault) = self.run().http_check(&asked) {
            return Ok(Err(code(fault)));
        }
        let Some(body) = body else {
            return self.begun(asked, Bytes::new());
        };
        match self.http.outgoing.get(body) {
            Ok(held) if held.finished => {
                let bytes = self.http.outgoing.take(body)?.bytes.freeze();
                self.begun(asked, bytes)
            }
            Ok(_) => {
                let future = self.http.futures.add(Future::Unsent(Box::new(asked)))?;
                self.http.outgoing.get(body)?.future = Some(future);
                Ok(Ok(Resource::new_own(future)))
            }
            Err(_) => Ok(Err(ErrorCode::HttpRequestBodySize(None))),
        }
    }
}

impl Host {
    fn begun(
        &mut self,
        asked: Asked,
        body: Bytes,
    ) -> wasmtime::Result<Result<Resource<FutureIncomingResponse>, ErrorCode>> {
        match self.run().http_begin(asked, body) {
            Ok(number) => Ok(Ok(Resource::new_own(self.http.futures.add(Future::Begun(number))?))),
            Err(fault) => Ok(Err(code(fault))),
        }
    }
}
