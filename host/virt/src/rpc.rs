//! A client of libvirt's own socket protocol (XDR behind a length), as far as the driver needs it.
//! It speaks to the daemon directly, so that the program links no C library: it starts on machines without
//! libvirt, every call is asynchronous and bounded in time, and events arrive on the same socket.

use base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc, oneshot},
};

/// The remote program and its version, unchanged since 2007.
const PROGRAM: u32 = 0x2000_8086;
/// That of what is QEMU's alone.
const QEMU_PROGRAM: u32 = 0x2000_8087;
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 28;
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

const TYPE_CALL: i32 = 0;
const TYPE_REPLY: i32 = 1;
const TYPE_EVENT: i32 = 2;
const STATUS_OK: i32 = 0;

/// Procedure numbers of the remote program; those of QEMU's have a bit beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Procedure {
    ConnectOpen = 1,
    ConnectGetVersion = 4,
    ConnectGetCapabilities = 7,
    DomainDefineXml = 11,
    DomainGetXmlDesc = 14,
    DomainLookupByUuid = 24,
    DomainResume = 28,
    DomainSuspend = 34,
    DomainEventLifecycle = 107,
    DomainAttachDeviceFlags = 160,
    DomainDetachDeviceFlags = 161,
    ConnectDomainEventRegisterAny = 167,
    DomainGetJobInfo = 163,
    DomainAbortJob = 164,
    DomainManagedSave = 182,
    DomainHasManagedSaveImage = 183,
    DomainGetBlockInfo = 194,
    DomainCreateWithFlags = 196,
    DomainInjectNmi = 210,
    DomainGetState = 212,
    DomainUndefineFlags = 231,
    DomainDestroyFlags = 234,
    DomainBlockJobAbort = 237,
    DomainGetBlockJobInfo = 238,
    DomainBlockResize = 251,
    DomainShutdownFlags = 258,
    DomainSetMetadata = 264,
    ConnectListAllDomains = 273,
    DomainMigratePerform3Params = 305,
    ConnectGetAllDomainStats = 344,
    DomainBlockCopy = 345,
    DomainSetUserPassword = 357,
    QemuMonitorCommand = 0x1_0001,
}

const QEMUS: i32 = 0x1_0000;

impl Procedure {
    fn program_and_number(self) -> (u32, i32) {
        let number = self as i32;
        if number & QEMUS == 0 { (PROGRAM, number) } else { (QEMU_PROGRAM, number & !QEMUS) }
    }
}

/// Numbers of the kinds of a named value.
const VALUE_STRING: i32 = 7;

/// A domain as the daemon names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRef {
    pub name: String,
    pub uuid: [u8; 16],
    /// -1 when it does not run.
    pub id: i32,
}

/// A lifecycle event: what happened to which domain, in libvirt's numbers.
#[derive(Clone, Debug)]
pub struct LifecycleEvent {
    pub domain: DomainRef,
    pub event: i32,
    pub detail: i32,
}

/// One open connection. Dropped, it closes; a daemon that goes away closes it too.
pub struct Client {
    /// A task writes, so that a call given up half way never leaves half a message in the socket.
    outgoing: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    tasks: [tokio::task::JoinHandle<()>; 2],
    serial: AtomicU32,
}

struct Shared {
    waiting: Mutex<HashMap<u32, oneshot::Sender<Result<Vec<u8>>>>>,
    events: broadcast::Sender<LifecycleEvent>,
    closed: AtomicBool,
}

