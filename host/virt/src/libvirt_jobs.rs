//! What libvirt does with a running guest for a while: sends it to another host, puts a disk in another's place; and
//! what it counts of it.

use crate::{
    Destination, Disk, DiskStats, DomainSpec, LOOK_EVERY, Libvirt, Migration, NicStats, Phase, Progress,
    State, Stats,
    daemon::{DAEMON, DISKS, MEMORY, passage},
    libvirt::{AFFECT_CONFIG, AFFECT_LIVE, XML_INACTIVE, XML_MIGRATABLE},
    rpc::{Args, DomainRef, Procedure},
    xml::{self, Definition},
};
use base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Libvirt's flag numbers.
const MIGRATE_LIVE: u32 = 1;
const MIGRATE_PEER_TO_PEER: u32 = 2;
const MIGRATE_PERSIST_THERE: u32 = 8;
const MIGRATE_UNDEFINE_HERE: u32 = 16;
/// Of an overlay what lies over its base: the base is there already.
const MIGRATE_DISKS_INCREMENTALLY: u32 = 128;
/// Libvirt cannot know that a volume is the same from everywhere.
const MIGRATE_UNSAFE: u32 = 512;
const STATS_OF_CPU_MEMORY_CARDS_AND_DISKS: u32 = 4 | 8 | 16 | 32;
const METADATA_ELEMENT: i32 = 2;
const COPY_INTO_WHAT_EXISTS: u32 = 2;
const COPY_TRANSIENT: u32 = 4;
const PIVOT: u32 = 2;
/// Memory and disks of a large guest take their time.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(24 * 3600);
const COPY_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Guests that were sent, and how that went.
pub type Sent = Arc<Mutex<HashMap<String, Migration>>>;

impl Libvirt {
    pub(crate) async fn stats_of(&self, uuid: &str) -> Result<Stats> {
        let domain = self.running(uuid).await?;
        let args = Args::new().u32(1).domain(&domain).u32(STATS_OF_CPU_MEMORY_CARDS_AND_DISKS).u32(0);
        let mut answer = self.call(Procedure::ConnectGetAllDomainStats, args).await?;
        if answer.u32()? == 0 {
            return Err(not_running());
        }
        answer.domain()?;
        let values = answer.named()?;
        let definition = self.definition(&domain, 0).await?;
        let mut stats = stats(&values);
        for nic in &mut stats.nics {
            let held = definition.nics.iter().find(|held| held.xml.contains(&nic.device));
            nic.mac = held.map(|held| held.mac.clone()).unwrap_or_default();
        }
        Ok(stats)
    }

    pub(crate) async fn destination_for(&self, spec: &DomainSpec) -> Result<Destination> {
        Ok(Destination {
            uri: format!("qemu+unix:///system?socket={}", passage(&spec.uuid, DAEMON)),
            definition: xml::domain(spec, self.accelerator())?,
        })
    }

    /// The call lasts as long as the guest is on its way; it goes on behind.
    pub(crate) async fn begin_migration(&self, uuid: &str, to: &Destination, which: &[String]) -> Result<()> {
        // Asked again it may be on its way, where nothing is to be found of it.
        if self.sent.lock().get(uuid).is_some_and(|sent| sent.phase == Phase::Running) {
            return Ok(());
        }
        let domain = self.running(uuid).await?;
        let live = self.definition_text(&domain, XML_MIGRATABLE).await?;
        let definition = xml::read(&live)?;
        let names: Vec<String> = definition
            .disks
            .iter()
            .filter(|disk| which.contains(&disk.serial))
            .map(|disk| disk.device.clone())
            .collect();
        let there = xml::elsewhere(&live, &to.definition)?;
        let mut values =
            vec![("destination_xml", there.as_str()), ("persistent_xml", to.definition.as_str())];
        let [memory, disks] = [MEMORY, DISKS].map(|channel| format!("unix://{}", passage(uuid, channel)));
        values.push(("migrate_uri", &memory));
        values.extend(names.iter().map(|name| ("migrate_disks", name.as_str())));
        let mut flags = MIGRATE_LIVE
            | MIGRATE_PEER_TO_PEER
            | MIGRATE_PERSIST_THERE
            | MIGRATE_UNDEFINE_HERE
            | MIGRATE_UNSAFE;
        if !names.is_empty() {
            values.push(("disks_uri", &disks));
            flags |= MIGRATE_DISKS_INCREMENTALLY;
        }
        let args =
            Args::new().domain(&domain).optional_string(Some(&to.uri)).named(&values).u32(0).u32(flags);
        let (client, sent, uuid) = (self.client().await?, self.sent.clone(), uuid.to_string());
        sent.lock().insert(uuid.clone(), Migration { phase: Phase::Running, ..Migration::default() });
        tokio::spawn(async move {
            let done = client.call(Procedure::DomainMigratePerform3Params, args, MIGRATION_PATIENCE).await;
            let mut sent = sent.lock();
            let cancelled = sent.get(&uuid).is_some_and(|sent| sent.phase == Phase::Cancelled);
            let phase = match &done {
                Ok(_) => Phase::Completed,
                Err(_) if cancelled => Phase::Cancelled,
                Err(_) => Phase::Failed,
            };
            let error = done.err().map(|error| error.message);
            sent.insert(uuid, Migration { phase, error, ..Migration::default() });
        });
        Ok(())
    }

