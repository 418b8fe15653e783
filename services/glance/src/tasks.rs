//! Imports as tasks: written down when they begin, in the transaction that claims the image, and when they end. Bytes
//! come from where an import says, into each of its stores.

use crate::{
    Glance,
    api::image_data::{activate, keep, not_allowed},
    bytes::{self, Arrived, Facts},
    http::Target,
    model::{Image, Status, Task, TaskKind, TaskStatus, Whole},
    quotas::Quota,
    remote::Remote,
    signatures::{self, Verifier},
    store,
    stores::Store,
    web_download,
};
use base::{Context, Error, ErrorKind, Json, Result, id};
use db::{Filter, Stored, Tx};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// What clients watch while an import goes on.
const IMPORTING_TO: &str = "os_glance_importing_to_stores";
const FAILED: &str = "os_glance_failed_import";

/// What is to be imported.
pub struct Import {
    /// Who imports.
    pub cx: Context,
    pub whole: Whole,
    pub source: Source,
    /// Where to, in this order.
    pub stores: Vec<String>,
    /// Otherwise one will do.
    pub all_must_succeed: bool,
    /// Properties that the image gets by being imported.
    pub properties: Vec<(String, String)>,
    pub quota: Quota,
}

/// Where an import takes its bytes from.
pub enum Source {
    Staged,
    Web(Target),
    /// Another cloud's image.
    Glance(Box<Remote>),
    /// An active image is copied from a store that has it.
    Stored,
}

/// Claims the image in the state that the source wants, and imports behind the caller's back.
pub async fn begin(glance: &Arc<Glance>, cx: &Context, asked: &Json, import: Import) -> Result<()> {
    let now = glance.clock.now();
    let image_id = &import.whole.image.id;
    let input = json!({"image_id": image_id, "import_req": asked, "backend": import.stores});
    let task = new(glance, cx, TaskKind::ApiImageImport, image_id, input);
    let wanted = match import.source {
        Source::Staged => Status::Uploading,
        Source::Web(_) | Source::Glance(_) => Status::Queued,
        Source::Stored => Status::Active,
    };
    let (inserted, stores, quota) = (task.clone(), import.stores.join(","), import.quota.clone());
    glance
        .db
        .write(move |tx| {
            let id = &inserted.image_id;
            quota.check(tx)?;
            claim(tx, &inserted, wanted)?;
            store::forget_expired_tasks(tx, now)?;
            store::set_property(tx, id, IMPORTING_TO, &stores)?;
            store::set_property(tx, id, FAILED, "")?;
            tx.insert(&inserted)
        })
        .await?;
    let glance = glance.clone();
    tokio::spawn(async move {
        if let Err(error) = run(&glance, task, import).await {
            tracing::error!(%error, "an import's end is not written down");
        }
    });
    Ok(())
}

/// One that begins now.
pub fn new(glance: &Glance, cx: &Context, kind: TaskKind, image_id: &str, input: Json) -> Task {
    let now = glance.clock.now();
    Task {
        id: id::uuid(),
        kind,
        status: TaskStatus::Processing,
        owner: cx.project_id.clone(),
        image_id: image_id.into(),
        user_id: cx.user_id.clone(),
        request_id: cx.request_id.clone(),
        input,
        result: Json::Null,
        message: String::new(),
        process: Some(glance.processes.owner().into()),
        expires_at: None,
        created_at: now,
        updated_at: now,
    }
}

/// How it ended: with so many bytes, or not.
pub fn ended(task: &mut Task, glance: &Glance, done: Result<u64, &Error>) {
    const MIB: u64 = 1 << 20;
    let now = glance.clock.now();
    task.updated_at = now;
    task.expires_at = Some(now.plus(Duration::from_secs(glance.options.task_time_to_live_hours * 3600)));
    match done {
        Ok(bytes) => {
            task.status = TaskStatus::Success;
            task.message = format!("Copied {} MiB", bytes / MIB);
            task.result = json!({"image_id": task.image_id});
        }
        Err(error) => {
            tracing::warn!(image = task.image_id, ?error, "import failed");
            task.status = TaskStatus::Failure;
            task.message = match error.is(ErrorKind::Internal) {
                true => "Task failed due to Internal Error".into(),
                false => error.message.clone(),
            };
        }
    }
}

/// One import at a time. A copied image stays active meanwhile.
fn claim(tx: &mut Tx, task: &Task, wanted: Status) -> Result<()> {
    let image_id = task.image_id.as_str();
    if store::has_running_task(tx, image_id)? {
        return Err(Error::conflict("Image has active task"));
    }
    let known = [Filter::eq("id", image_id), Filter::eq("status", wanted)];
    let next = if wanted == Status::Active { Status::Active } else { Status::Importing };
    let changes = [
        ("status", next.store()),
        ("process", task.process.store()),
        ("updated_at", task.created_at.store()),
    ];
    if tx.set::<Image>(&known, &changes)? > 0 {
        return Ok(());
    }
    Err(match tx.find::<Image>(image_id)? {
        None => store::missing(image_id),
        Some(image) => not_allowed(image.status, next),
    })
}

