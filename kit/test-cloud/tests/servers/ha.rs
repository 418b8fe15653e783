//! Hosts that are cut off and come back: their servers that ask for it run elsewhere meanwhile, and none runs twice.

use crate::stage::Stage;
use base::{Clock, Context, Error, Result};
use contracts::compute::{
    Compute, ComputeReports, ExpectedInstance, Host, Instance, Lease, Observed, RemoteComputeReports,
    compute_handlers,
};
use host_virt::{Capabilities, Fake, Hypervisor, State, Wire};
use nova_compute::Manager;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use test_cloud::{TestCloud, until};
use tokio::task::JoinHandle;

/// The agent of a host, and the cable between it and the cloud.
struct Agent {
    name: String,
    fake: Fake,
    manager: Arc<Manager>,
    cable: Arc<Cable>,
    state: PathBuf,
    serving: Option<bus::Serving>,
    reporting: JoinHandle<()>,
}

struct Cable {
    reports: RemoteComputeReports,
    cut: AtomicBool,
}

impl Cable {
    fn check(&self) -> Result<()> {
        if self.cut.load(SeqCst) { Err(Error::unavailable("the cable is cut")) } else { Ok(()) }
    }
}

/// What was sent before the cut may arrive, and its answer not.
#[async_trait::async_trait]
impl ComputeReports for Cable {
    async fn host_reported(&self, cx: &Context, host: &Host) -> Result<Lease> {
        self.check()?;
        let lease = self.reports.host_reported(cx, host).await?;
        self.check().map(|()| lease)
    }

    async fn instance_reported(&self, cx: &Context, observed: &Observed) -> Result<()> {
        self.check()?;
        self.reports.instance_reported(cx, observed).await
    }

    async fn instances_on(&self, cx: &Context, host: &str) -> Result<Vec<ExpectedInstance>> {
        self.check()?;
        let expected = self.reports.instances_on(cx, host).await?;
        self.check().map(|()| expected)
    }
}

async fn manager(name: &str, fake: &Fake, state: &std::path::Path) -> Arc<Manager> {
    let options = nova_compute::Options {
        host: name.into(),
        report_interval_seconds: 1,
        ..nova_compute::Options::default()
    };
    nova_compute::simulated(options, fake.clone(), None, Clock::real(), state).await.unwrap()
}

impl Agent {
    async fn start(cloud: &TestCloud, name: &str, wire: &Wire) -> Self {
        let capabilities = Capabilities {
            hostname: name.into(),
            vcpus: 64,
            memory_mib: 64 * 1024,
            disk_gib: 1000,
            ..Capabilities::default()
        };
        let (fake, state) = (Fake::on(capabilities, wire), cloud.state().join(name));
        let reports = RemoteComputeReports::new(cloud.cloud().bus.clone(), bus::Topic::any("conductor"));
        let cable = Arc::new(Cable { reports, cut: AtomicBool::new(false) });
        let manager = manager(name, &fake, &state).await;
        let reporting = tokio::spawn(async {});
        let name = name.to_string();
        let mut agent = Self { name, fake, manager, cable, state, serving: None, reporting };
        agent.run(cloud).await;
        agent
    }

    async fn run(&mut self, cloud: &TestCloud) {
        nova_compute::begin(&self.manager, &*self.cable).await.unwrap();
        self.serve(cloud).await;
        self.reporting = tokio::spawn(nova_compute::run(self.manager.clone(), self.cable.clone()));
    }

    async fn serve(&mut self, cloud: &TestCloud) {
        let topic = bus::Topic::on("compute", &self.name);
        let handlers = compute_handlers(self.manager.clone());
        self.serving = Some(cloud.cloud().bus.serve(topic, handlers).await.unwrap());
    }

    fn cut_off(&mut self) {
        self.cable.cut.store(true, SeqCst);
        self.serving = None;
    }

    async fn mend(&mut self, cloud: &TestCloud) {
        self.cable.cut.store(false, SeqCst);
        self.serve(cloud).await;
    }

    /// As `kill -9`: its guests go on.
    fn kill(&mut self) {
        self.cut_off();
        self.reporting.abort();
    }

    async fn come_back(&mut self, cloud: &TestCloud) {
        self.cable.cut.store(false, SeqCst);
        self.manager = manager(&self.name, &self.fake, &self.state).await;
        self.run(cloud).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

async fn runs(fake: &Fake, uuid: &str) -> bool {
    fake.domain(uuid).await.unwrap().is_some_and(|domain| domain.state == State::Running)
}

/// Of some hosts, those on which a server runs, one looked at after the other.
async fn running<'a>(fakes: Vec<&'a Fake>, uuid: &str) -> Vec<&'a Fake> {
    let mut found = Vec::new();
    for fake in fakes {
        if runs(fake, uuid).await {
            found.push(fake);
        }
    }
    found
}

