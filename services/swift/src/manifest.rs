//! Manifests of static large objects: what clients write, what is kept, what is told again.

use crate::{
    answer::{Outcome, refuse, refuse_with},
    call::{Place, quoted},
    conditional,
    segments::{Segment, Source},
};
use base::Json;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::json;

/// An entry as the client wrote it.
#[derive(Clone, Debug)]
pub enum Entry {
    Inline(Bytes),
    Object { path: String, etag: Option<String>, size: Option<u64>, range: Option<String> },
}

/// All entries, or everything that is wrong with them.
pub fn parse(body: &[u8], place: &Place) -> Outcome<Vec<Entry>> {
    let page = |text: &str| {
        crate::answer::Answer::with(web::StatusCode::BAD_REQUEST, web::swob::HTML, text.to_string())
    };
    let parsed: Json = serde_json::from_slice(body).map_err(|_| page("Manifest must be valid JSON.\n"))?;
    let Some(list) = parsed.as_array() else { return Err(page("Manifest must be a list.\n").into()) };
    let (mut entries, mut errors) = (Vec::new(), String::new());
    for (index, one) in list.iter().enumerate() {
        match entry(one, index + 1 == list.len(), place) {
            Ok(entry) => entries.push(entry),
            Err(why) => errors.push_str(&format!("Index {index}: {why}\n")),
        }
    }
    if !entries.is_empty() && entries.iter().all(|entry| matches!(entry, Entry::Inline(_))) {
        errors.push_str("Inline data segments require at least one object-backed segment.\n");
    }
    if errors.is_empty() { Ok(entries) } else { Err(refuse_with(400, errors)) }
}

fn entry(one: &Json, is_last: bool, place: &Place) -> Result<Entry, String> {
    let object = one.as_object().ok_or("not a JSON object")?;
    let allowed: &[&str] = match (object.contains_key("path"), object.contains_key("data")) {
        (true, _) => &["path", "etag", "size_bytes", "range"],
        (false, true) => &["data"],
        (false, false) => return Err("expected keys to include one of 'path' or 'data'".into()),
    };
    let mut extra: Vec<&String> = object.keys().filter(|key| !allowed.contains(&key.as_str())).collect();
    extra.sort();
    if !extra.is_empty() {
        let extra: Vec<String> = extra.iter().map(|key| Json::from(key.as_str()).to_string()).collect();
        return Err(format!("extraneous keys {}", extra.join(", ")));
    }
    if let Some(data) = object.get("data") {
        let bytes = data.as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.ok_or("data must be valid base64")?;
        return if bytes.is_empty() { Err(TOO_SMALL.into()) } else { Ok(Entry::Inline(bytes.into())) };
    }
    let path = object["path"].as_str().ok_or("\"path\" must be a string")?;
    let etag = match object.get("etag") {
        None | Some(Json::Null) => None,
        Some(Json::String(etag)) => Some(etag.trim_matches('"').to_string()).filter(|etag| !etag.is_empty()),
        Some(_) => return Err("\"etag\" must be a string or null (if provided)".into()),
    };
    if !path.trim_matches('/').contains('/') {
        return Err("path does not refer to an object. Path must be of the form /container/object.".into());
    }
    let size = match object.get("size_bytes") {
        None | Some(Json::Null) => None,
        Some(Json::Number(number)) => Some(number.as_u64().ok_or("invalid size_bytes")?),
        Some(Json::String(text)) => Some(text.trim().parse().map_err(|_| "invalid size_bytes")?),
        Some(_) => return Err("invalid size_bytes".into()),
    };
    if size == Some(0) && !is_last {
        return Err(TOO_SMALL.into());
    }
    if path.trim_start_matches('/') == format!("{}/{}", place.container, place.object) {
        return Err("manifest must not include itself as a segment".into());
    }
    let range = match object.get("range") {
        None | Some(Json::Null) => None,
        Some(range) => {
            Some(range.as_str().ok_or("invalid range")?.to_string()).filter(|range| !range.is_empty())
        }
    };
    if let Some(range) = &range {
        let found = ranges(range, size.unwrap_or(u64::MAX >> 1)).ok_or("invalid range")?;
        if range.contains(',') {
            return Err("multiple ranges (only one allowed)".into());
        }
        if found.is_empty() {
            return Err("unsatisfiable range".into());
        }
    }
    Ok(Entry::Object { path: path.into(), etag, size, range })
}

const TOO_SMALL: &str = "too small; each segment must be at least 1 byte.";

/// As of `Range: bytes=…`.
pub fn ranges(text: &str, length: u64) -> Option<Vec<(u64, u64)>> {
    let mut headers = web::HeaderMap::new();
    crate::answer::set(&mut headers, "range", &format!("bytes={text}"));
    conditional::ranges(&headers, length)
}

