//! Scenarios: requests and what the reference OpenStack answered to them. This crate reads the files below `compat/`,
//! plays them against a cloud over HTTP and compares. It knows a cloud only by its address.

mod cloud;
mod http;
mod normal;
mod play;
mod scenario;

pub use cloud::Credentials;
pub use http::{Answer, send};

use anyhow::{Context as _, Result};
use cloud::Cloud;
use scenario::Scenario;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What to do with what the cloud answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Compare with the expectation in the file.
    Run,
    /// Write the answer into the file as the expectation.
    Record,
}

/// How one file went.
pub struct Outcome {
    pub path: PathBuf,
    pub steps: usize,
    pub failed: usize,
    /// Steps that differ for a reason the file names.
    pub explained: usize,
    /// Everything there is to say about it, for a person.
    pub said: Vec<String>,
}

/// Plays scenario files against a cloud, so many at a time.
pub async fn play(
    credentials: &Credentials,
    files: &[PathBuf],
    mode: Mode,
    jobs: usize,
) -> Result<Vec<Outcome>> {
    let cloud = Arc::new(Cloud::open(credentials).await.context("opening the cloud")?);
    let turns = Arc::new(Semaphore::new(jobs.max(1)));
    let mut running = JoinSet::new();
    for (index, file) in files.iter().cloned().enumerate() {
        let (cloud, turns) = (cloud.clone(), turns.clone());
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            (index, one(&cloud, &file, mode).await)
        });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = running.join_next().await {
        outcomes.push(done.context("a scenario stopped")?);
    }
    cloud.close().await;
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// What each step of a file was answered, by two clouds: for showing differences between them.
pub async fn differ(
    ours: &Credentials,
    theirs: &Credentials,
    files: &[PathBuf],
    jobs: usize,
) -> Result<Vec<Outcome>> {
    let (ours, theirs) = tokio::try_join!(Cloud::open(ours), Cloud::open(theirs))?;
    let mut outcomes = Vec::new();
    for batch in files.chunks(jobs.max(1)) {
        outcomes.extend(futures::future::join_all(batch.iter().map(|file| both(&ours, &theirs, file))).await);
    }
    tokio::join!(ours.close(), theirs.close());
    Ok(outcomes)
}

/// All scenario files below a folder, sorted; a file stands for itself.
pub fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn one(cloud: &Cloud, file: &Path, mode: Mode) -> Outcome {
    match Scenario::read(file) {
        Ok(scenario) => play::play(cloud, scenario, mode).await,
        Err(error) => broken(file, &error),
    }
}

async fn both(ours: &Cloud, theirs: &Cloud, file: &Path) -> Outcome {
    match (Scenario::read(file), Scenario::read(file)) {
        (Ok(one), Ok(other)) => play::compare(ours, theirs, one, other).await,
        (Err(error), _) | (_, Err(error)) => broken(file, &error),
    }
}

fn broken(file: &Path, error: &anyhow::Error) -> Outcome {
    Outcome { path: file.to_owned(), steps: 0, failed: 1, explained: 0, said: vec![format!("{error:#}")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_reads_and_every_step_has_an_expectation() {
        let files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat")).unwrap();
        assert!(files.len() > 30, "{}", files.len());
        for file in files {
            let scenario = Scenario::read(&file).unwrap();
            assert!(!scenario.steps.is_empty(), "{}", file.display());
            for step in &scenario.steps {
                assert!(step.has("expect") && step.has("name"), "{}: {}", file.display(), step.title());
            }
        }
    }
}
