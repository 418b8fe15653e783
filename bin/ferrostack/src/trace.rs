//! `ferrostack trace`: where an operation is and what it waits for, by its request's id or by what it is done to. Reads
//! the databases of services with long operations, so that it answers whatever else does not.

use crate::{Settings, database};
use base::{Clock, Error, Result, Timestamp};
use flow::trail::{self, State, Told};
use std::fmt::Write;

const SERVICES: [&str; 3] = ["nova", "cinder", "neutron"];

pub fn print(settings: &Settings, id: &str) -> Result<()> {
    let now = Clock::real().now();
    let all = tokio::runtime::Runtime::new()?.block_on(find(settings, id, now))?;
    if all.is_empty() {
        return Err(Error::not_found(format!(
            "No long operation is known of {id}: it never began one, or that is more than a day ago."
        )));
    }
    for (service, told) in &all {
        print!("{}", text(service, told, now));
    }
    Ok(())
}

async fn find(settings: &Settings, id: &str, now: Timestamp) -> Result<Vec<(&'static str, Told)>> {
    let mut all = Vec::new();
    for service in SERVICES {
        let Some(db) = database::existing(settings, service).await? else { continue };
        let (id, shared) = (id.to_string(), db.is_postgres());
        let found = db.read(move |tx| trail::find(tx, &id, now, shared)).await?;
        all.extend(found.into_iter().map(|told| (service, told)));
    }
    all.sort_by_key(|(_, told)| told.started_at);
    Ok(all)
}

fn text(service: &str, told: &Told, now: Timestamp) -> String {
    let mut text = String::new();
    let ended = told.ended_at.unwrap_or(now);
    let seconds = ended.since(told.started_at).as_secs_f64();
    let (state, at) = match &told.state {
        State::Queued => ("waits for operations before it".to_string(), None),
        State::Runs { step } => (format!("runs {step}"), Some(step)),
        State::Undoes { step } => (format!("undoes {step}"), Some(step)),
        State::Orphaned { step } => (format!("stands before {step}: its process is gone"), Some(step)),
        State::Done => ("done".to_string(), None),
        State::Failed { step } => (format!("failed at {step} and is undone"), None),
    };
    // A string takes every line.
    let _ = writeln!(text, "{service} {} of {}: {state}", told.kind, told.subject);
    let _ = writeln!(text, "    request  {}", told.request_id);
    let _ = writeln!(text, "    began    {}, {seconds:.1} s {}", told.started_at.seconds(), past(told));
    let _ = writeln!(text, "    in       {}", told.process);
    if let Some(step) = at {
        let place = told.steps.iter().position(|name| name == step).unwrap_or_default() + 1;
        let _ =
            writeln!(text, "    step     {step}, {place} of {}, attempt {}", told.steps.len(), told.attempt);
    }
    if let Some(what) = &told.waits_for {
        let since = told.noted_at.map(|at| format!(", since {}", at.seconds())).unwrap_or_default();
        let _ = writeln!(text, "    waits    for {what}{since}");
    }
    if let Some(error) = &told.error {
        let _ = writeln!(text, "    last error {error}");
    }
    text
}

fn past(told: &Told) -> &'static str {
    if told.ended_at.is_some() { "in all" } else { "ago" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_waits() {
        let told = Told {
            id: "f".into(),
            kind: "boot".into(),
            subject: "s".into(),
            request_id: "req-1".into(),
            steps: ["schedule", "build"].map(String::from).to_vec(),
            state: State::Runs { step: "build".into() },
            process: "control-1, process 7".into(),
            attempt: 2,
            error: Some("no answer".into()),
            waits_for: Some("the answer of compute@h1 to build".into()),
            noted_at: Some(Timestamp::from_unix_seconds(3)),
            started_at: Timestamp::from_unix_seconds(0),
            ended_at: None,
        };
        let text = text("nova", &told, Timestamp::from_unix_seconds(5));
        for said in [
            "nova boot of s: runs build",
            "2 of 2, attempt 2",
            "compute@h1 to build",
            "5.0 s ago",
            "no answer",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
