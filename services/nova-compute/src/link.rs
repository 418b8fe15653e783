//! What agents of compute hosts ask each other over a line: a question, its answer, then bytes. This is the asking
//! side; [`crate::visitors`] answers.

use crate::fetching::BaseNote;
use base::{Error, Result};
use contracts::peers::{Line, Peer, Peers};
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{io::SeekFrom, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

const WORDS_BYTES_MAX: u32 = 1 << 20;
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What a guest has that goes with it: answered with [`Belongings`].
    Belongings { uuid: String },
    /// One file of it: followed by its pieces.
    File { uuid: String, name: String },
    /// The image that its disk lies on: the same.
    Base { uuid: String },
    /// A way to the hypervisor for a guest that is on its way: followed by what both sides say.
    Channel { uuid: String, name: String },
}

/// What a guest has on its host's own disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belongings {
    pub files: Vec<String>,
    /// The image that its disk lies on; none: on nothing.
    pub base: Option<BaseNote>,
    /// How large the guest sees its disk.
    pub disk_bytes: Option<u64>,
}

/// The agents of other hosts.
#[derive(Clone)]
pub struct Link(Arc<dyn Peers>);

impl Link {
    pub fn new(peers: Arc<dyn Peers>) -> Self {
        Self(peers)
    }

    pub async fn belongings(&self, peer: &Peer, uuid: &str) -> Result<Belongings> {
        let (belongings, _) = self.ask(peer, &Question::Belongings { uuid: uuid.into() }).await?;
        Ok(belongings)
    }

    pub async fn file(&self, peer: &Peer, uuid: &str, name: &str, into: &Path) -> Result<()> {
        let question = Question::File { uuid: uuid.into(), name: name.into() };
        let ((), mut line) = self.ask(peer, &question).await?;
        receive(&mut line, into).await
    }

    pub async fn base(&self, peer: &Peer, uuid: &str, into: &Path) -> Result<()> {
        let ((), mut line) = self.ask(peer, &Question::Base { uuid: uuid.into() }).await?;
        receive(&mut line, into).await
    }

    pub async fn channel(&self, peer: &Peer, uuid: &str, name: &str) -> Result<Line> {
        let question = Question::Channel { uuid: uuid.into(), name: name.into() };
        let ((), line) = self.ask(peer, &question).await?;
        Ok(line)
    }

    pub async fn visitor(&self) -> Result<(String, Line)> {
        self.0.answer().await
    }

    async fn ask<T: DeserializeOwned>(&self, peer: &Peer, question: &Question) -> Result<(T, Line)> {
        let mut line = self.0.reach(peer).await?;
        say(&mut line, question).await?;
        let answer: Result<T> = hear(&mut line).await?;
        Ok((answer?, line))
    }
}

/// Words: how many bytes, then JSON.
pub async fn say(line: &mut Line, words: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(words)?;
    line.write_u32(bytes.len() as u32).await?;
    line.write_all(&bytes).await?;
    Ok(line.flush().await?)
}

pub async fn hear<T: DeserializeOwned>(line: &mut Line) -> Result<T> {
    let length = line.read_u32().await.map_err(broken)?;
    if length > WORDS_BYTES_MAX {
        return Err(Error::bad_request("a host said too much"));
    }
    let mut bytes = vec![0; length as usize];
    line.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The pieces of a file that hold something, each behind its place and length; at the end the file's length and 0.
pub async fn send(line: &mut Line, file: std::fs::File) -> Result<()> {
    let length = file.metadata()?.len();
    let zeros = vec![0; PIECE_BYTES];
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    let mut reader = tokio::fs::File::from_std(file.try_clone()?);
    while let Some(data) = next_data(&file, at, length) {
        at = reader.seek(SeekFrom::Start(data)).await?;
        // What is written behind another's back is not sent: the length was said once.
        let wanted = (length - at).min(PIECE_BYTES as u64) as usize;
        let count = reader.read(&mut piece[..wanted]).await?;
        if count == 0 {
            break;
        }
        if piece[..count] != zeros[..count] {
            line.write_u64(at).await?;
            line.write_u32(count as u32).await?;
            line.write_all(&piece[..count]).await?;
        }
        at += count as u64;
    }
    line.write_u64(length).await?;
    line.write_u32(0).await?;
    Ok(line.flush().await?)
}

/// Where the next bytes are that are not a hole.
fn next_data(file: &std::fs::File, at: u64, length: u64) -> Option<u64> {
    if at >= length {
        return None;
    }
    match lseek(file, at as i64, Whence::SeekData) {
        Ok(data) => Some(data as u64),
        Err(nix::errno::Errno::ENXIO) => None,
        // A file system that knows no holes.
        Err(_) => Some(at),
    }
}

/// A file that is there whole when this succeeds.
async fn receive(line: &mut Line, into: &Path) -> Result<()> {
    let file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(into)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut piece = vec![0; PIECE_BYTES];
    let mut here = 0;
    loop {
        let at = line.read_u64().await.map_err(broken)?;
        let count = line.read_u32().await.map_err(broken)? as usize;
        if count == 0 {
            file.flush().await?;
            file.set_len(at).await?;
            return Ok(file.sync_all().await?);
        }
        let piece = piece.get_mut(..count).ok_or_else(|| Error::bad_request("a piece too long"))?;
        line.read_exact(piece).await.map_err(broken)?;
        if at != here {
            file.seek(SeekFrom::Start(at)).await?;
        }
        file.write_all(piece).await?;
        here = at + count as u64;
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::unavailable(format!("the line to another host broke: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[tokio::test]
    async fn a_file_goes_over_with_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = std::fs::File::create(&from).unwrap();
        for (at, bytes) in [(0, vec![1; 10]), (5 << 20, vec![2; 600 << 10]), (900 << 20, vec![3; 7])] {
            file.write_all_at(&bytes, at).unwrap();
        }
        file.set_len(1 << 30).unwrap();
        let (here, there) = tokio::io::duplex(4096);
        let (mut here, mut there): (Line, Line) = (Box::new(here), Box::new(there));
        let sending = send(&mut here, std::fs::File::open(&from).unwrap());
        let (sent, received) = tokio::join!(sending, receive(&mut there, &to));
        sent.unwrap();
        received.unwrap();
        let copy = std::fs::File::open(&to).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert!(copy.metadata().unwrap().blocks() * 512 < 4 << 20, "holes stay holes");
        for (at, byte, length) in [(0, 1, 10), (5 << 20, 2, 600 << 10), (900 << 20, 3, 7), (10 << 20, 0, 9)] {
            let mut bytes = vec![9; length];
            copy.read_exact_at(&mut bytes, at).unwrap();
            assert!(bytes.iter().all(|found| *found == byte), "at {at}");
        }
    }

    #[tokio::test]
    async fn a_line_that_breaks_is_no_end_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = tokio::io::duplex(4096);
        let (mut here, mut there): (Line, Line) = (Box::new(here), Box::new(there));
        here.write_u64(0).await.unwrap();
        here.write_u32(100).await.unwrap();
        here.write_all(&[1; 50]).await.unwrap();
        drop(here);
        let error = receive(&mut there, &dir.path().join("to")).await.unwrap_err();
        assert!(error.is(base::ErrorKind::Unavailable), "{error}");
        let (mut here, there) = tokio::io::duplex(4096);
        let mut there: Line = Box::new(there);
        here.write_u64(0).await.unwrap();
        here.write_u32(u32::MAX).await.unwrap();
        let error = receive(&mut there, &dir.path().join("to")).await.unwrap_err();
        assert!(error.is(base::ErrorKind::BadRequest), "{error}");
    }
}
