//! `multipart/form-data` as it comes: fields and files, one after the other, a chunk or two in memory.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

/// What a field that is no file may have, and all headers of a part.
const VALUE_BYTES_MAX: usize = 4096;
const HEAD_BYTES_MAX: usize = 8192;

/// What cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// It does not begin as it was said to.
    Boundary,
    /// It ended in the middle, or makes no sense.
    Cut,
}

/// A part's headers that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub filename: Option<String>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
}

pub struct Parts {
    body: Body,
    buffer: BytesMut,
    /// With the line's end before it.
    boundary: Vec<u8>,
    ended: bool,
    begun: bool,
}

/// The boundary of a form's content type; none: it is no form.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = disposition(content_type);
    let found = parameters.into_iter().find(|(name, _)| name == "boundary")?.1;
    (kind == "multipart/form-data" && !found.is_empty()).then_some(found)
}

/// `form-data; name="a"; filename="b"`
fn disposition(text: &str) -> (String, Vec<(String, String)>) {
    let mut pieces = Vec::new();
    let (mut piece, mut quoted, mut escaped) = (String::new(), false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => {
                piece.push(letter);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => pieces.push(std::mem::take(&mut piece)),
            _ => piece.push(letter),
        }
    }
    pieces.push(piece);
    let mut pieces = pieces.into_iter();
    let kind = pieces.next().unwrap_or_default().trim().to_lowercase();
    let parameters = pieces.filter_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        Some((name.trim().to_lowercase(), value.trim().to_string()))
    });
    (kind, parameters.collect())
}

impl Parts {
    pub fn new(body: Body, boundary: &str) -> Self {
        let boundary = format!("\r\n--{boundary}").into_bytes();
        Self { body, buffer: BytesMut::from(&b"\r\n"[..]), boundary, ended: false, begun: false }
    }

    /// The next part; the one before must have been read to its end.
    pub async fn next(&mut self) -> Result<Option<Head>, Broken> {
        if !self.begun {
            while self.buffer.len() < self.boundary.len() && self.more().await? {}
            if !self.buffer.starts_with(&self.boundary) {
                return Err(Broken::Boundary);
            }
            let _ = self.buffer.split_to(self.boundary.len());
            self.begun = true;
        }
        while self.buffer.len() < 2 {
            if !self.more().await? {
                return Err(Broken::Cut);
            }
        }
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let end = loop {
            match find(&self.buffer, b"\r\n\r\n") {
                Some(end) => break end,
                None if self.buffer.len() > HEAD_BYTES_MAX => return Err(Broken::Cut),
                None => {
                    if !self.more().await? {
                        return Err(Broken::Cut);
                    }
                }
            }
        };
        let head = self.buffer.split_to(end + 4);
        Ok(Some(head_of(&String::from_utf8_lossy(&head))))
    }

    /// Bytes of the part; none: it is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(end) = find(&self.buffer, &self.boundary) {
                if end > 0 {
                    return Ok(Some(self.buffer.split_to(end).freeze()));
                }
                let _ = self.buffer.split_to(self.boundary.len());
                return Ok(None);
            }
            // What may be the beginning of a boundary waits for the rest.
            if self.buffer.len() > self.boundary.len() {
                let sure = self.buffer.len() - self.boundary.len();
                return Ok(Some(self.buffer.split_to(sure).freeze()));
            }
            if !self.more().await? {
                return Err(Broken::Cut);
            }
        }
    }

    /// All of a part that is a field; what is too much is left out.
    pub async fn value(&mut self) -> Result<String, Broken> {
        let mut value = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            let room = VALUE_BYTES_MAX.saturating_sub(value.len());
            value.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        String::from_utf8(value).map_err(|_| Broken::Cut)
    }

    async fn more(&mut self) -> Result<bool, Broken> {
        while !self.ended {
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(_)) => return Err(Broken::Cut),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.buffer.extend_from_slice(bytes);
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

fn head_of(text: &str) -> Head {
    let mut head = Head::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim().to_lowercase().as_str() {
            "content-type" => head.content_type = Some(value.trim().into()),
            "content-encoding" => head.content_encoding = Some(value.trim().into()),
            "content-disposition" => {
                let (kind, parameters) = disposition(value);
                for (name, value) in parameters.into_iter().filter(|_| kind == "form-data") {
                    match name.as_str() {
                        "name" => head.name = value.to_lowercase(),
                        "filename" => head.filename = Some(value).filter(|value| !value.is_empty()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    head
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"A\"\r\n\r\none\r\n--b\r\n\
        Content-Disposition: form-data; name=\"f\"; filename=\"x;\\\"y\"\r\nContent-Type: a/b\r\n\r\nby\r\n-tes\r\n--b--\r\n";

    async fn read(text: &str, piece: usize) -> Result<Vec<(Head, String)>, Broken> {
        let pieces: Vec<_> = text
            .as_bytes()
            .chunks(piece)
            .map(|piece| std::io::Result::Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let mut parts = Parts::new(Body::from_stream(stream::iter(pieces)), "b");
        let mut found = Vec::new();
        while let Some(head) = parts.next().await? {
            found.push((head, parts.value().await?));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn parts_are_the_same_in_whatever_pieces_they_come() {
        for piece in [1, 2, 7, 1000] {
            let found = read(FORM, piece).await.unwrap();
            assert_eq!((found[0].0.name.as_str(), found[0].1.as_str()), ("a", "one"));
            assert_eq!((found[1].0.filename.as_deref(), found[1].1.as_str()), (Some("x;\"y"), "by\r\n-tes"));
            assert_eq!(found[1].0.content_type.as_deref(), Some("a/b"));
        }
        assert_eq!(read("--c\r\n", 3).await, Err(Broken::Boundary));
        assert_eq!(read(&FORM[..FORM.len() - 10], 3).await, Err(Broken::Cut));
        assert_eq!(boundary("multipart/form-data; boundary=\"b\"").as_deref(), Some("b"));
        assert_eq!(boundary("text/plain; boundary=b"), None);
    }
}
