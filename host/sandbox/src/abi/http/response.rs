//! What comes back: `future-incoming-response`, `incoming-response` and its body. And what belongs to servers.

use wasmtime::component::Resource;

use super::bindings::wasi::http::types::ErrorCode;
use super::bindings::wasi::http::types::Fields;
use super::bindings::wasi::http::types::FutureIncomingResponse;
use super::bindings::wasi::http::types::FutureTrailers;
use super::bindings::wasi::http::types::HostFutureIncomingResponse;
use super::bindings::wasi::http::types::HostFutureTrailers;
use super::bindings::wasi::http::types::HostIncomingBody;
use super::bindings::wasi::http::types::HostIncomingRequest;
use super::bindings::wasi::http::types::HostIncomingResponse;
use super::bindings::wasi::http::types::HostOutgoingResponse;
use super::bindings::wasi::http::types::HostResponseOutparam;
use super::bindings::wasi::http::types::IncomingBody;
use super::bindings::wasi::http::types::IncomingRequest;
use super::bindings::wasi::http::types::IncomingResponse;
use super::bindings::wasi::http::types::Method;
use super::bindings::wasi::http::types::OutgoingBody;
use super::bindings::wasi::http::types::OutgoingResponse;
use super::bindings::wasi::http::types::ResponseOutparam;
use super::bindings::wasi::http::types::Scheme;
use super::code;
use super::held;
use super::held::Future;
use super::held::Incoming;
use super::held::Outgoing;
use crate::abi::host::Host;
use crate::abi::wasi::Input;
use crate::abi::wasi::Pollable;
use crate::outbound::Fault;
use crate::outbound::Reply;

/// Taken or not, answered or not.
type Got<T> = wasmtime::Result<Option<Result<Result<T, ErrorCode>, ()>>>;

impl HostFutureIncomingResponse for Host {
    fn subscribe(&mut self, future: Resource<FutureIncomingResponse>) -> wasmtime::Result<Resource<Pollable>> {
        self.run().enter()?;
        self.http.futures.get(future.rep())?;
        Ok(self.timers.add_exchange(future.rep())?)
    }

    /// Looking at it waits for it: it never is "not yet".
    fn get(&mut self, future: Resource<FutureIncomingResponse>) -> Got<Resource<IncomingResponse>> {
        self.run().enter()?;
        let held = self.http.futures.get(future.rep())?;
        let ended = match std::mem::replace(held, Future::Taken) {
            Future::Begun(number) => self.run().http_take(number)?,
            Future::Failed(fault) => Some(Err(fault)),
            Future::Unsent(_) => Some(Err(Fault::Invalid("the request's body is not finished".into()))),
            Future::Taken => None,
        };
        match ended {
            None => Ok(Some(Err(()))),
            Some(Err(fault)) => Ok(Some(Ok(Err(code(fault))))),
            Some(Ok(Reply { status, headers, body })) => {
                let headers = held::Fields { entries: headers, immutable: true };
                let response = held::Response { status, headers, body: Some(body) };
                Ok(Some(Ok(Ok(Resource::new_own(self.http.responses.add(response)?)))))
            }
        }
    }

    fn drop(&mut self, future: Resource<FutureIncomingResponse>) -> wasmtime::Result<()> {
        self.http.futures.remove(future.rep());
        Ok(())
    }
}

impl HostIncomingResponse for Host {
    fn status(&mut self, response: Resource<IncomingResponse>) -> wasmtime::Result<u16> {
        self.run().enter()?;
        Ok(self.http.responses.get(response.rep())?.status)
    }

    fn headers(&mut self, response: Resource<IncomingResponse>) -> wasmtime::Result<Resource<Fields>> {
        self.run().enter()?;
        let headers = self.http.responses.get(response.rep())?.headers.clone();
        self.lend(&headers)
    }

    fn consume(
        &mut self,
        response: Resource<IncomingResponse>,
    ) -> wasmtime::Result<Result<Resource<IncomingBody>, ()>> {
        self.run().enter()?;
        match self.http.responses.get(response.rep())?.body.take() {
            Some(rest) => Ok(Ok(Resource::new_own(self.http.incoming.add(Incoming { rest, lent: false })?))),
            None => Ok(Err(())),
        }
    }

