//! The cache: whole copies of images on this machine, so that stores elsewhere are asked once. Operators queue images
//! for it; what is downloaded from elsewhere comes into it by itself. Downloads are served from it.

use crate::{
    Glance, Options,
    bytes::{self, Chunks, Files, Upload},
    lost,
    model::{CacheState, Cached, Whole},
    store,
};
use base::{Error, Result};
use db::List;
use futures::{StreamExt, TryStreamExt, stream};
use std::{collections::BTreeSet, ops::Range, path::Path, sync::Arc, time::Duration};

/// How many images and bytes went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub files: u64,
    pub bytes: u64,
}

impl Glance {
    /// An image's bytes: from the cache, or from its stores and on their way into the cache.
    pub async fn read_image(self: &Arc<Self>, whole: &Whole, range: Range<u64>) -> Result<Chunks> {
        let id = whole.image.id.clone();
        if let Some(chunks) = self.read_cached(&id, range.clone()).await? {
            return Ok(chunks);
        }
        let is_whole = whole.image.size == i64::try_from(range.end).ok() && range.start == 0;
        let is_near = self.stores.of(&whole.image).first().is_none_or(|store| store.backend.kind() == "file");
        let chunks = self.stores.read(whole, range).await?;
        match whole.image.os_hash_value.clone() {
            Some(sha512) if is_whole && !is_near => {
                let upload = self.cache.begin()?;
                Ok(through(self.clone(), chunks, upload, id, sha512))
            }
            _ => Ok(chunks),
        }
    }

    async fn read_cached(&self, image_id: &str, range: Range<u64>) -> Result<Option<Chunks>> {
        if !self.cache.path(image_id).exists() {
            return Ok(None);
        }
        let Ok(chunks) = bytes::read(self.cache.path(image_id), range).await else { return Ok(None) };
        let (id, node, now) = (image_id.to_string(), self.node(), self.clock.now());
        self.db.write(move |tx| store::cache_hit(tx, &id, &node, now)).await?;
        Ok(Some(chunks))
    }

    /// As other nodes of the cloud know it.
    pub(crate) fn node(&self) -> String {
        self.options.worker_self_reference_url.clone()
    }

    /// What this node's cache has in that state.
    pub async fn cached(&self, state: CacheState) -> Result<Vec<Cached>> {
        let node = self.node();
        self.db.read(move |tx| tx.list(&List::all().eq("node", &*node).eq("state", state))).await
    }

    /// Whether it is in this node's cache or queue.
    pub async fn is_cached_or_queued(&self, image_id: &str) -> Result<bool> {
        let (id, node) = (image_id.to_string(), self.node());
        self.db.read(move |tx| Ok(store::cached_at(tx, &id, &node)?.is_some())).await
    }

    /// Queues an image, and fetches it behind the caller's back. One that is cached or queued stays so.
    pub async fn queue_for_cache(self: &Arc<Self>, whole: Whole) -> Result<()> {
        let (id, node, now) = (whole.image.id.clone(), self.node(), self.clock.now());
        if self.db.write(move |tx| store::queue_for_cache(tx, &id, &node, now)).await? {
            self.clone().fetch_queued(whole);
        }
        Ok(())
    }

    /// An image that cannot be fetched stays queued.
    fn fetch_queued(self: Arc<Self>, whole: Whole) {
        tokio::spawn(async move {
            if let Err(error) = self.fetch_into_cache(&whole).await {
                tracing::warn!(image = whole.image.id, ?error, "not cached");
            }
        });
    }

    async fn fetch_into_cache(self: &Arc<Self>, whole: &Whole) -> Result<()> {
        let image = &whole.image;
        let facts = image.os_hash_value.as_deref().zip(image.size.and_then(|size| u64::try_from(size).ok()));
        let (sha512, size) = facts.ok_or_else(|| Error::internal("an image without bytes is not cached"))?;
        let mut chunks = self.stores.read(whole, 0..size).await?;
        let mut upload = self.cache.begin()?;
        while let Some(bytes) = chunks.try_next().await? {
            upload.write(bytes).await?;
        }
        self.keep_cached(&image.id, upload, sha512).await
    }

    /// What was gathered is the image, or is forgotten.
    async fn keep_cached(&self, image_id: &str, upload: Upload, sha512: &str) -> Result<()> {
        let arrived = upload.finish_copy(sha512).await?;
        let facts = arrived.move_to(&self.cache.path(image_id)).await?;
        let (id, node, now) = (image_id.to_string(), self.node(), self.clock.now());
        let is_there = self.db.write(move |tx| store::cached(tx, &id, &node, &facts, now)).await?;
        // Deleted meanwhile.
        if is_there { Ok(()) } else { self.cache.remove(image_id) }
    }

