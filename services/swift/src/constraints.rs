//! Limits on names and on what may be told of things, as `/info` announces them.

use crate::{
    Options,
    answer::{Outcome, refuse_page, refuse_with},
    call::{Call, is_true},
};
use base::Timestamp;

/// Headers that are kept with an object besides its metadata.
pub const KEPT_HEADERS: &[&str] = &[
    "content-disposition",
    "content-encoding",
    "content-language",
    "cache-control",
    "expires",
    "x-delete-at",
    "x-object-manifest",
    "x-robots-tag",
];

/// Metadata in the headers of one request.
pub fn check_metadata(options: &Options, call: &Call, kind: &str) -> Outcome<()> {
    let prefix = format!("x-{kind}-meta-");
    let (mut count, mut size) = (0, 0);
    for (name, value) in &call.headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        if value.len() > options.max_header_size {
            let name = &name[..name.len().min(options.max_meta_name_length)];
            return Err(refuse_with(400, format!("Header value too long: {name}")));
        }
        let Some(key) = name.strip_prefix(&prefix) else { continue };
        if key.is_empty() {
            return Err(refuse_with(400, "Metadata name cannot be empty"));
        }
        if std::str::from_utf8(value).is_err() && kind != "object" {
            return Err(refuse_with(400, "Metadata must be valid UTF-8"));
        }
        count += 1;
        size += key.len() + value.len();
        if key.len() > options.max_meta_name_length {
            return Err(refuse_with(400, format!("Metadata name too long: {prefix}{key}")));
        }
        if value.len() > options.max_meta_value_length {
            let max = options.max_meta_value_length;
            return Err(refuse_with(400, format!("Metadata value longer than {max}: {prefix}{key}")));
        }
        check_overall(options, count, size)?;
    }
    Ok(())
}

/// All that is told of one thing.
pub fn check_overall(options: &Options, count: usize, size: usize) -> Outcome<()> {
    if count > options.max_meta_count {
        return Err(refuse_with(400, format!("Too many metadata items; max {}", options.max_meta_count)));
    }
    if size > options.max_meta_overall_size {
        return Err(refuse_with(
            400,
            format!("Total metadata too large; max {}", options.max_meta_overall_size),
        ));
    }
    Ok(())
}

/// What must hold before an object's bytes are read.
pub fn check_creation(options: &Options, call: &Call) -> Outcome<()> {
    let chunked = match call.header("transfer-encoding") {
        None => false,
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => true,
        Some(_) => {
            return Err(refuse_with(
                501,
                "Unsupported Transfer-Encoding header value specified in Transfer-Encoding header",
            ));
        }
    };
    let length = call.content_length()?;
    if length.is_some_and(|length| length > options.max_file_size) {
        return Err(refuse_with(413, "Your request is too large."));
    }
    if length.is_none() && !chunked {
        return Err(refuse_with(411, "Missing Content-Length header."));
    }
    let (length, max) = (call.place.object.len(), options.max_object_name_length);
    if length > max {
        return Err(refuse_with(400, format!("Object name length of {length} longer than {max}")));
    }
    check_metadata(options, call, "object")
}

/// When the object goes, by `X-Delete-After` or `X-Delete-At`.
pub fn delete_at(call: &Call) -> Outcome<Option<i64>> {
    let now = call.now.unix_seconds();
    if let Some(after) = call.header("x-delete-after") {
        let after: i64 = after.trim().parse().map_err(|_| refuse_with(400, "Non-integer X-Delete-After"))?;
        let at = now.saturating_add(after).clamp(0, LATEST);
        return if at <= now { Err(refuse_with(400, "X-Delete-After in past")) } else { Ok(Some(at)) };
    }
    let Some(at) = call.header("x-delete-at") else { return Ok(None) };
    let at: i64 = at.trim().parse().map_err(|_| refuse_with(400, "Non-integer X-Delete-At"))?;
    let at = at.clamp(0, LATEST);
    let is_past = Timestamp::from_unix_seconds(at) <= call.now;
    if is_past { Err(refuse_with(400, "X-Delete-At in past")) } else { Ok(Some(at)) }
}

/// Ten digits of seconds.
const LATEST: i64 = 9_999_999_999;

/// Names that are too long to be.
pub fn check_account(options: &Options, call: &Call) -> Outcome<()> {
    let (length, max) = (call.place.account.len(), options.max_account_name_length);
    if length > max {
        return Err(refuse_page(400, format!("Account name length of {length} longer than {max}")));
    }
    Ok(())
}

pub fn check_container(options: &Options, call: &Call) -> Outcome<()> {
    let (length, max) = (call.place.container.len(), options.max_container_name_length);
    if length > max {
        return Err(refuse_page(400, format!("Container name length of {length} longer than {max}")));
    }
    Ok(())
}

/// `X-Detect-Content-Type: true`
pub fn wants_detection(call: &Call) -> bool {
    call.header("x-detect-content-type").is_some_and(is_true)
}
