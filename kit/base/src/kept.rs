//! A map that outlives the process: what pretended hosts remember, as real ones remember their guests and disks.

use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Entries by a name that is fit for a file. Without a folder it is memory alone.
pub struct Kept<T> {
    folder: Option<PathBuf>,
    entries: BTreeMap<String, T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { folder: None, entries: BTreeMap::new() }
    }
}

impl<T: Serialize + DeserializeOwned> Kept<T> {
    /// Reads what a former process left in the folder, which is made when it is missing.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !name.starts_with('.') {
                let entry = serde_json::from_slice(&fs::read(&path)?)
                    .map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
                entries.insert(name.to_string(), entry);
            }
        }
        Ok(Self { folder: Some(folder.to_path_buf()), entries })
    }

    pub fn entries(&self) -> &BTreeMap<String, T> {
        &self.entries
    }

    pub fn get(&self, name: &str) -> Option<&T> {
        self.entries.get(name)
    }

    pub fn insert(&mut self, name: &str, entry: T) -> Result<()> {
        self.write(name, &entry)?;
        self.entries.insert(name.into(), entry);
        Ok(())
    }

    /// None when there is no such entry. What the change did is kept even when it answers an error.
    pub fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut T) -> R) -> Result<Option<R>> {
        let Some(entry) = self.entries.get_mut(name) else { return Ok(None) };
        let done = change(entry);
        self.write(name, &self.entries[name])?;
        Ok(Some(done))
    }

    pub fn remove(&mut self, name: &str) -> Result<Option<T>> {
        if let (Some(folder), true) = (&self.folder, self.entries.contains_key(name)) {
            fs::remove_file(folder.join(name))?;
        }
        Ok(self.entries.remove(name))
    }

    pub fn clear(&mut self) -> Result<()> {
        let names: Vec<String> = self.entries.keys().cloned().collect();
        names.iter().try_for_each(|name| self.remove(name).map(drop))
    }

    /// Whole or not at all, wherever the process dies.
    fn write(&self, name: &str, entry: &T) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let text = serde_json::to_vec(entry).map_err(|e| Error::internal(e.to_string()))?;
        let unfinished = folder.join(format!(".{name}"));
        fs::write(&unfinished, text)?;
        Ok(fs::rename(unfinished, folder.join(name))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_finds_what_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path()).unwrap();
        kept.insert("a", 1).unwrap();
        kept.insert("b", 2).unwrap();
        assert_eq!(kept.change("a", |number| *number += 10).unwrap(), Some(()));
        assert_eq!(kept.change("c", |number| *number += 10).unwrap(), None);
        assert_eq!(kept.remove("b").unwrap(), Some(2));
        assert_eq!(kept.remove("b").unwrap(), None);
        fs::write(folder.path().join(".d"), "half").unwrap();
        let mut again = Kept::<i32>::open(folder.path()).unwrap();
        assert_eq!(again.entries(), &BTreeMap::from([("a".to_string(), 11)]));
        again.clear().unwrap();
        assert!(Kept::<i32>::open(folder.path()).unwrap().entries().is_empty());
    }
}
