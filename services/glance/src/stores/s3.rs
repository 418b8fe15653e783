//! A bucket of an S3 service, asked with signature version 4. Large images go up in parts.

use super::Backend;
use crate::{
    bytes::{self, Arrived, Chunks, Facts},
    http::{self, Target},
    options::StoreOptions,
};
use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use base::{Clock, Error, Json, Result, Secret};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{ops::Range, path::Path};

/// Above this, an image goes up in parts of it or larger: there are at most [`PARTS_MAX`].
const PART_BYTES: u64 = 64 << 20;
const PARTS_MAX: u64 = 10_000;
/// What is said of bodies: TLS or their MD5 keeps them whole, not the signature.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

pub struct S3Store {
    endpoint: String,
    bucket: String,
    region: String,
    access_key: String,
    secret_key: Secret,
    clock: Clock,
}

/// What a request says besides its path.
#[derive(Default)]
struct Asked<'a> {
    /// Names in order.
    query: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
}

impl S3Store {
    pub fn new(options: &StoreOptions) -> Result<Self> {
        let said = [&options.url, &options.bucket, &options.access_key];
        if said.iter().any(|text| text.is_empty()) || http::Parts::of(&options.url).is_none() {
            let sentence = format!("glance.stores: {:?} needs url, bucket and access_key", options.id);
            return Err(Error::bad_request(sentence));
        }
        let region = if options.region.is_empty() { "us-east-1" } else { &options.region };
        Ok(Self {
            endpoint: options.url.trim_end_matches('/').into(),
            bucket: options.bucket.clone(),
            region: region.into(),
            access_key: options.access_key.clone(),
            secret_key: options.secret_key.clone(),
            clock: Clock::real(),
        })
    }

    async fn ask(&self, method: &str, key: &str, asked: Asked<'_>, body: Body) -> Result<Response<Incoming>> {
        let query: Vec<String> =
            asked.query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let query = query.join("&");
        let path = format!("/{}/{key}", self.bucket);
        let url = match query.is_empty() {
            true => format!("{}{path}", self.endpoint),
            false => format!("{}{path}?{query}", self.endpoint),
        };
        let target = Target::trusted(&url).await?;
        let host = target.uri.authority().map_or("", |authority| authority.as_str());
        let now = self.clock.now().seconds().replace(['-', ':'], "");
        let authorization = self.authorization(&now, method, (&path, &query), host);
        let mut request = http::request(&target, method)
            .header("x-amz-date", &now)
            .header("x-amz-content-sha256", UNSIGNED)
            .header(header::AUTHORIZATION, authorization);
        for (name, value) in asked.headers {
            request = request.header(*name, *value);
        }
        let request: Request<Body> =
            request.body(body).map_err(|e| Error::internal(format!("{url}: {e}")))?;
        http::send(&target, request).await
    }

