//! Plays one scenario: setup, steps, cleanup.

use crate::cloud::{Cloud, Stage};
use crate::http::{self, Answer};
use crate::normal::{Names, Normaliser, Rules, Unordered, differences};
use crate::scenario::{Scenario, Step};
use crate::{Mode, Outcome};
use anyhow::{Context as _, Result, bail};
use fancy_regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const POLL_SECONDS_MAX: u64 = 60;
const GONE_SECONDS_MAX: u64 = 20;
const POLL_PAUSE: Duration = Duration::from_millis(100);
const TEXT_BYTES_MAX: usize = 4000;

/// A scenario on one cloud.
struct Player<'a> {
    cloud: &'a Cloud,
    stage: Stage,
    names: Names,
    variables: BTreeMap<String, Value>,
}

pub async fn play(cloud: &Cloud, mut scenario: Scenario, mode: Mode) -> Outcome {
    let mut outcome =
        Outcome { path: scenario.path.clone(), steps: 0, failed: 0, explained: 0, said: Vec::new() };
    let mut player = match Player::start(cloud, &scenario).await {
        Ok(player) => player,
        Err(error) => return failed(outcome, format!("{error:#}")),
    };
    let mut steps = std::mem::take(&mut scenario.steps);
    match player.set_up(&scenario).await {
        Ok(()) => {
            for step in &mut steps {
                outcome.steps += 1;
                let answered = player.step(&scenario, step).await;
                judge(&mut outcome, step, answered, mode);
            }
        }
        Err(error) => {
            outcome.failed += 1;
            outcome.said.push(format!("setup: {error:#}"));
        }
    }
    scenario.steps = steps;
    outcome.said.extend(player.clean_up(&scenario).await);
    if mode == Mode::Record
        && let Err(error) = scenario.write()
    {
        return failed(outcome, format!("{error:#}"));
    }
    outcome
}

/// Plays a scenario on two clouds and says where they differ.
pub async fn compare(ours: &Cloud, theirs: &Cloud, scenario: Scenario, twin: Scenario) -> Outcome {
    let mut outcome =
        Outcome { path: scenario.path.clone(), steps: 0, failed: 0, explained: 0, said: Vec::new() };
    let (our_answers, their_answers) = tokio::join!(answers(ours, &scenario), answers(theirs, &twin));
    let (our_answers, their_answers) = match (our_answers, their_answers) {
        (Ok(our_answers), Ok(their_answers)) => (our_answers, their_answers),
        (Err(error), _) => return failed(outcome, format!("ours: {error:#}")),
        (_, Err(error)) => return failed(outcome, format!("reference: {error:#}")),
    };
    for ((step, our_answer), their_answer) in scenario.steps.iter().zip(our_answers).zip(their_answers) {
        outcome.steps += 1;
        let mut step = step.clone();
        match their_answer {
            Ok(answer) => step.0.insert("expect".to_owned(), answer),
            Err(error) => step.0.insert("expect".to_owned(), json!({"failed": format!("{error:#}")})),
        };
        judge(&mut outcome, &mut step, our_answer, Mode::Run);
    }
    outcome
}

async fn answers(cloud: &Cloud, scenario: &Scenario) -> Result<Vec<Result<Value>>> {
    let mut player = Player::start(cloud, scenario).await?;
    let mut answers = Vec::new();
    let ready = player.set_up(scenario).await;
    if ready.is_ok() {
        for step in &scenario.steps {
            answers.push(player.step(scenario, step).await);
        }
    }
    player.clean_up(scenario).await;
    ready.map(|()| answers)
}