/// What is kept of an object's entry.
pub fn kept(
    path: &str,
    bytes: u64,
    hash: &str,
    kind: &str,
    modified: &str,
    range: Option<(u64, u64)>,
    sub: bool,
) -> Json {
    let mut kept = json!({
        "name": format!("/{}", path.trim_start_matches('/')),
        "bytes": bytes,
        "hash": hash,
        "content_type": kind,
        "last_modified": modified,
    });
    if let Some((start, end)) = range {
        kept["range"] = format!("{start}-{}", end - 1).into();
    }
    if sub {
        kept["sub_slo"] = true.into();
    }
    kept
}

/// The segments of a manifest that is kept.
pub fn segments(account: &str, body: &[u8]) -> Outcome<Vec<Segment>> {
    let list: Vec<Json> = serde_json::from_slice(body).map_err(|_| refuse(500))?;
    list.iter().map(|one| segment(account, one).ok_or_else(|| refuse(500))).collect()
}

fn segment(account: &str, one: &Json) -> Option<Segment> {
    if let Some(data) = one["data"].as_str() {
        let bytes: Bytes = STANDARD.decode(data).ok()?.into();
        let length = bytes.len() as u64;
        return Some(Segment { source: Source::Inline(bytes), start: 0, length });
    }
    let (container, object) = one["name"].as_str()?.trim_start_matches('/').split_once('/')?;
    let size = one["bytes"].as_u64()?;
    let (start, length) = match one["range"].as_str() {
        None => (0, size),
        Some(range) => {
            let (first, last) = range.split_once('-')?;
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            (first, last.checked_sub(first)? + 1)
        }
    };
    let place = Place { account: account.into(), container: container.into(), object: object.into() };
    let etag = one["hash"].as_str().map(str::to_string);
    Some(Segment { source: Source::Object { place, etag, size: Some(size), dynamic: true }, start, length })
}

/// The manifest as it could be written again.
pub fn raw(body: &[u8]) -> Outcome<String> {
    let list: Vec<Json> = serde_json::from_slice(body).map_err(|_| refuse(500))?;
    let written = list.into_iter().map(|one| match one["data"].is_string() {
        true => json!({"data": one["data"]}),
        false => {
            let mut written = json!({"etag": one["hash"], "path": one["name"]});
            if one["range"].is_string() {
                written["range"] = one["range"].clone();
            }
            written["size_bytes"] = one["bytes"].clone();
            written
        }
    });
    Ok(Json::from(written.collect::<Vec<_>>()).to_string())
}

/// The path of an entry as errors name it.
pub fn shown(path: &str) -> String {
    quoted(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_entry() {
        let place = Place { account: "a".into(), container: "c".into(), object: "m".into() };
        let good = r#"{"path": "/c/o"}"#;
        for (body, why) in [
            (good, ""),
            (r#"{"path": "/c/o", "etag": null, "size_bytes": "3", "range": "0-1"}"#, ""),
            (r#"{"data": "YQ=="}"#, ""),
            ("3", "not a JSON object"),
            ("{}", "expected keys"),
            (r#"{"path": "/c/o", "x": 1}"#, "extraneous keys \"x\""),
            (r#"{"path": 3}"#, "must be a string"),
            (r#"{"path": "/c/o", "etag": 3}"#, "must be a string or null"),
            (r#"{"path": "/c"}"#, "path does not refer"),
            (r#"{"path": "/c/o", "size_bytes": "x"}"#, "invalid size_bytes"),
            (r#"{"path": "/c/o", "size_bytes": 0}"#, "too small"),
            (r#"{"path": "/c/m"}"#, "must not include itself"),
            (r#"{"path": "/c/o", "range": "x"}"#, "invalid range"),
            (r#"{"path": "/c/o", "range": "0-1,3-4"}"#, "multiple ranges"),
            (r#"{"path": "/c/o", "range": "9-", "size_bytes": 3}"#, "unsatisfiable range"),
            (r#"{"data": "%"}"#, "valid base64"),
            (r#"{"data": ""}"#, "too small"),
        ] {
            let found = parse(format!("[{body}, {good}]").as_bytes(), &place);
            assert_eq!(found.is_ok(), why.is_empty(), "{body}");
            let one: Json = serde_json::from_str(body).unwrap();
            let said = entry(&one, false, &place).err().unwrap_or_default();
            assert!(said.contains(why), "{body}: {said}");
        }
        for wrong in ["x", "{}", r#"[{"data": "YQ=="}]"#] {
            assert!(parse(wrong.as_bytes(), &place).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_can_be_written_again() {
        let kept =
            Json::from(vec![kept("c/o", 9, "e", "a/b", "t", Some((2, 5)), true), json!({"data": "YQ=="})]);
        let written = raw(kept.to_string().as_bytes()).unwrap();
        assert_eq!(written, r#"[{"etag":"e","path":"/c/o","range":"2-4","size_bytes":9},{"data":"YQ=="}]"#);
        let segments = segments("a", kept.to_string().as_bytes()).unwrap();
        assert_eq!((segments[0].start, segments[0].length, segments[1].length), (2, 3, 1));
    }
}