/// An import on its way through its stores.
struct Run<'a> {
    glance: &'a Glance,
    import: &'a Import,
    placed: Vec<(&'a str, Facts)>,
    /// So many of those placed are the image's already.
    shown: usize,
    failed: Vec<&'a str>,
    properties: Vec<(String, String)>,
}

impl<'a> Run<'a> {
    fn new(glance: &'a Glance, import: &'a Import) -> Self {
        let properties = import.properties.clone();
        Self { glance, import, placed: Vec::new(), shown: 0, failed: Vec::new(), properties }
    }

    /// Into one store after the other. A store that fails is passed over if one will do; bytes that are wrong are wrong
    /// everywhere.
    async fn go(&mut self) -> Result<()> {
        let stores = &self.import.stores;
        for (at, store) in stores.iter().enumerate() {
            match self.place(store).await {
                Ok(facts) => self.placed.push((store, facts)),
                Err(error) => {
                    self.failed.push(store);
                    if self.import.all_must_succeed || !error.is(ErrorKind::Internal) {
                        return Err(error);
                    }
                    tracing::warn!(image = self.import.whole.image.id, store, ?error, "a store failed");
                }
            }
            if !self.import.all_must_succeed {
                self.show().await?;
            }
            self.progress(&stores[at + 1..]).await?;
        }
        match self.placed.is_empty() {
            true => Err(Error::internal("import: every store failed")),
            false => self.show().await,
        }
    }

    /// The bytes come from the source once; further stores get a copy of what the first has.
    async fn place(&mut self, store: &str) -> Result<Facts> {
        let (stores, image) = (&self.glance.stores, &self.import.whole.image);
        let to = stores.asked(store)?;
        let mut incoming = stores.begin(to)?;
        let copied = match (&self.import.source, self.placed.first()) {
            (_, Some((first, facts))) => {
                let first = &stores.asked(first)?.backend;
                Some((first.read(&image.id, None, 0..facts.size).await?, facts.clone()))
            }
            (Source::Stored, None) => {
                let facts = facts_of(image)?;
                Some((stores.read(&self.import.whole, 0..facts.size).await?, facts))
            }
            _ => None,
        };
        let options = &self.glance.options;
        if let Some((chunks, facts)) = copied {
            web_download::take(chunks, &mut incoming, options).await?;
            let arrived = incoming.finish_copy(&facts.sha512).await?;
            self.keep(to, arrived).await?;
            return Ok(facts);
        }
        let mut formats = image.disk_format.clone().zip(image.container_format.clone());
        let mut wanted_size = None;
        let chunks = match &self.import.source {
            Source::Glance(remote) => {
                let described = remote.describe(self.glance).await?;
                wanted_size = Some(described.size);
                formats = Some((described.disk_format, described.container_format));
                self.properties.extend(described.properties);
                remote.open(self.glance).await?
            }
            Source::Web(target) => web_download::open(target.clone(), None, options).await?.0,
            _ => {
                let staged = stores.staged.path(&image.id);
                let size = std::fs::metadata(&staged)?.len();
                bytes::read(staged, 0..size).await?
            }
        };
        // What is converted is signed as it becomes.
        let (disk_format, container_format) =
            formats.ok_or_else(|| Error::internal("import: formats were checked before"))?;
        let is_converted = self.is_converted(&disk_format, &container_format);
        if !is_converted {
            incoming.verified_by(self.verifier().await?);
        }
        web_download::take(chunks, &mut incoming, options).await?;
        if wanted_size.is_some_and(|size| size != incoming.size()) {
            let (came, wanted) = (incoming.size(), wanted_size.unwrap_or(0));
            let sentence = format!("downloaded data size {came} is different from expected {wanted}");
            return Err(Error::bad_request(sentence));
        }
        let mut arrived = incoming.finish(&disk_format, &container_format, options).await?;
        if matches!(self.import.source, Source::Glance(_)) {
            arrived.facts.formats = Some((disk_format.clone(), container_format.clone()));
        }
        if is_converted {
            arrived = self.converted(arrived, &disk_format, to).await?;
        }
        self.keep(to, arrived).await
    }

    async fn keep(&self, to: &Store, arrived: Arrived) -> Result<Facts> {
        let image_id = &self.import.whole.image.id;
        let is_active = self.shown > 0 || matches!(self.import.source, Source::Stored);
        let kept = match is_active {
            true => to.backend.keep(image_id, arrived).await,
            false => keep(self.glance, image_id, to, arrived).await,
        };
        kept.map_err(of_store)
    }

    async fn verifier(&self) -> Result<Option<Verifier>> {
        signatures::verifier(self.glance, &self.import.cx, &self.import.whole).await
    }

    /// Discs stay what they are, as upstream has it.
    fn is_converted(&self, disk_format: &str, container_format: &str) -> bool {
        let wanted = self.glance.options.import_conversion_format.as_str();
        !(wanted.is_empty() || wanted == disk_format || disk_format == "iso" || container_format != "bare")
    }

