//! Large objects: static ones, whose manifest names their segments, and dynamic ones, whose segments share a prefix.

use super::{bulk, object_put::written};
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse, refuse_with},
    call::{Call, Place, unquoted},
    content::{Content, Told},
    files::hex,
    manifest::{self, Entry},
    report::{Form, Report, accepted, line},
    segments::{Segment, Segments, Source},
    store,
};
use base::{Json, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use serde_json::json;
use std::sync::Arc;
use web::Method;

/// PUT with `multipart-manifest=put`.
pub async fn put(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    if call.headers.contains_key("x-copy-from") {
        let text = "Multipart Manifest PUTs cannot be COPY requests";
        return Err(Answer::with(web::StatusCode::METHOD_NOT_ALLOWED, web::swob::HTML, text).into());
    }
    let max = swift.options.max_manifest_bytes;
    let body = swift.small_body(&mut call, max, &format!("Manifest File > {max} bytes")).await?;
    let entries = manifest::parse(&body, &call.place)?;
    let objects = entries.iter().filter(|entry| matches!(entry, Entry::Object { .. })).count();
    if objects > swift.options.max_manifest_segments {
        let max = swift.options.max_manifest_segments;
        return Err(refuse_with(413, format!("Number of object-backed segments must be <= {max}")));
    }
    let mut checked = Checked::default();
    for (index, entry) in entries.iter().enumerate() {
        checked.take(swift, &call, entry, index + 1 == entries.len()).await;
    }
    if !checked.problems.is_empty() {
        let report = Report { root: "upload", told: Vec::new(), errors: checked.problems };
        return Err(report.answer(400, accepted(&call).unwrap_or(Form::Text)).into());
    }
    let etag = hex(&checked.hash.finalize());
    let wanted = call.header("etag").map(|etag| etag.trim_matches('"').to_string());
    if wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != etag) {
        return Err(refuse(422));
    }
    let body = Json::from(checked.kept).to_string();
    call.set("content-length", &body.len().to_string());
    let (mut put, _) = swift.admit(call).await?;
    let held = swift.receive(axum::body::Body::from(body)).await?;
    put.object.size = held.arrived.size as i64;
    put.object.etag = held.arrived.md5.clone();
    put.object.file = held.arrived.file.clone();
    put.object.large_size = Some(checked.size as i64);
    put.object.large_etag = Some(etag.clone());
    put.object.metadata.insert(FLAG.into(), "True".into());
    let object = swift.write(put, held).await?;
    Ok(written(&object).header("etag", format!("\"{etag}\"")))
}

/// Says that an object is made of segments.
pub const FLAG: &str = "x-static-large-object";

#[derive(Default)]
struct Checked {
    kept: Vec<Json>,
    size: u64,
    hash: Md5,
    problems: Vec<(String, String)>,
}

impl Checked {
    async fn take(&mut self, swift: &Arc<Swift>, call: &Call, entry: &Entry, is_last: bool) {
        let (path, etag, size, range) = match entry {
            Entry::Inline(bytes) => {
                self.size += bytes.len() as u64;
                self.hash.update(hex(&Md5::digest(bytes)));
                self.kept.push(json!({"data": STANDARD.encode(bytes)}));
                return;
            }
            Entry::Object { path, etag, size, range } => (path, etag, size, range),
        };
        let mut problem = |what: String| self.problems.push((manifest::shown(path), what));
        let Some((container, object)) = path.trim_start_matches('/').split_once('/') else { return };
        let place =
            Place { account: call.place.account.clone(), container: container.into(), object: object.into() };
        let view = match swift.view_at(&call.within(Method::HEAD, place), 1, true).await {
            Ok(view) => view,
            Err(refusal) => return problem(line(refusal.0.status)),
        };
        let whole = view.content.length();
        let part = range
            .as_ref()
            .and_then(|range| manifest::ranges(range, whole))
            .map(|found| found.first().copied());
        let part = match part {
            Some(None) => return problem("Unsatisfiable Range".into()),
            Some(Some(part)) if part != (0, whole) => Some(part),
            _ => None,
        };
        let length = part.map_or(whole, |(start, end)| end - start);
        if length < 1 && !is_last {
            problem("Too small; each segment must be at least 1 byte.".into());
        }
        if size.is_some_and(|size| size != whole) {
            problem("Size Mismatch".into());
        }
        if etag.as_ref().is_some_and(|etag| *etag != view.told.etag) {
            problem("Etag Mismatch".into());
        }
        match part {
            Some((start, end)) => self.hash.update(format!("{}:{start}-{};", view.told.etag, end - 1)),
            None => self.hash.update(&view.told.etag),
        }
        let modified = Timestamp::from_unix_seconds(-(-view.told.modified.0).div_euclid(1_000_000)).micros();
        let sub = view.found.object.is_large();
        let kind = &view.told.content_type;
        self.kept.push(manifest::kept(path, whole, &view.told.etag, kind, &modified, part, sub));
        self.size += length;
    }
}

impl Swift {
    /// A body that is read as a whole.
    pub async fn small_body(&self, call: &mut Call, max: usize, too_large: &str) -> Outcome<Bytes> {
        let chunked =
            call.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        match call.content_length()? {
            None if !chunked => return Err(refuse(411)),
            Some(length) if length > max as u64 => return Err(refuse_with(413, too_large)),
            _ => {}
        }
        let read = axum::body::to_bytes(call.take_body(), max).await;
        read.map_err(|_| refuse_with(413, too_large))
    }

