//! The stores that keep images' bytes. An image may be in several; the heaviest that answers serves its downloads.

mod file;
mod http;
mod rbd;
mod s3;
mod swift;

use crate::{
    Options,
    bytes::{Arrived, Chunks, Facts, Files, Upload},
    model::{Image, Location, Whole},
    options::{StoreKind, StoreOptions},
};
use async_trait::async_trait;
use base::{Error, ErrorKind, Json, Result};
use contracts::images::Pools;
use serde_json::json;
use std::{cmp::Reverse, ops::Range, path::Path, sync::Arc};

/// What a store does with bytes, whatever keeps them.
#[async_trait]
pub trait Backend: Send + Sync {
    fn kind(&self) -> &'static str;

    /// What its operators see of it.
    fn properties(&self) -> Json;

    /// Where it keeps an image's bytes.
    fn url(&self, image_id: &str) -> String;

    /// Where bytes are gathered that come for it; none: beside those that wait to be imported.
    fn gathers_in(&self) -> Option<&Files> {
        None
    }

    fn is_read_only(&self) -> bool {
        false
    }

    /// Asked at start, and again where it failed: what must be known of who keeps the bytes.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it reads what is at a URL that somebody names.
    fn serves(&self, _url: &str) -> bool {
        false
    }

    /// What is at such a URL, and how long it is, where that is known.
    async fn open(&self, url: &str) -> Result<(Chunks, Option<u64>)> {
        Err(Error::bad_request(format!("{url} is not read by {} stores", self.kind())))
    }

    /// Takes over all of an image's bytes. When this returns, it has them.
    async fn keep(&self, image_id: &str, arrived: Arrived) -> Result<Facts>;

    /// A part of an image's bytes. `elsewhere` is where they are if the store does not keep them itself.
    async fn read(&self, image_id: &str, elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks>;

    /// `NotFound` when they are gone already, `Conflict` while somebody uses them.
    async fn remove(&self, image_id: &str, elsewhere: Option<&str>) -> Result<()>;
}

pub struct Store {
    pub id: String,
    pub description: String,
    pub weight: i64,
    pub backend: Arc<dyn Backend>,
}

pub struct Stores {
    all: Vec<Store>,
    default: usize,
    /// Bytes that wait to be imported.
    pub staged: Files,
}

/// Names that upstream keeps for itself.
const RESERVED_PREFIX: &str = "os_glance_";

impl Stores {
    /// Those of the options, for this process; one without a directory of its own is at `home`.
    pub fn open(options: &Options, home: &Path, pools: &Arc<dyn Pools>, process: &str) -> Result<Self> {
        let mut all: Vec<Store> = Vec::new();
        let mut directories: Vec<&Path> = Vec::new();
        for store in &options.stores {
            let id = store.id.clone();
            let is_bad = id.is_empty() || id.contains([',', '/']) || id.starts_with(RESERVED_PREFIX);
            if is_bad || all.iter().any(|other| other.id == id) {
                return Err(Error::bad_request(format!("glance.stores: {id:?} is no id, or used twice")));
            }
            let directory = if store.directory.is_empty() { home } else { Path::new(&store.directory) };
            if store.kind == StoreKind::File {
                if directories.contains(&directory) {
                    let sentence = format!("glance.stores: {} is two stores' directory", directory.display());
                    return Err(Error::bad_request(sentence));
                }
                directories.push(directory);
            }
            let (description, weight) = (store.description.clone(), store.weight);
            all.push(Store {
                id,
                description,
                weight,
                backend: backend(store, directory, options, pools, process)?,
            });
        }
        let default = all.iter().position(|store| store.id == options.default_store).ok_or_else(|| {
            Error::bad_request(format!("glance.default_store: there is no store {:?}", options.default_store))
        })?;
        let staged = match options.staging_directory.as_str() {
            "" => home.join("staged"),
            directory => directory.into(),
        };
        Ok(Self { all, default, staged: Files::open(&staged, process)? })
    }

    pub fn all(&self) -> &[Store] {
        &self.all
    }

    pub fn default(&self) -> &Store {
        &self.all[self.default]
    }

    pub fn is_default(&self, store: &Store) -> bool {
        store.id == self.default().id
    }

    pub fn find(&self, id: &str) -> Option<&Store> {
        self.all.iter().find(|store| store.id == id)
    }

    /// One that somebody asked for.
    pub fn asked(&self, id: &str) -> Result<&Store> {
        self.find(id).ok_or_else(|| Error::conflict(format!("Store for identifier {id} not found")))
    }

    /// The one that reads what is at a URL.
    pub fn serving(&self, url: &str) -> Option<&Store> {
        self.all.iter().find(|store| store.backend.serves(url))
    }

    /// Asks those that keep bytes elsewhere who they are. One that does not answer is asked again when it is needed.
    pub async fn prepare(&self) {
        for store in &self.all {
            if let Err(error) = store.backend.prepare().await {
                tracing::warn!(store = store.id, ?error, "a store does not answer");
            }
        }
    }

    /// The one whose images are elsewhere on the web, if there is one.
    pub fn of_the_web(&self) -> Option<&Store> {
        self.all.iter().find(|store| store.backend.kind() == http::KIND)
    }

    /// Those that have an image's bytes, the heaviest first.
    pub fn of(&self, image: &Image) -> Vec<&Store> {
        let mut having: Vec<&Store> = ids(image).filter_map(|id| self.find(id)).collect();
        having.sort_by_key(|store| Reverse(store.weight));
        having
    }