    /// From the cache and from the queue. False: it was in neither.
    pub async fn uncache(&self, image_id: &str) -> Result<bool> {
        let (id, node) = (image_id.to_string(), self.node());
        let was_there = self.db.write(move |tx| store::uncache(tx, &id, &node)).await?;
        self.cache.remove(image_id)?;
        Ok(was_there)
    }

    /// How many went.
    pub async fn clear_cache(&self, state: CacheState) -> Result<usize> {
        let gone = self.cached(state).await?;
        for entry in &gone {
            self.uncache(&entry.image_id).await?;
        }
        Ok(gone.len())
    }

    /// The least lately used go until the rest has room.
    pub async fn prune_cache(&self) -> Result<Pruned> {
        let mut entries = self.cached(CacheState::Cached).await?;
        entries.sort_by_key(|entry| entry.last_accessed);
        let size = |entry: &Cached| u64::try_from(entry.size).unwrap_or(0);
        let mut used: u64 = entries.iter().map(size).sum();
        let mut pruned = Pruned::default();
        for entry in &entries {
            if used <= self.options.image_cache_bytes_max {
                break;
            }
            self.uncache(&entry.image_id).await?;
            used -= size(entry);
            pruned.files += 1;
            pruned.bytes += size(entry);
        }
        Ok(pruned)
    }

    /// What has been half cached for too long goes, and what the database does not know.
    pub async fn clean_cache(&self) -> Result<()> {
        let stalled = Duration::from_secs(self.options.image_cache_stall_seconds);
        for entry in std::fs::read_dir(self.cache.incoming())? {
            let entry = entry?;
            let is_stalled = entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age >= stalled);
            if is_stalled {
                std::fs::remove_file(entry.path())?;
            }
        }
        let known: BTreeSet<String> =
            self.cached(CacheState::Cached).await?.into_iter().map(|entry| entry.image_id).collect();
        let names = self.cache.names()?;
        names.iter().filter(|name| !known.contains(*name)).try_for_each(|name| self.cache.remove(name))
    }

    /// At start: files and entries agree again, and what was queued is fetched.
    pub async fn start_cache(self: &Arc<Self>) -> Result<()> {
        let (names, incoming) = (self.cache.names()?, self.cache.incoming_names()?);
        let known: BTreeSet<String> =
            self.cached(CacheState::Cached).await?.into_iter().map(|entry| entry.image_id).collect();
        names.iter().filter(|name| !known.contains(*name)).try_for_each(|name| self.cache.remove(name))?;
        let processes = self.processes.clone();
        let living = self.db.read(move |tx| processes.living(tx, lost::SILENT_FOR)).await?;
        self.cache.remove_incoming_but_of(&living, &incoming)?;
        for id in known.iter().filter(|id| !self.cache.path(id).exists()) {
            self.uncache(id).await?;
        }
        let queued = self.cached(CacheState::Queued).await?.into_iter().map(|entry| entry.image_id);
        let queued: Vec<String> = queued.collect();
        for whole in self.db.read(move |tx| store::wholes(tx, &queued)).await? {
            self.clone().fetch_queued(whole);
        }
        Ok(())
    }
}

/// Where the cache is. Nodes that have each one of their own may still have their images in one place.
pub fn open(options: &Options, home: &Path, process: &str) -> Result<Files> {
    let node = options.worker_self_reference_url.as_str();
    let directory = match options.image_cache_directory.as_str() {
        "" => home.join("cache").join(node.replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
        directory => directory.into(),
    };
    Files::open(&directory, process)
}

/// The chunks, on their way past the cache. A cache that fails takes nothing from who downloads.
fn through(glance: Arc<Glance>, chunks: Chunks, upload: Upload, image_id: String, sha512: String) -> Chunks {
    let next = |(mut chunks, mut upload, known): (Chunks, Option<Upload>, (Arc<Glance>, String, String))| async move {
        let Some(bytes) = chunks.try_next().await? else {
            if let Some(upload) = upload {
                let (glance, image_id, sha512) = known;
                tokio::spawn(async move {
                    if let Err(error) = glance.keep_cached(&image_id, upload, &sha512).await {
                        tracing::warn!(image = image_id, ?error, "a download was not cached");
                    }
                });
            }
            return Ok(None);
        };
        if let Some(gathering) = &mut upload
            && gathering.write(bytes.clone()).await.is_err()
        {
            upload = None;
        }
        Ok(Some((bytes, (chunks, upload, known))))
    };
    stream::try_unfold((chunks, Some(upload), (glance, image_id, sha512)), next).boxed()
}
