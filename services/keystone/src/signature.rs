//! Signatures with a shared secret: the hashes, AWS's versions 0 to 4, and a comparison that takes the same time
//! whatever is wrong.

use base::{Error, Json, Result};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub fn hmac_sha1(key: &[u8], data: &[u8]) -> Vec<u8> {
    // Any length is a key to HMAC.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

pub fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Compared through their hashes, so that time tells nothing of where they differ.
pub fn same(expected: &str, given: &str) -> bool {
    Sha256::digest(expected.as_bytes()) == Sha256::digest(given.as_bytes())
}

fn invalid() -> Error {
    Error::unauthorized("The request you have made requires authentication.")
}

/// Whether an EC2 request (`params`, `verb`, `host`, `path`, `headers`, `body_hash`) was signed with this secret.
pub fn is_ec2(secret: &str, credentials: &Json) -> Result<bool> {
    let given = word(credentials, "signature").filter(|given| !given.is_empty()).ok_or_else(invalid)?;
    let host = word(credentials, "host").unwrap_or_default();
    if same(&ec2(secret, credentials, host)?, given) {
        return Ok(true);
    }
    // Some clients leave the port out of what they sign.
    match host.rsplit_once(':') {
        Some((name, _)) => Ok(same(&ec2(secret, credentials, name)?, given)),
        None => Ok(false),
    }
}

/// Whether an S3 string to sign (`token`, in URL-safe base64) was signed with this secret.
pub fn is_s3(secret: &str, credentials: &Json) -> Result<bool> {
    let (Some(token), Some(given)) = (word(credentials, "token"), word(credentials, "signature")) else {
        return Err(invalid());
    };
    let text = URL_SAFE.decode(token).map_err(|_| invalid())?;
    let expected = match text.starts_with(b"AWS4") {
        false => STANDARD.encode(hmac_sha1(secret.as_bytes(), &text)),
        true => {
            let text = String::from_utf8(text).map_err(|_| invalid())?;
            let lines: Vec<&str> = text.split('\n').collect();
            let ["AWS4-HMAC-SHA256", _, scope, _] = lines.as_slice() else { return Err(invalid()) };
            let [date, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
                return Err(invalid());
            };
            if !["s3", "iam", "sts"].contains(&service) {
                return Err(invalid());
            }
            hex(&hmac_sha256(&key4(secret, date, region, service), text.as_bytes()))
        }
    };
    Ok(same(&expected, given))
}

fn ec2(secret: &str, credentials: &Json, host: &str) -> Result<String> {
    let params = credentials.get("params").filter(|params| params.is_object()).ok_or_else(invalid)?;
    let secret_bytes = secret.as_bytes();
    match word(params, "SignatureVersion") {
        Some("0") => {
            let (action, at) = (word(params, "Action"), word(params, "Timestamp"));
            let text = format!("{}{}", action.ok_or_else(invalid)?, at.ok_or_else(invalid)?);
            Ok(STANDARD.encode(hmac_sha1(secret_bytes, text.as_bytes())))
        }
        Some("1") => {
            let mut pairs = pairs(params);
            pairs.sort_by_key(|(name, _)| name.to_lowercase());
            let text: String = pairs.iter().map(|(name, value)| format!("{name}{value}")).collect();
            Ok(STANDARD.encode(hmac_sha1(secret_bytes, text.as_bytes())))
        }
        Some("2") => {
            let mut params = params.clone();
            params["SignatureMethod"] = "HmacSHA256".into();
            let (verb, path) = (word(credentials, "verb"), word(credentials, "path"));
            let (verb, path) = (verb.ok_or_else(invalid)?, path.ok_or_else(invalid)?);
            let text = format!("{verb}\n{host}\n{path}\n{}", query(&params));
            Ok(STANDARD.encode(hmac_sha256(secret_bytes, text.as_bytes())))
        }
        _ => ec2_4(secret, credentials, params),
    }
}

/// Version 4: named in the Authorization header, or in the query.
fn ec2_4(secret: &str, credentials: &Json, params: &Json) -> Result<String> {
    let header = |name: &str| credentials.get("headers").and_then(|headers| word(headers, name));
    let authorization = header("Authorization").filter(|text| text.starts_with("AWS4-HMAC-SHA256"));
    if authorization.is_none() && word(params, "X-Amz-Algorithm") != Some("AWS4-HMAC-SHA256") {
        return Err(invalid());
    }
    let named = |name: &str| match authorization {
        Some(text) => text.split_once(&format!("{name}=")).and_then(|(_, rest)| rest.split(',').next()),
        None => word(params, &format!("X-Amz-{name}")),
    };
    let credential = named("Credential").ok_or_else(invalid)?;
    let signed_headers = named("SignedHeaders").ok_or_else(invalid)?;
    let [_, date, region, service, ..] = credential.split('/').collect::<Vec<_>>()[..] else {
        return Err(invalid());
    };
    let at = header("X-Amz-Date").or(word(params, "X-Amz-Date")).ok_or_else(invalid)?;
    if !at.starts_with(date) {
        return Err(invalid());
    }
    let verb = word(credentials, "verb").ok_or_else(invalid)?.to_uppercase();
    let path = word(credentials, "path").ok_or_else(invalid)?;
    let body_hash = word(credentials, "body_hash").ok_or_else(invalid)?;
    // A POST has its parameters in the body.
    let query = if verb == "POST" { String::new() } else { query(params) };
    let headers = canonical_headers(credentials, signed_headers);
    let request = format!("{verb}\n{path}\n{query}\n{headers}\n{signed_headers}\n{body_hash}");
    let scope = credential.split_once('/').map_or("", |(_, scope)| scope);
    let digest = hex(&Sha256::digest(request.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{digest}");
    Ok(hex(&hmac_sha256(&key4(secret, date, region, service), text.as_bytes())))
}

fn canonical_headers(credentials: &Json, signed: &str) -> String {
    let headers = credentials.get("headers").map(pairs).unwrap_or_default();
    let mut lines = String::new();
    for wanted in signed.split(';') {
        let found = headers.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        if let Some((_, value)) = found {
            lines.push_str(&format!("{wanted}:{}\n", value.trim()));
        }
    }
    if lines.is_empty() { "\n".into() } else { lines }
}

fn key4(secret: &str, date: &str, region: &str, service: &str) -> Vec<u8> {
    let first = hmac_sha256(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    [region, service, "aws4_request"].iter().fold(first, |key, part| hmac_sha256(&key, part.as_bytes()))
}

fn query(params: &Json) -> String {
    let mut pairs = pairs(params);
    pairs.sort();
    let encode = crate::oauth1::encode;
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

fn pairs(object: &Json) -> Vec<(String, String)> {
    let entries = object.as_object().into_iter().flatten();
    entries
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_string)))
        .collect()
}

fn word<'a>(object: &'a Json, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Json::as_str)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
