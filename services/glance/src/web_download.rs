//! Fetches images from where everybody could, never from this machine or the networks behind it. Each address is judged
//! once and then connected to, for the first URL and after every redirect, so that neither names that change their
//! address nor redirects lead inside.

use crate::{
    Options,
    bytes::{Chunks, Upload},
    http::{self, Parts, Target},
};
use axum::{
    body::Body,
    http::{StatusCode, Uri, header},
};
use base::{Error, Result};
use futures::TryStreamExt;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

const REDIRECTS_MAX: usize = 5;

/// None: it may not be fetched.
pub async fn target(uri: &str, options: &Options) -> Option<Target> {
    let parts = Parts::of(uri)?;
    if !options.web_download_ports.contains(&parts.port) {
        return None;
    }
    // Resolvers read "127.1" and "0x7f000001" as addresses: what is no name and no proper address is refused.
    let is_address = parts.host.parse::<IpAddr>().is_ok();
    let last_label = parts.host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if !is_address && (last_label.starts_with("0x") || last_label.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let is_private_allowed = options.web_download_private_hosts.contains(&parts.host);
    let found = parts.addresses().await;
    let address = found.into_iter().find(|address| is_private_allowed || is_public(address.ip()))?;
    Some(Target { uri: parts.uri, address })
}

/// What is behind the URL, or a part of it, and how long all of it is, where the server says.
pub async fn open(
    first: Target,
    range: Option<Range<u64>>,
    options: &Options,
) -> Result<(Chunks, Option<u64>)> {
    let mut next = first;
    for _ in 0..=REDIRECTS_MAX {
        let mut request = http::request(&next, "GET");
        if let Some(range) = &range {
            request =
                request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end.max(1) - 1));
        }
        let request = request.body(Body::empty());
        let request = request.map_err(|e| Error::bad_request(format!("{}: {e}", next.uri)))?;
        let response = http::send(&next, request).await?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = joined(&next.uri, location.unwrap_or_default());
            let refused = || Error::bad_request(format!("redirected to {location}, which is not allowed"));
            next = target(&location, options).await.ok_or_else(refused)?;
            continue;
        }
        let wanted = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        if status != wanted {
            return Err(Error::bad_request(format!("{} answered {status}", next.uri)));
        }
        let length =
            response.headers().get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
        return Ok((http::chunks(response.into_body()), length));
    }
    Err(Error::bad_request(format!("more than {REDIRECTS_MAX} redirects")))
}

/// Writes what comes into the upload, up to the largest image that is taken.
pub async fn take(mut chunks: Chunks, into: &mut Upload, options: &Options) -> Result<()> {
    let cap = options.image_size_cap_bytes;
    let cut_off = |e: std::io::Error| Error::unavailable(format!("the download was cut off: {e}"));
    while let Some(bytes) = chunks.try_next().await.map_err(cut_off)? {
        if into.size() + bytes.len() as u64 > cap {
            return Err(Error::too_large(format!("The incoming image is too large: more than {cap} bytes")));
        }
        into.write(bytes).await?;
    }
    Ok(())
}

/// A redirect's address: whole, or a path on the same host.
fn joined(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("http");
    match (location.starts_with('/') && !location.starts_with("//"), from.authority()) {
        (true, Some(authority)) => format!("{scheme}://{authority}{location}"),
        _ => location.to_string(),
    }
}

/// Whether an address is one that anybody on the Internet means by it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_carriers = first == 100 && (64..128).contains(&second);
    let is_benchmark = first == 198 && (18..20).contains(&second);
    !(first == 0
        || first >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || is_carriers
        || is_benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let inside = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // IPv4 in other clothes: mapped and compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => inside(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inside(high, low),
        [0x64, 0xff9b, 1, ..] => false,
        [0x2002, high, low, ..] => inside(high, low),
        // Only 2000::/3 is given out to the world; Teredo hides an address within.
        [0x2001, 0, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses() {
        let inner = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::",
        ];
        for text in inner {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in
            ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8", "2002:808:808::"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn what_may_be_fetched() {
        let options = Options { web_download_private_hosts: vec!["127.0.0.2".into()], ..Options::default() };
        for good in [
            "http://8.8.8.8/x",
            "https://8.8.8.8/x",
            "http://8.8.8.8:443/",
            "http://127.0.0.2/x",
            "http://[2606:4700::1]/x",
        ] {
            assert!(target(good, &options).await.is_some(), "{good}");
        }
        let refused = [
            "",
            "x",
            "/x",
            "ftp://8.8.8.8/",
            "file:///etc/passwd",
            "http://127.0.0.1/",
            "https://127.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://8.8.8.8:8080/",
            "http://localhost/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://8.8.8.8@127.0.0.1/",
            "http://127.0x0.0.0x1/",
        ];
        for bad in refused {
            assert!(target(bad, &options).await.is_none(), "{bad}");
        }
    }

    #[test]
    fn redirects_within_a_host() {
        let from: Uri = "http://a:80/x?y".parse().unwrap();
        assert_eq!(joined(&from, "/z"), "http://a:80/z");
        assert_eq!(joined(&from, "http://b/"), "http://b/");
        assert_eq!(joined(&from, "//b/"), "//b/");
    }
}
