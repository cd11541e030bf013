//! A running demo: brought up step by step until everything is healthy, steered, ended. Each wait has a
//! deadline and says what it lacked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_core::view::ClusterView;
use quorate_tui::DemoAction;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::crew::Crew;
use super::door::{CtlAction, Knock, Reply, Request};
use super::files::{self, NodePlan};
use super::keeper::Hold;
use super::place::{Place, demo_file, door, node_dir, node_file};
use super::ready::{self, Api, is_final};
use super::sweep::{self, Target};
use crate::api::error::ErrorCode;
use crate::cockpit::{Attach, DemoAsk};
use crate::places::{DemoFile, DemoNode};

/// What an earlier demo left is ended within this.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);
/// Slow machines, busy with something else, come up within this.
const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// A demo with everything it holds.
pub(super) struct Demo {
    place: Place,
    hold: Hold,
    crew: Crew,
    nodes: Vec<NodePlan>,
    ports: Vec<u16>,
    services: Vec<String>,
}

impl Demo {
    /// Takes the directory and plans the nodes; starts nothing but the keeper.
    pub(super) fn prepare(dir: &Path, count: u8) -> anyhow::Result<Self> {
        let place = Place::take(dir)?;
        sweep::end_all(place.dir(), SWEEP_WITHIN).map_err(anyhow::Error::msg)?;
        place.empty()?;
        let (nodes, ports) = files::plan(count, files::SERVICE_PORTS)?;
        let crew = Crew::new(place.dir(), nodes.clone())?;
        let hold = Hold::new(&place)?;
        Ok(Self { place, hold, crew, nodes, ports, services: Vec::new() })
    }

    /// Where it lies.
    pub(super) fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Starts the nodes and, if asked, the services; done when all of them are healthy.
    pub(super) async fn start_up(&mut self, with_services: bool) -> anyhow::Result<DemoFile> {
        let deadline = Instant::now() + READY_WITHIN;
        let nodes = self.nodes.clone();
        let [first, others @ ..] = nodes.as_slice() else { bail!("a demo has at least one node") };
        let text = files::node_yaml(self.dir(), first, None)?;
        self.place.write(&node_file(self.dir(), &first.name), &text)?;
        self.crew.start(&first.name, &self.hold)?;
        self.crew.listening(&first.name).await?;
        let token = self.token(first, deadline).await?;
        for node in others {
            let text = files::node_yaml(self.dir(), node, Some((&first.bind(), &token)))?;
            self.place.write(&node_file(self.dir(), &node.name), &text)?;
            self.crew.start(&node.name, &self.hold)?;
        }
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        self.until(deadline, |view| ready::nodes_lack(view, &names)).await?;
        if with_services {
            self.deploy(deadline).await?;
            let services = self.services.clone();
            self.until(deadline, |view| ready::services_lack(view, &services)).await?;
        }
        self.write_file()
    }

    /// For its own cockpit, whose keys steer it through `sender` like anybody else.
    pub(super) fn attach(&self, sender: mpsc::Sender<Knock>) -> anyhow::Result<Attach> {
        let first = self.nodes.first().context("a demo has at least one node")?;
        let (asks, mut asked) = mpsc::channel::<DemoAsk>(16);
        tokio::spawn(async move {
            while let Some((action, node, back)) = asked.recv().await {
                let action = match action {
                    DemoAction::Kill => CtlAction::Kill,
                    DemoAction::Freeze => CtlAction::Freeze,
                    DemoAction::Thaw => CtlAction::Thaw,
                    DemoAction::Restart => CtlAction::Restart,
                };
                let (answer, answered) = oneshot::channel();
                if sender.send((Request { action, nodes: vec![node] }, answer)).await.is_err() {
                    return;
                }
                tokio::spawn(async move {
                    let outcome = answered.await.map_err(|_| "the demo is ending".to_owned());
                    let _ = back.send(outcome.and_then(Reply::in_words));
                });
            }
        });
        Ok(Attach {
            endpoints: self.nodes.iter().map(NodePlan::api).collect(),
            secret: ready::secret(self.dir(), &first.name)?,
            demo: Some(asks),
            leaving_ends_all: true,
        })
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

    /// Says what runs, for others to find.
    fn write_file(&self) -> anyhow::Result<DemoFile> {
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

    /// Does what was asked with each node in turn; stops at the first that cannot be.
    pub(super) async fn act(&mut self, request: &Request) -> Reply {
        if matches!(request.action, CtlAction::Cut | CtlAction::Heal | CtlAction::Delay) {
            return Reply::refused(
                ErrorCode::Rejected,
                "rejected: this build of the demo cannot touch links",
                "kill, freeze, thaw or restart nodes instead",
            );
        }
        if let Some(unknown) = request.nodes.iter().find(|node| !self.crew.has(node)) {
            let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            let known = format!("it has {}", known.join(", "));
            return Reply::refused(ErrorCode::NotFound, format!("the demo has no node {unknown:?}"), known);
        }
        let mut reply = Reply::default();
        for node in &request.nodes {
            match self.act_on(request.action, node).await {
                Ok(done) => reply.done.push(done),
                Err(error) => {
                    let done = reply.done.join("; ");
                    let message =
                        if done.is_empty() { format!("{error:#}") } else { format!("{done}; but {error:#}") };
                    return Reply::refused(ErrorCode::Rejected, message, "");
                }
            }
        }
        if let Err(error) = self.write_file() {
            return Reply::refused(ErrorCode::Failed, format!("{error:#}"), "");
        }
        reply
    }

    async fn act_on(&mut self, action: CtlAction, node: &str) -> anyhow::Result<String> {
        match action {
            CtlAction::Kill => self.crew.kill(node).await,
            CtlAction::Freeze => self.crew.freeze(node).await,
            CtlAction::Thaw => self.crew.thaw(node).await,
            CtlAction::Restart => {
                let done = self.crew.restart(node, &self.hold).await?;
                self.guarded(node).await?;
                Ok(done)
            }
            CtlAction::Cut | CtlAction::Heal | CtlAction::Delay => bail!("links cannot be touched"),
        }
    }

    /// Waits until a node that was just started has its guard.
    async fn guarded(&mut self, node: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + SWEEP_WITHIN;
        let target = Target::new(self.dir(), node);
        while target.guard().is_none() {
            self.crew.check(node)?;
            if Instant::now() >= deadline {
                bail!("node {node} has no guard; see {}", node_dir(self.dir(), node).display());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends everything; returns once nothing is left.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(demo_file(self.dir()));
        let _ = std::fs::remove_file(door(self.dir()));
        let ended = self.crew.end().await;
        self.hold.let_go().await.and(ended)
    }
}
