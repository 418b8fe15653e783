//! Tar archives as they come: names, sizes, extended headers, and the bytes between them; packed or not.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use bzip2::write::BzDecoder;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use std::io::{self, Write};

const BLOCK: usize = 512;
/// What an extended header may have.
const HEAD_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    Not,
    Gzip,
    Bzip2,
}

impl Packed {
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_lowercase().trim_matches('.') {
            "tar" => Some(Self::Not),
            "tar.gz" => Some(Self::Gzip),
            "tar.bz2" => Some(Self::Bzip2),
            _ => None,
        }
    }
}

/// What stands between the body and the archive in it.
enum Unpacker {
    Not(Vec<u8>),
    Gzip(MultiGzDecoder<Vec<u8>>),
    Bzip2(BzDecoder<Vec<u8>>),
}

impl Unpacker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Not(out) => out.extend_from_slice(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes)?,
            Self::Bzip2(decoder) => decoder.write_all(bytes)?,
        }
        Ok(std::mem::take(self.out()))
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Not(_) => {}
            Self::Gzip(decoder) => decoder.try_finish()?,
            Self::Bzip2(decoder) => decoder.try_finish()?,
        }
        Ok(std::mem::take(self.out()))
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Not(out) => out,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Bzip2(decoder) => decoder.get_mut(),
        }
    }
}

/// A file of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub size: u64,
    /// Extended headers of this file.
    pub pax: Vec<(String, String)>,
}

pub struct Archive {
    body: Body,
    unpacker: Unpacker,
    buffer: BytesMut,
    ended: bool,
    /// Bytes of the entry that nobody read yet, and those that fill its last block.
    left: u64,
    filling: u64,
}

impl Archive {
    pub fn new(body: Body, packed: Packed) -> Self {
        let unpacker = match packed {
            Packed::Not => Unpacker::Not(Vec::new()),
            Packed::Gzip => Unpacker::Gzip(MultiGzDecoder::new(Vec::new())),
            Packed::Bzip2 => Unpacker::Bzip2(BzDecoder::new(Vec::new())),
        };
        Self { body, unpacker, buffer: BytesMut::new(), ended: false, left: 0, filling: 0 }
    }

    /// The next file. What else an archive can hold is passed over.
    pub async fn next(&mut self) -> Result<Option<Entry>, String> {
        let mut pax = Vec::new();
        let mut long_name = None;
        loop {
            while self.chunk().await?.is_some() {}
            self.skip_filling().await?;
            let Some(head) = self.block().await? else { return Ok(None) };
            if head.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let size = check(&head)?;
            let kind = head[156];
            self.left = size;
            self.filling = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
            match kind {
                b'x' => pax = records(&self.small().await?)?,
                b'L' => long_name = Some(text(&self.small().await?)),
                b'0' | 0 | b'7' => {
                    let of_pax =
                        |key: &str| pax.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
                    let name = of_pax("path").or(long_name).unwrap_or_else(|| name_of(&head));
                    if let Some(size) = of_pax("size") {
                        self.left = size.parse().map_err(|_| "invalid header".to_string())?;
                        self.filling = (BLOCK as u64 - self.left % BLOCK as u64) % BLOCK as u64;
                    }
                    return Ok(Some(Entry { name, size: self.left, pax }));
                }
                _ => {
                    pax = Vec::new();
                    long_name = None;
                }
            }
        }
    }