    fn drop(&mut self, response: Resource<IncomingResponse>) -> wasmtime::Result<()> {
        self.http.responses.remove(response.rep());
        Ok(())
    }
}

impl HostIncomingBody for Host {
    fn stream(&mut self, body: Resource<IncomingBody>) -> wasmtime::Result<Result<Resource<Input>, ()>> {
        self.run().enter()?;
        let number = body.rep();
        if std::mem::replace(&mut self.http.incoming.get(number)?.lent, true) {
            return Ok(Err(()));
        }
        Ok(Ok(Resource::new_own(number)))
    }

    fn finish(&mut self, body: Resource<IncomingBody>) -> wasmtime::Result<Resource<FutureTrailers>> {
        self.run().enter()?;
        self.http.incoming.remove(body.rep());
        Ok(Resource::new_own(0))
    }

    fn drop(&mut self, body: Resource<IncomingBody>) -> wasmtime::Result<()> {
        self.http.incoming.remove(body.rep());
        Ok(())
    }
}

/// There are none: they are left out when an answer is read.
impl HostFutureTrailers for Host {
    fn subscribe(&mut self, _: Resource<FutureTrailers>) -> wasmtime::Result<Resource<Pollable>> {
        self.run().enter()?;
        Ok(crate::abi::wasi::always_ready())
    }

    fn get(&mut self, _: Resource<FutureTrailers>) -> Got<Option<Resource<Fields>>> {
        self.run().enter()?;
        Ok(Some(Ok(Ok(None))))
    }

    fn drop(&mut self, _: Resource<FutureTrailers>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// What only a server is given. No guest has one of these.
fn no_server<T>() -> wasmtime::Result<T> {
    Err(wasmtime::Error::msg("it asked for what only a server is given"))
}

impl HostIncomingRequest for Host {
    fn method(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Method> {
        no_server()
    }

    fn path_with_query(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Option<String>> {
        no_server()
    }

    fn scheme(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Option<Scheme>> {
        no_server()
    }

    fn authority(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Option<String>> {
        no_server()
    }

    fn headers(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Resource<Fields>> {
        no_server()
    }

    fn consume(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<Result<Resource<IncomingBody>, ()>> {
        no_server()
    }

    fn drop(&mut self, _: Resource<IncomingRequest>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl HostResponseOutparam for Host {
    fn set(
        &mut self,
        _: Resource<ResponseOutparam>,
        _: Result<Resource<OutgoingResponse>, ErrorCode>,
    ) -> wasmtime::Result<()> {
        no_server()
    }

    fn drop(&mut self, _: Resource<ResponseOutparam>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl HostOutgoingResponse for Host {
    fn new(&mut self, headers: Resource<Fields>) -> wasmtime::Result<Resource<OutgoingResponse>> {
        self.run().enter()?;
        let headers = self.http.take_fields(headers.rep())?;
        Ok(Resource::new_own(self.http.replies.add(held::OutgoingResponse { status: 200, headers })?))
    }

    fn status_code(&mut self, response: Resource<OutgoingResponse>) -> wasmtime::Result<u16> {
        self.run().enter()?;
        Ok(self.http.replies.get(response.rep())?.status)
    }

    fn set_status_code(
        &mut self,
        response: Resource<OutgoingResponse>,
        status: u16,
    ) -> wasmtime::Result<Result<(), ()>> {
        self.run().enter()?;
        self.http.replies.get(response.rep())?.status = status;
        Ok(if (100..=599).contains(&status) { Ok(()) } else { Err(()) })
    }

    fn headers(&mut self, response: Resource<OutgoingResponse>) -> wasmtime::Result<Resource<Fields>> {
        self.run().enter()?;
        let headers = self.http.replies.get(response.rep())?.headers.clone();
        self.lend(&headers)
    }

    fn body(&mut self, _: Resource<OutgoingResponse>) -> wasmtime::Result<Result<Resource<OutgoingBody>, ()>> {
        self.run().enter()?;
        Ok(Ok(Resource::new_own(self.http.outgoing.add(Outgoing::default())?)))
    }

    fn drop(&mut self, response: Resource<OutgoingResponse>) -> wasmtime::Result<()> {
        self.http.replies.remove(response.rep());
        Ok(())
    }
}
