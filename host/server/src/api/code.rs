//! The codes of problems: stable, each with a page of its own (`docs/errors/<code>.md`).

use axum::http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in `type` and `code`.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The kind of problem in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The page about it, as Markdown.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../../../docs/errors/", $text, ".md")),)*
                }
            }
        }
    };
}

codes! {
    /// The `Authorization` header is missing or has another form.
    KeyMissing = "key-missing", UNAUTHORIZED, "No key";
    /// The key is mistyped, unknown, revoked, or its secret is wrong.
    KeyInvalid = "key-invalid", UNAUTHORIZED, "The key is not valid";
    /// A key stands in the URL.
    KeyInUrl = "key-in-url", BAD_REQUEST, "A key in the URL";
    /// Too many wrong secrets for one key.
    TooManyFailures = "too-many-failures", TOO_MANY_REQUESTS, "Too many wrong keys";
    /// The key lacks a scope.
    ScopeMissing = "scope-missing", FORBIDDEN, "The key may not do this";
    /// A version asks for more than its predecessor, and the key may not agree to that.
    ConsentNeeded = "consent-needed", FORBIDDEN, "More rights need consent";
    /// A tenant's key where an operator's is needed.
    OperatorOnly = "operator-only", FORBIDDEN, "Only for the operator";
    /// An operator's key where a tenant's is needed.
    TenantOnly = "tenant-only", FORBIDDEN, "Only for a tenant";
    /// The tenant is suspended.
    TenantSuspended = "tenant-suspended", FORBIDDEN, "The tenant is suspended";

    /// No route has this path.
    NoSuchRoute = "no-such-route", NOT_FOUND, "No such path";
    /// The route does not know the method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Another method is needed";
    /// The thing named is not there.
    NotFound = "not-found", NOT_FOUND, "Not found";

    /// The query has a parameter that is not known, or a value that does not fit.
    QueryInvalid = "query-invalid", BAD_REQUEST, "The query is not valid";
    /// The cursor was not given by this host for this list.
    CursorInvalid = "cursor-invalid", BAD_REQUEST, "The cursor is not valid";
    /// The body is not in the format that it claims to be in.
    BodyMalformed = "body-malformed", BAD_REQUEST, "The body cannot be read";
    /// The body is larger than it may be.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body came too slowly.
    BodyTooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body came too slowly";
    /// The media type is none of those that are taken.
    MediaType = "media-type", UNSUPPORTED_MEDIA_TYPE, "Another media type is needed";

    /// No event of the request was taken.
    EventsRejected = "events-rejected", UNPROCESSABLE_ENTITY, "No event was accepted";
    /// A field of the body has a value that does not fit.
    FieldInvalid = "field-invalid", UNPROCESSABLE_ENTITY, "A field is not valid";
    /// A condition (`where`) does not compile.
    ConditionInvalid = "condition-invalid", UNPROCESSABLE_ENTITY, "The condition is not valid";
    /// A rule or a set of rules is not valid.
    RuleInvalid = "rule-invalid", UNPROCESSABLE_ENTITY, "The rule is not valid";
    /// A manifest is not valid.
    ManifestInvalid = "manifest-invalid", UNPROCESSABLE_ENTITY, "The manifest is not valid";
    /// A component cannot run here.
    PluginRefused = "plugin-refused", UNPROCESSABLE_ENTITY, "The plugin is refused";
    /// An upload has no signature, and the host takes only signed ones.
    SignatureMissing = "signature-missing", UNPROCESSABLE_ENTITY, "A signature is needed";
    /// An upload's signature is not good for it.
    SignatureInvalid = "signature-invalid", UNPROCESSABLE_ENTITY, "The signature does not count";
    /// A plugin's settings do not fit what its manifest declares.
    ConfigInvalid = "config-invalid", UNPROCESSABLE_ENTITY, "The settings are not valid";
    /// A sink is not valid.
    SinkInvalid = "sink-invalid", UNPROCESSABLE_ENTITY, "The sink is not valid";

    /// The thing is there already, or is not in the state that the request needs.
    Conflict = "conflict", CONFLICT, "It is not as the request expects";
    /// A plugin asks for a preview of a version before it runs, and there is none that is enough.
    PreviewRequired = "preview-required", CONFLICT, "A preview is needed first";
    /// Something changed since the caller looked (`If-Match`).
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "It has changed meanwhile";
    /// The tenant has as many live streams open as it may.
    TooManyStreams = "too-many-streams", TOO_MANY_REQUESTS, "Too many live streams";

    /// The tenant hands in more events than it may.
    LimitRate = "limit-rate", TOO_MANY_REQUESTS, "Too many events at once";
    /// As much waits to be worked off as may.
    LimitBacklog = "limit-backlog", TOO_MANY_REQUESTS, "The backlog is full";
    /// The tenant's plugins keep more than they may.
    LimitStorage = "limit-storage", TOO_MANY_REQUESTS, "The storage is full";

    /// The host has more to do than it can; later it may be otherwise.
    Busy = "busy", SERVICE_UNAVAILABLE, "The host is busy";
    /// The store cannot be reached or cannot take writes.
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE, "The store is unavailable";
    /// The store's disk is full.
    StoreFull = "store-full", INSUFFICIENT_STORAGE, "The store is full";
    /// A fault of the host.
    Internal = "internal", INTERNAL_SERVER_ERROR, "A fault of the host";
}
