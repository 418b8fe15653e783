//! The stores: directories that keep images' bytes. An image may be in several; the heaviest serves its downloads.

use crate::{Options, bytes::Files, model::Image};
use base::{Error, Result};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

pub struct Store {
    pub id: String,
    pub description: String,
    pub weight: i64,
    pub files: Files,
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
    /// Those of the options; one without a directory of its own is at `home`.
    pub fn open(options: &Options, home: &Path) -> Result<Self> {
        let mut all: Vec<Store> = Vec::new();
        for store in &options.stores {
            let id = store.id.clone();
            let is_bad = id.is_empty() || id.contains([',', '/']) || id.starts_with(RESERVED_PREFIX);
            if is_bad || all.iter().any(|other| other.id == id) {
                return Err(Error::bad_request(format!("glance.stores: {id:?} is no id, or used twice")));
            }
            let directory = if store.directory.is_empty() { home } else { Path::new(&store.directory) };
            if all.iter().any(|other| other.files.directory() == directory) {
                return Err(Error::bad_request(format!(
                    "glance.stores: {} is two stores' directory",
                    directory.display()
                )));
            }
            let (description, files) = (store.description.clone(), Files::open(directory)?);
            all.push(Store { id, description, weight: store.weight, files });
        }
        let default = all.iter().position(|store| store.id == options.default_store).ok_or_else(|| {
            Error::bad_request(format!("glance.default_store: there is no store {:?}", options.default_store))
        })?;
        Ok(Self { all, default, staged: Files::open(&home.join("staged"))? })
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

    /// Where to read an image.
    pub fn path(&self, image: &Image) -> Result<PathBuf> {
        let having = self.of(image);
        let best = having.first().ok_or_else(|| {
            Error::unavailable(format!("The stores of image {} are not available on this node.", image.id))
        })?;
        Ok(best.files.path(&image.id))
    }

    /// From all stores, and what waits to be imported. What is gone already is fine.
    pub fn remove(&self, image_id: &str) -> Result<()> {
        self.all.iter().try_for_each(|store| store.files.remove(image_id))?;
        self.staged.remove(image_id)
    }

    /// At start nobody writes: what is half written is lost, and what belongs to no image goes.
    pub fn set_right(&self, stored: &HashMap<String, String>, staged: &BTreeSet<String>) -> Result<()> {
        for store in &self.all {
            let is_here = |ids: &String| ids.split(',').any(|id| id == store.id);
            let known = stored.iter().filter(|(_, ids)| is_here(ids)).map(|(image, _)| image.clone());
            store.files.forget_all_but(&known.collect())?;
        }
        self.staged.forget_all_but(staged)
    }
}

/// The ids of the stores that an image is in.
pub fn ids(image: &Image) -> impl Iterator<Item = &str> {
    image.stores.as_deref().unwrap_or_default().split(',').filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::FileStore;

    fn options(stores: &[(&str, &Path, i64)]) -> Options {
        let one = |(id, directory, weight): &(&str, &Path, i64)| FileStore {
            id: (*id).into(),
            directory: directory.display().to_string(),
            weight: *weight,
            description: String::new(),
        };
        Options { stores: stores.iter().map(one).collect(), default_store: "a".into(), ..Options::default() }
    }

    #[test]
    fn the_heaviest_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let (b, c) = (home.path().join("b"), home.path().join("c"));
        let stores =
            Stores::open(&options(&[("a", Path::new(""), 0), ("b", &b, 5), ("c", &c, 0)]), home.path())
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
            assert!(Stores::open(&options(stores), home.path()).is_err(), "{stores:?}");
        }
    }
}
