//! `compat run|record|differ [FILES]`: scenarios against a cloud given by `OS_*`; see `compat/README.md`.

use anyhow::{Context as _, Result, bail};
use compat::{Credentials, Mode, Outcome};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "compat run [FILES]      compare the cloud of OS_* with what the files expect
compat record [FILES]   write what the cloud of OS_* answers into the files
compat differ [FILES]   compare the clouds of OS_* and REFERENCE_OS_* with each other
FILES: scenario files or folders, default ./compat.  JOBS: files at a time, default 4.
Without OS_AUTH_URL the cloud named by OS_CLOUD is taken from OS_CLIENT_CONFIG_FILE.";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let mut files = Vec::new();
    for path in arguments {
        files.extend(compat::files_below(Path::new(&path))?);
    }
    if files.is_empty() {
        files = compat::files_below(Path::new("compat"))?;
    }
    let jobs = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(4);
    let outcomes = match command.as_str() {
        "run" => compat::play(&credentials("")?, &files, Mode::Run, jobs).await?,
        "record" => compat::play(&credentials("")?, &files, Mode::Record, jobs).await?,
        "differ" => compat::differ(&credentials("")?, &credentials("REFERENCE_")?, &files, jobs).await?,
        _ => bail!("{USAGE}"),
    };
    Ok(report(&outcomes))
}

fn report(outcomes: &[Outcome]) -> bool {
    let (mut steps, mut failed, mut explained) = (0, 0, 0);
    for outcome in outcomes {
        let verdict = if outcome.failed == 0 { "ok  " } else { "FAIL" };
        println!("{verdict} {} ({} steps, {} differ)", outcome.path.display(), outcome.steps, outcome.failed);
        outcome.said.iter().for_each(|line| println!("  {line}"));
        steps += outcome.steps;
        failed += outcome.failed;
        explained += outcome.explained;
    }
    println!(
        "{} files, {steps} steps: {failed} differ, {explained} differ for a known reason",
        outcomes.len()
    );
    failed == 0
}

fn credentials(prefix: &str) -> Result<Credentials> {
    let get = |name: &str| std::env::var(format!("{prefix}OS_{name}")).ok();
    let Some(auth_url) = get("AUTH_URL") else { return from_clouds_yaml(prefix) };
    Ok(Credentials {
        auth_url,
        username: get("USERNAME").with_context(|| format!("{prefix}OS_USERNAME is not set"))?,
        password: get("PASSWORD").with_context(|| format!("{prefix}OS_PASSWORD is not set"))?,
        project_name: get("PROJECT_NAME").with_context(|| format!("{prefix}OS_PROJECT_NAME is not set"))?,
        user_domain: domain(get("USER_DOMAIN_ID"), get("USER_DOMAIN_NAME")),
        project_domain: domain(get("PROJECT_DOMAIN_ID"), get("PROJECT_DOMAIN_NAME")),
        region: get("REGION_NAME"),
    })
}

fn from_clouds_yaml(prefix: &str) -> Result<Credentials> {
    let get = |name: &str| std::env::var(format!("{prefix}OS_{name}")).ok();
    let cloud =
        get("CLOUD").with_context(|| format!("neither {prefix}OS_AUTH_URL nor {prefix}OS_CLOUD is set"))?;
    let path = PathBuf::from(get("CLIENT_CONFIG_FILE").unwrap_or_else(|| "clouds.yaml".to_owned()));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let file: serde_json::Value = serde_yaml_ng::from_str(&text)?;
    let entry =
        file["clouds"].get(&cloud).with_context(|| format!("no cloud {cloud:?} in {}", path.display()))?;
    let auth = &entry["auth"];
    let text = |key: &str| auth[key].as_str().map(str::to_owned);
    let needed = |key: &str| text(key).with_context(|| format!("cloud {cloud:?} has no {key}"));
    Ok(Credentials {
        auth_url: needed("auth_url")?,
        username: needed("username")?,
        password: needed("password")?,
        project_name: needed("project_name")?,
        user_domain: domain(text("user_domain_id"), text("user_domain_name")),
        project_domain: domain(text("project_domain_id"), text("project_domain_name")),
        region: entry["region_name"].as_str().map(str::to_owned),
    })
}

/// The id of the domain that every cloud has, else a name.
fn domain(id: Option<String>, name: Option<String>) -> String {
    match (id, name) {
        (_, Some(name)) if name != "Default" => name,
        (Some(id), _) => id,
        _ => "default".to_owned(),
    }
}
