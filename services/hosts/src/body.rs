//! Bytes between streams and bodies of requests. A stream that breaks is never taken for one that ended.

use axum::body::Body;
use base::{Error, Result};
use bytes::{Buf, Bytes};
use futures::stream;
use http_body_util::BodyExt;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, DuplexStream, ReadBuf},
    task::JoinHandle,
};

const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a body.
pub struct BodyReader {
    body: Body,
    rest: Bytes,
}

impl BodyReader {
    pub fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            let mut frame = std::pin::pin!(self.body.frame());
            match std::task::ready!(frame.as_mut().poll(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.rest = data;
                }
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// A body of what the work writes. An error before the first byte is the answer's; one behind it breaks the body off.
pub async fn streamed<F>(work: impl FnOnce(DuplexStream) -> F) -> Result<Body>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (write, read) = tokio::io::duplex(CHUNK_BYTES);
    let working = tokio::spawn(work(write));
    let mut source = Source { read, working: Some(working) };
    let Some(first) = source.next().await? else { return Ok(Body::empty()) };
    let rest = stream::unfold((Some(source), Some(first)), |(source, first)| async move {
        let mut source = source?;
        if let Some(first) = first {
            return Some((Ok(first), (Some(source), None)));
        }
        match source.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), (Some(source), None))),
            Ok(None) => None,
            Err(error) => Some((Err(error), (None, None))),
        }
    });
    Ok(Body::from_stream(rest))
}

struct Source {
    read: DuplexStream,
    working: Option<JoinHandle<Result<()>>>,
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let count = self.read.read(&mut buffer).await?;
        if count > 0 {
            buffer.truncate(count);
            return Ok(Some(buffer.into()));
        }
        match self.working.take() {
            Some(working) => working.await.map_err(|e| Error::internal(e.to_string()))?.map(|()| None),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn whole_broken_and_refused() {
        let whole = streamed(|mut into| async move { Ok(into.write_all(&vec![7; 1_000_000]).await?) });
        let mut bytes = Vec::new();
        BodyReader::new(whole.await.unwrap()).read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.len() == 1_000_000 && bytes.iter().all(|byte| *byte == 7));

        let broken = streamed(|mut into| async move {
            into.write_all(b"half").await?;
            Err(Error::internal("the disk"))
        });
        let mut reader = BodyReader::new(broken.await.unwrap());
        assert!(reader.read_to_end(&mut Vec::new()).await.is_err());

        let refused = streamed(|_| async move { Err(Error::not_found("no such image")) });
        assert_eq!(refused.await.unwrap_err().message, "no such image");
        let empty = streamed(|_| async move { Ok(()) });
        let mut bytes = Vec::new();
        BodyReader::new(empty.await.unwrap()).read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.is_empty());
    }
}
