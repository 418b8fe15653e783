//! What came of many things at once, in the form that the client accepts.

pub use crate::listing::Form;
use crate::{answer::Answer, call::Call, listing};
use base::Json;
use quick_xml::escape::escape;
use serde_json::json;
use std::fmt::Write;
use web::{HeaderMap, StatusCode, header};

/// Names and numbers, and what went wrong.
pub struct Report {
    /// The element around it in XML.
    pub root: &'static str,
    pub told: Vec<(&'static str, Json)>,
    pub errors: Vec<(String, String)>,
}

/// None: nothing that is accepted.
pub fn accepted(call: &Call) -> Option<Form> {
    match call.header("accept").map(str::trim) {
        None | Some("") => Some(Form::Text),
        Some(accept) => listing::accepted(accept).ok().flatten(),
    }
}

impl Report {
    pub fn answer(mut self, status: u16, form: Form) -> Answer {
        self.told.sort_by_key(|(name, _)| *name);
        let text = |value: &Json| value.as_str().map_or(value.to_string(), str::to_string);
        let mut body = String::new();
        match form {
            Form::Json => {
                let mut object: serde_json::Map<String, Json> =
                    self.told.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
                let errors: Vec<Json> =
                    self.errors.iter().map(|(name, status)| json!([name, status])).collect();
                object.insert("Errors".into(), errors.into());
                body = Json::from(object).to_string();
            }
            Form::Xml | Form::TextXml => {
                let _ = writeln!(body, "<{}>", self.root);
                for (name, value) in &self.told {
                    let name = name.replace(' ', "_").to_lowercase();
                    let _ = writeln!(body, "<{name}>{}</{name}>", escape(text(value).as_str()));
                }
                body.push_str("<errors>\n");
                for (name, status) in &self.errors {
                    let (name, status) = (escape(name.as_str()), escape(status.as_str()));
                    let _ = writeln!(body, "<object><name>{name}</name><status>{status}</status></object>");
                }
                let _ = write!(body, "</errors>\n</{}>\n", self.root);
            }
            Form::Text => {
                for (name, value) in &self.told {
                    let _ = writeln!(body, "{name}: {}", text(value));
                }
                body.push_str("Errors:\n");
                for (name, status) in &self.errors {
                    let _ = writeln!(body, "{name}, {status}");
                }
            }
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let media_type = form.media_type().split(';').next().unwrap_or_default();
        Answer::with(status, media_type, body)
    }
}

/// `404 Not Found`, with swift's names.
pub fn line(status: StatusCode) -> String {
    let page = web::swob::page(status).unwrap_or_default();
    let title = page.split_once("<h1>").and_then(|(_, rest)| rest.split_once("</h1>"));
    let title = title.map_or(status.canonical_reason().unwrap_or_default(), |(title, _)| title);
    format!("{} {title}", status.as_u16())
}

/// The text of a refusal, for a report's body.
pub fn text_of(headers: &HeaderMap, body: &[u8]) -> String {
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page { String::new() } else { String::from_utf8_lossy(body).into_owned() }
}
