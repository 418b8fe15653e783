//! QEMU's control protocol, as much of it as a storage daemon needs.

use base::{Error, ErrorKind, Json, Result};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// None when nobody listens.
    pub async fn connect(socket: &Path) -> Result<Option<Self>> {
        // Reset: it ended before it took the connection.
        use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut qmp = Self(BufReader::new(stream));
        match qmp.greet().await {
            Ok(()) => Ok(Some(qmp)),
            // It is just ending.
            Err(error) if error.is(ErrorKind::Unavailable) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn greet(&mut self) -> Result<()> {
        self.line().await?;
        self.call("qmp_capabilities", json!({})).await.map(drop)
    }

    pub async fn call(&mut self, command: &str, arguments: Json) -> Result<Json> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.0.get_mut().write_all(text.as_bytes()).await.map_err(went_away)?;
        loop {
            let mut answer = self.line().await?;
            if let Some(error) = answer.get("error") {
                return Err(Error::internal(format!("storage daemon: {command}: {}", error["desc"])));
            }
            // What else comes are events.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }

    async fn line(&mut self) -> Result<Json> {
        let mut line = String::new();
        let silent = |_| Error::timeout("the storage daemon does not answer");
        let count = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line))
            .await
            .map_err(silent)?
            .map_err(went_away)?;
        if count == 0 {
            return Err(Error::unavailable("the storage daemon went away"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

fn went_away(cause: std::io::Error) -> Error {
    Error::unavailable(format!("the storage daemon went away: {cause}"))
}
