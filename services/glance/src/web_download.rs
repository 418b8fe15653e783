//! Fetches images for `web-download`: from where everybody could, never from this machine or the networks behind it.
//! Each address is judged once and then connected to, for the first URL and after every redirect, so that neither
//! names that change their address nor redirects lead inside.

use crate::{Glance, Options, bytes::Upload};
use axum::http::{Request, StatusCode, Uri, header};
use base::{Error, Result};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

const REDIRECTS_MAX: usize = 5;
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// A server that sends nothing for so long has gone.
const SILENT_AT_MOST: Duration = Duration::from_secs(60);

/// A URL that may be fetched, with the address that was judged.
#[derive(Clone)]
pub struct Target {
    uri: Uri,
    address: SocketAddr,
}

/// None: it may not be fetched.
pub async fn target(uri: &str, options: &Options) -> Option<Target> {
    let uri: Uri = uri.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_string();
    let port = uri.port_u16().unwrap_or(80);
    if !options.web_download_ports.contains(&port) {
        return None;
    }
    // Resolvers read "127.1" and "0x7f000001" as addresses: what is no name and no proper address is refused.
    let is_address = host.parse::<IpAddr>().is_ok();
    let last_label = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if !is_address && (last_label.starts_with("0x") || last_label.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let is_private_allowed = options.web_download_private_hosts.contains(&host);
    let found = timeout(CONNECT_WITHIN, tokio::net::lookup_host((host.as_str(), port))).await.ok()?.ok()?;
    let address = found.into_iter().find(|address| is_private_allowed || is_public(address.ip()))?;
    Some(Target { uri, address })
}

/// Writes what is behind the URL into the upload.
pub async fn fetch(glance: &Glance, first: Target, into: &mut Upload) -> Result<()> {
    let mut next = first;
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&next).await?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = joined(&next.uri, location.unwrap_or_default());
            let refused = || Error::bad_request(format!("redirected to {location}, which is not allowed"));
            next = target(&location, &glance.options).await.ok_or_else(refused)?;
            continue;
        }
        if status != StatusCode::OK {
            return Err(Error::bad_request(format!("{} answered {status}", next.uri)));
        }
        return take(glance, response.into_body(), into).await;
    }
    Err(Error::bad_request(format!("more than {REDIRECTS_MAX} redirects")))
}

async fn get(target: &Target) -> Result<hyper::Response<hyper::body::Incoming>> {
    let unreachable = |e: &dyn std::fmt::Display| Error::unavailable(format!("{}: {e}", target.uri));
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(target.address))
        .await
        .map_err(|e| unreachable(&e))?
        .map_err(|e| unreachable(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(connection);
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = target.uri.authority().map_or("", |authority| authority.as_str());
    // Credentials in a URL are not the host's name.
    let host = host.rsplit('@').next().unwrap_or(host);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "ferrostack")
        .body(Empty::<::bytes::Bytes>::new())
        .map_err(|e| Error::bad_request(format!("{}: {e}", target.uri)))?;
    let answer = timeout(SILENT_AT_MOST, sender.send_request(request)).await;
    answer.map_err(|e| unreachable(&e))?.map_err(|e| unreachable(&e))
}

async fn take(glance: &Glance, mut body: hyper::body::Incoming, into: &mut Upload) -> Result<()> {
    let cut_off = |e: &dyn std::fmt::Display| Error::unavailable(format!("the download was cut off: {e}"));
    let cap = glance.options.image_size_cap_bytes;
    while let Some(frame) = timeout(SILENT_AT_MOST, body.frame()).await.map_err(|e| cut_off(&e))? {
        let Ok(bytes) = frame.map_err(|e| cut_off(&e))?.into_data() else { continue };
        if into.size() + bytes.len() as u64 > cap {
            return Err(Error::too_large(format!("The incoming image is too large: more than {cap} bytes")));
        }
        into.write(bytes).await?;
    }
    Ok(())
}

/// A redirect's address: whole, or a path on the same host.
fn joined(from: &Uri, location: &str) -> String {
    match (location.starts_with('/') && !location.starts_with("//"), from.authority()) {
        (true, Some(authority)) => format!("http://{authority}{location}"),
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
        for good in
            ["http://8.8.8.8/x", "http://8.8.8.8:443/", "http://127.0.0.2/x", "http://[2606:4700::1]/x"]
        {
            assert!(target(good, &options).await.is_some(), "{good}");
        }
        let refused = [
            "",
            "x",
            "/x",
            "ftp://8.8.8.8/",
            "file:///etc/passwd",
            "http://127.0.0.1/",
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
