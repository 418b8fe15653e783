//! A closed-loop load generator for `scripts/bench`: some connections, each sending its next request when its last one
//! was answered. Prints one line of JSON: how many, how fast, how many were refused.

use base::{Error, Result};
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Uri,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinSet};

#[derive(Parser)]
struct Line {
    #[arg(long, default_value_t = 16)]
    connections: u64,
    /// So many requests, if they take no longer than `--seconds`.
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// `Name: value`
    #[arg(long)]
    header: Vec<String>,
    /// `{n}` in it becomes the request's number.
    #[arg(long, default_value = "")]
    body: String,
    method: String,
    url: Uri,
}

#[derive(Default)]
struct Seen {
    seconds: Vec<f64>,
    refused: Vec<u16>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let line = Arc::new(Line::parse());
    let (count, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut connections = JoinSet::new();
    for _ in 0..line.connections {
        connections.spawn(connection(line.clone(), count.clone(), began));
    }
    let mut all = Seen::default();
    while let Some(seen) = connections.join_next().await {
        let seen = seen.map_err(|e| Error::internal(e.to_string()))??;
        all.seconds.extend(seen.seconds);
        all.refused.extend(seen.refused);
    }
    let took = began.elapsed().as_secs_f64();
    all.seconds.sort_by(f64::total_cmp);
    let milliseconds = |share: f64| {
        let place = (share * all.seconds.len() as f64) as usize;
        all.seconds.get(place.min(all.seconds.len().saturating_sub(1))).map_or(0.0, |seconds| seconds * 1e3)
    };
    println!(
        r#"{{"count": {}, "seconds": {took:.3}, "rate": {:.1}, "p50_ms": {:.2}, "p99_ms": {:.2}, "refused": {}, "first_refusal": {}}}"#,
        all.seconds.len(),
        all.seconds.len() as f64 / took,
        milliseconds(0.5),
        milliseconds(0.99),
        all.refused.len(),
        all.refused.first().copied().unwrap_or_default(),
    );
    Ok(())
}

async fn connection(line: Arc<Line>, count: Arc<AtomicU64>, began: Instant) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut sender = connect(&line).await?;
    let until = Duration::from_secs_f64(line.seconds);
    loop {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number >= line.requests || began.elapsed() >= until {
            return Ok(seen);
        }
        if sender.ready().await.is_err() {
            sender = connect(&line).await?;
        }
        let asked = Instant::now();
        let answer = sender.send_request(request(&line, number)?).await.map_err(internal)?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(internal)?;
        seen.seconds.push(asked.elapsed().as_secs_f64());
        if !status.is_success() {
            seen.refused.push(status.as_u16());
        }
    }
}

async fn connect(line: &Line) -> Result<SendRequest<Full<Bytes>>> {
    let (host, port) = (line.url.host().unwrap_or("127.0.0.1"), line.url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(internal)?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(line: &Line, number: u64) -> Result<Request<Full<Bytes>>> {
    let path = line.url.path_and_query().map_or("/", |path| path.as_str());
    let host = line.url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().method(line.method.as_str()).uri(path).header("host", host);
    for (name, value) in line.header.iter().filter_map(|header| header.split_once(':')) {
        request = request.header(name, value.trim());
    }
    if !line.body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let body = line.body.replace("{n}", &number.to_string());
    request.body(Full::new(Bytes::from(body))).map_err(|e| Error::bad_request(e.to_string()))
}

fn internal(error: hyper::Error) -> Error {
    Error::internal(error.to_string())
}
