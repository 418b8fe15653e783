//! Microversions by header, and what each service answers when one is wrong.

use axum::http::{HeaderMap, HeaderValue};
use base::{Error, Result, Version};

/// A service's range and header names.
#[derive(Clone, Copy, Debug)]
pub struct Microversions {
    /// The service type in `OpenStack-API-Version: compute 2.1`.
    pub service: &'static str,
    /// The older header of its own, `X-OpenStack-Nova-API-Version`; read and answered where it exists.
    pub legacy_header: Option<&'static str>,
    pub min: Version,
    pub max: Version,
}

pub(crate) const HEADER: &str = "openstack-api-version";

impl Microversions {
    /// The version that the headers ask for: none of ours asked means the lowest.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Version> {
        let Some(text) = self.asked(headers) else {
            // Cinder does not pass over a header that names other services alone.
            return match self.service == "volume" && headers.contains_key(HEADER) {
                true => Err(Error::bad_request(
                    "The server could not comply with the request since it is either malformed or otherwise incorrect.",
                )),
                false => Ok(self.min),
            };
        };
        if text.eq_ignore_ascii_case("latest") {
            return Ok(self.max);
        }
        let version: Version = text.parse().map_err(|()| self.malformed(&text))?;
        // Nova takes `2.1` and not `2.01`.
        if self.service == "compute" && version.to_string() != text {
            return Err(self.malformed(&text));
        }
        if version < self.min || version > self.max {
            return Err(self.unacceptable(version));
        }
        Ok(version)
    }

    /// Nova's answer names a version that it does not have all the same; cinder's one that is too new.
    pub(crate) fn told_although_refused(&self, headers: &HeaderMap) -> Option<Version> {
        let version: Version = self.asked(headers)?.parse().ok()?;
        let told = self.service == "compute" || (self.service == "volume" && version > self.max);
        (told && !(self.min..=self.max).contains(&version)).then_some(version)
    }

    /// Says in the answer which version it is in.
    pub(crate) fn tell(&self, version: Version, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set(HEADER, format!("{} {version}", self.service));
        match self.legacy_header {
            Some(name) => {
                set(name, version.to_string());
                set("vary", "X-OpenStack-Nova-API-Version".into());
            }
            None if self.service == "placement" => set("vary", "openstack-api-version".into()),
            None => set("vary", "OpenStack-API-Version".into()),
        }
    }

    fn asked(&self, headers: &HeaderMap) -> Option<String> {
        let ours = |text: &str| {
            text.split(',').find_map(|part| {
                let (service, version) = part.trim().split_once(char::is_whitespace)?;
                service.eq_ignore_ascii_case(self.service).then(|| version.trim().to_string())
            })
        };
        let standard = headers.get_all(HEADER).iter().filter_map(|v| v.to_str().ok()).find_map(ours);
        standard.or_else(|| Some(headers.get(self.legacy_header?)?.to_str().ok()?.trim().to_string()))
    }

    fn malformed(&self, text: &str) -> Error {
        if self.service == "placement" {
            let part = text.split('.').find(|part| part.parse::<u16>().is_err()).unwrap_or(text);
            return Error::bad_request(format!(
                "Invalid microversion: invalid version string: {text}; invalid literal for int() with base 10: '{part}'"
            ));
        }
        Error::bad_request(format!(
            "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
        ))
    }

    fn unacceptable(&self, version: Version) -> Error {
        if self.service == "placement" {
            return Error::not_acceptable(format!(
                "Invalid microversion: Unacceptable version header: {version}"
            ));
        }
        Error::not_acceptable(format!(
            "Version {version} is not supported by the API. Minimum is {} and maximum is {}.",
            self.min, self.max
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPUTE: Microversions = Microversions {
        service: "compute",
        legacy_header: Some("x-openstack-nova-api-version"),
        min: Version(2, 1),
        max: Version(2, 104),
    };

    #[test]
    fn headers_are_read_as_clients_send_them() {
        let cases = [
            (vec![], Ok(Version(2, 1))),
            (vec![(HEADER, "compute 2.87")], Ok(Version(2, 87))),
            (vec![(HEADER, "volume 3.1, compute 2.9")], Ok(Version(2, 9))),
            (vec![(HEADER, "volume 3.1")], Ok(Version(2, 1))),
            (vec![(HEADER, "compute latest")], Ok(Version(2, 104))),
            (vec![("x-openstack-nova-api-version", "2.3")], Ok(Version(2, 3))),
            (
                vec![(HEADER, "compute 2.999")],
                Err("Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.104."),
            ),
            (
                vec![(HEADER, "compute x")],
                Err("API Version String x is of invalid format. Must be of format MajorNum.MinorNum."),
            ),
        ];
        for (given, wanted) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in &given {
                headers.append(*name, value.parse().unwrap());
            }
            let got = COMPUTE.negotiate(&headers).map_err(|e| e.message);
            assert_eq!(got, wanted.map_err(String::from), "{given:?}");
        }
    }
}