    /// A manifest's bytes; they are few.
    pub async fn manifest(&self, object: &crate::model::Object) -> Outcome<Bytes> {
        let content = self.bytes_of(object).await?;
        let chunks: Vec<Bytes> = content.read(0..content.length()).try_collect().await?;
        Ok(chunks.concat().into())
    }

    /// The bytes of a static large object.
    pub async fn static_content(
        self: &Arc<Self>,
        call: &Call,
        body: &[u8],
        depth: usize,
    ) -> Outcome<Content> {
        let list = manifest::segments(&call.place.account, body)?;
        Ok(Content::Many(Segments::open(self, call, list, depth).await?))
    }

    /// The bytes of a dynamic one, and the hash of its segments' hashes.
    pub async fn dynamic_content(
        self: &Arc<Self>,
        call: &Call,
        prefix: &str,
        depth: usize,
    ) -> Outcome<(Content, String)> {
        let prefix = unquoted(prefix).unwrap_or_default();
        let Some((container, prefix)) = prefix.split_once('/') else { return Err(refuse(404)) };
        let account = call.place.account.clone();
        let place = Place { account: account.clone(), container: container.into(), object: String::new() };
        let list_call = call.within(Method::GET, place.clone());
        let info = self.info(&place).await?;
        self.authorize(&list_call, &info, info.read_acl())?;
        let container = info.container.ok_or_else(|| refuse(404))?;
        let (mut list, mut hash, mut marker) = (Vec::new(), Md5::new(), String::new());
        loop {
            let (id, wanted, after) = (container.id.clone(), prefix.to_string(), marker.clone());
            let limit = self.options.container_listing_limit;
            let some = self.db.read(move |tx| store::with_prefix(tx, &id, &wanted, &after, limit)).await?;
            for object in &some {
                hash.update(&object.etag);
                let place = Place { object: object.name(), ..place.clone() };
                let length = object.large_size.unwrap_or(object.size) as u64;
                let source = Source::Object { place, etag: None, size: None, dynamic: false };
                list.push(Segment { source, start: 0, length });
            }
            match some.last() {
                Some(last) if some.len() >= limit => marker = last.name(),
                _ => break,
            }
        }
        let content = Content::Many(Segments::open(self, call, list, depth).await?);
        Ok((content, hex(&hash.finalize())))
    }
}

/// GET with `multipart-manifest=get`.
pub async fn manifest_view(
    swift: &Arc<Swift>,
    call: &Call,
    object: &crate::model::Object,
    told: &mut Told,
) -> Outcome<Content> {
    let body = swift.manifest(object).await?;
    if call.query.get("format") == Some("raw") {
        let raw = manifest::raw(&body)?;
        told.etag = hex(&Md5::digest(&raw));
        told.etag_header = told.etag.clone();
        return Ok(Content::Bytes(raw.into()));
    }
    told.content_type = "application/json; charset=utf-8".into();
    Ok(Content::Bytes(body))
}

/// DELETE with `multipart-manifest=delete`: the segments, then the manifest.
pub async fn delete(swift: &Arc<Swift>, call: Call) -> Outcome {
    let form = accepted(&call);
    let mut deleting = bulk::Deleting::new();
    let mut waiting = vec![(call.place.clone(), true)];
    let mut gone = Vec::new();
    while let Some((place, is_manifest)) = waiting.pop() {
        if is_manifest {
            match segments_of(swift, &call, &place).await {
                Ok(inside) => waiting.extend(inside),
                Err((404, _)) => {
                    deleting.not_found += 1;
                    continue;
                }
                Err((_, why)) => {
                    deleting
                        .errors
                        .push((crate::call::quoted(&format!("/{}/{}", place.container, place.object)), why));
                    continue;
                }
            }
        }
        if gone.len() > swift.options.max_manifest_segments * 10 {
            return Err(refuse_with(400, "Too many buffered slo segments to delete."));
        }
        gone.push(place);
    }
    // Manifests last: what fails can be tried again.
    for place in gone.into_iter().rev() {
        let shown = format!("/{}/{}", place.container, place.object);
        deleting.object(swift, &call, place, &shown).await;
    }
    Ok(deleting.answer(form))
}

/// What a manifest names; the second of each says whether it is one, too.
async fn segments_of(
    swift: &Arc<Swift>,
    call: &Call,
    place: &Place,
) -> Result<Vec<(Place, bool)>, (u16, String)> {
    let mut asked = call.within(Method::GET, place.clone());
    if *place == call.place {
        asked.query = call.query.clone();
    }
    let failed = |refusal: crate::answer::Refusal| match refusal.0.status.as_u16() {
        404 => (404, "SLO manifest not found".to_string()),
        401 => (401, "401 Unauthorized".to_string()),
        status => (status, "Unable to load SLO manifest or segment.".to_string()),
    };
    let found = swift.find(&asked).await.map_err(failed)?;
    if !found.object.is_large() {
        return Err((400, "Not an SLO manifest".into()));
    }
    let body = swift.manifest(&found.object).await.map_err(failed)?;
    let list: Vec<Json> =
        serde_json::from_slice(&body).map_err(|_| (500, "Unable to load SLO manifest".to_string()))?;
    let named = list.iter().filter_map(|one| {
        let (container, object) = one["name"].as_str()?.trim_start_matches('/').split_once('/')?;
        let place =
            Place { account: place.account.clone(), container: container.into(), object: object.into() };
        Some((place, one["sub_slo"] == true))
    });
    Ok(named.collect())
}
