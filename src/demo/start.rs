//! A running demo: brought up step by step until everything is healthy, and ended. Each wait has a deadline
//! and says what it lacked.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_core::view::ClusterView;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::crew::Crew;
use super::door::Knock;
use super::files::{self, Fencing, NodePlan, SEGMENTS};
use super::keeper::Hold;
use super::place::{Place, demo_file, detours_file, door, node_file};
use super::ready::{self, Api, is_final};
use super::relay::{Relay, Stop};
use super::scenarios::{Play, Scenario};
use super::sweep::{self, Target};
use crate::cockpit::Attach;
use crate::places::{DemoFile, DemoNode};

/// What an earlier demo left is ended within this.
pub(super) const SWEEP_WITHIN: Duration = Duration::from_secs(10);
/// Slow machines, busy with something else, come up within this.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Somebody leads and runs what a scenario is about within this.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What a demo is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// How many nodes.
    pub nodes: u8,
    /// With services on them.
    pub services: bool,
    /// Without the relay: no way can be cut.
    pub direct: bool,
    /// What the nodes may do to a lost one.
    pub fencing: Fencing,
    /// The nodes' timings.
    pub profile: String,
}

/// A demo with everything it holds.
pub(super) struct Demo {
    place: Place,
    pub(super) hold: Hold,
    pub(super) crew: Crew,
    pub(super) relay: Option<Relay>,
    wanted: Wanted,
    nodes: Vec<NodePlan>,
    ports: Vec<u16>,
    services: Vec<String>,
    pub(super) play: Option<Play>,
}

impl Demo {
    /// Takes the directory and plans the nodes; starts nothing but the keeper and the relay.
    pub(super) fn prepare(dir: &Path, wanted: Wanted) -> anyhow::Result<Self> {
        let place = Place::take(dir)?;
        sweep::end_all(place.dir(), SWEEP_WITHIN).map_err(anyhow::Error::msg)?;
        place.empty()?;
        let roads = if wanted.direct { 0 } else { Relay::ports(wanted.nodes.into(), SEGMENTS.len()) };
        let (mut nodes, mut ports) = files::plan(wanted.nodes, files::SERVICE_PORTS + roads)?;
        let roads = ports.split_off(files::SERVICE_PORTS);
        let relay = if wanted.direct {
            None
        } else {
            let stops: Vec<Stop> = nodes.iter().map(NodePlan::stop).collect();
            let relay = Relay::open(&stops, &SEGMENTS, &roads)?;
            files::route(&mut nodes, &relay);
            Some(relay)
        };
        let crew = Crew::new(place.dir(), nodes.clone())?;
        let hold = Hold::new(&place)?;
        Ok(Self { place, hold, crew, relay, wanted, nodes, ports, services: Vec::new(), play: None })
    }

    /// Where it lies.
    pub(super) fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Starts the nodes and, if asked, the services; done when all of them are healthy.
    pub(super) async fn start_up(&mut self) -> anyhow::Result<DemoFile> {
        let deadline = Instant::now() + READY_WITHIN;
        let nodes = self.nodes.clone();
        let [first, others @ ..] = nodes.as_slice() else { bail!("a demo has at least one node") };
        self.write_node(first, None)?;
        self.crew.start(&first.name, &self.hold)?;
        self.crew.listening(&first.name).await?;
        let token = self.token(first, deadline).await?;
        for node in others {
            self.write_node(node, Some((&first.bind(), &token)))?;
            self.crew.start(&node.name, &self.hold)?;
        }
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        self.until(deadline, |view| ready::nodes_lack(view, &names)).await?;
        if self.wanted.services {
            self.deploy(deadline).await?;
            let services = self.services.clone();
            self.until(deadline, |view| ready::services_lack(view, &services)).await?;
        }
        self.write_file()
    }

    /// For its own cockpit.
    pub(super) fn attach(
        &self,
        sender: mpsc::Sender<Knock>,
        line: Option<watch::Receiver<String>>,
    ) -> anyhow::Result<Attach> {
        let first = self.nodes.first().context("a demo has at least one node")?;
        Ok(Attach {
            endpoints: self.nodes.iter().map(NodePlan::api).collect(),
            secret: ready::secret(self.dir(), &first.name)?,
            demo: Some(self.steered_by(sender)),
            line,
            leaving_ends_all: true,
        })
    }

