//! A request as swift reads it: which account, container and object, by whom, with what.

use crate::answer::{Outcome, refuse, refuse_with};
use axum::body::Body;
use base::{Context, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::{net::IpAddr, sync::Mutex};
use web::{HeaderMap, Method, Query, Request};

/// Where a request goes. Empty: not that deep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub account: String,
    pub container: String,
    pub object: String,
}

/// Who lets a request in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// The token and the access lists.
    #[default]
    Asked,
    /// A signature, for this container or account, and what begins so.
    Signed { account: String, container: Option<String> },
}

pub struct Call {
    pub method: Method,
    pub place: Place,
    pub query: Query,
    pub headers: HeaderMap,
    /// In a mutex only to be shareable: nobody else waits for it.
    pub body: Mutex<Body>,
    /// Nobody: no token, or none that holds.
    pub who: Option<Context>,
    pub leave: Leave,
    pub base_url: String,
    pub peer: Option<IpAddr>,
    /// As the client wrote it.
    pub path: String,
    pub now: Timestamp,
}

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// As swift writes names into URLs and headers.
pub fn quoted(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

/// None: not UTF-8, or with a zero in it.
pub fn unquoted(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains('\0')).then(|| text.into_owned())
}

/// What stands in a header; none when it is not UTF-8.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// What swift takes for yes.
pub fn is_true(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "true" | "1" | "yes" | "on" | "t" | "y")
}

impl Place {
    /// Of `/v1/AUTH_x/c/o/with/slashes`.
    pub fn parse(path: &str) -> Outcome<Self> {
        let path = unquoted(path).ok_or_else(|| refuse_with(412, "Invalid UTF8 or contains NULL"))?;
        let mut parts = path.splitn(5, '/').skip(2);
        let mut next = || parts.next().unwrap_or_default().to_string();
        let place = Self { account: next(), container: next(), object: next() };
        let hollow = place.account.is_empty() || (place.container.is_empty() && !place.object.is_empty());
        if hollow { Err(refuse(404)) } else { Ok(place) }
    }

    /// Of `container/object`, as headers have it.
    pub fn of_header(account: &str, text: &str) -> Option<Self> {
        let text = unquoted(text)?;
        let (container, object) = text.trim_start_matches('/').split_once('/')?;
        let whole = !container.is_empty() && !object.is_empty();
        whole.then(|| Self { account: account.into(), container: container.into(), object: object.into() })
    }

    pub fn is_account(&self) -> bool {
        self.container.is_empty()
    }

    pub fn is_object(&self) -> bool {
        !self.object.is_empty()
    }

    pub fn url_path(&self) -> String {
        let whole = format!("/v1/{}/{}/{}", self.account, self.container, self.object);
        quoted(whole.trim_end_matches('/'))
    }
}

impl Call {
    pub fn read(mut request: Request, now: Timestamp) -> Outcome<Self> {
        let place = Place::parse(&request.path)?;
        let body = Mutex::new(request.stream());
        let who = (!request.ctx.user_id.is_empty()).then_some(request.ctx);
        Ok(Self {
            method: request.method,
            place,
            query: request.query,
            headers: request.headers,
            body,
            who,
            leave: Leave::default(),
            base_url: request.base_url,
            peer: request.peer,
            path: request.path,
            // Swift's times have five digits.
            now: Timestamp(now.0 - now.0.rem_euclid(10)),
        })
    }

    /// Another request in the same name, for a part of what this one asks.
    pub fn within(&self, method: Method, place: Place) -> Self {
        Self {
            method,
            path: place.url_path(),
            place,
            query: Query::default(),
            headers: HeaderMap::new(),
            body: Mutex::default(),
            who: self.who.clone(),
            leave: self.leave.clone(),
            base_url: self.base_url.clone(),
            peer: self.peer,
            now: self.now,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        crate::answer::set(&mut self.headers, name, value);
    }

    /// The body; a second call gives an empty one.
    pub fn take_body(&mut self) -> Body {
        self.body.get_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    pub fn content_length(&self) -> Outcome<Option<u64>> {
        let Some(text) = self.header("content-length") else { return Ok(None) };
        let length = text.trim().parse();
        length.map(Some).map_err(|_| refuse_with(400, "Invalid Content-Length header value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let parts = |path: &str| {
            let place = Place::parse(path).ok()?;
            Some([place.account, place.container, place.object])
        };
        let some = |a: &str, c: &str, o: &str| Some([a.to_string(), c.to_string(), o.to_string()]);
        assert_eq!(parts("/v1/a"), some("a", "", ""));
        assert_eq!(parts("/v1/a/"), some("a", "", ""));
        assert_eq!(parts("/v1/a/c/"), some("a", "c", ""));
        assert_eq!(parts("/v1/a/c//o/"), some("a", "c", "/o/"));
        assert_eq!(parts("/v1/a/c%2Fo%20o"), some("a", "c", "o o"));
        for wrong in ["/v1", "/v1/", "/v1//c", "/v1/a//o", "/v1/a/%ff", "/v1/a/c/%00"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        assert_eq!(Place::of_header("a", "/c/o%2Fp").unwrap().object, "o/p");
        assert_eq!(Place::of_header("a", "c/"), None);
        assert_eq!(Place { account: "a".into(), ..Place::default() }.url_path(), "/v1/a");
    }
}
