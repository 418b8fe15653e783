//! An image whose bytes stay elsewhere: hashed there, and given up again if they are not what was said.

use crate::{
    Glance,
    api::image_data::not_allowed,
    model::{Image, Location, Status, Task, TaskKind},
    store, tasks,
};
use base::{Context, Error, Json, Result};
use db::{Filter, Stored};
use futures::TryStreamExt;
use md5::{Digest, Md5};
use sha2::{Sha256, Sha512};
use std::sync::Arc;

/// The bytes are the image's at once, unless it is said what they shall be: then when they are found to be that. Where
/// nobody hashes, they are what is said when the place is found to be there.
pub async fn begin(
    glance: &Arc<Glance>,
    cx: &Context,
    asked: &Json,
    location: Location,
    wanted: Option<(String, String)>,
) -> Result<()> {
    let now = glance.clock.now();
    let input = serde_json::json!({
        "image_id": location.image_id, "loc_url": location.url, "validation_data": asked["validation_data"],
    });
    let task = tasks::new(glance, cx, TaskKind::LocationImport, &location.image_id, input);
    let is_hashed = glance.options.do_secure_hash;
    let said = wanted.as_ref().map(|(algorithm, _)| algorithm.clone());
    let algorithm = said.or_else(|| is_hashed.then(|| "sha512".into()));
    let next = if wanted.is_some() || !is_hashed { Status::Importing } else { Status::Active };
    let (inserted, placed) = (task.clone(), location.clone());
    glance
        .db
        .write(move |tx| {
            let id = placed.image_id.as_str();
            if store::has_running_task(tx, id)? {
                let sentence = format!(
                    "New operation on image '{id}' is not permitted as prior operation is still in progress"
                );
                return Err(Error::conflict(sentence));
            }
            let known = [Filter::eq("id", id), Filter::eq("status", Status::Queued)];
            let changes = [
                ("status", next.store()),
                ("os_hash_algo", algorithm.store()),
                ("stores", placed.store.store()),
                ("process", inserted.process.store()),
                ("updated_at", now.store()),
            ];
            if tx.set::<Image>(&known, &changes)? == 0 {
                let image = tx.find::<Image>(id)?.ok_or_else(|| store::missing(id))?;
                return Err(not_allowed(image.status, next));
            }
            store::set_locations(tx, id, std::slice::from_ref(&placed))?;
            store::forget_expired_tasks(tx, now)?;
            tx.insert(&inserted)
        })
        .await?;
    let glance = glance.clone();
    tokio::spawn(async move {
        if let Err(error) = run(&glance, task, location, wanted).await {
            tracing::error!(%error, "a location's end is not written down");
        }
    });
    Ok(())
}

/// What is known of the bytes.
struct Hashed {
    size: Option<i64>,
    md5: Option<String>,
    value: Option<String>,
}

async fn run(
    glance: &Glance,
    mut task: Task,
    location: Location,
    wanted: Option<(String, String)>,
) -> Result<()> {
    let algorithm = wanted.as_ref().map_or("sha512", |(algorithm, _)| algorithm);
    let is_hashed = glance.options.do_secure_hash;
    let hashed = match is_hashed {
        true => hash(glance, &location, algorithm).await.and_then(|hashed| as_wanted(hashed, &wanted)),
        false => as_said(glance, &location, &wanted).await,
    };
    let now = glance.clock.now();
    tasks::ended(&mut task, glance, hashed.as_ref().map(|hashed| hashed.size.unwrap_or(0).unsigned_abs()));
    let is_kept = wanted.is_none() && is_hashed;
    glance
        .db
        .write(move |tx| {
            tx.update(&task)?;
            let known = [
                Filter::eq("id", task.image_id.as_str()),
                Filter::any("status", [Status::Importing, Status::Active]),
            ];
            match &hashed {
                Ok(hashed) => {
                    let changes = [
                        ("status", Status::Active.store()),
                        ("size", hashed.size.store()),
                        ("checksum", hashed.md5.store()),
                        ("os_hash_value", hashed.value.store()),
                        ("process", Option::<String>::None.store()),
                        ("updated_at", now.store()),
                    ];
                    tx.set::<Image>(&known, &changes).map(drop)
                }
                // What nobody said anything of stays, without a hash.
                Err(_) if is_kept => {
                    let changes = [
                        ("os_hash_algo", Option::<String>::None.store()),
                        ("process", Option::<String>::None.store()),
                    ];
                    tx.set::<Image>(&known, &changes).map(drop)
                }
                // As upstream: where its bytes are is kept, for web servers forget nothing.
                Err(_) => {
                    let changes = [
                        ("status", Status::Queued.store()),
                        ("os_hash_algo", Option::<String>::None.store()),
                        ("process", Option::<String>::None.store()),
                        ("updated_at", now.store()),
                    ];
                    tx.set::<Image>(&known, &changes).map(drop)
                }
            }
        })
        .await?;
    Ok(())
}

