//! Reading objects.

use crate::{
    Swift,
    answer::{Answer, Outcome, refuse},
    auth::Access,
    call::Call,
    content::{self, Content, Told},
    metadata,
    model::{Container, Object, stamp},
    store, versions,
};
use bytes::Bytes;
use std::sync::Arc;

/// An object that may be read, and where it is.
#[derive(Clone, Debug)]
pub struct Found {
    pub object: Object,
    pub container: Container,
    pub access: Access,
}

pub async fn get(swift: &Arc<Swift>, call: Call) -> Outcome {
    let found = swift.find(&call).await?;
    plain(swift, &call, &found).await
}

async fn plain(swift: &Arc<Swift>, call: &Call, found: &Found) -> Outcome {
    let content = swift.bytes_of(&found.object).await?;
    let object = &found.object;
    let told = Told {
        etag: object.etag.clone(),
        etag_header: object.etag.clone(),
        modified: object.written_at,
        content_type: object.content_type.clone(),
    };
    content::answer(call, &content, &told, |answer| tell(answer, found))
}

/// What stands in the headers of every answer about an object.
pub fn tell(answer: &mut Answer, found: &Found) {
    let object = &found.object;
    metadata::tell(answer, &object.metadata, found.access.owner);
    answer.set("x-timestamp", stamp(object.written_at));
    if let Some(at) = object.delete_at {
        answer.set("x-delete-at", at.to_string());
    }
    if object.version.is_some() || versions::is_enabled(&found.container) {
        answer.set("x-object-version-id", versions::id_of(object));
    }
}

impl Swift {
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
        Ok(Found { object, container, access })
    }

    /// The bytes that are stored under a name; what is made of segments stores which they are.
    pub async fn bytes_of(&self, object: &Object) -> Outcome<Content> {
        let Some(file) = &object.file else { return Ok(Content::Bytes(Bytes::new())) };
        match self.files.open_file(file).await {
            Ok(open) => Ok(Content::File(Arc::new(open), object.size as u64)),
            // It was written over since its row was read: the client asks again.
            Err(error) => {
                tracing::warn!(file, ?error, "an object's bytes are gone");
                Err(refuse(503))
            }
        }
    }
}
