//! Writing objects and what is told of them.

use super::{bad, created, large, object_copy};
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse, refuse_with},
    auth::Access,
    call::Call,
    conditional, constraints,
    files::{Arrived, Files},
    media_types, metadata,
    model::{Account, Container, Object},
    quotas, store, symlinks, versions,
};
use axum::body::Body;
use base::{Error, ErrorKind, Result, Timestamp};
use db::AsJson;
use http_body_util::BodyExt;
use std::{sync::Arc, time::Duration};

/// A new object on its way to its row.
pub struct Put {
    pub container: Container,
    pub access: Access,
    pub object: Object,
    /// Only when there is none of that name.
    pub if_none: bool,
    /// The bytes are another object's as well.
    pub shares: bool,
}

pub async fn put(swift: &Arc<Swift>, call: Call) -> Outcome {
    if call.query.get("multipart-manifest") == Some("put") {
        return large::put(swift, call).await;
    }
    if call.header("x-copy-from").is_some_and(|from| !from.is_empty()) {
        return object_copy::put_from(swift, call).await;
    }
    if call.query.has("version-id") {
        return restore(swift, call).await;
    }
    let (mut put, mut call) = swift.admit(call).await?;
    let arrived = swift.receive(call.take_body()).await?;
    let etag = call.header("etag").map(|etag| etag.trim_matches('"').to_lowercase());
    let is_wrong = etag.is_some_and(|etag| etag != arrived.arrived.md5);
    if is_wrong {
        return Err(refuse(422));
    }
    put.object.size = arrived.arrived.size as i64;
    put.object.etag = arrived.arrived.md5.clone();
    put.object.file = arrived.arrived.file.clone();
    let object = swift.write(put, arrived).await?;
    Ok(written(&object))
}

/// 201
pub fn written(object: &Object) -> Answer {
    let mut answer = created()
        .header("etag", &object.etag)
        .header("last-modified", conditional::http_date(object.written_at));
    if object.version.is_some() {
        answer.set("x-object-version-id", versions::id_of(object));
    }
    answer
}

/// Says of a large object what its segments begin with; or that it is none.
fn check_manifest(call: &Call) -> Outcome<()> {
    if call.headers.contains_key(large::FLAG) && call.query.get("multipart-manifest") != Some("put") {
        let text = "X-Static-Large-Object is a reserved header. To create a static large object add query param multipart-manifest=put.";
        return Err(bad(text));
    }
    let Some(prefix) = call.header("x-object-manifest") else { return Ok(()) };
    match prefix.split_once('/') {
        Some((container, rest))
            if !container.is_empty()
                && !rest.is_empty()
                && !rest.starts_with('/')
                && !prefix.contains(['?', '&']) =>
        {
            Ok(())
        }
        _ => Err(bad("X-Object-Manifest must be in the format container/prefix")),
    }
}

/// PUT with `version-id`: a former version is the current one again.
async fn restore(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    swift.authorize(&call, &info, info.write_acl())?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    if call.content_length()?.is_none_or(|length| length > 0) {
        return Err(bad("If version-id is specified, request body must be empty"));
    }
    let version = call.query.get("version-id").map(versions::parse_id).transpose()?.flatten();
    let version = version.ok_or_else(|| bad("version-id may not be null"))?;
    let (files, name) = (swift.files.clone(), call.place.object.clone());
    let restored = swift.db.write(move |tx| {
        let current = store::current(tx, &container.id, &name)?;
        if let Some(current) = current.clone().filter(|object| object.version == Some(version)) {
            return Ok(current);
        }
        let past = store::past(tx, &container.id, &name, version)?;
        let past = past.filter(|object| !object.marker).ok_or_else(|| Error::not_found(""))?;
        store::take_out(tx, &container, &past)?;
        if let Some(current) = &current {
            versions::displace(tx, &files, &container, current, Some(&past))?;
        }
        let object = Object { past: false, slot: 0, ..past };
        store::insert(tx, &container, &object)?;
        Ok(object)
    });
    Ok(written(&restored.await?))
}

/// Bytes that go again unless an object takes them.
pub struct Held {
    pub arrived: Arrived,
    files: Files,
}

impl Held {
    /// No bytes of its own.
    pub fn nothing(swift: &Swift) -> Self {
        let arrived = Arrived { file: None, size: 0, md5: crate::files::NO_BYTES.into() };
        Self { arrived, files: swift.files.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(file) = self.arrived.file.take() {
            // What cannot be removed now is at the next start.
            let _ = self.files.remove(&file);
        }
    }
}

impl Swift {
    /// All that must hold before the bytes of an object are read, and the object without them.
    pub async fn admit(self: &Arc<Self>, mut call: Call) -> Outcome<(Put, Call)> {
        let condition = call.header("if-none-match").map(str::trim);
        if condition.is_some_and(|etag| etag != "*") {
            return Err(refuse_with(400, "If-None-Match only supports *"));
        }
        let if_none = condition.is_some();
        let info = self.info(&call.place).await?;
        let access = self.authorize(&call, &info, info.write_acl())?;
        let (Some(container), Some(account)) = (info.container, info.account) else {
            return Err(refuse(404));
        };
        check_manifest(&call)?;
        let link = self.link(&mut call).await?;
        if call.header("content-type").is_none_or(str::is_empty) || constraints::wants_detection(&call) {
            let guessed = media_types::guess(&call.place.object);
            call.set("content-type", guessed);
        }
        constraints::check_creation(&self.options, &call)?;
        let bytes = call.content_length()?.unwrap_or(0);
        quotas::check(&account, &container, access, bytes as i64)?;
        if if_none {
            let (id, name, now) = (container.id.clone(), call.place.object.clone(), call.now);
            if self.db.read(move |tx| store::alive(tx, &id, &name, now)).await?.is_some() {
                return Err(refuse(412));
            }
        }
        let mut metadata = metadata::of_object(&call);
        metadata.extend(link.into_iter().flatten());
        let object = Object {
            content_type: call.header("content-type").unwrap_or(media_types::BYTES).into(),
            metadata: AsJson(metadata),
            delete_at: constraints::delete_at(&call)?,
            ..versions::nothing(&container, call.place.object.clone().into_bytes(), call.now)
        };
        Ok((Put { container, access, object, if_none, shares: false }, call))
    }

