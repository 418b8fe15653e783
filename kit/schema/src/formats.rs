//! What `format` means in OpenStack's schemas.

use base::{Json, Timestamp, id};
use fancy_regex::Regex;
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

pub enum Verdict {
    Fine,
    Wrong,
    /// Wrong, with a sentence of its own for the whole answer.
    Refused(String),
}

pub type Format = fn(&Json) -> Verdict;

pub const COMMON: &[(&str, Format)] = &[
    ("uuid", |value| text(value, id::is_uuid)),
    ("date-time", |value| text(value, |text| Timestamp::parse(text).is_some())),
    ("ipv4", |value| text(value, |text| text.parse::<Ipv4Addr>().is_ok())),
    ("ipv6", |value| text(value, |text| text.parse::<Ipv6Addr>().is_ok())),
    ("cidr", |value| text(value, is_cidr)),
    ("base64", |value| text(value, is_base64)),
    ("uri", |value| text(value, is_uri)),
    ("email", |value| text(value, |text| text.contains('@'))),
    ("regex", |value| text(value, |text| !text.is_empty() && Regex::new(text).is_ok())),
    ("mac-address", |_| Verdict::Fine),
];

pub const NOVA: &[(&str, Format)] = &[
    ("name", |value| nova_name(value, false, "")),
    ("name_with_leading_trailing_spaces", |value| nova_name(value, true, "")),
    ("az_name", |value| nova_name(value, false, ":")),
    ("az_name_with_leading_trailing_spaces", |value| nova_name(value, true, ":")),
    // Nothing checks it: Python lacks the package that would, and nova does not say what it is.
    ("url", |_| Verdict::Fine),
    ("string", |_| Verdict::Fine),
];

pub const CINDER: &[(&str, Format)] = &[
    ("uuid", |value| verdict(value.as_str().is_some_and(id::is_uuid))),
    ("date-time", |value| verdict(value.as_str().is_some_and(|text| Timestamp::parse(text).is_some()))),
    ("name", |value| cinder_name(value, usize::MAX)),
    ("name_skip_leading_trailing_spaces", |value| cinder_name(value, 255)),
    ("name_non_mandatory_remove_white_spaces", |value| at_most_255("name", value)),
    ("description_non_mandatory_remove_white_spaces", |value| at_most_255("description", value)),
    ("disabled_reason", |value| text(value, |text| text.trim().chars().count() <= 255)),
    ("availability_zone", |value| match value {
        Json::Null => Verdict::Fine,
        Json::String(text) if text.is_empty() => {
            Verdict::Refused("The 'availability_zone' can not be None.".into())
        }
        Json::String(text) if text.trim().is_empty() => {
            let reason = "availability_zone has 0 characters, less than 1.";
            Verdict::Refused(format!("Invalid input received: {reason}"))
        }
        other => at_most_255("availability_zone", other),
    }),
    ("mysql_text", |value| verdict(value.as_str().is_none_or(|text| text.len() <= 65535))),
    ("key_size", |value| {
        let number = |text: &str| text.trim().parse::<i64>().is_ok();
        verdict(value.is_null() || value.is_i64() || value.as_str().is_some_and(number))
    }),
];

fn verdict(fine: bool) -> Verdict {
    if fine { Verdict::Fine } else { Verdict::Wrong }
}

/// Formats say nothing about other types.
fn text(value: &Json, fine: impl Fn(&str) -> bool) -> Verdict {
    verdict(value.as_str().is_none_or(fine))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    match bits.parse::<u8>() {
        Ok(bits) => bits <= if address.is_ipv4() { 32 } else { 128 },
        Err(_) => bits.parse::<std::net::IpAddr>().is_ok_and(|mask| mask.is_ipv4() == address.is_ipv4()),
    }
}

/// As Python's lenient decoder: foreign characters are skipped, the padding must fit.
fn is_base64(text: &str) -> bool {
    if !text.is_ascii() {
        return false;
    }
    let data = text.bytes().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).count();
    let padding = text.bytes().filter(|b| *b == b'=').count();
    match data % 4 {
        0 => true,
        1 => false,
        rest => padding >= 4 - rest,
    }
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let mut scheme = scheme.bytes();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let printable = text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b));
    let plain = scheme.next().is_some_and(|b| b.is_ascii_alphabetic())
        && scheme.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    plain && printable && !host.is_empty() && !host.starts_with(':')
}

/// Printable as Unicode has it, within the first plane as nova's table ends there. With outer spaces allowed
/// something else must be there; without, the empty name is left to `minLength`.
fn nova_name(value: &Json, outer_spaces: bool, excluded: &str) -> Verdict {
    static PRINTABLE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\A[^\p{C}\p{Zl}\p{Zp}\x{ffff}-\x{10ffff}]*\z")
            .expect("a fixed pattern that tests compile")
    });
    let fine = value.as_str().is_some_and(|name| {
        let spaces = |c: char| c.is_whitespace();
        let placed = match outer_spaces {
            true => !name.trim_matches(spaces).is_empty(),
            false => !name.starts_with(spaces) && !name.ends_with(spaces),
        };
        placed && !name.contains(|c| excluded.contains(c)) && PRINTABLE.is_match(name).unwrap_or(false)
    });
    if fine {
        return Verdict::Fine;
    }
    let must_be = match (excluded.is_empty(), outer_spaces) {
        (true, false) => "printable characters. Can not start or end with whitespace.",
        (true, true) => "printable characters with at least one non space character",
        (false, false) => "printable characters except :.Can not start or end with whitespace.",
        (false, true) => "printable characters except :, with at least one non space character",
    };
    Verdict::Refused(format!("An invalid 'name' value was provided. The name must be: {must_be}"))
}

fn cinder_name(value: &Json, length_max: usize) -> Verdict {
    let refuse = |reason: &str| {
        Verdict::Refused(format!("An invalid 'name' value was provided. The 'name' can not be {reason}"))
    };
    match value.as_str().filter(|name| !name.is_empty()) {
        None => refuse("None."),
        Some(name) if name.trim().is_empty() => refuse("empty."),
        Some(name) if name.trim().chars().count() > length_max => refuse("greater than 255 characters."),
        Some(_) => Verdict::Fine,
    }
}

fn at_most_255(what: &str, value: &Json) -> Verdict {
    match value {
        Json::Null => Verdict::Fine,
        Json::String(text) if text.trim().chars().count() > 255 => {
            let length = text.trim().chars().count();
            Verdict::Refused(format!(
                "Invalid input received: {what} has {length} characters, more than 255."
            ))
        }
        Json::String(_) => Verdict::Fine,
        _ => Verdict::Wrong,
    }
}
