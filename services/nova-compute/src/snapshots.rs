//! A guest's disk as an image, a guest that starts from another disk to be rescued, and what a guest has used.

use crate::Manager;
use base::{Context, Result};
use contracts::compute::{
    Diagnostics, DiskDiagnostics, Instance, NicDiagnostics, Observed, Rescue, SnapshotImage,
};
use host_virt::State;

impl Manager {
    /// A running guest stands still while its disk is copied: what stands still has written all it wanted to write.
    pub(crate) async fn copy_to_image(&self, cx: &Context, uuid: &str, image: &SnapshotImage) -> Result<()> {
        let held = self.locks.hold(uuid).await;
        let running = self.get(uuid).await?.state == State::Running;
        if running {
            self.hypervisor.pause(uuid).await?;
        }
        let copied = self.disks.copy_root(uuid, image).await;
        if running {
            self.hypervisor.unpause(uuid).await?;
        }
        copied?;
        drop(held);
        self.disks.upload_copy(cx, uuid, image).await
    }

    pub(crate) async fn start_rescued(
        &self,
        cx: &Context,
        instance: &Instance,
        rescue: &Rescue,
    ) -> Result<Observed> {
        let uuid = &instance.uuid;
        let mut held = self.locks.hold(uuid).await;
        self.get(uuid).await?;
        self.disks.make_rescue(cx, uuid, rescue).await?;
        self.hypervisor.destroy(uuid).await?;
        self.start_held(cx, instance, &mut held).await?;
        self.observed(uuid).await
    }

    pub(crate) async fn end_rescue(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        let uuid = &instance.uuid;
        let mut held = self.locks.hold(uuid).await;
        self.hypervisor.destroy(uuid).await?;
        self.disks.remove_rescue(uuid).await?;
        self.start_held(cx, instance, &mut held).await?;
        self.observed(uuid).await
    }

    pub(crate) async fn diagnose(&self, uuid: &str) -> Result<Diagnostics> {
        let domain = self.get(uuid).await?;
        let stats = self.hypervisor.stats(uuid).await?;
        let capabilities = self.hypervisor.capabilities().await?;
        let disks = stats.disks.into_iter().map(|disk| DiskDiagnostics {
            device: disk.device,
            read_bytes: disk.read_bytes,
            read_requests: disk.read_requests,
            write_bytes: disk.write_bytes,
            write_requests: disk.write_requests,
            errors: disk.errors,
        });
        let nics = stats.nics.into_iter().map(|nic| NicDiagnostics {
            mac: nic.mac,
            device: nic.device,
            rx_octets: nic.rx_bytes,
            rx_packets: nic.rx_packets,
            rx_errors: nic.rx_errors,
            rx_drop: nic.rx_drop,
            tx_octets: nic.tx_bytes,
            tx_packets: nic.tx_packets,
            tx_errors: nic.tx_errors,
            tx_drop: nic.tx_drop,
        });
        Ok(Diagnostics {
            state: if domain.state == State::Paused { "paused" } else { "running" }.into(),
            // The API has no word for a pretended host; upstream's own calls itself libvirt, too.
            driver: "libvirt".into(),
            hypervisor: capabilities.hypervisor_type.to_lowercase(),
            hypervisor_os: "linux".into(),
            uptime_seconds: stats.uptime_seconds,
            config_drive: false,
            memory_maximum_mib: stats.memory_maximum_mib,
            memory_used_mib: stats.memory_used_mib,
            cpus: stats.cpus,
            disks: disks.collect(),
            nics: nics.collect(),
        })
    }
}
