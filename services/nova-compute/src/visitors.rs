//! Answers the agents of other hosts. A host is given what belongs to a guest that nova moves to that host, and reaches
//! the hypervisor for a guest that is expected from it; nothing else.

use crate::{
    disks::FileDisks,
    link::{self, Link, Question},
    travels::Travels,
};
use base::{Error, Result};
use contracts::peers::Line;
use host_virt::Hypervisor;
use std::{sync::Arc, time::Duration};
use tokio::net::UnixStream;

const PAUSE: Duration = Duration::from_millis(200);

pub struct Visitors {
    pub link: Link,
    pub disks: Arc<FileDisks>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub travels: Arc<Travels>,
}

/// Until dropped.
pub async fn receive(visitors: Arc<Visitors>) {
    loop {
        let (from, mut line) = match visitors.link.visitor().await {
            Ok(visitor) => visitor,
            Err(error) => {
                tracing::warn!(%error, "no lines of other hosts");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let visitors = visitors.clone();
        tokio::spawn(async move {
            if let Err(error) = visitors.answer(&from, &mut line).await {
                tracing::info!(%error, from, "a visit ended");
            }
        });
    }
}

impl Visitors {
    async fn answer(&self, from: &str, line: &mut Line) -> Result<()> {
        let question: Question = link::hear(line).await?;
        tracing::debug!(from, ?question, "asked by another host");
        let answered = match question {
            Question::Belongings { uuid } => {
                let belongings = self.disks.belongings(&uuid, from, self.travels.goes_to(&uuid, from)).await;
                return link::say(line, &belongings).await;
            }
            Question::File { uuid, name } => {
                let leaves = self.travels.goes_to(&uuid, from);
                self.give(line, self.disks.open_for(&uuid, &name, from, leaves).await).await
            }
            Question::Base { uuid } => {
                let leaves = self.travels.goes_to(&uuid, from);
                self.give(line, self.disks.open_base_for(&uuid, from, leaves).await).await
            }
            Question::Channel { uuid, name } => self.carry(line, from, &uuid, &name).await,
        };
        if let Err(error) = &answered {
            // Whoever has heard the answer already sees the line break.
            let _ = link::say(line, &Err::<(), _>(error.clone())).await;
        }
        answered
    }

    async fn give(&self, line: &mut Line, file: Result<std::fs::File>) -> Result<()> {
        let file = file?;
        link::say(line, &Ok::<_, Error>(())).await?;
        link::send(line, file).await
    }

    async fn carry(&self, line: &mut Line, from: &str, uuid: &str, name: &str) -> Result<()> {
        if !self.travels.comes_from(uuid, from) {
            return Err(Error::forbidden(format!("No guest {uuid} is expected from {from}.")));
        }
        let channels = self.hypervisor.channels(uuid);
        let channel = channels.iter().find(|channel| channel.name == name);
        let channel = channel.ok_or_else(|| Error::bad_request(format!("no channel {name}")))?;
        let mut stream = UnixStream::connect(&channel.arriving).await?;
        link::say(line, &Ok::<_, Error>(())).await?;
        let carried = tokio::io::copy_bidirectional(line, &mut stream).await;
        tracing::debug!(uuid, name, ?carried, "a channel ended");
        if channel.arriving != channel.leaving {
            // The hypervisors have said all: the guest is here, or stays where it was.
            self.travels.forget(uuid, &channels);
        }
        Ok(())
    }
}