fn judge(outcome: &mut Outcome, step: &mut Step, answered: Result<Value>, mode: Mode) {
    let title = step.title();
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            outcome.failed += 1;
            outcome.said.push(format!("✗ {title}\n    {error:#}"));
            return;
        }
    };
    if mode == Mode::Record {
        step.0.insert("expect".to_owned(), answer);
        return;
    }
    let Some(expected) = step.0.get("expect") else {
        outcome.failed += 1;
        outcome.said.push(format!("✗ {title}\n    no expectation: record it"));
        return;
    };
    let found = compare_answers(expected, &answer);
    if found.is_empty() {
        return;
    }
    if let Some(reason) = step.text("differs") {
        outcome.explained += 1;
        outcome.said.push(format!("≠ {title}\n    explained: {reason}"));
        return;
    }
    outcome.failed += 1;
    outcome.said.push(format!("✗ {title}\n    {}", found.join("\n    ")));
}

/// Headers that are not expected are no difference.
fn compare_answers(expected: &Value, answer: &Value) -> Vec<String> {
    let mut answer = answer.clone();
    if let (Some(wanted), Some(Value::Object(headers))) = (expected.get("headers"), answer.get_mut("headers"))
    {
        headers.retain(|name, _| wanted.get(name).is_some());
    } else if let Value::Object(answer) = &mut answer {
        answer.remove("headers");
    }
    let mut found = Vec::new();
    differences("", expected, &answer, &mut found);
    found.iter().map(|line| line.trim_start_matches('.').to_owned()).collect()
}

