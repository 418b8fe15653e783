//! Servers that are to be placed at the same time share one look at the hosts. Each is chosen a host for in its turn and
//! sees what those before it will take; whether the room is still there, placement says.

use super::{Candidates, Host, Request, choose, hosts};
use crate::{
    Nova,
    flows::placing::{self, Wish},
};
use base::{Context, Error, Result};
use contracts::placement::{Candidate, Wanted};
use db::Tx;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::oneshot;

/// More wait for the next round.
const ROUND_MAX: usize = 100;

/// The hosts that fit, best first.
pub struct Choice {
    pub hosts: Vec<Host>,
    /// Whether the server's group must be looked at again when it is recorded.
    pub group: bool,
    pub candidates: Arc<Candidates>,
}

#[derive(Default)]
pub struct Rounds {
    waiting: Mutex<VecDeque<Asked>>,
    /// Whoever holds it looks for himself and for all who wait with him.
    turn: tokio::sync::Mutex<()>,
}

/// The providers with room for a server, or why that is not known.
type Room = Result<Arc<Candidates>>;

struct Asked {
    wish: Arc<Wish>,
    wanted: Wanted,
    tell: oneshot::Sender<Result<Choice>>,
}

impl Rounds {
    /// What is looked at is no older than the question.
    pub async fn choose(&self, nova: &Nova, cx: &Context, wish: Wish) -> Result<Choice> {
        let wish = Arc::new(wish);
        loop {
            let (tell, mut told) = oneshot::channel();
            let asked = Asked { wanted: placing::wanted(&wish), wish: wish.clone(), tell };
            self.waiting.lock().push_back(asked);
            let answer = tokio::select! {
                biased;
                answer = &mut told => answer.ok(),
                turn = self.turn.lock() => {
                    let answer = self.until_told(nova, cx, &mut told).await;
                    drop(turn);
                    answer
                }
            };
            // None: he who looked for us was stopped.
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    async fn until_told(
        &self,
        nova: &Nova,
        cx: &Context,
        told: &mut oneshot::Receiver<Result<Choice>>,
    ) -> Option<Result<Choice>> {
        loop {
            match told.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let asked: Vec<Asked> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(ROUND_MAX);
                waiting.drain(..count).collect()
            };
            if asked.is_empty() {
                return None;
            }
            round(nova, cx, asked).await;
        }
    }
}

async fn round(nova: &Nova, cx: &Context, asked: Vec<Asked>) {
    match look(nova, cx, &asked).await {
        Ok(choices) => {
            for (asked, choice) in asked.into_iter().zip(choices) {
                // Whoever asked may have gone.
                let _ = asked.tell.send(choice);
            }
        }
        Err(error) => {
            for asked in asked {
                let _ = asked.tell.send(Err(error.clone()));
            }
        }
    }
}

async fn look(nova: &Nova, cx: &Context, asked: &[Asked]) -> Result<Vec<Result<Choice>>> {
    // Most servers of a round want the same of placement.
    let mut room: Vec<(&Wanted, Room)> = Vec::new();
    let mut wishes = Vec::new();
    for Asked { wish, wanted, .. } in asked {
        let known = room.iter().find(|(other, _)| *other == wanted).map(|(_, providers)| providers.clone());
        let providers = match known {
            Some(providers) => providers,
            None => {
                let found = nova.placement().candidates(cx, wanted).await;
                let found = found.map(|found| Arc::new(by_root(found, wanted)));
                room.push((wanted, found.clone()));
                found
            }
        };
        wishes.push((wish.clone(), providers));
    }
    let (options, now) = (nova.options.clone(), nova.clock.now());
    let work = move |tx: &mut Tx| {
        let mut hosts = hosts(tx, &options, now)?;
        let mut joined: Vec<(String, String)> = Vec::new();
        let mut choices = Vec::new();
        for (wish, candidates) in &wishes {
            // What is wrong with one wish is not the others' matter.
            let request = candidates.clone().and_then(|room| placing::request(tx, wish, room));
            let mut request = match request {
                Ok(request) => request,
                Err(error) => {
                    choices.push(Err(error));
                    continue;
                }
            };
            let group_id = wish.instance.server_group_id.clone();
            if let (Some(group), Some(id)) = (&mut request.group, &group_id) {
                let others = joined.iter().filter(|(other, _)| other == id);
                group.hosts.extend(others.map(|(_, host)| host.clone()));
            }
            let fitting = match choose(&options, &request, &hosts) {
                Ok(fitting) => fitting,
                Err(error) => {
                    choices.push(Err(error));
                    continue;
                }
            };
            if let Some(best) = fitting.first() {
                take(&mut hosts, best, &request);
                joined.extend(group_id.map(|id| (id, best.node.host.clone())));
            }
            let (group, candidates) = (request.group.is_some(), request.candidates);
            choices.push(Ok(Choice { hosts: fitting, group, candidates }));
        }
        Ok(choices)
    };
    let choices = nova.read(work).await?;
    if choices.len() == asked.len() { Ok(choices) } else { Err(Error::internal("placing: a round is short")) }
}

fn by_root(found: Vec<Candidate>, wanted: &Wanted) -> Candidates {
    let mut by_root = Candidates::new();
    for candidate in found {
        let ways = by_root.entry(candidate.provider_id.clone()).or_default();
        if !wanted.groups.is_empty() {
            ways.push(candidate);
        }
    }
    by_root
}

/// The host as it will be with the server on it.
fn take(hosts: &mut [Host], chosen: &Host, request: &Request) {
    if let Some(host) = hosts.iter_mut().find(|host| host.node.host == chosen.node.host) {
        host.servers += 1;
        host.busy += 1;
        host.used_vcpus += request.instance.vcpus;
        host.used_memory_mb += request.instance.memory_mb;
        host.used_disk_gb += request.disk_gb;
    }
}