    pub(crate) async fn migration_of(&self, uuid: &str) -> Result<Migration> {
        let Some(sent) = self.sent.lock().get(uuid).cloned() else { return Ok(Migration::default()) };
        if sent.phase != Phase::Running {
            return Ok(sent);
        }
        let Some(domain) = self.find(uuid).await? else { return Ok(sent) };
        let mut answer = match self.call(Procedure::DomainGetJobInfo, Args::new().domain(&domain)).await {
            // It arrives just now: it runs here no more, or is forgotten already.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => return Ok(sent),
            other => other?,
        };
        let _kind = answer.i32()?;
        let mut numbers = [0; 11];
        for number in &mut numbers {
            *number = answer.u64()?;
        }
        let progress = |at: usize| Progress {
            total_bytes: numbers[at],
            processed_bytes: numbers[at + 1],
            remaining_bytes: numbers[at + 2],
        };
        Ok(Migration { memory: progress(5), disk: progress(8), ..sent })
    }

    /// A guest that stands still changes no memory.
    pub(crate) async fn hasten(&self, uuid: &str) -> Result<()> {
        self.under_way(uuid)?;
        let domain = self.running(uuid).await?;
        self.call(Procedure::DomainSuspend, Args::new().domain(&domain)).await.map(drop)
    }

    pub(crate) async fn abort(&self, uuid: &str) -> Result<()> {
        self.under_way(uuid)?;
        let domain = self.running(uuid).await?;
        self.call(Procedure::DomainAbortJob, Args::new().domain(&domain)).await?;
        if let Some(sent) = self.sent.lock().get_mut(uuid) {
            sent.phase = Phase::Cancelled;
        }
        Ok(())
    }

    fn under_way(&self, uuid: &str) -> Result<()> {
        match self.sent.lock().get(uuid).map(|sent| sent.phase) {
            Some(Phase::Running) => Ok(()),
            _ => Err(Error::conflict("no migration is under way")),
        }
    }

    /// Copies the bytes while the guest goes on, then lets it go on with the copy. A guest that is off has nothing
    /// to copy with: `Conflict`.
    pub(crate) async fn replace_disk(&self, uuid: &str, serial: &str, disk: &Disk) -> Result<()> {
        let domain = self.running(uuid).await?;
        let live = self.definition(&domain, 0).await?;
        if !live.disks.iter().any(|held| held.serial == disk.serial) {
            let held = live.disks.iter().find(|held| held.serial == serial);
            let held = held.ok_or_else(|| Error::not_found(format!("Disk {serial} is not attached")))?;
            // Never copied onto itself: an earlier call may have come as far as here.
            if !xml::same_place(held, &xml::disk(disk, &held.device))? {
                self.copy(&domain, &held.device, disk).await?;
            }
            self.note_replaced(&domain, &live, &held.device, Some(&disk.serial)).await?;
        }
        let kept = self.definition(&domain, XML_INACTIVE).await?;
        if let Some(old) = kept.disks.iter().find(|held| held.serial == serial) {
            let args = Args::new().domain(&domain).string(&old.xml).u32(AFFECT_CONFIG);
            self.call(Procedure::DomainDetachDeviceFlags, args).await?;
            self.attach(&domain, &xml::disk(disk, &old.device), AFFECT_CONFIG).await?;
        }
        Ok(())
    }

    /// Libvirt changes no serial of a running guest's disk; a note says whose it is now.
    pub(crate) async fn note_replaced(
        &self,
        domain: &DomainRef,
        live: &Definition,
        device: &str,
        serial: Option<&str>,
    ) -> Result<()> {
        let name = xml::replaced_note(device);
        if live.metadata.get(&name).map(String::as_str) == serial {
            return Ok(());
        }
        let mut notes = live.metadata.clone();
        notes.remove(&name);
        notes.extend(serial.map(|serial| (name, serial.to_string())));
        let args =
            Args::new().domain(domain).i32(METADATA_ELEMENT).optional_string(Some(&xml::notes(&notes)));
        let args = args.optional_string(Some(xml::PREFIX)).optional_string(Some(xml::NAMESPACE));
        self.call(Procedure::DomainSetMetadata, args.u32(AFFECT_LIVE)).await.map(drop)
    }

    async fn copy(&self, domain: &DomainRef, device: &str, to: &Disk) -> Result<()> {
        if self.copy_and_pivot(domain, device, &xml::disk(to, device)).await? {
            return Ok(());
        }
        // A copy must be as large as what it replaces; the guest sees the rest when it starts again.
        let args = Args::new().domain(domain).string(device).u32(0);
        let mut info = self.call(Procedure::DomainGetBlockInfo, args).await?;
        let (_allocated, capacity) = (info.u64()?, info.u64()?);
        match self.copy_and_pivot(domain, device, &xml::beginning_of_disk(to, device, capacity)).await? {
            true => Ok(()),
            false => Err(Error::internal(format!("{device}: its copy has ended on its own"))),
        }
    }

