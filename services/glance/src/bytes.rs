//! Images' bytes on this machine: written beside their place, looked at and hashed on the way, moved into place when
//! they are whole, read in big steps. A chunk or two of each image is all that is in memory.

use crate::{Options, signatures::Verifier};
use base::{Error, Result, id};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use image_format::{Finding, Format, Inspector};
use md5::{Digest, Md5};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ring::digest::{Context as Sha512, SHA512};
use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::{JoinHandle, spawn_blocking},
};

/// Bytes on their way, in order.
pub type Chunks = BoxStream<'static, std::io::Result<Bytes>>;

/// Zeros between these become holes.
const BLOCK_BYTES: usize = 64 * 1024;
const HOLE_BYTES_MIN: usize = 4096;
/// What is hashed and written at once: long enough that other threads are worth it.
const BATCH_BYTES: usize = 1 << 20;
/// The disk begins to write after so many, so that the end has not all of them to wait for.
const FLUSH_BYTES: u64 = 4 << 20;
/// What is read at once.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// What is read at once of a file: small enough to be still in the processor's cache when it is sent.
const STEP_BYTES: u64 = 512 << 10;
/// A chunk is read, one waits, and some are on their way out.
const CHUNKS_KEPT: usize = 4;

#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    incoming: PathBuf,
    /// Who writes here; others may as well.
    process: String,
}

/// What is known of an image when all of it has been read.
#[derive(Clone, Debug)]
pub struct Facts {
    pub size: u64,
    /// Of the disk within; none where that is not looked into.
    pub virtual_size: Option<u64>,
    pub md5: String,
    pub sha512: String,
    /// Disk and container format, if they are others than were said.
    pub formats: Option<(String, String)>,
}

impl Files {
    pub fn open(directory: &Path, process: &str) -> Result<Self> {
        let incoming = directory.join("incoming");
        let files = Self { directory: directory.into(), incoming, process: process.into() };
        std::fs::create_dir_all(&files.incoming)?;
        Ok(files)
    }

    pub fn path(&self, image_id: &str) -> PathBuf {
        self.directory.join(image_id)
    }

    /// Begins to write an image beside its place.
    pub fn begin(&self) -> Result<Upload> {
        let scratch = Scratch(self.incoming.join(format!("{}.{}", self.process, id::uuid())));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&scratch.0)?;
        Upload::new(file, scratch)
    }

    /// What is gone already is fine.
    pub fn remove(&self, image_id: &str) -> Result<()> {
        removed(&self.path(image_id))
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn incoming(&self) -> &Path {
        &self.incoming
    }

    /// The images that are here.
    pub fn names(&self) -> Result<Vec<String>> {
        names(&self.directory)
    }

    /// What is being written, or was when its process ended.
    pub fn incoming_names(&self) -> Result<Vec<String>> {
        names(&self.incoming)
    }

    pub fn remove_incoming_but_of(&self, living: &BTreeSet<String>, names: &[String]) -> Result<()> {
        let is_of_living =
            |name: &str| name.split_once('.').is_some_and(|(process, _)| living.contains(process));
        names
            .iter()
            .filter(|name| !is_of_living(name))
            .try_for_each(|name| removed(&self.incoming.join(name)))
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_name().into_string() {
            Ok(name) if entry.file_type()?.is_file() => names.push(name),
            _ => {}
        }
    }
    Ok(names)
}

