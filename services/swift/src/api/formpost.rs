//! Uploads by a form of a web page, signed with a key of the account or the container.

use crate::{
    Swift,
    answer::{Answer, Outcome},
    call::{Call, Leave, Place, quoted, unquoted},
    forms::{Broken, Head, Parts},
    signatures::{Scope, Signature, keys},
};
use axum::body::Body;
use bytes::Bytes;
use std::{collections::BTreeMap, io, sync::Arc};
use tokio::sync::mpsc;
use web::{Method, StatusCode};

type Fields = BTreeMap<String, String>;

/// Why a form is not taken.
enum Wrong {
    Invalid(String),
    Unauthorized(&'static str),
}

impl From<Broken> for Wrong {
    fn from(broken: Broken) -> Self {
        Self::Invalid(match broken {
            Broken::Boundary => "invalid starting boundary".into(),
            Broken::Cut => "unexpected end of form".into(),
        })
    }
}

/// What the files came to: the status, what is wrong, the body of the last answer.
#[derive(Default)]
struct Done {
    status: Option<StatusCode>,
    message: &'static str,
    body: Option<Bytes>,
}

pub async fn post(swift: &Arc<Swift>, mut call: Call, boundary: &str) -> Outcome {
    let mut parts = Parts::new(call.take_body(), boundary);
    let mut fields = Fields::new();
    match files(swift, &call, &mut parts, &mut fields).await {
        Ok(done) => Ok(answer(done, &fields)),
        Err(Wrong::Invalid(why)) => Ok(Answer::text(400, format!("FormPost: {why}"))),
        Err(Wrong::Unauthorized(why)) => {
            let text = format!("FormPost: {why}");
            Ok(Answer::with(StatusCode::UNAUTHORIZED, web::swob::HTML, text))
        }
    }
}

fn answer(done: Done, fields: &Fields) -> Answer {
    let (status, message) = match done.status {
        Some(status) => (status, done.message),
        None => (StatusCode::BAD_REQUEST, "No Files To Process"),
    };
    let Some(redirect) = fields.get("redirect").filter(|url| !url.is_empty()) else {
        let line = crate::report::line(status);
        let text = if message.is_empty() { line } else { format!("{line}\r\nFormPost: {message}") };
        let body = done.body.filter(|body| !status.is_success() && !body.is_empty());
        return Answer::with(status, "text/plain", body.unwrap_or(text.into()));
    };
    let joint = if redirect.contains('?') { '&' } else { '?' };
    let url =
        format!("{redirect}{joint}status={}&message={}", status.as_u16(), quoted(&message.to_lowercase()));
    let body = format!("<html><body><p><a href=\"{url}\">Click to continue...</a></p></body></html>");
    Answer::with(StatusCode::SEE_OTHER, web::swob::HTML, body).header("location", url)
}

async fn files(
    swift: &Arc<Swift>,
    call: &Call,
    parts: &mut Parts,
    fields: &mut Fields,
) -> Result<Done, Wrong> {
    let mut done = Done::default();
    let mut count = 0;
    while let Some(head) = parts.next().await? {
        if head.filename.is_none() {
            let value = parts.value().await?;
            fields.insert(head.name, value);
            continue;
        }
        count += 1;
        if count > number(fields, "max_file_count")? {
            done.status = Some(StatusCode::BAD_REQUEST);
            done.message = "Max File Count Exceeded";
            break;
        }
        let leave = signed(swift, call, fields).await?;
        let answer = file(swift, call, parts, fields, &head, leave).await?;
        let (status, body) = (answer.status, axum::body::to_bytes(answer.body, 1 << 16).await);
        done.status = Some(status);
        done.body = body.ok();
        if !status.is_success() {
            break;
        }
    }
    Ok(done)
}

fn number(fields: &Fields, name: &str) -> Result<i64, Wrong> {
    let text = fields.get(name).map_or("0", |text| text.trim());
    let text = if text.is_empty() { "0" } else { text };
    text.parse().map_err(|_| Wrong::Invalid(format!("{name} not an integer")))
}

/// Whether the fields so far are what somebody with a key allowed.
async fn signed(swift: &Arc<Swift>, call: &Call, fields: &Fields) -> Result<Leave, Wrong> {
    const INVALID: Wrong = Wrong::Unauthorized("Invalid Signature");
    let info = swift.info(&call.place).await.map_err(|_| INVALID)?;
    let keys = keys(&info);
    if keys.is_empty() || call.place.is_account() {
        return Err(INVALID);
    }
    if number(fields, "expires")? < call.now.unix_seconds() {
        return Err(Wrong::Unauthorized("Form Expired"));
    }
    let field = |name: &str, default: &str| match fields.get(name).map(String::as_str) {
        None | Some("") => default.to_string(),
        Some(value) => value.to_string(),
    };
    let path = unquoted(&call.path).unwrap_or_default();
    let message = [
        path,
        field("redirect", ""),
        field("max_file_size", "0"),
        field("max_file_count", "0"),
        field("expires", "0"),
    ];
    let message = message.join("\n");
    let signature = Signature::parse(&field("signature", "")).ok_or(INVALID)?;
    if !swift.options.allowed_digests.iter().any(|known| known == signature.digest) {
        return Err(INVALID);
    }
    let (_, scope) = keys.into_iter().find(|(key, _)| signature.is_of(key, &message)).ok_or(INVALID)?;
    Ok(Leave::Signed {
        account: call.place.account.clone(),
        container: (scope == Scope::Container).then(|| call.place.container.clone()),
    })
}

/// One file becomes one object.
async fn file(
    swift: &Arc<Swift>,
    call: &Call,
    parts: &mut Parts,
    fields: &Fields,
    head: &Head,
    leave: Leave,
) -> Result<Answer, Wrong> {
    let max = number(fields, "max_file_size")?.max(0) as usize;
    let name = format!("{}{}", call.place.object, head.filename.as_deref().unwrap_or("filename"));
    let mut put = call.within(Method::PUT, Place { object: name, ..call.place.clone() });
    put.leave = leave;
    put.who = None;
    put.set("transfer-encoding", "chunked");
    let kinds = [("content-type", &head.content_type), ("content-encoding", &head.content_encoding)];
    for (name, of_file) in kinds {
        if let Some(value) = fields.get(name).or(of_file.as_ref()) {
            put.set(name, value);
        }
    }
    for (field, name) in [("x_delete_at", "x-delete-at"), ("x_delete_after", "x-delete-after")] {
        if let Some(value) = fields.get(field) {
            let wrong = |_| Wrong::Invalid(format!("{field} not an integer"));
            put.set(name, &value.trim().parse::<i64>().map_err(wrong)?.to_string());
        }
    }
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    let body =
        futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    put.body = std::sync::Mutex::new(Body::from_stream(body));
    let sending = async move {
        let mut size = 0;
        loop {
            let chunk = match parts.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(broken) => {
                    let _ = sender.send(Err(io::Error::other("cut"))).await;
                    break Err(broken.into());
                }
            };
            size += chunk.len();
            if size > max {
                let _ = sender.send(Err(io::Error::other("too large"))).await;
                break Err(Wrong::Invalid("max_file_size exceeded".into()));
            }
            // Who does not want it any more has answered already; the rest of the part is read past.
            let _ = sender.send(Ok(chunk)).await;
        }
    };
    let writing = swift.part(put);
    let (answer, sent) = futures::join!(writing, sending);
    sent.map(|()| answer)
}
