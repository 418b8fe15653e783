//! What an object's GET gives: one file, or many behind each other; whole, a part, or several parts.

use crate::{
    answer::{Answer, Outcome},
    call::Call,
    conditional,
    files::{self, Chunks},
};
use axum::body::Body;
use base::{Timestamp, id};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::{fs::File, ops::Range, sync::Arc};
use web::Method;

/// Where bytes come from.
#[derive(Clone)]
pub enum Content {
    Bytes(Bytes),
    File(Arc<File>, u64),
    Many(Arc<dyn Many>),
}

/// Bytes of several objects, found when they are wanted.
pub trait Many: Send + Sync {
    fn length(&self) -> u64;
    fn read(self: Arc<Self>, range: Range<u64>) -> Chunks;
}

/// What is told with the bytes.
pub struct Told {
    pub etag: String,
    /// As it stands in the header; SLO's has quotation marks.
    pub etag_header: String,
    pub modified: Timestamp,
    pub content_type: String,
    /// The part of a large object that is asked for by its number; none inside: there is no such part.
    pub part: Option<Option<(u64, u64)>>,
    /// How many parts there are, where that was asked.
    pub parts: Option<usize>,
}

impl Content {
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
            Self::Many(many) => many.length(),
        }
    }

    pub fn read(&self, range: Range<u64>) -> Chunks {
        match self {
            Self::Bytes(bytes) => {
                let part = bytes.slice(range.start as usize..range.end as usize);
                stream::iter([Ok(part)]).boxed()
            }
            Self::File(file, _) => files::read(file.clone(), range),
            Self::Many(many) => many.clone().read(range),
        }
    }
}

/// GET or HEAD of something that has bytes, with its conditions and ranges. `headers` are added to every good answer.
pub fn answer(call: &Call, content: &Content, told: &Told, headers: impl Fn(&mut Answer)) -> Outcome {
    let length = content.length();
    let dress = |mut answer: Answer| {
        answer.set("accept-ranges", "bytes");
        answer.set("last-modified", conditional::http_date(told.modified));
        answer.set("etag", &told.etag_header);
        headers(&mut answer);
        if let Some(parts) = told.parts {
            answer.set("x-parts-count", parts.to_string());
        }
        answer
    };
    if let Some(status) = conditional::refused(&call.headers, &call.method, &told.etag, told.modified) {
        let answer = dress(Answer::stream(status, 0, Body::empty()));
        let media_type = if status == 304 { &told.content_type } else { web::swob::HTML };
        return Ok(answer.header("content-type", media_type));
    }
    if let Some(None) = told.part {
        let answer = Answer::text(416, "The requested part number is not satisfiable");
        let answer = dress(answer).header("content-type", &told.content_type);
        return Ok(answer.header("content-range", format!("bytes */{length}")));
    }
    if call.method == Method::HEAD && told.part.is_none() {
        let answer = dress(Answer::stream(200, length, Body::empty()));
        return Ok(answer.header("content-type", &told.content_type));
    }
    let ranges = match told.part.flatten() {
        Some(part) => Some(vec![part]),
        None => conditional::ranges(&call.headers, length),
    };
    Ok(match ranges.as_deref() {
        None => {
            let body = Body::from_stream(content.read(0..length));
            dress(Answer::stream(200, length, body)).header("content-type", &told.content_type)
        }
        Some([]) => dress(Answer::new(416))
            .header("content-type", &told.content_type)
            .header("content-range", format!("bytes */{length}")),
        Some([(start, end)]) => {
            let body = Body::from_stream(content.read(*start..*end));
            dress(Answer::stream(206, end - start, body))
                .header("content-type", &told.content_type)
                .header("content-range", format!("bytes {start}-{}/{length}", end - 1))
        }
        Some(several) => dress(multipart(content, told, several)),
    })
}

fn multipart(content: &Content, told: &Told, ranges: &[(u64, u64)]) -> Answer {
    let (boundary, length) = (id::hex(), content.length());
    let mut total = 0;
    let mut pieces: Vec<Chunks> = Vec::new();
    for (n, (start, end)) in ranges.iter().enumerate() {
        let before = if n == 0 { "" } else { "\r\n" };
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: {}\r\nContent-Range: bytes {start}-{}/{length}\r\n\r\n",
            told.content_type,
            end - 1
        );
        total += head.len() as u64 + end - start;
        pieces.push(stream::iter([Ok(Bytes::from(head))]).boxed());
        pieces.push(content.read(*start..*end));
    }
    let tail = format!("\r\n--{boundary}--");
    total += tail.len() as u64;
    pieces.push(stream::iter([Ok(Bytes::from(tail))]).boxed());
    let body = Body::from_stream(stream::iter(pieces).flatten());
    Answer::stream(206, total, body)
        .header("content-type", format!("multipart/byteranges;boundary={boundary}"))
}
