//! The signs of life of a back end, with the room it has; and the repair of exports that do not stand.

use crate::Agent;
use base::{Context, Result};
use contracts::agents::volume::{VolumeAgent, VolumeReports};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

/// Runs until dropped. Cinder may not be there yet, and may go away: everything is tried again.
pub async fn run(agent: Arc<Agent>, reports: Arc<dyn VolumeReports>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(agent.options.report_interval_seconds.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = tick(&agent, &*reports).await {
            tracing::warn!(%error, "report failed, it is repeated");
        }
    }
}

async fn tick(agent: &Agent, reports: &dyn VolumeReports) -> Result<()> {
    let cx = Context::internal();
    reports.back_end_reported(&cx, &agent.back_end().await?).await?;
    for volume_id in reports.volumes_connected(&cx, agent.host()).await? {
        if let Err(error) = repair(agent, reports, &cx, &volume_id).await {
            tracing::error!(volume_id, %error, "hosts do not reach this volume");
        }
    }
    Ok(())
}

async fn repair(agent: &Agent, reports: &dyn VolumeReports, cx: &Context, volume_id: &str) -> Result<()> {
    if agent.is_exported(volume_id).await? {
        return Ok(());
    }
    tracing::warn!(volume_id, "exported again");
    agent.export_again(volume_id).await?;
    // The last host may have let go of it meanwhile.
    let connected = reports.volumes_connected(cx, agent.host()).await?;
    match connected.iter().any(|id| id == volume_id) {
        true => Ok(()),
        false => agent.disconnect(cx, volume_id, &[]).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, simulated};
    use async_trait::async_trait;
    use contracts::agents::volume::{BackEnd, DiskSource, NewDisk, Reach};
    use host_block::Fake;
    use parking_lot::Mutex;

    const VOLUME: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const LOST: &str = "0e8a7f6c-0000-4000-8000-000000000002";

    #[derive(Default)]
    struct Cinder {
        told: Mutex<Vec<BackEnd>>,
        connected: Mutex<Vec<String>>,
        failures: Mutex<u32>,
    }

    #[async_trait]
    impl VolumeReports for Cinder {
        async fn back_end_reported(&self, _cx: &Context, back_end: &BackEnd) -> Result<()> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(base::Error::unavailable("nobody there"));
            }
            self.told.lock().push(back_end.clone());
            Ok(())
        }

        async fn volumes_connected(&self, _cx: &Context, back_end: &str) -> Result<Vec<String>> {
            assert_eq!(back_end, "h1@files");
            Ok(self.connected.lock().clone())
        }
    }

    fn agent(fake: &Fake) -> Arc<Agent> {
        simulated(Options { host: "h1".into(), ..Options::default() }, fake.clone(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_and_exports_that_stand_again() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let agent = agent(&fake);
        let disk = NewDisk { id: VOLUME.into(), size_gb: 3, source: DiskSource::Empty };
        agent.create(&cx, &disk).await.unwrap();
        agent.create(&cx, &disk).await.unwrap();
        let cinder = Arc::new(Cinder { failures: Mutex::new(1), ..Cinder::default() });
        // One that is not there keeps nobody else from being repaired.
        *cinder.connected.lock() = vec![LOST.into(), VOLUME.into()];
        let running = tokio::spawn(run(agent.clone(), cinder.clone()));
        tokio::time::sleep(Duration::from_secs(35)).await;
        let told = cinder.told.lock().clone();
        assert_eq!(told.len(), 3, "the first report failed");
        assert_eq!((told[0].host.as_str(), told[0].provisioned_gb), ("h1@files", 3.0));
        assert!(fake.exports().contains(VOLUME));
        fake.lose_exports().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(fake.exports().contains(VOLUME), "after the machine was off");
        running.abort();
    }

    #[tokio::test]
    async fn what_is_done_may_be_asked_again() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let agent = agent(&fake);
        let disk = NewDisk { id: VOLUME.into(), size_gb: 1, source: DiskSource::Empty };
        let from = Reach { host: "elsewhere".into(), ..Reach::default() };
        agent.create(&cx, &disk).await.unwrap();
        for _ in 0..2 {
            agent.extend(&cx, VOLUME, 2).await.unwrap();
            agent.create_snapshot(&cx, LOST, VOLUME).await.unwrap();
            agent.revert(&cx, VOLUME, LOST).await.unwrap();
        }
        let connection = agent.connect(&cx, VOLUME, &from).await.unwrap();
        assert_eq!(agent.connect(&cx, VOLUME, &from).await.unwrap(), connection);
        assert!(agent.revert(&cx, VOLUME, LOST).await.is_err(), "it is connected");
        agent.extend(&cx, VOLUME, 3).await.unwrap();
        for _ in 0..2 {
            agent.disconnect(&cx, VOLUME, &[]).await.unwrap();
            agent.delete_snapshot(&cx, LOST).await.unwrap();
            agent.delete(&cx, VOLUME).await.unwrap();
        }
        assert!(fake.volumes().is_empty() && fake.snapshots().is_empty());
    }
}
