//! What a running demo does when asked: to its node processes, and to the ways between them. Does not know
//! who asks.

use anyhow::bail;
use quorate_tui::DemoAction;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::ctl::{CtlCommand, CutArgs, DelayArgs, HealArgs, Nodes, ScenarioCommand};
use super::door::{Knock, Reply};
use super::place::node_dir;
use super::relay::{Fault, NoSuchWay, Scope};
use super::scenarios::Play;
use super::start::{Demo, POLL, SWEEP_WITHIN};
use super::status::{self, NodeStatus};
use super::sweep::Target;
use crate::api::error::ErrorCode;
use crate::cockpit::DemoAsk;

impl Demo {
    /// Does what was asked, with each node in turn; stops at the first that cannot be.
    pub(super) async fn act(&mut self, asked: &CtlCommand) -> Reply {
        if let Some(unknown) = asked.nodes().into_iter().find(|node| !self.crew.has(node)) {
            return self.unknown_node(unknown);
        }
        match asked {
            CtlCommand::Kill(Nodes { nodes })
            | CtlCommand::Freeze(Nodes { nodes })
            | CtlCommand::Thaw(Nodes { nodes })
            | CtlCommand::Restart(Nodes { nodes }) => self.act_on_each(asked, nodes).await,
            CtlCommand::Cut(CutArgs { scope }) => self.change(scope, |fault| fault.cut = true).await,
            CtlCommand::Heal(HealArgs { scope }) => {
                let scope = if scope.nodes.is_empty() { self.everything(scope) } else { scope.clone() };
                self.change(&scope, |fault| *fault = Fault::default()).await
            }
            CtlCommand::Delay(DelayArgs { scope, ms, jitter, loss }) => {
                let late = Fault { cut: false, delay_ms: *ms, jitter_ms: *jitter, loss_percent: *loss };
                self.change(scope, |fault| *fault = Fault { cut: fault.cut, ..late }).await
            }
            CtlCommand::Status => Reply { status: Some(self.status()), ..Reply::default() },
            CtlCommand::Scenario(asked) => self.steer(*asked),
        }
    }

    fn steer(&mut self, asked: ScenarioCommand) -> Reply {
        let Some(play) = &mut self.play else {
            return Reply::refused(
                ErrorCode::Rejected,
                "no scenario runs in this demo",
                "start one with `quorate demo --scenario NAME`; `--scenario list` names them",
            );
        };
        match play.steer(asked, Instant::now()) {
            Ok(done) => Reply { done: vec![done], ..Reply::default() },
            Err(why) => Reply::refused(ErrorCode::Rejected, why, "the demo itself goes on"),
        }
    }

    /// When the next step of its scenario comes by itself.
    pub(super) fn next_step(&self) -> Option<Instant> {
        self.play.as_ref().and_then(Play::due)
    }

    /// Is its scenario paused?
    pub(super) fn is_held(&self) -> bool {
        self.play.as_ref().is_some_and(|play| play.status(Instant::now()).paused)
    }

    /// Takes the next step of its scenario; says what of it could not be done.
    pub(super) async fn take_step(&mut self) -> Vec<String> {
        let deeds = self.play.as_mut().map(|play| play.step(Instant::now())).unwrap_or_default();
        let mut failed = Vec::new();
        for deed in deeds {
            failed.extend(self.act(&deed).await.in_words().err());
        }
        failed
    }

    fn unknown_node(&self, unknown: &str) -> Reply {
        let known: Vec<String> = self.crew.roster().into_iter().map(|(node, _)| node.name).collect();
        let known = format!("it has {}", known.join(", "));
        Reply::refused(ErrorCode::NotFound, format!("the demo has no node {unknown}"), known)
    }

