//! Reading objects: plain ones, large ones, links to others, former versions.

use super::large;
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse, refuse_page},
    auth::Access,
    call::{Call, Place},
    content::{self, Content, Told},
    metadata,
    model::{Container, Object, stamp},
    store, symlinks, versions,
};
use base::ErrorKind;
use bytes::Bytes;
use std::sync::Arc;

/// An object that may be read, and where it is.
#[derive(Clone, Debug)]
pub struct Found {
    pub object: Object,
    pub container: Container,
    pub access: Access,
    pub place: Place,
    /// Whether links led here.
    pub followed: bool,
}

/// An object with its bytes as clients get them.
pub struct View {
    pub found: Found,
    pub content: Content,
    pub told: Told,
}

pub async fn get(swift: &Arc<Swift>, call: Call) -> Outcome {
    let view = swift.view(&call).await?;
    let as_manifest = call.query.get("multipart-manifest") == Some("get");
    content::answer(&call, &view.content, &view.told, |answer| tell(answer, &view.found, as_manifest))
}

/// What stands in the headers of every answer about an object.
fn tell(answer: &mut Answer, found: &Found, as_manifest: bool) {
    let object = &found.object;
    metadata::tell(answer, &object.metadata, found.access.owner);
    symlinks::tell(answer, object);
    if object.is_large() && !as_manifest {
        answer.set("x-manifest-etag", &object.etag);
    }
    answer.set("x-timestamp", stamp(object.written_at));
    if let Some(at) = object.delete_at {
        answer.set("x-delete-at", at.to_string());
    }
    if object.version.is_some() || versions::is_enabled(&found.container) {
        answer.set("x-object-version-id", versions::id_of(object));
    }
    if found.followed {
        answer.set("content-location", found.place.url_path());
    }
}

/// Reads of an object whose bytes were written over meanwhile.
const READS_MAX: usize = 5;

impl Swift {
    /// What GET gives.
    pub async fn view(self: &Arc<Self>, call: &Call) -> Outcome<View> {
        let part = call.query.get("part-number").map(part_number).transpose()?;
        let mut view = self.view_at(call, 0, true).await?;
        if let Some(number) = part.filter(|_| view.found.object.is_large()) {
            let body = self.manifest(&view.found.object).await?;
            let list = crate::manifest::segments(&call.place.account, &body)?;
            let before: u64 = list.iter().take(number - 1).map(|segment| segment.length).sum();
            let part = list.get(number - 1).map(|segment| (before, before + segment.length));
            view.told.part = Some(part);
            view.told.parts = Some(list.len());
        }
        Ok(view)
    }

    /// The same, for a segment so deep in large objects; `dynamic`: by its prefix, where it has one.
    pub async fn view_at(self: &Arc<Self>, call: &Call, depth: usize, dynamic: bool) -> Outcome<View> {
        let mut reads = 0;
        let (found, stored) = loop {
            let found = match call.query.get("symlink") {
                Some("get") => self.find(call).await?,
                _ => self.follow(call).await?,
            };
            match self.bytes_of(&found.object).await {
                Ok(stored) => break (found, stored),
                // It was written over since its row was read.
                Err(_) if reads < READS_MAX => reads += 1,
                Err(refusal) => return Err(refusal),
            }
        };
        let object = &found.object;
        let mut told = Told {
            etag: object.etag.clone(),
            etag_header: object.etag.clone(),
            modified: object.written_at,
            content_type: object.content_type.clone(),
            part: None,
            parts: None,
        };
        // Segments are in the account of their manifest.
        let near = call.within(call.method.clone(), found.place.clone());
        let as_manifest = call.query.get("multipart-manifest") == Some("get");
        let content = match (&object.large_etag, object.meta("x-object-manifest")) {
            (Some(_), _) if as_manifest => large::manifest_view(self, call, object, &mut told).await?,
            (Some(etag), _) => {
                let body = self.manifest(object).await?;
                told.etag = etag.clone();
                told.etag_header = format!("\"{etag}\"");
                self.static_content(&near, &body, depth).await?
            }
            (None, Some(prefix)) if dynamic && !as_manifest => {
                let (content, etag) = self.dynamic_content(&near, prefix, depth).await?;
                told.etag_header = format!("\"{etag}\"");
                told.etag = etag;
                content
            }
            _ => stored,
        };
        Ok(View { found, content, told })
    }

    /// The object of the path (or the version of it that the query names) which the caller may read.
    pub async fn find(&self, call: &Call) -> Outcome<Found> {
        let info = self.info(&call.place).await?;
        let access = self.authorize(call, &info, info.read_acl())?;
        let container = info.container.ok_or_else(|| refuse(404))?;
        let version = call.query.get("version-id").map(versions::parse_id).transpose()?;
        let (id, name, now) = (container.id.clone(), call.place.object.clone(), call.now);
        let object = self.db.read(move |tx| {
            let current = store::alive(tx, &id, &name, now)?;
            match version {
                None => Ok(current),
                Some(wanted) if current.as_ref().is_some_and(|object| object.version == wanted) => {
                    Ok(current)
                }
                Some(Some(wanted)) => store::past(tx, &id, &name, wanted),
                Some(None) => Ok(None),
            }
        });
        let object = object.await?.ok_or_else(|| refuse(404))?;
        if object.marker {
            let answer = Answer::new(404).header("x-object-version-id", versions::id_of(&object));
            return Err(answer.header("content-type", versions::DELETED).into());
        }
        Ok(Found { object, container, access, place: call.place.clone(), followed: false })
    }

    /// The bytes that are stored under a name; what is made of segments stores which they are.
    pub async fn bytes_of(&self, object: &Object) -> Outcome<Content> {
        let Some(file) = &object.file else { return Ok(Content::Bytes(Bytes::new())) };
        match self.files.open_file(file).await {
            Ok(open) => Ok(Content::File(Arc::new(open), object.size as u64)),
            Err(error) if error.is(ErrorKind::NotFound) => Err(refuse(503)),
            Err(error) => Err(error.into()),
        }
    }
}

fn part_number(text: &str) -> Outcome<usize> {
    let wrong = || refuse_page(400, "Part number must be an integer greater than 0");
    text.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)
}