/// Looks all the time; ends with what it saw.
fn watch(fakes: Vec<Fake>, servers: Vec<String>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            for server in &servers {
                let seen = running(fakes.iter().collect(), server).await;
                // One that moved between two looks was seen on both; where it runs twice it still does.
                if seen.len() > 1 {
                    assert!(running(seen, server).await.len() < 2, "{server} runs twice");
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

const OPTIONS: [(&str, &str, &str); 3] = [
    ("nova", "evacuate_after_seconds", "6"),
    ("nova", "service_down_time_seconds", "4"),
    ("simulate", "hosts", "3"),
];

struct World {
    stage: Stage,
    agents: Vec<Agent>,
    /// They ask to start elsewhere.
    servers: Vec<String>,
    watching: JoinHandle<()>,
}

impl World {
    async fn make() -> Self {
        let cloud = TestCloud::with_roles("control,network,storage", &OPTIONS).await;
        let (wire, mut agents) = (Wire::default(), Vec::new());
        for number in 1..=3 {
            agents.push(Agent::start(&cloud, &format!("simulated-{number}"), &wire).await);
        }
        let stage = Stage::on(cloud).await;
        let mut servers = Vec::new();
        for number in 0..4 {
            let metadata = json!({"metadata": {"HA_Enabled": "True"}});
            servers.push(stage.running(&format!("s{number}"), metadata).await);
        }
        let fakes = agents.iter().map(|agent| agent.fake.clone()).collect();
        let watching = watch(fakes, servers.clone());
        // Each host has said that it guards its own.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Self { stage, agents, servers, watching }
    }

    async fn at(&self, server: &str) -> usize {
        let host = self.stage.host_of(server).await;
        self.agents.iter().position(|agent| agent.name == host).unwrap()
    }

    /// Every server runs on the host that nova says, and nowhere else.
    async fn all_run(&self) {
        for server in &self.servers {
            until(&format!("{server} runs"), async || {
                let shown = self.stage.demo.show("nova", &format!("/servers/{server}")).await;
                let settled = shown["server"]["status"] == "ACTIVE"
                    && shown["server"]["OS-EXT-STS:task_state"].is_null();
                let at = self.at(server).await;
                let mut there = Vec::new();
                for (place, agent) in self.agents.iter().enumerate() {
                    if agent.fake.domain(server).await.unwrap().is_some() {
                        there.push(place);
                    }
                }
                let only = there == [at] && runs(&self.agents[at].fake, server).await;
                (settled && only).then_some(())
            })
            .await;
        }
        assert!(!self.watching.is_finished(), "a server ran twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_host_that_is_cut_off_run_elsewhere_and_never_twice() {
    let mut world = World::make().await;
    let plain = world.stage.running("plain", json!({})).await;
    let (lost, of_plain) = (world.at(&world.servers[0].clone()).await, world.at(&plain).await);
    let mine: Vec<String> = {
        let mut mine = Vec::new();
        for server in &world.servers {
            if world.at(server).await == lost {
                mine.push(server.clone());
            }
        }
        mine
    };
    world.agents[lost].cut_off();
    for server in &mine {
        until(&format!("{server} elsewhere"), async || {
            let shown = world.stage.demo.show("nova", &format!("/servers/{server}")).await;
            let settled = shown["server"]["OS-EXT-STS:task_state"].is_null();
            (settled && world.at(server).await != lost).then_some(())
        })
        .await;
        assert!(!runs(&world.agents[lost].fake, server).await, "its host has stopped it");
    }
    assert!(runs(&world.agents[of_plain].fake, &plain).await, "who does not ask stays where he is");
    // What was sent before the cut comes late.
    let late = Instance { uuid: mine[0].clone(), power_on: true, ..Instance::default() };
    assert!(world.agents[lost].manager.start(&Context::internal(), &late).await.is_err());
    let cloud = &world.stage.cloud;
    world.agents[lost].mend(cloud).await;
    world.all_run().await;
    assert!(world.agents[lost].manager.start(&Context::internal(), &late).await.is_err());
    assert!(world.agents[lost].manager.build(&Context::internal(), &late).await.is_err());
    assert!(runs(&world.agents[of_plain].fake, &plain).await);
    // Nova may send one back there, once it knows that the host lives.
    let name = world.agents[lost].name.clone();
    until("its host is up", async || {
        let found = world.stage.admin.show("nova", &format!("/os-services?host={name}")).await;
        (found["services"][0]["state"] == "up").then_some(())
    })
    .await;
    let path = format!("/servers/{}/action", mine[0]);
    let body = json!({"os-migrateLive": {"host": world.agents[lost].name, "block_migration": "auto"}});
    let answer = world.stage.admin.at("compute 2.96").post("nova", &path, body).await;
    assert_eq!(answer.status, 202);
    until("it is back", async || (world.at(&mine[0]).await == lost).then_some(())).await;
    world.all_run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_killed_and_back_in_any_order() {
    let mut world = World::make().await;
    // Away for less than the host waits, for less than nova waits, for more; the agent killed meanwhile, or not.
    for (round, (seconds, killed)) in
        [(1, false), (4, false), (9, false), (2, true), (9, true), (5, true)].into_iter().enumerate()
    {
        let place = world.at(&world.servers[round % 4].clone()).await;
        let World { stage, agents, .. } = &mut world;
        let agent = &mut agents[place];
        if killed {
            // An agent that is gone stops nothing: it is started again before nova goes on without it, as by systemd.
            agent.kill();
            tokio::time::sleep(Duration::from_secs(1)).await;
            agent.manager = manager(&agent.name, &agent.fake, &agent.state).await;
            let beginning = nova_compute::begin(&agent.manager, &*agent.cable);
            let away = tokio::time::timeout(Duration::from_secs(seconds), beginning).await;
            assert!(away.is_err(), "nova does not hear it");
            agent.come_back(&stage.cloud).await;
        } else {
            agent.cut_off();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            agent.mend(&stage.cloud).await;
        }
        world.all_run().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    world.all_run().await;
    let shown = world.stage.admin.at("compute 2.96").show("nova", "/os-migrations").await;
    let moves = shown["migrations"].as_array().unwrap().iter();
    assert!(moves.filter(|one| one["migration_type"] == "evacuation").count() >= 2, "{shown}");
}