    /// In the format that the operator wants imported images to have.
    async fn converted(&self, arrived: Arrived, disk_format: &str, to: &Store) -> Result<Arrived> {
        let wanted = self.glance.options.import_conversion_format.as_str();
        let scratch = self.glance.stores.staged.begin()?.finish_unseen().await?;
        let converter = &self.glance.peers.converter;
        converter.convert(arrived.path(), disk_format, scratch.path(), wanted).await?;
        let size = std::fs::metadata(scratch.path())?.len();
        let mut rewritten = self.glance.stores.begin(to)?;
        rewritten.verified_by(self.verifier().await?);
        let chunks = bytes::read(scratch.path().into(), 0..size).await?;
        web_download::take(chunks, &mut rewritten, &self.glance.options).await?;
        let mut rewritten = rewritten.finish(wanted, "bare", &self.glance.options).await?;
        rewritten.facts.formats = Some((wanted.into(), "bare".into()));
        Ok(rewritten)
    }

    /// What was placed since is the image's; the first bytes make it active.
    async fn show(&mut self) -> Result<()> {
        let (glance, image_id, now) = (self.glance, &self.import.whole.image.id, self.glance.clock.now());
        let is_copy = matches!(self.import.source, Source::Stored);
        if let (0, false, Some((first, facts))) = (self.shown, is_copy, self.placed.first()) {
            activate(glance, image_id, Status::Importing, facts.clone(), first).await?;
            self.shown = 1;
            let (id, properties) = (image_id.clone(), self.properties.clone());
            let set = move |tx: &mut Tx| {
                properties.iter().try_for_each(|(name, value)| store::set_property(tx, &id, name, value))
            };
            glance.db.write(set).await?;
        }
        let added: Vec<String> =
            self.placed[self.shown..].iter().map(|(store, _)| (*store).to_string()).collect();
        let id = image_id.clone();
        let is_there = glance
            .db
            .write(move |tx| added.iter().try_fold(true, |_, store| store::add_store(tx, &id, store, now)));
        if !is_there.await? {
            glance.stores.remove(image_id).await?;
            return Err(Error::gone(format!("Image {image_id} was deleted during the import.")));
        }
        self.shown = self.placed.len();
        Ok(())
    }

    async fn progress(&self, left: &[String]) -> Result<()> {
        let (id, left, failed) = (self.import.whole.image.id.clone(), left.join(","), self.failed.join(","));
        self.glance.db.write(move |tx| note(tx, &id, &left, &failed)).await
    }

    /// What is not the image's goes. The import has failed whether it does or not.
    async fn undo(&self) {
        let (stores, whole) = (&self.glance.stores, &self.import.whole);
        for (id, _) in &self.placed[self.shown..] {
            let Some(store) = stores.find(id) else { continue };
            if let Err(error) = stores.remove_from(store, whole).await {
                tracing::warn!(
                    image = whole.image.id,
                    store = id,
                    ?error,
                    "a store may keep what is nobody's"
                );
            }
        }
    }
}

/// Whatever a store complains of, it is no fault of the bytes.
fn of_store(error: Error) -> Error {
    Error::internal("a store did not take the image").cause(error)
}

/// For clients that watch; it may have been deleted meanwhile.
fn note(tx: &mut Tx, image_id: &str, left: &str, failed: &str) -> Result<()> {
    if tx.find::<Image>(image_id)?.is_some() {
        store::set_property(tx, image_id, IMPORTING_TO, left)?;
        store::set_property(tx, image_id, FAILED, failed)?;
    }
    Ok(())
}

fn facts_of(image: &Image) -> Result<Facts> {
    let unknown = || Error::internal(format!("image {} has no hashes", image.id));
    Ok(Facts {
        size: image.size.unwrap_or(0).unsigned_abs(),
        virtual_size: image.virtual_size.map(i64::unsigned_abs),
        md5: image.checksum.clone().ok_or_else(unknown)?,
        sha512: image.os_hash_value.clone().ok_or_else(unknown)?,
        formats: None,
    })
}

/// Runs it and writes down how it ended. A failed import leaves the image waiting for other bytes.
async fn run(glance: &Glance, mut task: Task, import: Import) -> Result<()> {
    let mut run = Run::new(glance, &import);
    let done = run.go().await;
    let is_failed = done.is_err();
    if is_failed {
        run.undo().await;
    }
    // Imported or not, nobody imports it again.
    if let Err(error) = glance.stores.staged.remove(&import.whole.image.id) {
        tracing::warn!(
            image = import.whole.image.id,
            ?error,
            "what was staged may stay until the next start"
        );
    }
    let size = run.placed.first().map_or(0, |(_, facts)| facts.size);
    ended(&mut task, glance, done.as_ref().map(|()| size));
    let now = task.updated_at;
    let failed = run.failed.join(",");
    glance
        .db
        .write(move |tx| {
            tx.update(&task)?;
            let id = &*task.image_id;
            if is_failed {
                let process = task.process.as_deref().unwrap_or_default();
                store::wait_for_other_bytes(tx, id, Status::Importing, process, now)?;
            }
            note(tx, id, "", &failed)
        })
        .await
}
