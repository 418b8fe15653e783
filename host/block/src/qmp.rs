//! QEMU's control protocol, as much of it as a storage daemon needs.

use base::{Error, Json, Result};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const PATIENCE: Duration = Duration::from_secs(10);
const LINE_BYTES_MAX: usize = 1 << 20;

pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// None when nobody listens.
    pub async fn connect(socket: &Path) -> Result<Option<Self>> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut qmp = Self(BufReader::new(stream));
        qmp.line().await?;
        qmp.call("qmp_capabilities", json!({})).await?;
        Ok(Some(qmp))
    }

    pub async fn call(&mut self, command: &str, arguments: Json) -> Result<Json> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.0.get_mut().write_all(text.as_bytes()).await?;
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
        let count = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await.map_err(silent)??;
        if count == 0 || line.len() > LINE_BYTES_MAX {
            return Err(Error::unavailable("the storage daemon went away"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}
