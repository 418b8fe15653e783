//! Where images' bytes are: files named by the image, written beside and moved into place when they are whole.

use base::{Error, Result};
use bytes::Bytes;
use image_format::{Finding, Format, Inspector};
use md5::{Digest, Md5};
use sha2::Sha512;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Zeros of this many bytes become holes.
const BLOCK_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    incoming: PathBuf,
}

/// What is known of an image when all of it has been read.
#[derive(Clone, Debug)]
pub struct Facts {
    pub size: u64,
    pub virtual_size: u64,
    pub md5: String,
    pub sha512: String,
}

impl Files {
    pub fn open(directory: &Path) -> Result<Self> {
        let files = Self { directory: directory.into(), incoming: directory.join("incoming") };
        std::fs::create_dir_all(&files.incoming)?;
        Ok(files)
    }

    pub fn path(&self, image_id: &str) -> PathBuf {
        self.directory.join(image_id)
    }

    /// Begins to write an image beside its place.
    pub fn begin(&self, name: &str) -> Result<Upload> {
        let path = self.incoming.join(name);
        let file = File::options().create(true).truncate(true).write(true).open(&path)?;
        Ok(Upload { path, writer: Some(Writer::new(file)) })
    }

    /// What is gone already is fine.
    pub fn remove(&self, image_id: &str) -> Result<()> {
        match std::fs::remove_file(self.path(image_id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// At start nobody writes: what was cut off is removed, and the bytes of images that are gone.
    pub fn forget_all_but(&self, known: &BTreeSet<String>) -> Result<()> {
        for entry in std::fs::read_dir(&self.incoming)? {
            std::fs::remove_file(entry?.path())?;
        }
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_known = entry.file_name().to_str().is_some_and(|name| known.contains(name));
            if entry.file_type()?.is_file() && !is_known {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// An image on its way in. Dropped before it is finished, it leaves nothing.
pub struct Upload {
    path: PathBuf,
    writer: Option<Writer>,
}

struct Writer {
    file: File,
    inspector: Inspector,
    md5: Md5,
    sha512: Sha512,
}

impl Writer {
    fn new(file: File) -> Self {
        Self { file, inspector: Inspector::new(), md5: Md5::new(), sha512: Sha512::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.inspector.feed(bytes);
        self.md5.update(bytes);
        self.sha512.update(bytes);
        for block in bytes.chunks(BLOCK_BYTES) {
            match block.len() == BLOCK_BYTES && block.iter().all(|byte| *byte == 0) {
                true => drop(self.file.seek(SeekFrom::Current(BLOCK_BYTES as i64))?),
                false => self.file.write_all(block)?,
            }
        }
        Ok(())
    }
}

impl Upload {
    /// Hashing and writing happen off the async threads, one chunk at a time: that is all that is in memory.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Err(Error::internal("upload: is over")) };
        let done = tokio::task::spawn_blocking(move || {
            let done = writer.write(&bytes);
            (writer, done)
        });
        let (writer, done) = done.await.map_err(|e| Error::internal(e.to_string()))?;
        self.writer = Some(writer);
        Ok(done?)
    }

    pub fn size(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.inspector.size_bytes())
    }

    /// Moves the bytes into place when they are what they are said to be; `UnsupportedMediaType` when not.
    pub async fn finish(mut self, disk_format: &str, container_format: &str, place: &Path) -> Result<Facts> {
        let Some(writer) = self.writer.take() else { return Err(Error::internal("upload: is over")) };
        let (from, to) = (self.path.clone(), place.to_path_buf());
        let (disk_format, container_format) = (disk_format.to_string(), container_format.to_string());
        let done =
            tokio::task::spawn_blocking(move || settle(writer, &disk_format, &container_format, &from, &to));
        done.await.map_err(|e| Error::internal(e.to_string()))?
    }

    /// Moves a copy of bytes that were looked at before into place, if it is what was read then.
    pub async fn finish_copy(mut self, sha512: &str, place: &Path) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Err(Error::internal("upload: is over")) };
        let (from, to, sha512) = (self.path.clone(), place.to_path_buf(), sha512.to_string());
        let done = tokio::task::spawn_blocking(move || {
            writer.file.set_len(writer.inspector.size_bytes())?;
            match hex(&writer.sha512.finalize()) == sha512 {
                true => move_durably(&writer.file, &from, &to),
                false => Err(Error::internal("the copy's hash is not the image's")),
            }
        });
        done.await.map_err(|e| Error::internal(e.to_string()))?
    }

    /// Moves the bytes to be looked at later.
    pub async fn stage(mut self, place: &Path) -> Result<u64> {
        let Some(writer) = self.writer.take() else { return Err(Error::internal("upload: is over")) };
        let (from, to) = (self.path.clone(), place.to_path_buf());
        let done = tokio::task::spawn_blocking(move || {
            let size = writer.inspector.size_bytes();
            writer.file.set_len(size)?;
            move_durably(&writer.file, &from, &to)?;
            Ok(size)
        });
        done.await.map_err(|e| Error::internal(e.to_string()))?
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn settle(
    writer: Writer,
    disk_format: &str,
    container_format: &str,
    from: &Path,
    to: &Path,
) -> Result<Facts> {
    let size = writer.inspector.size_bytes();
    writer.file.set_len(size)?;
    let finding = writer.inspector.finish();
    let virtual_size = match container_format {
        "bare" => {
            check_format(disk_format, finding.format)?;
            check_safety(disk_format, &finding)?;
            if disk_format == "raw" { size } else { finding.virtual_size_bytes }
        }
        // What is wrapped is not looked into.
        _ => size,
    };
    move_durably(&writer.file, from, to)?;
    Ok(Facts { size, virtual_size, md5: hex(&writer.md5.finalize()), sha512: hex(&writer.sha512.finalize()) })
}

/// It is whole at its new place, or not there.
fn move_durably(file: &File, from: &Path, to: &Path) -> Result<()> {
    file.sync_all()?;
    std::fs::rename(from, to)?;
    if let Some(folder) = to.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Kernels and ramdisks may look like a broken partition table: nobody takes them for a disk.
fn check_safety(declared: &str, found: &Finding) -> Result<()> {
    if found.only_partitions_wrong && matches!(declared, "aki" | "ari") {
        return Ok(());
    }
    found.check().map_err(|error| {
        let sentence = format!("Image failed safety checks: {}", found.unsafe_because.join("; "));
        Error::unsupported_media_type(sentence).cause(error).code(web::DETAIL)
    })
}

/// As upstream with `require_image_format_match`. Anything may be called raw; formats that cannot be told may be
/// called what they like.
fn check_format(declared: &str, found: Format) -> Result<()> {
    let inspectable = ["raw", "qcow2", "vhd", "vhdx", "vmdk", "vdi", "iso", "gpt", "luks", "qed"];
    let agrees = declared == found.as_str()
        || declared == "raw"
        || (!inspectable.contains(&declared) && matches!(found, Format::Raw | Format::Gpt));
    match agrees {
        true => Ok(()),
        false => Err(Error::unsupported_media_type(format!(
            "Image disk_format {declared} does not match stream data {found}"
        ))
        .code(web::DETAIL)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(files: &Files, chunks: &[&[u8]], format: &str) -> Result<Facts> {
        let mut upload = files.begin("u")?;
        for chunk in chunks {
            upload.write(Bytes::copy_from_slice(chunk)).await?;
        }
        upload.finish(format, "bare", &files.path("i")).await
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were_and_zeros_are_holes() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path()).unwrap();
        let zeros = vec![0; 4 * BLOCK_BYTES];
        let facts = put(&files, &[b"begin", &zeros, b"end", &zeros], "raw").await.unwrap();
        let stored = std::fs::read(files.path("i")).unwrap();
        assert_eq!(stored.len() as u64, facts.size);
        assert!(stored.starts_with(b"begin\0") && stored[5 + zeros.len()..].starts_with(b"end\0"));
        use std::os::unix::fs::MetadataExt;
        assert!(std::fs::metadata(files.path("i")).unwrap().blocks() * 512 < facts.size);
        assert_eq!(facts.md5.len(), 32);
        assert_eq!(facts.sha512.len(), 128);
    }

    #[tokio::test]
    async fn what_is_refused_or_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path()).unwrap();
        assert!(put(&files, &[b"raw bytes"], "qcow2").await.is_err());
        assert!(put(&files, &[b"# Disk DescriptorFile\n"], "raw").await.is_err());
        let mut given_up = files.begin("g").unwrap();
        given_up.write(Bytes::from_static(b"half")).await.unwrap();
        drop(given_up);
        assert!(!files.path("i").exists());
        assert_eq!(std::fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
    }

    #[test]
    fn only_known_images_survive_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path()).unwrap();
        std::fs::write(files.path("known"), "x").unwrap();
        std::fs::write(files.path("orphan"), "x").unwrap();
        files.forget_all_but(&BTreeSet::from(["known".to_string()])).unwrap();
        assert!(files.path("known").exists() && !files.path("orphan").exists());
        files.remove("known").unwrap();
        files.remove("known").unwrap();
    }
}
