//! Many objects in one request: deleting a list of them.

use crate::{
    Swift,
    answer::{Answer, Outcome, refuse_with},
    call::{Call, Place, quoted, unquoted},
    report::{Form, Report, accepted, line},
};
use std::sync::Arc;
use web::{Method, StatusCode};

/// What came of deleting many.
pub struct Deleting {
    pub deleted: i64,
    pub not_found: i64,
    pub errors: Vec<(String, String)>,
    is_ours: bool,
}

impl Deleting {
    pub fn new() -> Self {
        Self { deleted: 0, not_found: 0, errors: Vec::new(), is_ours: false }
    }

    /// `shown` is its name in the report.
    pub async fn object(&mut self, swift: &Arc<Swift>, call: &Call, place: Place, shown: &str) {
        let part = call.within(Method::DELETE, place);
        let done = swift.part(part).await;
        match done.status.as_u16() {
            200..=299 => self.deleted += 1,
            404 => self.not_found += 1,
            status => {
                self.is_ours |= status >= 500;
                self.errors.push((quoted(shown), line(done.status)));
            }
        }
    }

    pub fn answer(self, form: Option<Form>) -> Answer {
        let nothing = self.deleted + self.not_found == 0;
        let (status, text) = match (self.errors.is_empty(), nothing) {
            (false, _) if self.is_ours => ("502 Bad Gateway".to_string(), ""),
            (false, _) => (line(StatusCode::BAD_REQUEST), ""),
            (true, true) => (line(StatusCode::BAD_REQUEST), "Invalid bulk delete."),
            (true, false) => ("200 OK".to_string(), ""),
        };
        let told = vec![
            ("Number Deleted", self.deleted.into()),
            ("Number Not Found", self.not_found.into()),
            ("Response Body", text.into()),
            ("Response Status", status.into()),
        ];
        Report { root: "delete", told, errors: self.errors }.answer(200, form.unwrap_or(Form::Text))
    }
}

/// POST or DELETE with `bulk-delete`: a path each line.
pub async fn delete(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    let form = accepted(&call);
    match read(swift, &mut call, form).await {
        Err(refusal) => {
            Ok(refused("delete", &[("Number Deleted", 0), ("Number Not Found", 0)], *refusal.0, form).await)
        }
        Ok(places) => {
            let mut deleting = Deleting::new();
            let (objects, containers): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|(place, _): &(Place, String)| place.is_object());
            for (place, name) in objects.into_iter().chain(containers) {
                deleting.object(swift, &call, place, &name).await;
            }
            Ok(deleting.answer(form))
        }
    }
}

async fn read(swift: &Arc<Swift>, call: &mut Call, form: Option<Form>) -> Outcome<Vec<(Place, String)>> {
    let is_text =
        call.header("content-type").is_none_or(|kind| kind.is_empty() || kind.starts_with("text/plain"));
    if form.is_none() || !is_text {
        return Err(crate::answer::refuse(406));
    }
    let max = swift.options.max_deletes_per_request;
    let line_max = 2 * (swift.options.max_object_name_length + swift.options.max_container_name_length + 2);
    let too_many = format!("Maximum Bulk Deletes: {max} per request");
    let body = swift.small_body(call, max.saturating_mul(line_max), &too_many).await?;
    let text = std::str::from_utf8(&body).map_err(|_| refuse_with(400, "Invalid File Name"))?;
    let mut places = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let name = unquoted(line).filter(|name| name.len() <= line_max);
        let name = name.ok_or_else(|| refuse_with(400, "Invalid File Name"))?;
        let bare = name.trim_start_matches('/');
        let (container, object) = bare.split_once('/').unwrap_or((bare, ""));
        let place =
            Place { account: call.place.account.clone(), container: container.into(), object: object.into() };
        places.push((place, name));
        if places.len() > max {
            return Err(refuse_with(413, too_many));
        }
    }
    places.retain(|(place, _)| !place.container.is_empty());
    Ok(places)
}

/// A report that nothing was done, for a reason.
pub async fn refused(
    root: &'static str,
    counts: &[(&'static str, i64)],
    refusal: Answer,
    form: Option<Form>,
) -> Answer {
    let status = line(refusal.status);
    let headers = refusal.headers.clone();
    let body = axum::body::to_bytes(refusal.body, 1 << 16).await.unwrap_or_default();
    let mut told: Vec<_> = counts.iter().map(|(name, count)| (*name, (*count).into())).collect();
    told.push(("Response Body", crate::report::text_of(&headers, &body).into()));
    told.push(("Response Status", status.into()));
    Report { root, told, errors: Vec::new() }.answer(200, form.unwrap_or(Form::Text))
}
