//! Runs a command of the host with limits on time and output, and says clearly what failed.
//! Long-lived daemons are their owners' business; this is for commands that end.

use base::{Error, Result};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    pin::Pin,
    process::{ExitStatus, Stdio},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    process::{Child, ChildStdout, Command},
};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const KILL_PATIENCE: Duration = Duration::from_secs(2);
const OUTPUT_BYTES_MAX_DEFAULT: usize = 16 * 1024 * 1024;
/// A chatty command's complaint stays readable in a log line and in an error.
const STDERR_BYTES_MAX: usize = 64 * 1024;
const COMPLAINT_CHARS_MAX: usize = 1000;

/// A command about to be run. Without a shell: arguments are passed as they are.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    output_bytes_max: usize,
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// What a command prints. It is killed when this is dropped.
#[derive(Debug)]
pub struct Reader {
    stdout: ChildStdout,
    _child: Child,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, into)
    }
}

/// `run("qemu-img").args(["info", path]).output().await?`
pub fn run(program: impl AsRef<OsStr>) -> Run {
    Run {
        program: program.as_ref().into(),
        args: Vec::new(),
        env: Vec::new(),
        dir: None,
        stdin: None,
        timeout: TIMEOUT_DEFAULT,
        output_bytes_max: OUTPUT_BYTES_MAX_DEFAULT,
    }
}

/// Where a program is on this host, `PATH` and the system's sbin folders searched.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

impl Run {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().into());
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Killed after this long, a minute when not said. Its children go with it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// More output than this is an error, 16 MiB when not said.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// Runs to the end; a failing exit status is an error that carries what the command said.
    pub async fn output(self) -> Result<Output> {
        let line = self.line();
        let output = self.status().await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Error::internal(format!("{line}: {}: {}", output.status, output.complaint())))
    }

    /// Runs to the end and returns what it printed, without trailing white space.
    pub async fn text(self) -> Result<String> {
        Ok(self.output().await?.text().trim_end().to_string())
    }

    /// Runs to the end; the caller judges the exit status.
    pub async fn status(self) -> Result<Output> {
        let line = self.line();
        let started = Instant::now();
        let mut child = self.spawn().map_err(|e| cannot_start(&line, e))?;
        let group = child.id();
        let ended = tokio::time::timeout(
            self.timeout,
            communicate(&mut child, self.stdin.as_deref(), self.output_bytes_max, &line),
        )
        .await;
        let result = match ended {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(format!("{line}: no end within {:?}", self.timeout))),
        };
        if result.is_err() {
            kill_group(group).await;
            // A process stuck in the kernel does not even die; nobody waits for that.
            let _ = tokio::time::timeout(KILL_PATIENCE, child.kill()).await;
        }
        tracing::debug!(
            command = line,
            ms = started.elapsed().as_millis() as u64,
            ok = result.is_ok(),
            "ran"
        );
        result
    }

    /// Starts it and hands over what it prints while it prints it, however much and however long. One that fails ends
    /// early: the reader knows how much there is to come. What it complains of is logged.
    pub fn reader(self) -> Result<Reader> {
        let line = self.line();
        let mut child = self.spawn().map_err(|e| cannot_start(&line, e))?;
        let no_pipe = || Error::internal(format!("{line}: no output"));
        let (stdout, stderr) = (child.stdout.take().ok_or_else(no_pipe)?, child.stderr.take());
        tokio::spawn(async move {
            let complaint = read(stderr, STDERR_BYTES_MAX, false).await.unwrap_or_default();
            if !complaint.trim_ascii().is_empty() {
                tracing::warn!(command = line, "{}", String::from_utf8_lossy(&complaint).trim());
            }
        });
        Ok(Reader { stdout, _child: child })
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let program = self.program.to_str().and_then(find).unwrap_or_else(|| self.program.clone().into());
        let mut command = Command::new(program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C.UTF-8")
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.spawn()
    }

    /// The command as a person would type it, for messages.
    fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        let mut line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if line.len() > COMPLAINT_CHARS_MAX {
            line = line.chars().take(COMPLAINT_CHARS_MAX).collect::<String>() + "…";
        }
        line
    }
}