    /// Bytes of the file; none: it is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        if self.left == 0 {
            return Ok(None);
        }
        while self.buffer.is_empty() {
            if !self.more().await? {
                return Err("unexpected end of data".into());
            }
        }
        let length = (self.buffer.len() as u64).min(self.left) as usize;
        self.left -= length as u64;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    async fn small(&mut self) -> Result<Vec<u8>, String> {
        if self.left > HEAD_BYTES_MAX {
            return Err("header is too large".into());
        }
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    async fn skip_filling(&mut self) -> Result<(), String> {
        while self.filling > 0 {
            if self.buffer.is_empty() && !self.more().await? {
                return Err("unexpected end of data".into());
            }
            let length = (self.buffer.len() as u64).min(self.filling) as usize;
            let _ = self.buffer.split_to(length);
            self.filling -= length as u64;
        }
        Ok(())
    }

    async fn block(&mut self) -> Result<Option<Bytes>, String> {
        while self.buffer.len() < BLOCK {
            if !self.more().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err("truncated header".into()) };
            }
        }
        Ok(Some(self.buffer.split_to(BLOCK).freeze()))
    }

    async fn more(&mut self) -> Result<bool, String> {
        while !self.ended {
            let unpacked = match self.body.frame().await {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(bytes) => self.unpacker.write(bytes).map_err(|error| error.to_string())?,
                    None => continue,
                },
                Some(Err(_)) => return Err("unexpected end of data".into()),
                None => {
                    self.ended = true;
                    self.unpacker.finish().map_err(|error| error.to_string())?
                }
            };
            if !unpacked.is_empty() {
                self.buffer.extend_from_slice(&unpacked);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The size, if the header is one.
fn check(head: &[u8]) -> Result<u64, String> {
    let told = octal(&head[148..156]).ok_or("invalid header")?;
    let sum = |range: &[u8]| range.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let found = sum(&head[..148]) + 8 * u64::from(b' ') + sum(&head[156..]);
    if told != found {
        return Err("bad checksum".into());
    }
    let size = &head[124..136];
    let size = match size[0] & 0x80 {
        0 => octal(size),
        // GNU's form for what has no place in octal digits.
        _ => {
            size[4..].iter().try_fold(0u64, |number, byte| Some(number.checked_mul(256)? + u64::from(*byte)))
        }
    };
    size.ok_or_else(|| "invalid header".into())
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field);
    let digits = digits.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn name_of(head: &[u8]) -> String {
    let name = text(&head[..100]);
    let prefix =
        if &head[257..262] == b"ustar" && head[262] == 0 { text(&head[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// `30 mtime=…\n`, with its own length.
fn records(mut bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut records = Vec::new();
    let wrong = || "invalid header".to_string();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = text(&bytes[..blank]).parse().map_err(|_| wrong())?;
        if length <= blank + 1 || length > bytes.len() {
            return Err(wrong());
        }
        let record = String::from_utf8_lossy(&bytes[blank + 1..length - 1]).into_owned();
        let (key, value) = record.split_once('=').ok_or_else(wrong)?;
        records.push((key.into(), value.into()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use futures::stream;

    /// An archive of plain files.
    pub fn tar(files: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, kind, bytes) in files {
            let mut head = vec![0u8; BLOCK];
            head[..name.len()].copy_from_slice(name.as_bytes());
            head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
            head[156] = *kind;
            head[257..263].copy_from_slice(b"ustar\0");
            head[148..156].fill(b' ');
            let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
            head[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            archive.extend(head);
            archive.extend_from_slice(bytes);
            archive.resize(archive.len().div_ceil(BLOCK) * BLOCK, 0);
        }
        archive.extend([0; 2 * BLOCK]);
        archive
    }

    async fn read(bytes: &[u8], packed: Packed, piece: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        let pieces: Vec<_> =
            bytes.chunks(piece).map(|piece| io::Result::Ok(Bytes::copy_from_slice(piece))).collect();
        let mut archive = Archive::new(Body::from_stream(stream::iter(pieces)), packed);
        let mut found = Vec::new();
        while let Some(entry) = archive.next().await? {
            let mut bytes = Vec::new();
            while let Some(chunk) = archive.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            found.push((entry.name, bytes));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn archives_in_whatever_pieces_they_come() {
        let big = vec![7u8; 3 * BLOCK + 5];
        let plain = tar(&[
            ("dir/", b'5', b""),
            ("a", b'0', b"one"),
            ("ignored", b'L', b"a/very/long/name\0"),
            ("short", b'0', &big),
            ("ignored", b'x', b"14 path=p/\xc3\xa9x\n"),
            ("other", b'0', b""),
        ]);
        let expected = [
            ("a".to_string(), b"one".to_vec()),
            ("a/very/long/name".into(), big),
            ("p/éx".into(), Vec::new()),
        ];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip.write_all(&plain).unwrap();
        let bzip = bzip.finish().unwrap();
        for piece in [1, 100, 100_000] {
            assert_eq!(read(&plain, Packed::Not, piece).await.unwrap(), expected, "{piece}");
            assert_eq!(read(&gzip, Packed::Gzip, piece).await.unwrap(), expected, "{piece}");
            assert_eq!(read(&bzip, Packed::Bzip2, piece).await.unwrap(), expected, "{piece}");
        }
        assert!(read(&plain[..BLOCK + 100], Packed::Not, 100).await.is_err());
        assert!(read(b"no archive at all", Packed::Not, 100).await.is_err());
        assert!(read(&plain, Packed::Gzip, 100).await.is_err());
        assert!(read(&[b'x'; BLOCK], Packed::Not, 100).await.is_err());
    }
}