    fn write_node(&self, node: &NodePlan, join: Option<(&str, &str)>) -> anyhow::Result<()> {
        let text = files::node_yaml(self.dir(), node, &self.wanted.profile, join, &self.wanted.fencing)?;
        self.place.write(&node_file(self.dir(), &node.name), &text)?;
        if !node.detours.is_empty() {
            let text = serde_json::to_string_pretty(&node.detours)?;
            self.place.write(&detours_file(self.dir(), &node.name), &text)?;
        }
        Ok(())
    }

    async fn api(&self) -> anyhow::Result<Api> {
        let first = self.nodes.first().context("a demo has at least one node")?;
        Api::of(self.dir(), &first.name, &first.api()).await
    }

    async fn token(&mut self, first: &NodePlan, deadline: Instant) -> anyhow::Result<String> {
        loop {
            let asked = async { Api::of(self.dir(), &first.name, &first.api()).await?.token().await };
            match asked.await {
                Ok(token) => return Ok(token),
                Err(error) => self.bear_with(error, deadline)?,
            }
            sleep(POLL).await;
        }
    }

    async fn deploy(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let text = files::services(&self.ports)?;
        let defaults = quorate_core::spec::SpecDefaults::default();
        let specs =
            quorate_core::spec::parse(&text, &defaults).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        self.services = specs.iter().map(|spec| spec.name.to_string()).collect();
        let client = format!("demo-{:016x}", rand::random::<u64>());
        loop {
            let asked = async { self.api().await?.deploy(&text, &client).await };
            match asked.await {
                Ok(()) => return Ok(()),
                Err(error) => self.bear_with(error, deadline)?,
            }
            sleep(POLL).await;
        }
    }

    /// Looks until nothing lacks.
    async fn until(
        &mut self,
        deadline: Instant,
        lacks: impl Fn(&ClusterView) -> Option<String>,
    ) -> anyhow::Result<()> {
        let mut api = None;
        loop {
            let looked = async {
                if api.is_none() {
                    api = Some(self.api().await?);
                }
                let api = api.as_mut().context("no connection")?;
                api.view().await
            };
            match looked.await.map(|view| lacks(&view)) {
                Ok(None) => return Ok(()),
                Ok(Some(lack)) => self.bear_with(anyhow::Error::msg(lack), deadline)?,
                Err(error) => {
                    self.bear_with(error, deadline)?;
                    api = None;
                }
            }
            sleep(POLL).await;
        }
    }

    /// An error that may pass is waited out, as long as every node runs and there is time.
    fn bear_with(&mut self, error: anyhow::Error, deadline: Instant) -> anyhow::Result<()> {
        self.crew.check_all()?;
        if is_final(&error) || Instant::now() >= deadline {
            let dir = self.dir().display().to_string();
            return Err(error.context(format!("the demo in {dir} did not come up")));
        }
        Ok(())
    }

    /// Begins a scenario: its parts are given by how the cluster is now.
    pub(super) async fn begin(&mut self, scenario: &Scenario) -> anyhow::Result<()> {
        let deadline = Instant::now() + BEGINS_WITHIN;
        let play = RefCell::new(None);
        let lacks = |view: &ClusterView| match Play::begin(scenario, view, Instant::now()) {
            Ok(begun) => {
                play.replace(Some(begun));
                None
            }
            Err(lack) => Some(format!("scenario {} cannot begin: {lack}", scenario.name)),
        };
        self.until(deadline, lacks).await?;
        self.play = play.into_inner();
        Ok(())
    }

    /// Says what runs, for others to find.
    pub(super) fn write_file(&self) -> anyhow::Result<DemoFile> {
        let nodes = self.crew.roster().into_iter().map(|(node, pid)| DemoNode {
            pid: pid.unwrap_or(0),
            guard_pid: Target::new(self.dir(), &node.name).guard().unwrap_or(0),
            endpoint: node.api(),
            name: node.name,
        });
        let file = DemoFile {
            schema: 1,
            dir: self.dir().to_path_buf(),
            endpoints: self.nodes.iter().map(NodePlan::api).collect(),
            http: self.nodes.iter().map(NodePlan::http).collect(),
            nodes: nodes.collect(),
            services: self.services.clone(),
        };
        self.place.write(&demo_file(self.dir()), &serde_json::to_string(&file)?)?;
        Ok(file)
    }

    /// Ends everything; returns once nothing is left.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(demo_file(self.dir()));
        let _ = std::fs::remove_file(door(self.dir()));
        let ended = self.crew.end().await;
        self.hold.let_go().await.and(ended)
    }
}
