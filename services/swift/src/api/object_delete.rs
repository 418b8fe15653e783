//! Deleting objects, or one version of them.

use super::{large, nothing};
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse},
    call::Call,
    model::{Container, Object},
    store, versions,
};
use base::{Error, Timestamp};
use std::sync::Arc;

pub async fn delete(swift: &Arc<Swift>, call: Call) -> Outcome {
    if call.query.get("multipart-manifest") == Some("delete") {
        return large::delete(swift, call).await;
    }
    let info = swift.info(&call.place).await?;
    swift.authorize(&call, &info, info.write_acl())?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    match call.query.get("version-id").map(versions::parse_id).transpose()? {
        Some(version) => delete_version(swift, &call, container, version).await,
        None => delete_current(swift, &call, container).await,
    }
}

async fn delete_current(swift: &Arc<Swift>, call: &Call, container: Container) -> Outcome {
    let (files, name, now) = (swift.files.clone(), call.place.object.clone(), call.now);
    let gone = swift.db.write(move |tx| {
        let container = tx.find::<Container>(&container.id)?.ok_or_else(|| Error::not_found(""))?;
        let found = store::current(tx, &container.id, &name)?;
        let is_alive =
            found.as_ref().is_some_and(|object| object.delete_at.is_none_or(|at| at > now.unix_seconds()));
        if let Some(object) = &found {
            versions::delete(tx, &files, &container, object, now)?;
        }
        let came_back = found.is_none() && versions::undelete(tx, &files, &container, &name)?;
        let marker = match versions::is_enabled(&container) {
            true => Some(versions::mark_deleted(tx, &container, &name, now)?),
            false => None,
        };
        Ok((is_alive || came_back, marker))
    });
    let (was_there, marker) = gone.await?;
    let mut answer = if was_there { nothing() } else { Answer::new(404) };
    if let Some(marker) = marker {
        answer.set("x-object-version-id", versions::id_of(&marker));
    }
    Ok(answer)
}

async fn delete_version(
    swift: &Arc<Swift>,
    call: &Call,
    container: Container,
    version: Option<Timestamp>,
) -> Outcome {
    let (files, name) = (swift.files.clone(), call.place.object.clone());
    let gone = swift.db.write(move |tx| {
        let current = store::current(tx, &container.id, &name)?;
        let is_current = current.as_ref().is_some_and(|object| object.version == version);
        let found = match version {
            _ if is_current => current.clone(),
            Some(version) => store::past(tx, &container.id, &name, version)?,
            None => None,
        };
        let found: Object = found.ok_or_else(|| Error::not_found(""))?;
        store::remove(tx, &files, &container, &found)?;
        let stays = if is_current { None } else { current };
        Ok((found, stays))
    });
    let (gone, current) = gone.await?;
    let mut answer = nothing().header("x-object-version-id", versions::id_of(&gone));
    answer.set("x-object-current-version-id", current.as_ref().map_or("null".into(), versions::id_of));
    Ok(answer)
}