    /// As clients see them: the heaviest first.
    pub fn joined<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> String {
        let mut sorted: Vec<&str> = ids.into_iter().collect();
        sorted.sort_by_key(|id| Reverse(self.find(id).map_or(0, |store| store.weight)));
        sorted.join(",")
    }

    /// Begins to gather bytes for a store.
    pub fn begin(&self, store: &Store) -> Result<Upload> {
        store.backend.gathers_in().unwrap_or(&self.staged).begin()
    }

    /// A part of an image's bytes, from the heaviest store that answers.
    pub async fn read(&self, whole: &Whole, range: Range<u64>) -> Result<Chunks> {
        let image = &whole.image;
        let nobody = format!("The stores of image {} are not available on this node.", image.id);
        let mut failed = Error::unavailable(nobody);
        for store in self.of(image) {
            let there: Vec<&Location> = whole.locations.iter().filter(|at| at.store == store.id).collect();
            let urls: Vec<Option<&str>> = match there.is_empty() {
                true => vec![None],
                false => there.iter().map(|location| Some(location.url.as_str())).collect(),
            };
            for url in urls {
                match store.backend.read(&image.id, url, range.clone()).await {
                    Ok(chunks) => return Ok(chunks),
                    Err(error) => {
                        tracing::warn!(image = image.id, store = store.id, ?error, "a store does not answer");
                        failed = error;
                    }
                }
            }
        }
        Err(failed)
    }

    /// Where an image's bytes are, the best place first.
    pub fn locations(&self, whole: &Whole) -> Vec<Json> {
        let mut places = Vec::new();
        for store in self.of(&whole.image) {
            let mut elsewhere = whole.locations.iter().filter(|at| at.store == store.id).peekable();
            if elsewhere.peek().is_none() {
                let url = store.backend.url(&whole.image.id);
                places.push(json!({"url": url, "metadata": {"store": store.id}}));
            }
            for location in elsewhere {
                let mut metadata = location.metadata.clone();
                metadata["store"] = json!(store.id);
                places.push(json!({"url": location.url, "metadata": metadata}));
            }
        }
        places
    }

    /// An image's bytes from one of its stores. What is gone already is fine.
    pub async fn remove_from(&self, store: &Store, whole: &Whole) -> Result<()> {
        let mut urls: Vec<Option<&str>> = Vec::new();
        for location in &whole.locations {
            if location.store == store.id {
                urls.push(Some(&location.url));
            }
        }
        if urls.is_empty() {
            urls.push(None);
        }
        for url in urls {
            gone(store.backend.remove(&whole.image.id, url).await)?;
        }
        Ok(())
    }

    /// From all stores, and what waits to be imported: for an image that is gone, or that never got its bytes. What is
    /// gone already is fine; one store's failure does not keep the others from forgetting it.
    pub async fn remove(&self, image_id: &str) -> Result<()> {
        let mut done = self.staged.remove(image_id);
        for store in &self.all {
            done = done.and(gone(store.backend.remove(image_id, None).await));
        }
        done
    }

    /// Directories, each with the store that keeps its images there; none: they wait to be imported.
    pub fn folders(&self) -> Vec<(Option<&str>, &Files)> {
        let mut folders = vec![(None, &self.staged)];
        for store in &self.all {
            folders.extend(store.backend.gathers_in().map(|files| (Some(store.id.as_str()), files)));
        }
        folders
    }
}

fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

fn backend(
    store: &StoreOptions,
    directory: &Path,
    options: &Options,
    pools: &Arc<dyn Pools>,
    process: &str,
) -> Result<Arc<dyn Backend>> {
    Ok(match store.kind {
        StoreKind::File => Arc::new(file::FileStore(Files::open(directory, process)?)),
        StoreKind::Http => Arc::new(http::WebStore(options.clone())),
        StoreKind::S3 => Arc::new(s3::S3Store::new(store)?),
        StoreKind::Swift => Arc::new(swift::SwiftStore::new(store)?),
        StoreKind::Rbd => Arc::new(rbd::RbdStore::new(store, pools.clone())),
    })
}

/// The ids of the stores that an image is in.
pub fn ids(image: &Image) -> impl Iterator<Item = &str> {
    image.stores.as_deref().unwrap_or_default().split(',').filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(stores: &[(&str, &Path, i64)]) -> Options {
        let one = |(id, directory, weight): &(&str, &Path, i64)| StoreOptions {
            id: (*id).into(),
            directory: directory.display().to_string(),
            weight: *weight,
            ..StoreOptions::default()
        };
        Options { stores: stores.iter().map(one).collect(), default_store: "a".into(), ..Options::default() }
    }

    fn pools() -> Arc<dyn Pools> {
        Arc::new(contracts::images::NoPools)
    }

    #[test]
    fn the_heaviest_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let (b, c) = (home.path().join("b"), home.path().join("c"));
        let stores = Stores::open(
            &options(&[("a", Path::new(""), 0), ("b", &b, 5), ("c", &c, 0)]),
            home.path(),
            &pools(),
            "p",
        )
        .unwrap();
        assert_eq!(stores.joined(["c", "a", "b"]), "b,c,a");
        assert_eq!(stores.default().id, "a");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let b = home.path().join("b");
        let bad: [&[(&str, &Path, i64)]; 5] = [
            &[],
            &[("b", &b, 0)],
            &[("a", &b, 0), ("a", Path::new(""), 0)],
            &[("a", &b, 0), ("b", &b, 0)],
            &[("a", &b, 0), ("os_glance_x", Path::new(""), 0)],
        ];
        for stores in bad {
            assert!(Stores::open(&options(stores), home.path(), &pools(), "p").is_err(), "{stores:?}");
        }
    }
}