impl Client {
    /// Connects, opens the QEMU driver and asks for lifecycle events, which go to `events`.
    pub async fn connect(
        socket: &Path,
        events: broadcast::Sender<LifecycleEvent>,
        timeout: Duration,
    ) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| Error::unavailable(format!("libvirt at {}: {e}", socket.display())))?;
        let (read_half, write_half) = stream.into_split();
        let shared = Arc::new(Shared { waiting: Mutex::default(), events, closed: AtomicBool::new(false) });
        let (outgoing, to_write) = mpsc::channel(64);
        let tasks = [
            tokio::spawn(read_messages(read_half, shared.clone())),
            tokio::spawn(write_messages(write_half, to_write)),
        ];
        let client = Self { outgoing, shared, tasks, serial: AtomicU32::new(1) };
        let open = Args::new().optional_string(Some("qemu:///system")).u32(0);
        client.call(Procedure::ConnectOpen, open, timeout).await?;
        let lifecycle = Args::new().i32(0);
        client.call(Procedure::ConnectDomainEventRegisterAny, lifecycle, timeout).await?;
        Ok(client)
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Calls and waits for the answer. After `timeout` the outcome is unknown.
    pub async fn call(&self, procedure: Procedure, args: Args, timeout: Duration) -> Result<Answer> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(serial, sender);
        let exchange = async {
            self.outgoing.send(message(procedure, serial, &args.0)).await.map_err(gone)?;
            if self.is_closed() {
                return Err(gone("connection closed"));
            }
            receiver.await.map_err(gone)?
        };
        let answer = tokio::time::timeout(timeout, exchange).await;
        self.shared.waiting.lock().remove(&serial);
        match answer {
            Ok(bytes) => Ok(Answer::new(bytes?)),
            Err(_) => Err(Error::timeout(format!("libvirt: no answer to {procedure:?} within {timeout:?}"))),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

fn gone(cause: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("libvirt: {cause}"))
}

fn message(procedure: Procedure, serial: u32, args: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + args.len()) as u32;
    let (program, number) = procedure.program_and_number();
    let header = Args::new()
        .u32(length)
        .u32(program)
        .u32(VERSION)
        .i32(number)
        .i32(TYPE_CALL)
        .u32(serial)
        .i32(STATUS_OK);
    [header.0.as_slice(), args].concat()
}

async fn write_messages(mut socket: OwnedWriteHalf, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        if socket.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Hands every message that comes in to who waits for it, until the connection ends.
async fn read_messages(mut socket: OwnedReadHalf, shared: Arc<Shared>) {
    let cause = loop {
        match read_message(&mut socket).await {
            Ok(bytes) => {
                if let Err(error) = take_message(bytes, &shared) {
                    break error;
                }
            }
            Err(error) => break error,
        }
    };
    tracing::debug!(cause = %cause, "libvirt connection ended");
    shared.closed.store(true, Ordering::SeqCst);
    for (_, waiting) in shared.waiting.lock().drain() {
        let _ = waiting.send(Err(gone(&cause)));
    }
}

async fn read_message(socket: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    let length = socket.read_u32().await.map_err(gone)? as usize;
    if !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(gone(format!("message of {length} bytes")));
    }
    let mut bytes = vec![0; length - 4];
    socket.read_exact(&mut bytes).await.map_err(gone)?;
    Ok(bytes)
}

fn take_message(bytes: Vec<u8>, shared: &Shared) -> Result<()> {
    let mut answer = Answer::new(bytes);
    let program = answer.u32()?;
    let _version = answer.u32()?;
    let procedure = answer.i32()?;
    let kind = answer.i32()?;
    let serial = answer.u32()?;
    let status = answer.i32()?;
    if program != PROGRAM && program != QEMU_PROGRAM {
        return Ok(());
    }
    if kind == TYPE_REPLY {
        let result = if status == STATUS_OK { Ok(answer.rest()) } else { Err(answer.error()?) };
        if let Some(waiting) = shared.waiting.lock().remove(&serial) {
            let _ = waiting.send(result);
        }
    } else if kind == TYPE_EVENT && program == PROGRAM && procedure == Procedure::DomainEventLifecycle as i32
    {
        let event = LifecycleEvent { domain: answer.domain()?, event: answer.i32()?, detail: answer.i32()? };
        let _ = shared.events.send(event);
    }
    Ok(())
}

/// Arguments of a call, in XDR.
#[derive(Debug, Default)]
pub struct Args(Vec<u8>);

impl Args {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn string(self, text: &str) -> Self {
        let mut args = self.u32(text.len() as u32);
        args.0.extend(text.as_bytes());
        args.0.resize(args.0.len().next_multiple_of(4), 0);
        args
    }

    pub fn optional_string(self, text: Option<&str>) -> Self {
        match text {
            None => self.u32(0),
            Some(text) => self.u32(1).string(text),
        }
    }

    pub fn uuid(mut self, uuid: &[u8; 16]) -> Self {
        self.0.extend(uuid);
        self
    }

