//! Backups of disks in a folder: what of a disk is not zero, in chunks. A backup that builds on another keeps only the
//! chunks that differ and says of the rest in which backup they are, so that one list is enough to restore.

use crate::{check_id, exists};
use base::{Error, Result};
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

const CHUNK_BYTES: u64 = 4 << 20;
const DATA: &str = "data";
const LIST: &str = "list.json";
const VERSION: u32 = 1;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The disk's.
    pub bytes: u64,
    /// Chunks of its own.
    pub chunks: u64,
}

#[derive(Clone, Debug)]
pub struct Backups(PathBuf);

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    /// The disk's.
    bytes: u64,
    /// By number; those that are missing are zero.
    chunks: BTreeMap<u64, Chunk>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Chunk {
    /// The backup that has it.
    backup: String,
    at: u64,
    bytes: u64,
    sha256: String,
}

impl Backups {
    /// The folder is made when it is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }

    fn dir(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.0.join(id))
    }

    /// Saves the file. One that is saved stays as it is.
    pub async fn save(&self, id: &str, from: &Path, parent: Option<&str>) -> Result<Saved> {
        let (dir, from) = (self.dir(id)?, from.to_path_buf());
        if exists(&dir).await? {
            return self.saved(id).await;
        }
        let (own, id, parent) = (self.clone(), id.to_string(), parent.map(String::from));
        aside(move || own.save_now(&id, &from, parent.as_deref())).await
    }

    pub async fn saved(&self, id: &str) -> Result<Saved> {
        let (own, id) = (self.clone(), id.to_string());
        aside(move || {
            let list = own.list(&id)?;
            Ok(Saved { bytes: list.bytes, chunks: own_chunks(&list, &id) })
        })
        .await
    }

    /// Writes the backup into a file that is new; every chunk is checked.
    pub async fn restore(&self, id: &str, to: &Path) -> Result<()> {
        let (own, id, to) = (self.clone(), id.to_string(), to.to_path_buf());
        aside(move || own.restore_now(&id, &to)).await
    }

    /// Also one that was only begun. Those that build on it are cinder's to look for.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let dir = self.dir(id)?;
        let part = dir.with_extension("part");
        aside(move || [dir, part].iter().try_for_each(|dir| remove(dir))).await
    }

    fn list(&self, id: &str) -> Result<List> {
        let missing = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("Backup {id} is not in this place.")),
            _ => e.into(),
        };
        let list: List = serde_json::from_slice(&fs::read(self.dir(id)?.join(LIST)).map_err(missing)?)?;
        match list.version {
            VERSION => Ok(list),
            other => Err(Error::conflict(format!("Backup {id} is of version {other}, which is not known."))),
        }
    }

    fn save_now(&self, id: &str, from: &Path, parent: Option<&str>) -> Result<Saved> {
        let dir = self.dir(id)?;
        let part = dir.with_extension("part");
        let base =
            parent.map(|parent| self.list(parent)).transpose()?.map_or_else(BTreeMap::new, |l| l.chunks);
        remove(&part)?;
        fs::DirBuilder::new().mode(0o700).create(&part)?;
        let source = File::open(from)?;
        let mut list = List { version: VERSION, bytes: source.metadata()?.len(), chunks: BTreeMap::new() };
        let mut data = BufWriter::new(File::create(part.join(DATA))?);
        let (mut at, mut buffer) = (0, vec![0; CHUNK_BYTES as usize]);
        let mut begin = 0;
        while let Some(offset) = next_data(&source, begin, list.bytes)? {
            let number = offset / CHUNK_BYTES;
            let first = number * CHUNK_BYTES;
            let bytes = CHUNK_BYTES.min(list.bytes - first);
            let chunk = &mut buffer[..bytes as usize];
            source.read_exact_at(chunk, first)?;
            begin = first + bytes;
            if chunk.iter().all(|byte| *byte == 0) {
                continue;
            }
            let sha256 = digest(chunk);
            let known = base.get(&number).filter(|known| known.sha256 == sha256 && known.bytes == bytes);
            let kept = match known {
                Some(known) => known.clone(),
                None => {
                    data.write_all(chunk)?;
                    at += bytes;
                    Chunk { backup: id.into(), at: at - bytes, bytes, sha256 }
                }
            };
            list.chunks.insert(number, kept);
        }
        data.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        let mut file = File::create(part.join(LIST))?;
        file.write_all(&serde_json::to_vec(&list)?)?;
        file.sync_all()?;
        fs::rename(&part, &dir)?;
        File::open(&self.0)?.sync_all()?;
        Ok(Saved { bytes: list.bytes, chunks: own_chunks(&list, id) })
    }

    fn restore_now(&self, id: &str, to: &Path) -> Result<()> {
        let list = self.list(id)?;
        let target = File::options().write(true).create(true).truncate(true).open(to)?;
        target.set_len(list.bytes)?;
        let mut sources = BTreeMap::new();
        let holders: BTreeSet<&String> = list.chunks.values().map(|chunk| &chunk.backup).collect();
        for holder in holders {
            let file = File::open(self.dir(holder)?.join(DATA)).map_err(|e| {
                Error::conflict(format!("Backup {id} needs backup {holder}, which cannot be read: {e}"))
            })?;
            sources.insert(holder, file);
        }
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        for (number, chunk) in &list.chunks {
            let broken =
                || Error::conflict(format!("Backup {id} is damaged: chunk {number} is not as it was."));
            let bytes = usize::try_from(chunk.bytes).ok().and_then(|bytes| buffer.get_mut(..bytes));
            let bytes = bytes.ok_or_else(broken)?;
            let at = number.checked_mul(CHUNK_BYTES).filter(|at| at + chunk.bytes <= list.bytes);
            sources[&chunk.backup].read_exact_at(bytes, chunk.at).map_err(|_| broken())?;
            if digest(bytes) != chunk.sha256 {
                return Err(broken());
            }
            target.write_all_at(bytes, at.ok_or_else(broken)?)?;
        }
        Ok(target.sync_all()?)
    }
}