    /// The bytes of a body, in their place.
    pub async fn receive(&self, mut body: Body) -> Outcome<Held> {
        let mut upload = self.files.begin()?;
        let patience = Duration::from_secs(self.options.client_timeout_seconds);
        loop {
            let frame = match tokio::time::timeout(patience, body.frame()).await {
                Err(_) => return Err(refuse(408)),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(refuse(499)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(bytes) = frame.data_ref() else { continue };
            if upload.size() + bytes.len() as u64 > self.options.max_file_size {
                return Err(refuse(413));
            }
            upload.write(bytes).await?;
        }
        Ok(Held { arrived: upload.finish().await?, files: self.files.clone() })
    }

    /// The row that makes bytes an object. What was there before makes place.
    pub async fn write(&self, put: Put, mut held: Held) -> Outcome<Object> {
        let files = self.files.clone();
        let Put { container, access, object, if_none, shares } = put;
        let done = self.db.write(move |tx| {
            let container = tx.find::<Container>(&container.id)?.ok_or_else(|| Error::not_found(""))?;
            let account = tx.find::<Account>(&container.account)?.ok_or_else(|| Error::not_found(""))?;
            quotas::check(&account, &container, access, object.size)?;
            let mut object = object.clone();
            if let (Some(file), true) = (&object.file, shares)
                && !store::is_file_known(tx, file)?
            {
                return Err(Error::unavailable(""));
            }
            if let Some(old) = store::current(tx, &container.id, &object.name())? {
                let is_gone = old.delete_at.is_some_and(|at| at <= object.written_at.unix_seconds());
                if if_none && !is_gone {
                    return Err(Error::precondition_failed(""));
                }
                // No two have the same time.
                object.written_at = object.written_at.max(Timestamp(old.written_at.0 + TICK));
                versions::displace(tx, &files, &container, &old, Some(&object))?;
            }
            if versions::is_enabled(&container) {
                object.version = Some(object.written_at);
            }
            store::insert(tx, &container, &object)?;
            Ok(object)
        });
        let done: Result<Object> = done.await;
        // When nobody knows whether it was written, the bytes stay until the next start says.
        if !matches!(&done, Err(error) if !matches!(error.kind, ErrorKind::Timeout | ErrorKind::Internal)) {
            held.arrived.file = None;
        }
        Ok(done?)
    }
}

/// The smallest step between two times, in microseconds.
const TICK: i64 = 10;

/// Tells other things of an object; what is not said again is forgotten.
pub async fn post(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    swift.authorize(&call, &info, info.write_acl())?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    constraints::check_metadata(&swift.options, &call, "object")?;
    if call.headers.contains_key("x-symlink-target") {
        return Err(refuse_with(400, "A PUT request is required to set a symlink target"));
    }
    check_manifest(&call)?;
    let delete_at = constraints::delete_at(&call)?;
    let told = metadata::of_object(&call);
    let content_type = call.header("content-type").filter(|kind| !kind.is_empty()).map(str::to_string);
    let (name, now) = (call.place.object.clone(), call.now);
    let changed = swift.db.write(move |tx| {
        let found = store::alive(tx, &container.id, &name, now)?.ok_or_else(|| Error::not_found(""))?;
        let mut metadata = told.clone();
        let system = found.metadata.iter().filter(|(name, _)| metadata::stays(name));
        metadata.extend(system.map(|(name, value)| (name.clone(), value.clone())));
        let object = Object {
            metadata: AsJson(metadata),
            delete_at,
            content_type: content_type.clone().unwrap_or(found.content_type.clone()),
            written_at: now.max(Timestamp(found.written_at.0 + TICK)),
            ..found
        };
        tx.update(&object)?;
        Ok(object)
    });
    let object = changed.await?;
    if let Some(target) = symlinks::target(&object, &call.place.account) {
        let text = "The requested POST was applied to a symlink. POST directly to the target to apply requested metadata.";
        let answer = Answer::with(web::StatusCode::TEMPORARY_REDIRECT, web::swob::HTML, text);
        return Ok(answer.header("location", target.url_path()));
    }
    let mut answer = Answer::new(202);
    if object.version.is_some() {
        answer.set("x-object-version-id", versions::id_of(&object));
    }
    Ok(answer)
}
