//! Archives that become objects, a container for each first folder.

use super::bulk;
use crate::{
    Swift,
    answer::{Answer, Outcome},
    archive::{Archive, Entry, Packed},
    call::{Call, Place, quoted},
    report::{Form, Report, accepted, line},
};
use axum::body::Body;
use bytes::Bytes;
use std::{collections::BTreeSet, io, sync::Arc};
use tokio::sync::mpsc;
use web::{Method, StatusCode};

/// PUT with `extract-archive`.
pub async fn put(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    let packed = call.query.get("extract-archive").and_then(Packed::parse);
    let Some(packed) = packed else { return Err(unsupported()) };
    let form = accepted(&call);
    let chunked =
        call.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let refusal = match (form, call.content_length()?) {
        (None, _) => Some(406),
        (_, None) if !chunked => Some(411),
        _ => None,
    };
    let counts = [("Number Files Created", 0)];
    if let Some(status) = refusal {
        return Ok(bulk::refused("extract", &counts, Answer::new(status), form).await);
    }
    let mut archive = Archive::new(call.take_body(), packed);
    let mut extracting = Extracting::default();
    let ended = extracting.all(swift, &call, &mut archive).await;
    Ok(extracting.answer(ended, form))
}

fn unsupported() -> crate::answer::Refusal {
    Answer::with(StatusCode::BAD_REQUEST, web::swob::HTML, "Unsupported archive format").into()
}

#[derive(Default)]
struct Extracting {
    created: i64,
    errors: Vec<(String, String)>,
    seen: BTreeSet<String>,
    containers: usize,
    is_ours: bool,
}

/// Why an archive is not read to its end.
struct Stopped {
    status: StatusCode,
    text: String,
}

impl Stopped {
    fn archive(why: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: format!("Invalid Tar File: {why}") }
    }
}

impl Extracting {
    async fn all(&mut self, swift: &Arc<Swift>, call: &Call, archive: &mut Archive) -> Result<(), Stopped> {
        while let Some(entry) = archive.next().await.map_err(Stopped::archive)? {
            if self.errors.len() >= swift.options.max_failed_extractions {
                break;
            }
            self.one(swift, call, archive, entry).await?;
        }
        Ok(())
    }

    async fn one(
        &mut self,
        swift: &Arc<Swift>,
        call: &Call,
        archive: &mut Archive,
        entry: Entry,
    ) -> Result<(), Stopped> {
        let Place { account, container, object } = call.place.clone();
        let name = entry.name.trim_start_matches("./").trim_start_matches('/');
        let base: Vec<&str> = [container.as_str(), object.trim_end_matches('/')]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        let path = base.into_iter().chain([name]).collect::<Vec<_>>().join("/");
        let Some((container, object)) = path.split_once('/') else { return Ok(()) };
        let place = Place { account, container: container.into(), object: object.into() };
        let failed = |status: StatusCode| (quoted(&path), line(status));
        if entry.size > swift.options.max_file_size {
            self.errors.push(failed(StatusCode::PAYLOAD_TOO_LARGE));
            return Ok(());
        }
        let no_container = self.container(swift, call, &place).await?;
        let answer = object_of(swift, call, archive, place, &entry).await.map_err(Stopped::archive)?;
        if answer.is_success() {
            self.created += 1;
            return Ok(());
        }
        self.errors.extend(no_container);
        self.errors.push(failed(answer.status));
        self.is_ours |= answer.status.is_server_error();
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(Stopped { status: answer.status, text: String::new() }),
            _ => Ok(()),
        }
    }

    /// Makes the container when it is not there; what went wrong with that.
    async fn container(
        &mut self,
        swift: &Arc<Swift>,
        call: &Call,
        place: &Place,
    ) -> Result<Option<(String, String)>, Stopped> {
        let place = Place { object: String::new(), ..place.clone() };
        if !self.seen.insert(place.container.clone()) {
            return Ok(None);
        }
        let there = swift.part(call.within(Method::HEAD, place.clone())).await;
        let made = match there.status {
            StatusCode::NOT_FOUND => swift.part(call.within(Method::PUT, place.clone())).await,
            _ => there,
        };
        self.containers += usize::from(made.status == StatusCode::CREATED);
        let max = swift.options.max_containers_per_extraction;
        if self.containers > max {
            let text = format!("More than {max} containers to create from tar.");
            return Err(Stopped { status: StatusCode::BAD_REQUEST, text });
        }
        match made.status {
            StatusCode::UNAUTHORIZED => Err(Stopped { status: made.status, text: String::new() }),
            status if status.is_success() => Ok(None),
            status => Ok(Some((place.url_path(), line(status)))),
        }
    }

    fn answer(self, ended: Result<(), Stopped>, form: Option<Form>) -> Answer {
        let (status, text) = match (ended, self.errors.is_empty()) {
            (Err(stopped), _) => (line(stopped.status), stopped.text),
            (Ok(()), false) if self.is_ours => ("502 Bad Gateway".into(), String::new()),
            (Ok(()), false) => (line(StatusCode::BAD_REQUEST), String::new()),
            (Ok(()), true) if self.created == 0 => {
                (line(StatusCode::BAD_REQUEST), "Invalid Tar File: No Valid Files".into())
            }
            (Ok(()), true) => (line(StatusCode::CREATED), String::new()),
        };
        let told = vec![
            ("Number Files Created", self.created.into()),
            ("Response Body", text.into()),
            ("Response Status", status.into()),
        ];
        Report { root: "extract", told, errors: self.errors }.answer(200, form.unwrap_or(Form::Text))
    }
}

/// A file becomes an object, with the metadata of the request and of its extended headers.
async fn object_of(
    swift: &Arc<Swift>,
    call: &Call,
    archive: &mut Archive,
    place: Place,
    entry: &Entry,
) -> Result<Answer, String> {
    let mut put = call.within(Method::PUT, place);
    put.set("content-length", &entry.size.to_string());
    for (name, value) in &call.headers {
        if name.as_str().starts_with("x-object-meta-")
            || matches!(name.as_str(), "x-delete-at" | "x-delete-after")
        {
            put.headers.insert(name.clone(), value.clone());
        }
    }
    for (key, value) in &entry.pax {
        let known =
            ["SCHILY.xattr.user.", "LIBARCHIVE.xattr.user."].iter().find_map(|start| key.strip_prefix(start));
        match known {
            Some("mime_type") => put.set("content-type", value),
            Some(other) => {
                if let Some(name) = other.strip_prefix("meta.") {
                    put.set(&format!("x-object-meta-{}", name.to_lowercase()), value);
                }
            }
            None => {}
        }
    }
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    let body =
        futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    put.body = std::sync::Mutex::new(Body::from_stream(body));
    let sending = async move {
        loop {
            match archive.chunk().await {
                Ok(Some(chunk)) => drop(sender.send(Ok(chunk)).await),
                Ok(None) => break Ok(()),
                Err(why) => {
                    let _ = sender.send(Err(io::Error::other("cut"))).await;
                    break Err(why);
                }
            }
        }
    };
    let writing = swift.part(put);
    let (answer, sent) = futures::join!(writing, sending);
    sent.map(|()| answer)
}