fn own_chunks(list: &List, id: &str) -> u64 {
    list.chunks.values().filter(|chunk| chunk.backup == id).count() as u64
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the next bytes are that were ever written.
fn next_data(file: &File, from: u64, bytes: u64) -> Result<Option<u64>> {
    if from >= bytes {
        return Ok(None);
    }
    match lseek(file, i64::try_from(from).unwrap_or(i64::MAX), Whence::SeekData) {
        Ok(at) => Ok(u64::try_from(at).ok().filter(|at| *at < bytes)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// Disks take their time.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal(format!("a backup: {e}")))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ErrorKind;

    const FULL: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const MORE: &str = "0e8a7f6c-0000-4000-8000-000000000002";

    #[tokio::test]
    async fn full_then_what_changed_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, out) = (dir.path().join("disk"), dir.path().join("out"));
        let file = File::create(&disk).unwrap();
        file.set_len(10 * CHUNK_BYTES + 1000).unwrap();
        file.write_all_at(&[7; 100], 5).unwrap();
        file.write_all_at(&[8; 100], 4 * CHUNK_BYTES).unwrap();
        file.write_all_at(&[9; 10], 10 * CHUNK_BYTES + 990).unwrap();
        let backups = Backups::open(&dir.path().join("backups")).unwrap();
        for _ in 0..2 {
            let saved = backups.save(FULL, &disk, None).await.unwrap();
            assert_eq!(saved, Saved { bytes: 10 * CHUNK_BYTES + 1000, chunks: 3 });
        }
        let first = fs::read(&disk).unwrap();

        // One chunk changes, one becomes zero, the disk grows.
        file.write_all_at(&[1; 1], 4 * CHUNK_BYTES + 7).unwrap();
        file.write_all_at(&[0; 105], 0).unwrap();
        file.set_len(12 * CHUNK_BYTES).unwrap();
        let saved = backups.save(MORE, &disk, Some(FULL)).await.unwrap();
        assert_eq!(saved, Saved { bytes: 12 * CHUNK_BYTES, chunks: 2 });
        backups.restore(MORE, &out).await.unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&disk).unwrap());
        backups.restore(FULL, &out).await.unwrap();
        assert!(fs::read(&out).unwrap() == first, "also into a file that was there");

        let data = dir.path().join("backups").join(FULL).join(DATA);
        File::options().write(true).open(&data).unwrap().write_all_at(&[3], 0).unwrap();
        let damaged = backups.restore(FULL, &out).await.unwrap_err();
        assert!(damaged.is(ErrorKind::Conflict) && damaged.message.contains("damaged"), "{damaged:?}");
        for _ in 0..2 {
            backups.delete(FULL).await.unwrap();
        }
        assert!(backups.saved(FULL).await.unwrap_err().is(ErrorKind::NotFound));
        assert!(backups.save("../x", &disk, None).await.is_err());
    }
}
