//! `wasi:http` for clients: requests on the capability, with bodies held whole on either side.
//!
//! Linked for every plugin, as everything is; without the grant, what is asked is answered by `HTTP-request-denied`.
//! What belongs to servers can be made and leads nowhere. Handles are those of one call: what a guest keeps of an
//! earlier one is gone.
//!
//! A request is sent when its body is finished; until then nothing can come back. Whoever waits for it earlier is told
//! so.

mod fields;
mod held;
mod request;
mod response;

use wasmtime::component::HasData;
use wasmtime::component::Linker;
use wasmtime::component::Resource;

pub(crate) use self::held::Held;
pub(crate) use self::held::Written;
use super::host::Host;
use crate::outbound::Fault;

/// What the WIT becomes. Streams and pollables are those of our own `wasi:io`.
#[allow(missing_docs, dead_code, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "bulkhead:portable/outbound",
        imports: { default: trappable },
        with: {
            "wasi:io/error.error": crate::abi::wasi::IoError,
            "wasi:io/poll.pollable": crate::abi::wasi::Pollable,
            "wasi:io/streams.input-stream": crate::abi::wasi::Input,
            "wasi:io/streams.output-stream": crate::abi::wasi::Output,
        },
    });
}

use self::bindings::wasi::http::outgoing_handler;
use self::bindings::wasi::http::types;
use self::bindings::wasi::http::types::DnsErrorPayload;
use self::bindings::wasi::http::types::ErrorCode;
use self::held::Future;

/// What the host functions are given.
struct Http;

impl HasData for Http {
    type Data<'a> = &'a mut Host;
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    types::add_to_linker::<Host, Http>(linker, |host| host)?;
    outgoing_handler::add_to_linker::<Host, Http>(linker, |host| host)
}

impl Host {
    /// Waits until an exchange is over.
    pub(crate) fn await_exchange(&mut self, future: u32) -> wasmtime::Result<()> {
        // What a guest waits for of an earlier call is long over.
        if let Ok(Future::Begun(number)) = self.http.futures.get(future) {
            let number = *number;
            self.run().http_wait(number)?;
        }
        Ok(())
    }

    /// Bytes that a request's body may have.
    pub(crate) fn request_bytes(&mut self) -> usize {
        self.run().setup.limits.http.request_bytes
    }
}

impl types::Host for Host {
    fn http_error_code(&mut self, error: Resource<crate::abi::wasi::IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        self.run().enter()?;
        let limit = self.request_bytes();
        Ok((error.rep() == crate::abi::wasi::TOO_LARGE).then_some(code(Fault::RequestTooLarge(limit))))
    }
}

/// A fault in the words of `wasi:http`.
fn code(fault: Fault) -> ErrorCode {
    let size = |bytes: usize| u64::try_from(bytes).ok();
    match fault {
        Fault::Denied(_) => ErrorCode::HttpRequestDenied,
        Fault::Invalid(_) => ErrorCode::HttpRequestUriInvalid,
        Fault::Prohibited(_) => ErrorCode::DestinationIpProhibited,
        Fault::Busy(_) => ErrorCode::ConnectionLimitReached,
        Fault::Name => ErrorCode::DnsError(DnsErrorPayload { rcode: None, info_code: None }),
        Fault::Refused => ErrorCode::ConnectionRefused,
        Fault::Unreachable => ErrorCode::DestinationUnavailable,
        Fault::Tls(_) => ErrorCode::TlsCertificateError,
        Fault::ConnectTimeout => ErrorCode::ConnectionTimeout,
        Fault::Timeout => ErrorCode::HttpResponseTimeout,
        Fault::Broken => ErrorCode::HttpResponseIncomplete,
        Fault::RequestTooLarge(limit) => ErrorCode::HttpRequestBodySize(size(limit)),
        Fault::ResponseTooLarge(limit) => ErrorCode::HttpResponseBodySize(size(limit)),
        Fault::HeadersTooLarge(limit) => ErrorCode::HttpResponseHeaderSectionSize(u32::try_from(limit).ok()),
        Fault::Unrecorded => ErrorCode::InternalError(Some(Fault::Unrecorded.to_string())),
    }
}
