//! Imports as tasks: written down when they begin, in the transaction that claims the image, and when they end.

use crate::{
    Glance,
    api::image_data::activate,
    bytes::Facts,
    model::{Image, STORE, Status, Task, TaskKind, TaskStatus},
    store, web_download,
};
use base::{Context, Error, Json, Result, id};
use db::{Filter, Stored};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::io::AsyncReadExt;

/// What clients watch while an import goes on.
const IMPORTING_TO: &str = "os_glance_importing_to_stores";
const FAILED: &str = "os_glance_failed_import";
const CHUNK_BYTES: usize = 256 * 1024;

/// Where an import takes its bytes from.
pub enum Source {
    Staged,
    Web(web_download::Target),
}

/// Claims the image in the state that the source wants, and imports behind the caller's back.
pub async fn begin(
    glance: &Arc<Glance>,
    cx: &Context,
    image: Image,
    asked: &Json,
    source: Source,
) -> Result<()> {
    let now = glance.clock.now();
    let task = Task {
        id: id::uuid(),
        kind: TaskKind::ApiImageImport,
        status: TaskStatus::Processing,
        owner: cx.project_id.clone(),
        image_id: image.id.clone(),
        user_id: cx.user_id.clone(),
        request_id: cx.request_id.clone(),
        input: json!({"image_id": image.id, "import_req": asked, "backend": [STORE]}),
        result: Json::Null,
        message: String::new(),
        expires_at: None,
        created_at: now,
        updated_at: now,
    };
    let wanted = if matches!(source, Source::Staged) { Status::Uploading } else { Status::Queued };
    let inserted = task.clone();
    glance
        .write(move |tx| {
            let id = &inserted.image_id;
            if store::has_running_task(tx, id)? {
                return Err(Error::conflict("Image has active task"));
            }
            let known = [Filter::eq("id", &**id), Filter::eq("status", wanted)];
            let changes = [("status", Status::Importing.store()), ("updated_at", now.store())];
            if tx.set::<Image>(&known, &changes)? == 0 {
                return Err(match tx.find::<Image>(id)? {
                    None => store::missing(id),
                    Some(image) => Error::conflict(format!(
                        "Image status transition from {} to importing is not allowed",
                        image.status
                    )),
                });
            }
            store::forget_expired_tasks(tx, now)?;
            store::set_property(tx, id, IMPORTING_TO, STORE)?;
            store::set_property(tx, id, FAILED, "")?;
            tx.insert(&inserted)
        })
        .await?;
    let glance = glance.clone();
    tokio::spawn(async move {
        let done = run(&glance, &image, source).await;
        if let Err(error) = end(&glance, task, done).await {
            tracing::error!(%error, "an import's end is not written down");
        }
    });
    Ok(())
}

async fn run(glance: &Glance, image: &Image, source: Source) -> Result<u64> {
    let formats = image.disk_format.clone().zip(image.container_format.clone());
    let (disk_format, container_format) =
        formats.ok_or_else(|| Error::internal("import: formats were checked before"))?;
    let mut incoming = glance.files.begin(&id::uuid())?;
    match source {
        Source::Staged => {
            let mut file = tokio::fs::File::open(glance.files.staged_path(&image.id)).await?;
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let count = file.read(&mut chunk).await?;
                if count == 0 {
                    break;
                }
                chunk.truncate(count);
                incoming.write(chunk.into()).await?;
            }
        }
        Source::Web(target) => web_download::fetch(glance, target, &mut incoming).await?,
    }
    let facts: Facts =
        incoming.finish(&disk_format, &container_format, &glance.files.path(&image.id)).await?;
    let size = facts.size;
    activate(glance, &image.id, Status::Importing, facts).await?;
    Ok(size)
}

/// Writes down how it ended. A failed import leaves the image waiting for other bytes.
async fn end(glance: &Glance, mut task: Task, done: Result<u64>) -> Result<()> {
    const MIB: u64 = 1 << 20;
    let now = glance.clock.now();
    task.updated_at = now;
    task.expires_at = Some(now.plus(Duration::from_secs(glance.options.task_time_to_live_hours * 3600)));
    let failed = done.is_err();
    match done {
        Ok(size) => {
            task.status = TaskStatus::Success;
            task.message = format!("Copied {} MiB", size / MIB);
            task.result = json!({"image_id": task.image_id});
        }
        Err(error) => {
            tracing::warn!(image = task.image_id, ?error, "import failed");
            task.status = TaskStatus::Failure;
            task.message = match error.is(base::ErrorKind::Internal) {
                true => "Task failed due to Internal Error".into(),
                false => error.message,
            };
        }
    }
    let id = task.image_id.clone();
    glance
        .write(move |tx| {
            tx.update(&task)?;
            let id = &*task.image_id;
            if failed {
                let importing = [Filter::eq("id", id), Filter::eq("status", Status::Importing)];
                let queued = [
                    ("status", Status::Queued.store()),
                    ("size", Option::<i64>::None.store()),
                    ("updated_at", now.store()),
                ];
                tx.set::<Image>(&importing, &queued)?;
            }
            // It may have been deleted meanwhile.
            if tx.find::<Image>(id)?.is_some() {
                store::set_property(tx, id, IMPORTING_TO, "")?;
                store::set_property(tx, id, FAILED, if failed { STORE } else { "" })?;
            }
            Ok(())
        })
        .await?;
    match failed {
        // Nothing was activated: neither what was staged nor what came is an image's.
        true => glance.files.remove(&id),
        false => glance.files.remove_staged(&id),
    }
}
