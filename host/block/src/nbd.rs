//! Reads a part of what `qemu-nbd` opens, from where it begins: for disks whose own tools read from their first byte
//! alone. One server for one reader, gone with it.

use base::{Error, Result, id};
use host_run::run;
use std::{io, ops::Range, os::unix::fs::DirBuilderExt, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, duplex},
    net::UnixStream,
    time::{Instant, sleep, timeout, timeout_at},
};

const OPENED_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// What is asked for at once.
const STEP_BYTES: u64 = 2 << 20;

// The protocol's numbers.
const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
const EXPORT_NAME: u32 = 1;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// A part of a disk that QEMU's block layer describes so; an error when there is no such disk or it ends before the part
/// does. The part ends early when its server does.
pub async fn read(
    disk: &serde_json::Value,
    range: Range<u64>,
) -> Result<impl AsyncRead + Send + Unpin + use<>> {
    let folder = Folder::make()?;
    let socket = folder.0.join("nbd");
    let server = run("qemu-nbd").args(["--read-only", "--socket"]).arg(&socket).arg(format!("json:{disk}"));
    let mut server = server.reader()?;
    let until = Instant::now() + OPENED_WITHIN;
    let mut served = loop {
        // It listens before it has opened the disk, and greets after that.
        if let Ok(mut served) = UnixStream::connect(&socket).await {
            let cannot = |error| Error::unavailable(format!("qemu-nbd: does not serve the disk: {error}"));
            timeout_at(until, open(&mut served, range.end))
                .await
                .map_err(|late| cannot(late.into()))?
                .map_err(cannot)?;
            break served;
        }
        tokio::select! {
            _ = server.read_u8() => return Err(Error::unavailable("qemu-nbd: ended before it served")),
            () = sleep(Duration::from_millis(20)) => {}
        }
        if Instant::now() > until {
            return Err(Error::unavailable(format!("qemu-nbd: not there within {OPENED_WITHIN:?}")));
        }
    };
    let (mut into, reader) = duplex(STEP_BYTES as usize);
    tokio::spawn(async move {
        if let Err(error) = take(&mut served, range, &mut into).await {
            tracing::warn!(%error, "a disk's part ended early");
        }
        drop((served, into));
        // One that is killed at once has the disk in use for a while, to those who keep it.
        let _ = timeout(ENDS_WITHIN, server.read_u8()).await;
        drop((server, folder));
    });
    Ok(reader)
}

/// Greets and opens the one export there is, of at least so many bytes.
async fn open(served: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes_min: u64) -> io::Result<()> {
    let mut greeting = [0; 18];
    served.read_exact(&mut greeting).await?;
    check(greeting.starts_with(GREETING), "greeting")?;
    served.write_u32(FIXED_NEWSTYLE_NO_ZEROES).await?;
    served.write_all(OPTION).await?;
    served.write_u32(EXPORT_NAME).await?;
    served.write_u32(0).await?;
    let size = served.read_u64().await?;
    served.read_u16().await?;
    check(bytes_min <= size, "size")
}

/// Hands on what is in the range.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    served: &mut S,
    range: Range<u64>,
    into: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut start = range.start;
    while start < range.end {
        // One at a time: a server answers in whatever order it likes.
        let count = STEP_BYTES.min(range.end - start);
        served.write_all(&request(start, count)).await?;
        check(served.read_u32().await? == REPLY, "reply")?;
        check(served.read_u32().await? == 0, "error")?;
        check(served.read_u64().await? == start, "handle")?;
        check(copy(&mut served.take(count), into).await? == count, "end")?;
        start += count;
    }
    Ok(())
}

/// A read without flags. The place is its handle.
fn request(start: u64, count: u64) -> Vec<u8> {
    let mut request = Vec::with_capacity(28);
    request.extend(REQUEST.to_be_bytes());
    request.extend(0u32.to_be_bytes());
    request.extend(start.to_be_bytes());
    request.extend(start.to_be_bytes());
    request.extend((count as u32).to_be_bytes());
    request
}

fn check(good: bool, what: &str) -> io::Result<()> {
    match good {
        true => Ok(()),
        false => Err(io::Error::other(format!("qemu-nbd: {what}"))),
    }
}

/// Nobody else's, and gone with its owner.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ferrostack-nbd-{}", id::uuid()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn parts_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3 * STEP_BYTES as u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let disk = json!({"driver": "raw", "file": {"driver": "file", "filename": file.path()}});
        let all = bytes.len() as u64;
        for range in [5..9, STEP_BYTES - 1..STEP_BYTES + 1, 7..all, all..all] {
            let mut read_back = Vec::new();
            read(&disk, range.clone()).await.unwrap().read_to_end(&mut read_back).await.unwrap();
            assert!(read_back == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        assert!(read(&disk, 0..all + 1).await.is_err());
        let gone = json!({"driver": "raw", "file": {"driver": "file", "filename": "/nowhere"}});
        assert!(read(&gone, 0..1).await.is_err());
    }
}