/// What is gone already is fine.
fn removed(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A file that goes with its owner, unless it was moved away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An image on its way in. Dropped before it is finished, it leaves nothing.
pub struct Upload {
    scratch: Scratch,
    size: u64,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    writer: Turn<Writer>,
    md5: Turn<Md5>,
    sha512: Turn<Sha512>,
    verifier: Option<Turn<Verifier>>,
}

struct Writer {
    file: File,
    inspector: Inspector,
    written: u64,
    flushed: u64,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.inspector.feed(bytes);
        for block in bytes.chunks(BLOCK_BYTES) {
            match block.len() >= HOLE_BYTES_MIN && block.iter().all(|byte| *byte == 0) {
                true => drop(self.file.seek(SeekFrom::Current(block.len() as i64))?),
                false => self.file.write_all(block)?,
            }
        }
        self.written += bytes.len() as u64;
        if self.written - self.flushed >= FLUSH_BYTES {
            self.begin_flush();
        }
        Ok(())
    }

    /// Linux begins to write what is said to be needed no more, and waits for nothing. What is not written yet stays in
    /// memory, for whoever reads the image next. A file system that does not know it writes at the end.
    fn begin_flush(&mut self) {
        let (from, length) = (self.flushed as i64, (self.written - self.flushed) as i64);
        let _ = posix_fadvise(&self.file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        self.flushed = self.written;
    }
}

impl Upload {
    fn new(file: File, scratch: Scratch) -> Result<Self> {
        Ok(Self {
            scratch,
            size: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            writer: Turn::Idle(Writer { file, inspector: Inspector::new(), written: 0, flushed: 0 }),
            md5: Turn::Idle(Md5::new()),
            // Its own code for each processor: upstream's hash is what an upload waits for.
            sha512: Turn::Idle(Sha512::new(&SHA512)),
            verifier: None,
        })
    }

    /// What is written from now on must be signed, if there is somebody to verify it.
    pub fn verified_by(&mut self, verifier: Option<Verifier>) {
        self.verifier = verifier.map(Turn::Idle);
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        match self.batch_bytes < BATCH_BYTES {
            true => Ok(()),
            false => self.hand_on().await,
        }
    }

    /// Writing and both hashes happen off the async threads and beside each other, while the next batch comes.
    async fn hand_on(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let batch: Arc<[Bytes]> = std::mem::take(&mut self.batch).into();
        let (for_md5, for_sha512, for_verifier) = (batch.clone(), batch.clone(), batch.clone());
        self.writer.go(move |writer| batch.iter().try_for_each(|bytes| writer.write(bytes))).await?;
        self.md5.go(move |md5| each(&for_md5, |bytes| md5.update(bytes))).await?;
        self.sha512.go(move |sha512| each(&for_sha512, |bytes| sha512.update(bytes))).await?;
        if let Some(verifier) = &mut self.verifier {
            verifier.go(move |verifier| each(&for_verifier, |bytes| verifier.update(bytes))).await?;
        }
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// All bytes are here, and what they are said to be; `UnsupportedMediaType` when not.
    pub async fn finish(
        self,
        disk_format: &str,
        container_format: &str,
        options: &Options,
    ) -> Result<Arrived> {
        let (mut arrived, finding) = self.whole().await?;
        // What is wrapped is not looked into.
        if container_format != "bare" {
            return Ok(arrived);
        }
        if let Err(error) = check_format(disk_format, finding.format) {
            if options.require_image_format_match {
                return Err(error);
            }
            tracing::warn!(%error, "taken all the same");
            return Ok(arrived);
        }
        check_safety(disk_format, &finding)?;
        let virtual_size = match disk_format {
            "raw" => arrived.facts.size,
            declared if declared == finding.format.as_str() => finding.virtual_size_bytes,
            _ => 0,
        };
        arrived.facts.virtual_size = Some(virtual_size).filter(|bytes| *bytes > 0);
        Ok(arrived)
    }

    /// A copy of bytes that were looked at before, if it is what was read then.
    pub async fn finish_copy(self, sha512: &str) -> Result<Arrived> {
        let (arrived, _) = self.whole().await?;
        match arrived.facts.sha512 == sha512 {
            true => Ok(arrived),
            false => Err(Error::internal("the copy's hash is not the image's")),
        }
    }

    /// Bytes that are looked at later.
    pub async fn finish_unseen(self) -> Result<Arrived> {
        self.whole().await.map(|(arrived, _)| arrived)
    }

    async fn whole(mut self) -> Result<(Arrived, Finding)> {
        self.hand_on().await?;
        let (writer, md5) = (self.writer.idle().await?, self.md5.idle().await?);
        let (sha512, size) = (self.sha512.idle().await?, self.size);
        if let Some(verifier) = &mut self.verifier {
            let verifier = verifier.idle().await?;
            spawn_blocking(|| verifier.verify()).await.map_err(|e| Error::internal(e.to_string()))??;
        }
        // It may end with a hole.
        writer.file.set_len(size)?;
        let (md5, sha512) = (hex(&md5.finalize()), hex(sha512.finish().as_ref()));
        let facts = Facts { size, virtual_size: None, md5, sha512, formats: None };
        Ok((Arrived { facts, file: writer.file, scratch: self.scratch }, writer.inspector.finish()))
    }
}

/// Something that works on a thread of its own, one step after the other.
enum Turn<T> {
    Idle(T),
    Busy(JoinHandle<(T, std::io::Result<()>)>),
    Over,
}

impl<T: Send + 'static> Turn<T> {
    /// When the step before is done.
    async fn idle(&mut self) -> Result<T> {
        match std::mem::replace(self, Turn::Over) {
            Turn::Idle(worker) => Ok(worker),
            Turn::Busy(step) => {
                let (worker, done) = step.await.map_err(|e| Error::internal(e.to_string()))?;
                done?;
                Ok(worker)
            }
            Turn::Over => Err(Error::internal("upload: is over")),
        }
    }

    async fn go(&mut self, step: impl FnOnce(&mut T) -> std::io::Result<()> + Send + 'static) -> Result<()> {
        let mut worker = self.idle().await?;
        *self = Turn::Busy(spawn_blocking(move || {
            let done = step(&mut worker);
            (worker, done)
        }));
        Ok(())
    }
}

/// All of an image in a file that is nobody's yet. Dropped, it leaves nothing.
pub struct Arrived {
    pub facts: Facts,
    file: File,
    scratch: Scratch,
}

impl Arrived {
    pub fn path(&self) -> &Path {
        &self.scratch.0
    }

    /// To its place. When this returns, a power cut does not take it away; before, nothing says that it is there.
    pub async fn move_to(self, place: &Path) -> Result<Facts> {
        let to = place.to_path_buf();
        let moved = spawn_blocking(move || {
            std::fs::rename(&self.scratch.0, &to)?;
            // The file and its name go to the disk at once.
            std::thread::scope(|scope| {
                let named =
                    scope.spawn(|| to.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()));
                let written = self.file.sync_all();
                let named = named.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
                written.and(named)
            })?;
            Ok(self.facts)
        });
        moved.await.map_err(|e| Error::internal(e.to_string()))?
    }
}