    /// AWS Signature Version 4, of the host and what S3 insists on.
    fn authorization(&self, now: &str, method: &str, (path, query): (&str, &str), host: &str) -> String {
        const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";
        let date = &now[..8];
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let request = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{now}\n\n{SIGNED}\n{UNSIGNED}"
        );
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
        let first = format!("AWS4{}", self.secret_key.expose()).into_bytes();
        let key = [date, &self.region, "s3", "aws4_request"].iter().fold(first, |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &to_sign));
        let key_id = &self.access_key;
        format!("AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={SIGNED}, Signature={signature}")
    }

    async fn put(&self, key: &str, file: &Path, facts: &Facts) -> Result<()> {
        let length = facts.size.to_string();
        let md5: Vec<u8> = (0..facts.md5.len() / 2)
            .filter_map(|at| u8::from_str_radix(&facts.md5[2 * at..2 * at + 2], 16).ok())
            .collect();
        let md5 = BASE64_STANDARD.encode(md5);
        let headers = [("content-length", length.as_str()), ("content-md5", &md5)];
        let body = Body::from_stream(bytes::read(file.into(), 0..facts.size).await?);
        let answer = self.ask("PUT", key, Asked { headers: &headers, query: &[] }, body).await?;
        good(answer, key).await.map(drop)
    }

    async fn put_in_parts(&self, key: &str, file: &Path, size: u64) -> Result<()> {
        let begun =
            self.ask("POST", key, Asked { query: &[("uploads", "")], headers: &[] }, Body::empty()).await?;
        let begun = http::text(good(begun, key).await?.into_body()).await?;
        let upload = between(&begun, "<UploadId>", "</UploadId>")
            .ok_or_else(|| Error::internal(format!("S3 begins no upload of {key}: {begun}")))?;
        let done = self.put_parts(key, file, size, upload).await;
        if done.is_err() {
            let asked = Asked { query: &[("uploadId", upload)], headers: &[] };
            if let Err(error) = self.ask("DELETE", key, asked, Body::empty()).await {
                tracing::warn!(key, ?error, "S3 keeps parts of an upload that was given up");
            }
        }
        done
    }

    async fn put_parts(&self, key: &str, file: &Path, size: u64, upload: &str) -> Result<()> {
        let step = PART_BYTES.max(size.div_ceil(PARTS_MAX));
        let mut list = String::new();
        for number in 1..=size.div_ceil(step) {
            let range = (number - 1) * step..size.min(number * step);
            let (part, length) = (number.to_string(), (range.end - range.start).to_string());
            let query = [("partNumber", part.as_str()), ("uploadId", upload)];
            let headers = [("content-length", length.as_str())];
            let body = Body::from_stream(bytes::read(file.into(), range).await?);
            let answer =
                good(self.ask("PUT", key, Asked { query: &query, headers: &headers }, body).await?, key)
                    .await?;
            let tag =
                answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let asked = Asked { query: &[("uploadId", upload)], headers: &[] };
        let answer = good(self.ask("POST", key, asked, Body::from(list)).await?, key).await?;
        // An answer that begins well may end in an error.
        let text = http::text(answer.into_body()).await?;
        match text.contains("<Error>") {
            true => Err(Error::internal(format!("S3 does not finish the upload of {key}: {text}"))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for S3Store {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn properties(&self) -> Json {
        json!({
            "s3_store_host": self.endpoint, "s3_store_bucket": self.bucket,
            "s3_store_large_object_size": PART_BYTES >> 20, "s3_store_large_object_chunk_size": PART_BYTES >> 20,
        })
    }

    /// As upstream writes it, but for the keys.
    fn url(&self, image_id: &str) -> String {
        let host = self.endpoint.split("://").last().unwrap_or_default();
        let scheme = if self.endpoint.starts_with("https") { "s3+https" } else { "s3" };
        format!("{scheme}://{host}/{}/{image_id}", self.bucket)
    }

    async fn keep(&self, image_id: &str, arrived: Arrived) -> Result<Facts> {
        let facts = arrived.facts.clone();
        match facts.size > PART_BYTES {
            true => self.put_in_parts(image_id, arrived.path(), facts.size).await?,
            false => self.put(image_id, arrived.path(), &facts).await?,
        }
        Ok(facts)
    }

    async fn read(&self, image_id: &str, _elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks> {
        use futures::{StreamExt, stream};
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let part = format!("bytes={}-{}", range.start, range.end - 1);
        let asked = Asked { query: &[], headers: &[("range", &part)] };
        let answer = good(self.ask("GET", image_id, asked, Body::empty()).await?, image_id).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Error::unavailable(format!("S3 has another {image_id} than was put there")));
        }
        Ok(http::chunks(answer.into_body()))
    }

    async fn remove(&self, image_id: &str, _elsewhere: Option<&str>) -> Result<()> {
        let answer = self.ask("DELETE", image_id, Asked::default(), Body::empty()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => good(answer, image_id).await.map(drop),
        }
    }
}

/// The answer, if it is a good one. What is not there is `NotFound`; everything else is the store's failure.
async fn good(answer: Response<Incoming>, key: &str) -> Result<Response<Incoming>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let says = http::text(answer.into_body()).await.unwrap_or_default();
    Err(match status {
        StatusCode::NOT_FOUND => Error::not_found(format!("S3 has no {key}")),
        _ => Error::internal(format!("S3 answers {status} about {key}: {says}")),
    })
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(begin)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> S3Store {
        let options = StoreOptions {
            id: "s".into(),
            url: "https://s3.amazonaws.com".into(),
            bucket: "examplebucket".into(),
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            ..StoreOptions::default()
        };
        S3Store::new(&options).unwrap()
    }

    /// The derivation of keys that Amazon's documentation works out.
    #[test]
    fn signing_keys_are_derived_as_amazon_does() {
        let first = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        let parts = ["20120215", "us-east-1", "iam", "aws4_request"];
        let key = parts.iter().fold(first, |key, part| mac(&key, part));
        assert_eq!(hex(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }

    #[test]
    fn signatures_change_with_what_is_signed() {
        let sign = |method: &str, path: &str, query: &str| {
            store().authorization("20130524T000000Z", method, (path, query), "s3.amazonaws.com")
        };
        let first = sign("GET", "/examplebucket/a", "");
        assert!(first.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;"
        ));
        for other in [
            sign("PUT", "/examplebucket/a", ""),
            sign("GET", "/examplebucket/b", ""),
            sign("GET", "/examplebucket/a", "uploads="),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_store_without_a_bucket_is_refused() {
        assert!(S3Store::new(&StoreOptions { id: "s".into(), ..StoreOptions::default() }).is_err());
        assert_eq!(store().url("i"), "s3+https://s3.amazonaws.com/examplebucket/i");
    }
}