    /// Named values, all of them text.
    pub fn named(self, values: &[(&str, &str)]) -> Self {
        let args = self.u32(values.len() as u32);
        values.iter().fold(args, |args, (name, value)| args.string(name).i32(VALUE_STRING).string(value))
    }

    pub fn domain(self, domain: &DomainRef) -> Self {
        self.string(&domain.name).uuid(&domain.uuid).i32(domain.id)
    }
}

/// An answer, read from front to back.
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| gone("answer cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(length.next_multiple_of(4) - length)?;
        Ok(text)
    }

    fn optional_string(&mut self) -> Result<String> {
        if self.u32()? == 0 { Ok(String::new()) } else { self.string() }
    }

    pub fn domain(&mut self) -> Result<DomainRef> {
        Ok(DomainRef { name: self.string()?, uuid: self.array()?, id: self.i32()? })
    }

    pub fn domains(&mut self) -> Result<Vec<DomainRef>> {
        (0..self.u32()?).map(|_| self.domain()).collect()
    }

    /// Named values as text, whatever their kind.
    pub fn named(&mut self) -> Result<HashMap<String, String>> {
        let count = self.u32()?;
        let mut values = HashMap::new();
        for _ in 0..count {
            let name = self.string()?;
            let value = match self.i32()? {
                1 | 6 => self.i32()?.to_string(),
                2 => self.u32()?.to_string(),
                3 => i64::from_be_bytes(self.array()?).to_string(),
                4 => self.u64()?.to_string(),
                5 => f64::from_be_bytes(self.array()?).to_string(),
                VALUE_STRING => self.string()?,
                other => return Err(gone(format!("a value of the unknown kind {other}"))),
            };
            values.insert(name, value);
        }
        Ok(values)
    }

    fn rest(self) -> Vec<u8> {
        self.bytes[self.at..].to_vec()
    }

    /// The daemon's error in our kinds; the numbers are `virErrorNumber`.
    fn error(&mut self) -> Result<Error> {
        let code = self.i32()?;
        let _domain = self.i32()?;
        let message = self.optional_string()?;
        let kind = match code {
            42 | 99 => ErrorKind::NotFound,    // no such domain, no such device
            55 => ErrorKind::Conflict,         // not valid in this state
            68 => ErrorKind::Timeout,          // another job holds the domain
            86 | 87 => ErrorKind::Unavailable, // guest agent or resource busy
            _ => ErrorKind::Internal,
        };
        Ok(Error::new(kind, format!("libvirt: {message}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> DomainRef {
        DomainRef { name: "instance-1".into(), uuid: [7; 16], id: -1 }
    }

    #[test]
    fn strings_are_padded_to_four_bytes() {
        for text in ["", "a", "abcd", "abcde"] {
            let bytes = Args::new().string(text).u32(9).0;
            assert_eq!(bytes.len() % 4, 0);
            let mut answer = Answer::new(bytes);
            assert_eq!((answer.string().unwrap().as_str(), answer.u32().unwrap()), (text, 9));
        }
    }

    #[test]
    fn domains_go_there_and_back() {
        let bytes = Args::new().u32(2).domain(&domain()).domain(&domain()).0;
        assert_eq!(Answer::new(bytes).domains().unwrap(), [domain(), domain()]);
    }

    #[test]
    fn a_short_or_lying_answer_is_an_error() {
        assert!(Answer::new(vec![0, 0]).u32().is_err());
        assert!(Answer::new(vec![0xff; 8]).string().is_err());
        assert!(Answer::new(vec![0xff; 8]).domains().is_err());
    }

    #[test]
    fn errors_get_our_kinds() {
        for (code, kind) in [(42, ErrorKind::NotFound), (55, ErrorKind::Conflict), (1, ErrorKind::Internal)] {
            let bytes = Args::new().i32(code).i32(10).optional_string(Some("no")).0;
            assert_eq!(Answer::new(bytes).error().unwrap().kind, kind);
        }
    }

    #[tokio::test]
    async fn a_closed_connection_fails_those_who_wait() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(stream);
        });
        let (events, _) = broadcast::channel(1);
        let error = Client::connect(&socket, events, Duration::from_secs(5)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_silent_daemon_is_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let (events, _) = broadcast::channel(1);
        let error = Client::connect(&socket, events, Duration::from_millis(50)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Timeout);
    }
}