/// A part of a file, in big steps: the next is read while the one before is sent.
pub async fn read(path: PathBuf, range: Range<u64>) -> Result<Chunks> {
    let opened = spawn_blocking(move || File::open(path)).await;
    let file = Arc::new(opened.map_err(|e| Error::internal(e.to_string()))??);
    let step = |file: &Arc<File>, chunk: Option<Bytes>, at: u64, end: u64| {
        let (file, count) = (file.clone(), STEP_BYTES.min(end - at) as usize);
        (count > 0).then(|| {
            spawn_blocking(move || {
                let mut chunk = emptied(chunk, count);
                file.read_exact_at(&mut chunk, at)?;
                Ok::<_, std::io::Error>(chunk.freeze())
            })
        })
    };
    let first = step(&file, None, range.start, range.end);
    let state = (first, range.start, VecDeque::with_capacity(CHUNKS_KEPT));
    let chunks = stream::try_unfold(state, move |(step_before, at, mut sent)| {
        let file = file.clone();
        async move {
            let Some(step_before) = step_before else { return Ok(None) };
            let chunk = step_before.await??;
            let at = at + chunk.len() as u64;
            let oldest = if sent.len() < CHUNKS_KEPT { None } else { sent.pop_front() };
            sent.push_back(chunk.clone());
            Ok(Some((chunk, (step(&file, oldest, at, range.end), at, sent))))
        }
    });
    Ok(chunks.boxed())
}

