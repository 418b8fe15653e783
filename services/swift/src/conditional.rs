//! Conditions and ranges: whether bytes are sent at all, and which.

use crate::call::header;
use base::Timestamp;
use std::time::{Duration, UNIX_EPOCH};
use web::{HeaderMap, Method};

const RANGES_MAX: usize = 50;
const OVERLAPPING_MAX: usize = 2;
const UNORDERED_MAX: usize = 8;

/// The time as HTTP has it: whole seconds, never before the moment itself.
pub fn http_date(time: Timestamp) -> String {
    Timestamp::from_unix_seconds(ceiling(time)).format("%a, %d %b %Y %H:%M:%S GMT")
}

fn ceiling(time: Timestamp) -> i64 {
    -(-time.0).div_euclid(1_000_000)
}

/// 304 or 412 where a condition says so.
pub fn refused(headers: &HeaderMap, method: &Method, etag: &str, modified: Timestamp) -> Option<u16> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let unchanged = if reads { 304 } else { 412 };
    if header(headers, "if-none-match").is_some_and(|list| has_etag(list, etag)) {
        return Some(unchanged);
    }
    if header(headers, "if-match").is_some_and(|list| !has_etag(list, etag)) {
        return Some(412);
    }
    let date = |name: &str| {
        let time = httpdate::parse_http_date(header(headers, name)?).ok()?;
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        i64::try_from(seconds).ok()
    };
    if date("if-modified-since").is_some_and(|since| ceiling(modified) <= since) {
        return Some(unchanged);
    }
    if date("if-unmodified-since").is_some_and(|since| ceiling(modified) > since) {
        return Some(412);
    }
    None
}

fn has_etag(list: &str, etag: &str) -> bool {
    let bare = |one: &str| one.trim().trim_start_matches("W/").trim_matches('"').to_string();
    let etag = bare(etag);
    list.split(',').map(bare).any(|one| one == "*" || one == etag)
}

/// Beginning and end (not included) of each part that is asked for. None: all of it. Empty: nothing can be given.
pub fn ranges(headers: &HeaderMap, length: u64) -> Option<Vec<(u64, u64)>> {
    let asked = parse(header(headers, "range")?)?;
    if asked.len() > RANGES_MAX {
        return Some(Vec::new());
    }
    let mut found: Vec<(u64, u64)> = Vec::new();
    for one in asked {
        let range = match one {
            (Some(first), _) if first >= length => continue,
            (Some(first), Some(last)) => (first, last.saturating_add(1).min(length)),
            (Some(first), None) => (first, length),
            (None, Some(count)) if count > 0 && length > 0 => (length.saturating_sub(count), length),
            _ => continue,
        };
        found.push(range);
    }
    let unordered = found.windows(2).filter(|two| two[1].0 < two[0].0).count();
    let overlaps =
        |(n, a): (usize, &(u64, u64))| found[..n].iter().filter(|b| a.0 < b.1 && b.0 < a.1).count();
    let overlapping: usize = found.iter().enumerate().map(overlaps).sum();
    if unordered >= UNORDERED_MAX || overlapping > OVERLAPPING_MAX {
        return Some(Vec::new());
    }
    Some(found)
}

type Asked = (Option<u64>, Option<u64>);

/// None: not understood, and so as if it were not there.
fn parse(text: &str) -> Option<Vec<Asked>> {
    let list = text.trim().strip_prefix("bytes=")?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let mut asked = Vec::new();
    for one in list.split(',').map(str::trim) {
        let (first, last) = one.split_once('-')?;
        let range = match (first.trim(), last.trim()) {
            ("", "") => return None,
            ("", count) => (None, Some(number(count)?)),
            (first, "") => (Some(number(first)?), None),
            (first, last) => (Some(number(first)?), Some(number(last)?)),
        };
        if let (Some(first), Some(last)) = range
            && last < first
        {
            return None;
        }
        asked.push(range);
    }
    Some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.try_into().unwrap(), value.try_into().unwrap())])
    }

    #[test]
    fn parts() {
        for (text, expected) in [
            ("bytes=0-4", Some(vec![(0, 5)])),
            ("bytes=5-", Some(vec![(5, 22)])),
            ("bytes=-5", Some(vec![(17, 22)])),
            ("bytes=-50", Some(vec![(0, 22)])),
            ("bytes=0-1, 4-900", Some(vec![(0, 2), (4, 22)])),
            ("bytes=22-", Some(vec![])),
            ("bytes=-0", Some(vec![])),
            ("bytes=0-1,30-40", Some(vec![(0, 2)])),
            ("bytes=4-1", None),
            ("bytes=x-1", None),
            ("bytes=-", None),
            ("lines=1-2", None),
            ("bytes=0-9,0-9,0-9", Some(vec![])),
        ] {
            assert_eq!(ranges(&headers("range", text), 22), expected, "{text}");
        }
        assert_eq!(ranges(&headers("range", "bytes=0-"), 0), Some(vec![]));
    }

    #[test]
    fn conditions() {
        let modified = Timestamp(1_000_000_000_400_000);
        let told = http_date(modified);
        assert_eq!(told, "Sun, 09 Sep 2001 01:46:41 GMT");
        let earlier = "Sun, 09 Sep 2001 01:46:40 GMT";
        for (name, value, expected) in [
            ("if-none-match", "\"e\"", Some(304)),
            ("if-none-match", "x, e", Some(304)),
            ("if-none-match", "*", Some(304)),
            ("if-none-match", "\"x\"", None),
            ("if-match", "\"e\"", None),
            ("if-match", "x", Some(412)),
            ("if-modified-since", told.as_str(), Some(304)),
            ("if-modified-since", earlier, None),
            ("if-unmodified-since", told.as_str(), None),
            ("if-unmodified-since", earlier, Some(412)),
            ("if-modified-since", "yesterday", None),
        ] {
            let said = refused(&headers(name, value), &Method::GET, "e", modified);
            assert_eq!(said, expected, "{name}: {value}");
        }
        assert_eq!(refused(&headers("if-none-match", "*"), &Method::PUT, "e", modified), Some(412));
    }
}
