//! Bytes of many objects behind each other: what static and dynamic large objects are made of. Each is looked up,
//! checked and opened when its turn comes.

use crate::{
    Swift,
    answer::{Outcome, refuse},
    call::{Call, Place},
    content::Many,
    files::Chunks,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use std::{ops::Range, sync::Arc};
use web::Method;

/// Static large objects in static large objects.
const DEPTH_MAX: usize = 10;

#[derive(Clone, Debug)]
pub enum Source {
    Inline(Bytes),
    Object {
        place: Place,
        /// What it must have, when it was said.
        etag: Option<String>,
        size: Option<u64>,
        /// Whether a dynamic large object gives its segments' bytes, and not its own. In another one it does not: its own
        /// prefix may be among what has that prefix.
        dynamic: bool,
    },
}

/// A part of a large object: so many bytes of something, from there on.
#[derive(Clone, Debug)]
pub struct Segment {
    pub source: Source,
    pub start: u64,
    pub length: u64,
}

pub struct Segments {
    swift: Arc<Swift>,
    /// In whose name segments are read.
    call: Call,
    list: Vec<Segment>,
    depth: usize,
}

impl Segments {
    /// Refuses what cannot even begin.
    pub async fn open(
        swift: &Arc<Swift>,
        call: &Call,
        list: Vec<Segment>,
        depth: usize,
    ) -> Outcome<Arc<Self>> {
        if depth > DEPTH_MAX {
            return Err(refuse(409));
        }
        let call = call.within(Method::GET, call.place.clone());
        let segments = Arc::new(Self { swift: swift.clone(), call, list, depth });
        if let Some(first) = segments.list.first().cloned() {
            drop(segments.clone().segment(first, 0..0).await.map_err(|_| refuse(409))?);
        }
        Ok(segments)
    }

    /// Boxed: a segment may be made of segments.
    fn segment(
        self: Arc<Self>,
        segment: Segment,
        range: Range<u64>,
    ) -> BoxFuture<'static, std::io::Result<Chunks>> {
        let range = segment.start + range.start..segment.start + range.end;
        async move {
            let (place, etag, size, dynamic) = match segment.source {
                Source::Inline(bytes) => {
                    let part = bytes.slice(range.start as usize..range.end as usize);
                    return Ok(stream::iter([Ok(part)]).boxed());
                }
                Source::Object { place, etag, size, dynamic } => (place, etag, size, dynamic),
            };
            let shown = format!("{}/{}", place.container, place.object);
            let failed = |why: &str| std::io::Error::other(format!("segment {shown}: {why}"));
            let call = self.call.within(Method::GET, place);
            let view = self.swift.view_at(&call, self.depth + 1, dynamic).await;
            let view = view.map_err(|refusal| failed(refusal.0.status.as_str()))?;
            if etag.is_some_and(|etag| etag != view.told.etag)
                || size.is_some_and(|size| size != view.content.length())
            {
                return Err(failed("is not what it was"));
            }
            if range.end > view.content.length() {
                return Err(failed("is shorter than it was"));
            }
            Ok(view.content.read(range))
        }
        .boxed()
    }
}

impl Many for Segments {
    fn length(&self) -> u64 {
        self.list.iter().map(|segment| segment.length).sum()
    }

    fn read(self: Arc<Self>, range: Range<u64>) -> Chunks {
        let mut before = 0;
        let mut wanted = Vec::new();
        for segment in &self.list {
            let (start, end) = (range.start.max(before), range.end.min(before + segment.length));
            if start < end {
                wanted.push((segment.clone(), start - before..end - before));
            }
            before += segment.length;
        }
        stream::iter(wanted)
            .then(move |(segment, range)| self.clone().segment(segment, range))
            .try_flatten()
            .boxed()
    }
}
