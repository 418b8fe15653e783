//! Objects' bytes as files: written beside their place, made durable, then moved there; read in steps. What a crash
//! leaves is cleared away at the next start. A step or two of each object is all that is in memory.

use base::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream, stream::BoxStream};
use md5::{Digest, Md5};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::spawn_blocking;

pub type Chunks = BoxStream<'static, std::io::Result<Bytes>>;

/// What is hashed and written at once, and read at once.
const STEP_BYTES: usize = 512 * 1024;

#[derive(Clone, Debug)]
pub struct Files {
    directory: Arc<PathBuf>,
    incoming: Arc<PathBuf>,
}

/// Bytes that are in their place, and nobody's yet.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// None: there were none.
    pub file: Option<String>,
    pub size: u64,
    pub md5: String,
}

impl Files {
    pub fn open(directory: &Path) -> Result<Self> {
        let incoming = directory.join("incoming");
        std::fs::create_dir_all(&incoming)?;
        for number in 0..=255u8 {
            std::fs::create_dir_all(directory.join(format!("{number:02x}")))?;
        }
        Ok(Self { directory: Arc::new(directory.into()), incoming: Arc::new(incoming) })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file.get(..2).unwrap_or("00")).join(file)
    }

    pub fn begin(&self) -> Result<Upload> {
        let id = base::id::hex();
        let path = self.incoming.join(&id);
        let file = File::options().create_new(true).write(true).open(&path)?;
        Ok(Upload {
            files: self.clone(),
            id,
            scratch: Scratch(Some(path)),
            worker: Some((file, Md5::new())),
            batch: BytesMut::new(),
            size: 0,
        })
    }

    /// What is gone already is fine.
    pub fn remove(&self, file: &str) -> Result<()> {
        match std::fs::remove_file(self.path(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Opens a file for reading; it stays readable while it is open, even when its object goes.
    pub async fn open_file(&self, file: &str) -> Result<File> {
        let path = self.path(file);
        spawned(move || Ok(File::open(path)?)).await
    }

    /// Files that are older than this, by their folder; `is_known` says which of them have an object.
    pub fn old(&self, age: Duration) -> Result<Vec<String>> {
        let before = SystemTime::now() - age;
        let mut found = Vec::new();
        for number in 0..=255u8 {
            for entry in std::fs::read_dir(self.directory.join(format!("{number:02x}")))? {
                let entry = entry?;
                if entry.metadata()?.modified()? <= before {
                    found.extend(entry.file_name().to_str().map(str::to_string));
                }
            }
        }
        Ok(found)
    }

    /// Uploads that nobody goes on with.
    pub fn forget_cut_off(&self, age: Duration) -> Result<usize> {
        let before = SystemTime::now() - age;
        let mut forgotten = 0;
        for entry in std::fs::read_dir(&*self.incoming)? {
            let entry = entry?;
            if entry.metadata()?.modified()? <= before {
                std::fs::remove_file(entry.path())?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

/// A file that goes with its owner, unless it was moved away.
struct Scratch(Option<PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An object on its way in. Dropped before it is finished, it leaves nothing.
pub struct Upload {
    files: Files,
    id: String,
    scratch: Scratch,
    worker: Option<(File, Md5)>,
    batch: BytesMut,
    size: u64,
}

impl Upload {
    pub fn size(&self) -> u64 {
        self.size
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= STEP_BYTES { self.hand_on().await } else { Ok(()) }
    }

    async fn hand_on(&mut self) -> Result<()> {
        let batch = self.batch.split();
        let Some((mut file, mut md5)) = self.worker.take() else {
            return Err(Error::internal("the upload failed before"));
        };
        self.worker = Some(
            spawned(move || {
                md5.update(&batch);
                file.write_all(&batch)?;
                Ok((file, md5))
            })
            .await?,
        );
        Ok(())
    }

    /// When this returns, a power cut does not take the bytes away. They are an object's when its row says so.
    pub async fn finish(mut self) -> Result<Arrived> {
        self.hand_on().await?;
        let Some((file, md5)) = self.worker.take() else {
            return Err(Error::internal("the upload failed before"));
        };
        let md5 = hex(&md5.finalize());
        if self.size == 0 {
            return Ok(Arrived { file: None, size: 0, md5 });
        }
        let (Some(from), to) = (self.scratch.0.clone(), self.files.path(&self.id)) else {
            return Err(Error::internal("the upload was finished before"));
        };
        spawned(move || {
            file.sync_all()?;
            std::fs::rename(&from, &to)?;
            if let Some(folder) = to.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        })
        .await?;
        self.scratch.0 = None;
        Ok(Arrived { file: Some(self.id.clone()), size: self.size, md5 })
    }
}

/// A part of a file, step by step.
pub fn read(file: Arc<File>, range: Range<u64>) -> Chunks {
    stream::try_unfold(range.start, move |at| {
        let file = file.clone();
        async move {
            if at >= range.end {
                return Ok(None);
            }
            let step = (range.end - at).min(STEP_BYTES as u64) as usize;
            let chunk = spawn_blocking(move || {
                let mut bytes = BytesMut::zeroed(step);
                file.read_exact_at(&mut bytes, at)?;
                std::io::Result::Ok(bytes.freeze())
            });
            let chunk = chunk.await.map_err(std::io::Error::other)??;
            let after = at + chunk.len() as u64;
            Ok(Some((chunk, after)))
        }
    })
    .boxed()
}

async fn spawned<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?
}

/// The hash of nothing.
pub const NO_BYTES: &str = "d41d8cd98f00b204e9800998ecf8427e";

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    fn count(directory: &Path) -> usize {
        let folders = std::fs::read_dir(directory).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }

    #[tokio::test]
    async fn bytes_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path()).unwrap();
        let bytes: Vec<u8> = (0..2 * STEP_BYTES as u32 + 77).map(|n| (n % 251) as u8).collect();
        let mut upload = files.begin().unwrap();
        for piece in bytes.chunks(100_000) {
            upload.write(piece).await.unwrap();
        }
        let arrived = upload.finish().await.unwrap();
        assert_eq!(arrived.size, bytes.len() as u64);
        assert_eq!(arrived.md5, hex(&Md5::digest(&bytes)));
        let name = arrived.file.unwrap();
        for range in [0..arrived.size, 5..9, STEP_BYTES as u64 - 1..STEP_BYTES as u64 + 1, 3..3] {
            let file = Arc::new(files.open_file(&name).await.unwrap());
            let read: Vec<Bytes> = read(file, range.clone()).try_collect().await.unwrap();
            assert!(read.concat() == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        let open = Arc::new(files.open_file(&name).await.unwrap());
        files.remove(&name).unwrap();
        files.remove(&name).unwrap();
        assert!(read(open, 0..10).try_collect::<Vec<_>>().await.is_ok(), "who reads goes on reading");
    }

    #[tokio::test]
    async fn what_is_given_up_or_empty_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path()).unwrap();
        let mut given_up = files.begin().unwrap();
        given_up.write(b"half").await.unwrap();
        assert_eq!(count(directory.path()), 1);
        drop(given_up);
        assert_eq!(files.begin().unwrap().finish().await.unwrap().file, None);
        assert_eq!(count(directory.path()), 0);
    }
}