/// The memory of a chunk that was sent, if nobody has it any more: new memory costs as much as filling it.
fn emptied(chunk: Option<Bytes>, count: usize) -> BytesMut {
    match chunk.map(Bytes::try_into_mut) {
        Some(Ok(mut chunk)) if chunk.len() >= count => {
            chunk.truncate(count);
            chunk
        }
        _ => BytesMut::zeroed(count),
    }
}

fn each(batch: &[Bytes], take: impl FnMut(&Bytes)) -> std::io::Result<()> {
    batch.iter().for_each(take);
    Ok(())
}

/// What a reader gives, in big steps.
pub fn from_reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Chunks {
    let next = |mut reader| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES as usize);
        let count = AsyncReadExt::read_buf(&mut reader, &mut chunk).await?;
        Ok((count > 0).then(|| (chunk.freeze(), reader)))
    };
    stream::try_unfold(reader, next).boxed()
}

/// A part of what comes, no more than that, and an error if there is less.
pub fn part_of(chunks: Chunks, range: Range<u64>) -> Chunks {
    let next = |(mut chunks, mut before, left): (Chunks, u64, u64)| async move {
        if left == 0 {
            return Ok(None);
        }
        loop {
            let Some(mut bytes) = chunks.try_next().await? else {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            };
            let skipped = before.min(bytes.len() as u64);
            before -= skipped;
            bytes = bytes.split_off(skipped as usize);
            if bytes.is_empty() {
                continue;
            }
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - bytes.len() as u64;
            return Ok(Some((bytes, (chunks, before, left))));
        }
    };
    stream::try_unfold((chunks, range.start, range.end - range.start), next).boxed()
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

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(files: &Files, chunks: &[&[u8]], format: &str) -> Result<Facts> {
        let mut upload = files.begin()?;
        for chunk in chunks {
            upload.write(Bytes::copy_from_slice(chunk)).await?;
        }
        upload.finish(format, "bare", &Options::default()).await?.move_to(&files.path("i")).await
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were_and_zeros_are_holes() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), "p").unwrap();
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

    /// Batches follow each other, on all three threads, whatever pieces they come in.
    #[tokio::test]
    async fn hashes_are_of_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), "p").unwrap();
        let bytes: Vec<u8> = (0..5 * BATCH_BYTES as u32 + 77).map(|n| (n % 251) as u8).collect();
        for piece in [1000, BATCH_BYTES, 3 * BATCH_BYTES, bytes.len()] {
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            let facts = put(&files, &pieces, "raw").await.unwrap();
            assert_eq!(facts.md5, hex(&Md5::digest(&bytes)), "{piece}");
            assert_eq!(facts.sha512, hex(&sha2::Sha512::digest(&bytes)), "{piece}");
            assert!(std::fs::read(files.path("i")).unwrap() == bytes, "{piece}");
        }
        let length = bytes.len() as u64;
        for range in [0..length, 5..9, CHUNK_BYTES - 1..CHUNK_BYTES + 1, length..length] {
            let chunks: Vec<Bytes> =
                read(files.path("i"), range.clone()).await.unwrap().try_collect().await.unwrap();
            assert!(chunks.concat() == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        // Memory of chunks that are gone is filled again.
        let (mut chunks, mut at) = (read(files.path("i"), 0..length).await.unwrap(), 0);
        while let Some(chunk) = chunks.try_next().await.unwrap() {
            assert!(chunk == bytes[at..at + chunk.len()], "{at}");
            at += chunk.len();
        }
        assert_eq!(at as u64, length);
        let mut cut_short = read(files.path("i"), 0..length + 1).await.unwrap();
        assert!(cut_short.try_next().await.is_ok());
        assert!(cut_short.try_collect::<Vec<_>>().await.is_err());
    }

    #[tokio::test]
    async fn a_part_is_cut_out_of_what_comes() {
        let cut = async |range: Range<u64>| {
            let pieces = ["ab", "", "cdef", "g"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            part_of(stream::iter(pieces).boxed(), range).try_collect::<Vec<_>>().await
        };
        for (range, wanted) in [(0..7, "abcdefg"), (1..3, "bc"), (2..6, "cdef"), (6..7, "g"), (3..3, "")] {
            assert_eq!(cut(range.clone()).await.unwrap().concat(), wanted.as_bytes(), "{range:?}");
        }
        assert!(cut(0..8).await.is_err());
    }

    #[tokio::test]
    async fn what_is_refused_or_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), "p").unwrap();
        assert!(put(&files, &[b"raw bytes"], "qcow2").await.is_err());
        assert!(put(&files, &[b"# Disk DescriptorFile\n"], "raw").await.is_err());
        let mut given_up = files.begin().unwrap();
        given_up.write(Bytes::from_static(b"half")).await.unwrap();
        drop(given_up);
        drop(files.begin().unwrap().finish_unseen().await.unwrap());
        assert!(!files.path("i").exists());
        assert_eq!(std::fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement, for an optimised build: make measure"]
    async fn how_fast_bytes_are_taken() {
        const PIECES: usize = 4096;
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), "p").unwrap();
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 56) as u8
        };
        let piece: Bytes = (0..256 * 1024).map(|_| random()).collect::<Vec<u8>>().into();
        let rate =
            |begun: std::time::Instant| (PIECES * piece.len()) as f64 / 1e6 / begun.elapsed().as_secs_f64();
        let begun = std::time::Instant::now();
        let mut upload = files.begin().unwrap();
        for _ in 0..PIECES {
            upload.write(piece.clone()).await.unwrap();
        }
        upload
            .finish("raw", "bare", &Options::default())
            .await
            .unwrap()
            .move_to(&files.path("i"))
            .await
            .unwrap();
        eprintln!("all: {:.0} MB/s", rate(begun));
        let begun = std::time::Instant::now();
        let mut md5 = Md5::new();
        (0..PIECES).for_each(|_| md5.update(&piece));
        eprintln!("md5: {:.0} MB/s {}", rate(begun), hex(&md5.finalize()[..1]));
        let begun = std::time::Instant::now();
        let mut sha512 = Sha512::new(&SHA512);
        (0..PIECES).for_each(|_| sha512.update(&piece));
        eprintln!("sha512: {:.0} MB/s {}", rate(begun), hex(&sha512.finish().as_ref()[..1]));
        let begun = std::time::Instant::now();
        let mut inspector = Inspector::new();
        (0..PIECES).for_each(|_| inspector.feed(&piece));
        eprintln!("inspector: {:.0} MB/s", rate(begun));
        let begun = std::time::Instant::now();
        let mut file = File::create(files.path("plain")).unwrap();
        (0..PIECES).for_each(|_| file.write_all(&piece).unwrap());
        file.sync_all().unwrap();
        eprintln!("the disk: {:.0} MB/s", rate(begun));
    }

    #[tokio::test]
    async fn what_the_living_write_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, others) =
            (Files::open(directory.path(), "p").unwrap(), Files::open(directory.path(), "q").unwrap());
        std::fs::write(ours.path("i"), "x").unwrap();
        let writing = (ours.begin().unwrap(), others.begin().unwrap());
        assert_eq!((ours.names().unwrap(), ours.incoming_names().unwrap().len()), (vec!["i".to_string()], 2));
        let living = BTreeSet::from(["q".to_string()]);
        ours.remove_incoming_but_of(&living, &ours.incoming_names().unwrap()).unwrap();
        assert!(ours.incoming_names().unwrap().iter().all(|name| name.starts_with("q.")));
        drop(writing);
        assert_eq!(others.incoming_names().unwrap().len(), 0);
        ours.remove("i").unwrap();
        ours.remove("i").unwrap();
    }
}