fn as_wanted(hashed: Hashed, wanted: &Option<(String, String)>) -> Result<Hashed> {
    let actual = hashed.value.as_deref().unwrap_or_default();
    match wanted {
        Some((_, value)) if !value.eq_ignore_ascii_case(actual) => Err(Error::bad_request(format!(
            "os_hash_value: ({value}) not matched with actual os_hash_value: ({actual})"
        ))),
        _ => Ok(hashed),
    }
}

/// Without a look at more than how long they are.
async fn as_said(glance: &Glance, location: &Location, wanted: &Option<(String, String)>) -> Result<Hashed> {
    let (_, length) = glance.stores.asked(&location.store)?.backend.open(&location.url).await?;
    let value = wanted.as_ref().map(|(_, value)| value.clone());
    Ok(Hashed { size: length.and_then(|length| i64::try_from(length).ok()), md5: None, value })
}

async fn hash(glance: &Glance, location: &Location, algorithm: &str) -> Result<Hashed> {
    let (mut chunks, _) = glance.stores.asked(&location.store)?.backend.open(&location.url).await?;
    let mut hashing = Hashing::new(algorithm);
    while let Some(bytes) = chunks.try_next().await? {
        let cap = glance.options.image_size_cap_bytes;
        if hashing.size + bytes.len() as u64 > cap {
            return Err(Error::too_large(format!("The incoming image is too large: more than {cap} bytes")));
        }
        let done = tokio::task::spawn_blocking(move || {
            hashing.update(&bytes);
            hashing
        });
        hashing = done.await.map_err(|e| Error::internal(e.to_string()))?;
    }
    Ok(hashing.finish())
}

/// The checksum that every image has, and the hash that was asked for.
struct Hashing {
    size: u64,
    md5: Md5,
    other: Other,
}

enum Other {
    Md5,
    Sha1(sha1::Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hashing {
    fn new(algorithm: &str) -> Self {
        let other = match algorithm {
            "md5" => Other::Md5,
            "sha1" => Other::Sha1(sha1::Sha1::new()),
            "sha256" => Other::Sha256(Sha256::new()),
            _ => Other::Sha512(Sha512::new()),
        };
        Self { size: 0, md5: Md5::new(), other }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        match &mut self.other {
            Other::Md5 => {}
            Other::Sha1(hash) => hash.update(bytes),
            Other::Sha256(hash) => hash.update(bytes),
            Other::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Hashed {
        let hex = crate::bytes::hex;
        let md5 = hex(&self.md5.finalize());
        let value = match self.other {
            Other::Md5 => md5.clone(),
            Other::Sha1(hash) => hex(&hash.finalize()),
            Other::Sha256(hash) => hex(&hash.finalize()),
            Other::Sha512(hash) => hex(&hash.finalize()),
        };
        Hashed { size: i64::try_from(self.size).ok(), md5: Some(md5), value: Some(value) }
    }
}
