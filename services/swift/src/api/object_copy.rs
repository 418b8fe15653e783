//! Copies within the store. A copy of a plain object shares its bytes, and takes no time.

use super::{
    large::FLAG,
    object_put::{Held, written},
};
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse_page, refuse_with},
    call::{Call, Place, is_true, quoted, unquoted},
    conditional, versions,
};
use axum::body::Body;
use std::sync::Arc;
use web::Method;

/// COPY: from the path to the `Destination`.
pub async fn copy(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    let from = call.place.clone();
    let Some(to) = call.header("destination").map(str::to_string).filter(|to| !to.is_empty()) else {
        return Err(refuse_page(412, "Destination header required"));
    };
    let account = match call.header("destination-account") {
        Some(account) => account_of(account)?,
        None => from.account.clone(),
    };
    let to = Place::of_header(&account, &to).ok_or_else(|| malformed("Destination"))?;
    call.set("x-copy-from", &quoted(&format!("/{}/{}", from.container, from.object)));
    call.set("x-copy-from-account", &quoted(&from.account));
    call.set("content-length", "0");
    for name in ["destination", "destination-account", "transfer-encoding"] {
        call.headers.remove(name);
    }
    call.method = Method::PUT;
    call.place = to;
    put_from(swift, call).await
}

fn malformed(header: &str) -> crate::answer::Refusal {
    refuse_page(412, format!("{header} header must be of the form <container name>/<object name>"))
}

fn account_of(text: &str) -> Outcome<String> {
    let account = unquoted(text).unwrap_or_default();
    match account.is_empty() || account.contains('/') {
        true => Err(refuse_page(412, "Account name cannot contain slashes")),
        false => Ok(account),
    }
}

/// PUT with `X-Copy-From`.
pub async fn put_from(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    if call.content_length()?.is_some_and(|length| length > 0) {
        return Err(refuse_with(400, "Copy requests require a zero byte body"));
    }
    let account = match call.header("x-copy-from-account") {
        Some(account) => account_of(account)?,
        None => call.place.account.clone(),
    };
    let from =
        call.header("x-copy-from").and_then(|text| Place::of_header(&account, text.split('?').next()?));
    let from = from.ok_or_else(|| malformed("X-Copy-From"))?;
    let mut source = call.within(Method::GET, from.clone());
    source.query = call.query.clone();
    for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "range"] {
        if let Some(value) = call.headers.remove(name) {
            source.headers.insert(name, value);
        }
    }
    let view = swift.view(&source).await?;
    let found = &view.found;
    if let Some(status) =
        conditional::refused(&source.headers, &source.method, &view.told.etag, view.told.modified)
    {
        return Err(Answer::new(status).into());
    }
    let as_manifest = source.query.get("multipart-manifest") == Some("get");
    let is_dynamic = found.object.meta("x-object-manifest").is_some();
    let length = match found.object.is_large() && as_manifest {
        true => found.object.size as u64,
        false => view.content.length(),
    };
    if length > swift.options.max_file_size {
        return Err(Answer::new(413).into());
    }
    let is_fresh = call.header("x-fresh-metadata").is_some_and(is_true);
    if call.header("content-type").is_none_or(str::is_empty) {
        call.set("content-type", &found.object.content_type);
    }
    let kept = found.object.metadata.iter().filter(|(name, _)| !is_fresh && !is_of_segments(name));
    for (name, value) in kept {
        if !call.headers.contains_key(name.as_str()) {
            call.set(name, value);
        }
    }
    if let Some(at) = found.object.delete_at.filter(|_| !is_fresh)
        && !call.headers.contains_key("x-delete-at")
        && !call.headers.contains_key("x-delete-after")
    {
        call.set("x-delete-at", &at.to_string());
    }
    if let Some(prefix) = found.object.meta("x-object-manifest").filter(|_| as_manifest) {
        call.set("x-object-manifest", prefix);
    }
    let is_link = found.object.metadata.keys().any(|name| name.contains("-sysmeta-symlink"));
    call.set("content-length", &length.to_string());
    call.query.0.clear();
    let (mut put, call) = swift.admit(call).await?;
    let ranges = conditional::ranges(&source.headers, length);
    put.shares = ranges.is_none() && (as_manifest || !(found.object.is_large() || is_dynamic));
    let held = match ranges.as_deref() {
        None if put.shares => Held::nothing(swift),
        None => swift.receive(Body::from_stream(view.content.read(0..length))).await?,
        Some([(start, end)]) => swift.receive(Body::from_stream(view.content.read(*start..*end))).await?,
        Some(_) => return Err(Answer::new(416).into()),
    };
    if put.shares && found.object.is_large() {
        put.object.large_size = found.object.large_size;
        put.object.large_etag = found.object.large_etag.clone();
        put.object.metadata.insert(FLAG.into(), "True".into());
    }
    if is_link {
        let links = found.object.metadata.iter().filter(|(name, _)| name.contains("-sysmeta-symlink"));
        put.object.metadata.extend(links.map(|(name, value)| (name.clone(), value.clone())));
    }
    put.object.size = if put.shares { found.object.size } else { held.arrived.size as i64 };
    put.object.etag = if put.shares { found.object.etag.clone() } else { held.arrived.md5.clone() };
    put.object.file = if put.shares { found.object.file.clone() } else { held.arrived.file.clone() };
    if let Some(etag) = call.header("etag")
        && etag.trim_matches('"') != put.object.etag
    {
        return Err(Answer::new(422).into());
    }
    let object = swift.write(put, held).await?;
    let mut answer = written(&object)
        .header("x-copied-from", quoted(&format!("{}/{}", from.container, from.object)))
        .header("x-copied-from-account", quoted(&from.account))
        .header("x-copied-from-last-modified", conditional::http_date(found.object.written_at));
    if found.object.version.is_some() {
        answer.set("x-copied-from-version-id", versions::id_of(&found.object));
    }
    crate::metadata::tell(&mut answer, &object.metadata, true);
    answer.headers.remove(FLAG);
    if let Some(etag) = &object.large_etag {
        answer.set("etag", format!("\"{etag}\""));
    }
    Ok(answer)
}

/// What a copy of the bytes does not take along.
fn is_of_segments(name: &str) -> bool {
    name == FLAG || name == "x-object-manifest"
}