    /// Whether the guest goes on with the copy; else QEMU gave it up.
    async fn copy_and_pivot(&self, domain: &DomainRef, device: &str, to: &str) -> Result<bool> {
        let flags = COPY_TRANSIENT | COPY_INTO_WHAT_EXISTS;
        let args = Args::new().domain(domain).string(device).string(to).named(&[]).u32(flags);
        match self.call(Procedure::DomainBlockCopy, args).await {
            Err(error) if error.is(ErrorKind::Conflict) => {} // the copy of an earlier call goes on
            other => drop(other?),
        }
        let copied = async {
            loop {
                let args = Args::new().domain(domain).string(device).u32(0);
                let mut answer = self.call(Procedure::DomainGetBlockJobInfo, args).await?;
                let (found, _kind, _bandwidth) = (answer.i32()?, answer.i32()?, answer.u64()?);
                let (done, all) = (answer.u64()?, answer.u64()?);
                if found == 0 || (done == all && all > 0) {
                    return Ok(found != 0);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let copied = tokio::time::timeout(COPY_PATIENCE, copied).await;
        let late = || Error::timeout(format!("{device} was not copied in time"));
        if !copied.unwrap_or_else(|_| Err(late()))? {
            return Ok(false);
        }
        let args = Args::new().domain(domain).string(device).u32(PIVOT);
        self.call_long(Procedure::DomainBlockJobAbort, args).await.map(|_| true)
    }

    async fn running(&self, uuid: &str) -> Result<DomainRef> {
        let domain = self.get(uuid).await?;
        match self.state(&domain).await? {
            State::Running | State::Paused => Ok(domain),
            _ => Err(not_running()),
        }
    }
}

fn not_running() -> Error {
    Error::conflict("The guest does not run.")
}

/// From `block.0.rd.bytes` and its like.
fn stats(values: &HashMap<String, String>) -> Stats {
    let number = |name: &str| values.get(name).and_then(|value| value.parse::<u64>().ok());
    let or_none = |name: String| number(&name).unwrap_or_default();
    let text = |name: String| values.get(&name).cloned().unwrap_or_default();
    let count = |name: &str| number(name).unwrap_or_default();
    let disk = |at: u64| DiskStats {
        device: text(format!("block.{at}.name")),
        read_bytes: or_none(format!("block.{at}.rd.bytes")),
        read_requests: or_none(format!("block.{at}.rd.reqs")),
        write_bytes: or_none(format!("block.{at}.wr.bytes")),
        write_requests: or_none(format!("block.{at}.wr.reqs")),
        errors: number(&format!("block.{at}.errors")),
    };
    let nic = |at: u64| NicStats {
        mac: String::new(),
        device: text(format!("net.{at}.name")),
        rx_bytes: or_none(format!("net.{at}.rx.bytes")),
        rx_packets: or_none(format!("net.{at}.rx.pkts")),
        rx_errors: or_none(format!("net.{at}.rx.errs")),
        rx_drop: or_none(format!("net.{at}.rx.drop")),
        tx_bytes: or_none(format!("net.{at}.tx.bytes")),
        tx_packets: or_none(format!("net.{at}.tx.pkts")),
        tx_errors: or_none(format!("net.{at}.tx.errs")),
        tx_drop: or_none(format!("net.{at}.tx.drop")),
    };
    let current = number("balloon.current");
    let unused = number("balloon.unused");
    Stats {
        uptime_seconds: 0,
        memory_maximum_mib: count("balloon.maximum") / 1024,
        memory_used_mib: current.zip(unused).map(|(current, unused)| current.saturating_sub(unused) / 1024),
        cpus: (0..count("vcpu.current")).map(|at| or_none(format!("vcpu.{at}.time"))).collect(),
        disks: (0..count("block.count")).map(disk).collect(),
        nics: (0..count("net.count")).map(nic).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_names_are_read() {
        let values = [
            ("balloon.maximum", "131072"),
            ("balloon.current", "131072"),
            ("balloon.unused", "65536"),
            ("vcpu.current", "1"),
            ("vcpu.0.time", "7"),
            ("block.count", "1"),
            ("block.0.name", "vda"),
            ("block.0.rd.bytes", "512"),
            ("net.count", "1"),
            ("net.0.name", "tap1"),
            ("net.0.tx.drop", "3"),
        ];
        let values = values.map(|(name, value)| (name.to_string(), value.to_string())).into();
        let stats = stats(&values);
        assert_eq!((stats.memory_maximum_mib, stats.memory_used_mib, stats.cpus), (128, Some(64), vec![7]));
        assert_eq!(
            (&*stats.disks[0].device, stats.disks[0].read_bytes, stats.disks[0].errors),
            ("vda", 512, None)
        );
        assert_eq!((&*stats.nics[0].device, stats.nics[0].tx_drop), ("tap1", 3));
    }
}