    async fn act_on_each(&mut self, asked: &CtlCommand, nodes: &[String]) -> Reply {
        let mut reply = Reply::default();
        for node in nodes {
            match self.act_on(asked, node).await {
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

    async fn act_on(&mut self, asked: &CtlCommand, node: &str) -> anyhow::Result<String> {
        match asked {
            CtlCommand::Kill(_) => self.crew.kill(node).await,
            CtlCommand::Freeze(_) => self.crew.freeze(node).await,
            CtlCommand::Thaw(_) => self.crew.thaw(node).await,
            CtlCommand::Restart(_) => {
                let done = self.crew.restart(node, &self.hold).await?;
                self.guarded(node).await?;
                Ok(done)
            }
            CtlCommand::Cut(_)
            | CtlCommand::Heal(_)
            | CtlCommand::Delay(_)
            | CtlCommand::Status
            | CtlCommand::Scenario(_) => bail!("this is not done to one node's process"),
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

    /// A heal that names no node is for all of them.
    fn everything(&self, scope: &Scope) -> Scope {
        let nodes = self.crew.roster().into_iter().map(|(node, _)| node.name).collect();
        Scope { nodes, ..scope.clone() }
    }

    async fn change(&self, scope: &Scope, change: impl Fn(&mut Fault)) -> Reply {
        let Some(relay) = &self.relay else {
            return Reply::refused(
                ErrorCode::Rejected,
                "the nodes of this demo reach each other directly, so no way can be cut",
                "start it without --direct",
            );
        };
        let links = relay.links();
        match links.change(scope, change) {
            Ok(()) => {
                relay.settled().await;
                Reply { done: status::in_words(&links.faults()), ..Reply::default() }
            }
            Err(NoSuchWay::Node(node)) => self.unknown_node(&node),
            Err(error @ NoSuchWay::Segment(_)) => Reply::refused(
                ErrorCode::NotFound,
                error.to_string(),
                format!("it has {}", links.segments().join(", ")),
            ),
            Err(error @ NoSuchWay::Nothing) => {
                Reply::refused(ErrorCode::Usage, error.to_string(), "name other nodes with --from")
            }
        }
    }

    /// What runs and what is cut.
    pub(super) fn status(&self) -> status::Status {
        let nodes = self.crew.roster().into_iter().map(|(node, pid)| NodeStatus::of(node.name, pid));
        let scenario = self.play.as_ref().map(|play| play.status(Instant::now()));
        let links = self.relay.as_ref().map(|relay| relay.links().faults()).unwrap_or_default();
        status::Status { nodes: nodes.collect(), links: status::links(links), scenario }
    }

    /// For its own cockpit, whose keys steer it through `sender` like anybody else.
    pub(super) fn steered_by(&self, sender: mpsc::Sender<Knock>) -> mpsc::Sender<DemoAsk> {
        let (asks, mut asked) = mpsc::channel::<DemoAsk>(16);
        tokio::spawn(async move {
            while let Some((action, node, back)) = asked.recv().await {
                let asked = of_key(action, node);
                let (answer, answered) = oneshot::channel();
                if sender.send((asked, answer)).await.is_err() {
                    return;
                }
                tokio::spawn(async move {
                    let outcome = answered.await.map_err(|_| "the demo is ending".to_owned());
                    let _ = back.send(outcome.and_then(Reply::in_words));
                });
            }
        });
        asks
    }
}

fn of_key(action: DemoAction, node: String) -> CtlCommand {
    let nodes = vec![node];
    match action {
        DemoAction::Kill => CtlCommand::Kill(Nodes { nodes }),
        DemoAction::Freeze => CtlCommand::Freeze(Nodes { nodes }),
        DemoAction::Thaw => CtlCommand::Thaw(Nodes { nodes }),
        DemoAction::Restart => CtlCommand::Restart(Nodes { nodes }),
        DemoAction::Cut => CtlCommand::Cut(CutArgs { scope: Scope { nodes, ..Scope::default() } }),
        DemoAction::Heal => CtlCommand::Heal(HealArgs { scope: Scope { nodes, ..Scope::default() } }),
    }
}