impl Output {
    /// Standard output as text; foreign bytes are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What the command complained of: standard error, or standard output when that is empty.
    pub fn complaint(&self) -> String {
        let bytes = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        String::from_utf8_lossy(bytes).trim().chars().take(COMPLAINT_CHARS_MAX).collect()
    }
}

async fn communicate(
    child: &mut Child,
    stdin: Option<&[u8]>,
    bytes_max: usize,
    line: &str,
) -> Result<Output> {
    let input = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let feed = async {
        if let (Some(mut pipe), Some(bytes)) = (input, stdin) {
            // A command that does not read its input to the end is no failure of ours.
            let _ = pipe.write_all(bytes).await;
        }
        Ok(())
    };
    let (_, stdout, stderr) =
        tokio::try_join!(feed, read(stdout, bytes_max, true), read(stderr, STDERR_BYTES_MAX, false))
            .map_err(|e: Error| Error::new(e.kind, format!("{line}: {}", e.message)))?;
    let status = child.wait().await?;
    Ok(Output { status, stdout, stderr })
}

/// Reads a pipe to its end. What exceeds the limit fails a strict read and is thrown away in a lenient one.
async fn read(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize, strict: bool) -> Result<Vec<u8>> {
    let Some(mut pipe) = pipe else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            return Ok(bytes);
        }
        let room = bytes_max - bytes.len();
        if count > room && strict {
            return Err(Error::internal(format!("more than {bytes_max} bytes of output")));
        }
        bytes.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// The command leads a process group of its own, so that what it started ends with it.
async fn kill_group(group: Option<u32>) {
    if let Some(group) = group {
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{group}")])
            .stderr(Stdio::null())
            .status()
            .await;
    }
}

fn cannot_start(line: &str, cause: std::io::Error) -> Error {
    match cause.kind() {
        std::io::ErrorKind::NotFound => Error::internal(format!("{line}: program not found on this host")),
        _ => Error::internal(format!("{line}: cannot start: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ErrorKind;

    #[tokio::test]
    async fn output_and_input() {
        let output = run("cat").stdin("hello").output().await.unwrap();
        assert_eq!(output.text(), "hello");
        assert_eq!(run("echo").args(["a  b", "$HOME"]).text().await.unwrap(), "a  b $HOME");
        assert_eq!(run("pwd").dir("/usr").text().await.unwrap(), "/usr");
        assert_eq!(run("sh").args(["-c", "echo $X"]).env("X", "7").text().await.unwrap(), "7");
    }

    #[tokio::test]
    async fn a_failure_says_what_the_command_said() {
        let error = run("sh").args(["-c", "echo no such luck >&2; exit 3"]).output().await.unwrap_err();
        assert!(error.message.contains("no such luck") && error.message.contains('3'), "{error:?}");
        let error = run("virt-no-such-program").output().await.unwrap_err();
        assert!(error.message.contains("not found"), "{error:?}");
        let output = run("sh").args(["-c", "exit 4"]).status().await.unwrap();
        assert_eq!(output.status.code(), Some(4));
    }

    #[tokio::test]
    async fn limits() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let script = format!("(sleep 1; touch {}) & wait", mark.display());
        let command = run("sh").args(["-c", &script]).timeout(Duration::from_millis(200));
        assert!(command.output().await.unwrap_err().is(ErrorKind::Timeout));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!mark.exists(), "a child outlived the command");

        let flood = run("sh").args(["-c", "yes"]).output_bytes_max(1000);
        assert!(flood.output().await.unwrap_err().message.contains("1000 bytes"));
        let noise = run("sh").args(["-c", "head -c 1000000 /dev/zero >&2"]).output().await.unwrap();
        assert_eq!(noise.stderr.len(), STDERR_BYTES_MAX);
    }

    #[tokio::test]
    async fn output_is_read_while_the_command_runs() {
        let mut reader = run("sh").args(["-c", "echo one; sleep 60; echo two"]).reader().unwrap();
        let mut first = [0; 4];
        reader.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"one\n");
        let mut all = Vec::new();
        run("sh").args(["-c", "echo half; exit 3"]).reader().unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"half\n");
        assert!(run("virt-no-such-program").reader().is_err());
    }

    #[tokio::test]
    async fn input_that_nobody_reads_does_not_hang() {
        run("true").stdin(vec![0; 1 << 20]).output().await.unwrap();
    }
}
