//! The one error type. `web` alone knows which body a kind becomes; nobody else thinks in status codes.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, sync::Arc};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms that hold for every service. The comment is the usual HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    BadRequest,           // 400
    Unauthorized,         // 401
    Forbidden,            // 403
    OverQuota,            // 403 nova and glance, 413 cinder, 409 neutron
    NotFound,             // 404
    MethodNotAllowed,     // 405
    NotAcceptable,        // 406
    Conflict,             // 409
    Gone,                 // 410
    PreconditionFailed,   // 412
    TooLarge,             // 413
    UnsupportedMediaType, // 415
    RangeNotSatisfiable,  // 416
    Unprocessable,        // 422
    TooManyRequests,      // 429
    Internal,             // 500; the message stays inside
    NotImplemented,       // 501
    Unavailable,          // 503; worth a retry
    Timeout,              // 504; the outcome is unknown: observe, then decide
}

/// A failure: its kind, a public message in OpenStack's wording, a private cause that is only logged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Error {
    pub kind: ErrorKind,
    /// Shown to the caller (for `Internal` the fault body replaces it).
    pub message: String,
    /// The name by which a service's clients tell errors apart: neutron's exception class
    /// (`NetworkNotFound`), placement's code (`placement.concurrent_update`).
    #[serde(default)]
    pub code: Option<Cow<'static, str>>,
    #[serde(skip)]
    cause: Option<Arc<anyhow::Error>>,
}

macro_rules! constructors {
    ($($name:ident $kind:ident),* $(,)?) => {
        impl Error { $(
            #[doc = concat!("An error of kind `", stringify!($kind), "` with its public message.")]
            pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) }
        )* }
    };
}

constructors! {
    bad_request BadRequest, unauthorized Unauthorized, forbidden Forbidden, over_quota OverQuota,
    not_found NotFound, method_not_allowed MethodNotAllowed, not_acceptable NotAcceptable, conflict Conflict,
    gone Gone, precondition_failed PreconditionFailed, too_large TooLarge,
    unsupported_media_type UnsupportedMediaType, range_not_satisfiable RangeNotSatisfiable,
    unprocessable Unprocessable, too_many_requests TooManyRequests, not_implemented NotImplemented,
    unavailable Unavailable, timeout Timeout,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, cause: None }
    }

    /// Something of ours is broken. The message is logged, never shown.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub fn cause(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(Arc::new(cause.into()));
        self
    }

    pub fn is(&self, kind: ErrorKind) -> bool {
        self.kind == kind
    }

    /// Whether trying the same again may help: nothing answered, or nobody was there.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }

    pub fn private_cause(&self) -> Option<&anyhow::Error> {
        self.cause.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        match &self.cause {
            Some(cause) => write!(f, " (caused by {cause:#})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// A foreign error that nobody translated is ours to mend, not the caller's.
impl From<anyhow::Error> for Error {
    fn from(cause: anyhow::Error) -> Self {
        Self::internal(cause.to_string()).cause(cause)
    }
}

impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        Self::internal(cause.to_string()).cause(cause)
    }
}

impl From<serde_json::Error> for Error {
    fn from(cause: serde_json::Error) -> Self {
        Self::internal(format!("json: {cause}")).cause(cause)
    }
}