impl<'a> Player<'a> {
    async fn start(cloud: &'a Cloud, scenario: &Scenario) -> Result<Player<'a>> {
        for service in scenario.text("needs").unwrap_or_default().split_whitespace() {
            if !cloud.has(service) {
                bail!("needs {service}, which this cloud has not");
            }
        }
        let stage = cloud.stage().await.context("creating the projects of the scenario")?;
        let mut player = Player { cloud, names: cloud.names(), stage, variables: BTreeMap::new() };
        player.learn_variables();
        Ok(player)
    }

    async fn set_up(&mut self, scenario: &Scenario) -> Result<()> {
        for step in &scenario.setup {
            let answer = self.ask(scenario, step).await.with_context(|| step.title())?;
            if answer.status >= 300 {
                bail!("{}: {} {}", step.title(), answer.status, String::from_utf8_lossy(&answer.body));
            }
        }
        Ok(())
    }

    /// Does a step and gives the normalised answer, as it stands below `expect`.
    async fn step(&mut self, scenario: &Scenario, step: &Step) -> Result<Value> {
        let answer = self.ask(scenario, step).await?;
        let rules = rules_of(scenario, step);
        let mut normaliser = Normaliser::new(&self.names, &rules);
        let mut expect = Map::from_iter([("status".to_owned(), json!(answer.status))]);
        if step.has("unchecked") {
            return Ok(Value::Object(expect));
        }
        let headers = normaliser.headers(&answer.headers);
        if !headers.is_empty() {
            expect.insert("headers".to_owned(), Value::Object(headers));
        }
        match answer.json() {
            Some(body) => {
                expect.insert("body".to_owned(), normaliser.body(&body));
            }
            None if answer.body.is_empty() => {}
            None => {
                let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(TEXT_BYTES_MAX)]);
                expect.insert("text".to_owned(), Value::String(normaliser.text(&text)));
            }
        }
        Ok(Value::Object(expect))
    }

    /// Sends the request, again and again when the step waits for something, and takes the captures.
    async fn ask(&mut self, scenario: &Scenario, step: &Step) -> Result<Answer> {
        let until = step.0.get("until").map(|until| self.fill(until)).transpose()?;
        let until = until.as_ref().and_then(Value::as_object);
        let end = Instant::now() + Duration::from_secs(POLL_SECONDS_MAX);
        let answer = loop {
            let answer = self.send(scenario, step).await?;
            let Some(until) = until else { break answer };
            if until.iter().all(|(path, wanted)| reached(&answer, path, wanted)) {
                break answer;
            }
            if Instant::now() > end {
                bail!("never reached {}: {}", json!(until), String::from_utf8_lossy(&answer.body));
            }
            tokio::time::sleep(POLL_PAUSE).await;
        };
        if let Some(captures) = step.0.get("capture").and_then(Value::as_object) {
            for (name, path) in captures {
                let path = path.as_str().context("a capture is a path")?;
                // An answer without it is compared and shown; later steps that need it will say so.
                if let Some(value) = find(&answer, path) {
                    self.learn(name, value);
                }
            }
        }
        Ok(answer)
    }

    async fn send(&mut self, scenario: &Scenario, step: &Step) -> Result<Answer> {
        let person = scenario.setting(step, "as").and_then(Value::as_str).unwrap_or("member").to_owned();
        let token = self.cloud.token(&mut self.stage, &person).await?;
        self.learn_variables();
        let request = self.fill_text(step.text("request").context("a step without a request")?)?;
        let (method, service, path) = request_of(scenario, &request)?;
        let mut headers: Vec<(String, String)> = Vec::new();
        if let Some(token) = token {
            headers.push(("x-auth-token".to_owned(), token));
        }
        let own = scenario.text("service") == Some(service.as_str());
        let version = step.text("microversion").or_else(|| scenario.text("microversion").filter(|_| own));
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            headers.push(("openstack-api-version".to_owned(), format!("{service} {version}")));
        }
        let body = self.body_of(step)?;
        if !body.is_empty() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if let Some(Value::Object(own)) = step.0.get("headers") {
            for (name, value) in own {
                headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                if let Some(value) = value.as_str() {
                    headers.push((name.clone(), self.fill_text(value)?));
                }
            }
        }
        http::send(&method, &format!("{}{path}", self.cloud.root_of(&service)?), &headers, body).await
    }

    fn body_of(&self, step: &Step) -> Result<Vec<u8>> {
        if let Some(body) = step.0.get("body") {
            return Ok(self.fill(body)?.to_string().into_bytes());
        }
        Ok(step.text("raw").map(|raw| self.fill_text(raw)).transpose()?.unwrap_or_default().into_bytes())
    }

    /// Cleanup goes on whatever happens; it gives what it could not do.
    async fn clean_up(&mut self, scenario: &Scenario) -> Vec<String> {
        let mut said = Vec::new();
        for step in &scenario.cleanup {
            let mut step = step.clone();
            step.0.entry("as").or_insert_with(|| json!("admin"));
            // What was never made has no name.
            if self.fill_text(step.text("request").unwrap_or_default()).is_err() {
                continue;
            }
            if let Err(error) = self.clean(scenario, &step).await {
                said.push(format!("cleanup: {}: {error:#}", step.title()));
            }
        }
        self.cloud.strike(&self.stage).await;
        said
    }

    /// Deletes and waits until it is gone; what is still busy is tried again.
    async fn clean(&mut self, scenario: &Scenario, step: &Step) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(GONE_SECONDS_MAX);
        let mut answer = self.send(scenario, step).await?;
        while matches!(answer.status, 400 | 409) && Instant::now() < end {
            tokio::time::sleep(POLL_PAUSE).await;
            answer = self.send(scenario, step).await?;
        }
        if answer.status >= 300 && answer.status != 404 {
            bail!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        let request = step.text("request").unwrap_or_default();
        let Some(path) = request.strip_prefix("DELETE ").filter(|_| answer.status != 404) else {
            return Ok(());
        };
        let mut look = step.clone();
        look.0.insert("request".to_owned(), json!(format!("GET {path}")));
        while Instant::now() < end && self.send(scenario, &look).await?.status == 200 {
            tokio::time::sleep(POLL_PAUSE).await;
        }
        Ok(())
    }

    fn learn_variables(&mut self) {
        for (name, value) in self.cloud.variables(&self.stage) {
            if !self.variables.contains_key(&name) {
                self.learn(&name, value);
            }
        }
    }

    fn learn(&mut self, name: &str, value: Value) {
        if let Some(digits) = value.as_str().filter(|_| name == "digits") {
            self.names.add_text(digits, "<digits>");
        } else if let Some(text) = value.as_str().filter(|_| name != "password") {
            self.names.add(name, text);
        }
        self.variables.insert(name.to_owned(), value);
    }

    fn fill(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => match VARIABLE.captures(text.as_str())? {
                // A variable alone keeps its type.
                Some(found) if found[0].len() == text.len() && !LONG.is_match(text.as_str())? => {
                    self.variable(&found)?.clone()
                }
                _ => Value::String(self.fill_text(text)?),
            },
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_>>()?)
            }
            Value::Object(map) => {
                let filled = map.iter().map(|(key, value)| Ok((self.fill_text(key)?, self.fill(value)?)));
                Value::Object(filled.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn fill_text(&self, text: &str) -> Result<String> {
        let mut missing = None;
        let text = LONG.replace_all(text, |found: &Captures<str>| "x".repeat(found[1].parse().unwrap_or(0)));
        let text = text.as_ref();
        let filled = VARIABLE.replace_all(text, |found: &Captures<str>| match self.variable(found) {
            Ok(Value::String(text)) => text.clone(),
            Ok(other) => other.to_string(),
            Err(error) => {
                missing = Some(error);
                String::new()
            }
        });
        missing.map_or(Ok(filled.into_owned()), Err)
    }

    fn variable(&self, found: &Captures<str>) -> Result<&Value> {
        let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
        self.variables.get(name).with_context(|| format!("${name} was not captured"))
    }
}

static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\$(?:\{([a-z][a-z0-9_]*)\}|([a-z][a-z0-9_]*))").expect("a constant pattern")
});

/// `$x256` is a text of so many letters.
static LONG: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$x([0-9]+)").expect("a constant pattern"));

/// `METHOD service path`, or `METHOD path` for the file's own service.
fn request_of(scenario: &Scenario, request: &str) -> Result<(String, String, String)> {
    let mut words = request.splitn(3, ' ');
    let (method, second, third) = (words.next().unwrap_or_default(), words.next(), words.next());
    let second = second.context("a request is METHOD [service] path")?;
    match third {
        Some(path) if !second.starts_with('/') => Ok((method.to_owned(), second.to_owned(), escaped(path))),
        _ => {
            let service = scenario.text("service").context("the file names no service")?;
            let path = request[method.len()..].trim_start();
            Ok((method.to_owned(), service.to_owned(), escaped(path)))
        }
    }
}

fn escaped(path: &str) -> String {
    path.replace(' ', "%20")
}

fn rules_of(scenario: &Scenario, step: &Step) -> Rules {
    let words = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Rules {
        ignore: words(scenario.setting(step, "ignore")),
        mask: scenario.setting(step, "mask").and_then(Value::as_object).cloned().unwrap_or_default(),
        unordered: match step.0.get("unordered") {
            None => Unordered::None,
            Some(Value::Array(_)) => Unordered::Keys(words(step.0.get("unordered"))),
            Some(_) => Unordered::All,
        },
        ours: step.text("ours").map(str::to_owned),
        cut: step.0.get("cut").and_then(Value::as_u64).map(|cut| cut as usize),
    }
}

/// `status` is the answer's code, `header.x` one of its headers, anything else a path into the body.
fn find(answer: &Answer, path: &str) -> Option<Value> {
    if path == "status" {
        return Some(json!(answer.status));
    }
    if let Some(name) = path.strip_prefix("header.") {
        return answer.header(name).map(|value| json!(value));
    }
    let body = answer.json()?;
    let mut value = &body;
    for key in path.split('.') {
        value = match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
            other => other.get(key)?,
        };
    }
    Some(value.clone())
}

fn reached(answer: &Answer, path: &str, wanted: &Value) -> bool {
    let found = find(answer, path);
    match wanted {
        Value::Array(any) => found.is_some_and(|found| any.contains(&found)),
        _ => found.as_ref() == Some(wanted),
    }
}

fn failed(mut outcome: Outcome, said: String) -> Outcome {
    outcome.failed += 1;
    outcome.said.push(said);
    outcome
}
