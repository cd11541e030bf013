//! The node's end of the guard: finds it or starts it, keeps one session, asks, and starts it again when it
//! dies. Every answer that does not come is an error with the remedy; nothing is asked twice by itself.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{NodeId, SlotId};
use quorate_core::observation::{ExecutorFact, GuardReport, SlotReport, Unavailable};
use quorate_core::units::{BootMs, Millis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::address::Address;
use super::protocol::{Answer, Ask, Holders, Question, Say, Welcome, decode, encode, hello, next_frame};
use super::{GREETING, READY};
use crate::layout::Layout;
use crate::logs;
use crate::ports::{ActError, Admitted, EngineEnd, Guard, LogChunk, LogQuery, Placing, RunId};

/// Between two signs of life.
const PING: Duration = Duration::from_millis(250);

/// A guard that said nothing for so long does not answer.
const SILENT: Duration = Duration::from_millis(1_000);

/// How long one answer may take: a slow disk is waited for, a frozen guard is not.
const PATIENCE: Duration = Duration::from_secs(3);

/// How to find or start the guard.
#[derive(Debug)]
pub struct GuardOptions {
    /// The program to start it from: this node's own.
    pub program: PathBuf,
    /// The data directory, absolute.
    pub layout: Layout,
    /// Which node.
    pub node: NodeId,
    /// A pipe that the guard, and all it runs, does not outlive.
    pub hold: Option<OwnedFd>,
    /// Further arguments of `quorate guard`.
    pub arguments: Vec<String>,
}

/// The guard as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardStatus {
    /// Its process; 0 while there is none.
    pub pid: u32,
    /// Does it answer?
    pub answering: bool,
    /// How often a session was lost.
    pub losses: u64,
    /// Why there is none now.
    pub problem: Option<String>,
    /// The second holder of the deadlines; 0 while there is none.
    pub twin: u32,
    /// Why two do not hold them, while they do not.
    pub unarmed: Option<Unavailable>,
    /// When the lease ended that it held as the session began: a node that was away goes on while that
    /// is still to come.
    pub held_until: BootMs,
}

/// The node's end.
pub struct GuardClient {
    questions: mpsc::Sender<(Ask, oneshot::Sender<Answer>)>,
    status: watch::Receiver<GuardStatus>,
    changes: watch::Receiver<u64>,
    renewals: AtomicU64,
    renewed: watch::Receiver<u64>,
    layout: Layout,
}

impl GuardClient {
    /// Begins to find or start the guard; ends with this value. The guard itself goes on.
    pub fn begin(options: GuardOptions) -> Self {
        let (questions, asked) = mpsc::channel(256);
        let (status_tx, status) = watch::channel(GuardStatus::default());
        let (changes_tx, changes) = watch::channel(0);
        let (renewed_tx, renewed) = watch::channel(0);
        let layout = options.layout.clone();
        let line = Line { options, asked, status: status_tx, changes: changes_tx, renewed: renewed_tx };
        tokio::spawn(line.keep());
        Self { questions, status, changes, renewals: AtomicU64::new(0), renewed, layout }
    }

    /// How it is, and whenever that changes.
    pub fn status(&self) -> watch::Receiver<GuardStatus> {
        self.status.clone()
    }

    /// As an observation. A guard that does not answer is not known to hold anything.
    pub fn report(&self) -> GuardReport {
        let status = self.status.borrow();
        let unarmed = if status.answering {
            status.unarmed.clone()
        } else {
            Some(Unavailable {
                why: "the guard does not answer".to_owned(),
                remedy: "wait: the node starts it again by itself; its log says why".to_owned(),
            })
        };
        GuardReport {
            pid: status.pid,
            twin_pid: status.twin,
            answering: status.answering,
            armed: unarmed.is_none(),
            unarmed,
        }
    }

    /// Waits until it answers.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let mut status = self.status.clone();
        let up = status.wait_for(|status| status.answering);
        if let Ok(Ok(_)) = timeout(patience, up).await {
            return Ok(());
        }
        let problem = self.status.borrow().problem.clone();
        bail!(
            "the guard did not come up within {patience:?}: {}",
            problem.unwrap_or_else(|| "no answer".to_owned())
        )
    }

    /// Tells it how long the lease lasts now. Returns once it holds that.
    /// Calls must come in the order of the heartbeats they rest on.
    pub async fn renew(&self, valid_until: BootMs, kill_margin: Millis) -> Result<(), ActError> {
        let held = *self.renewed.borrow();
        // Numbered here, above all that the guard ever held: a node that restarts counts on.
        let number = self.renewals.fetch_max(held, Ordering::SeqCst).max(held) + 1;
        self.renewals.fetch_max(number, Ordering::SeqCst);
        self.done(Ask::Renew { number, valid_until, kill_margin }).await
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, ActError> {
        let away = |why: &str| ActError::Away(why.to_owned());
        if !self.status.borrow().answering {
            let problem = self.status.borrow().problem.clone();
            return Err(ActError::Away(problem.unwrap_or_else(|| "no session".to_owned())));
        }
        let (tell, answer) = oneshot::channel();
        self.questions.try_send((ask, tell)).map_err(|_| away("too many questions wait for it"))?;
        match timeout(PATIENCE, answer).await {
            Err(_) => Err(away("no answer in time; whether it was done is unknown")),
            Ok(Err(_)) => Err(away("it went away; whether it was done is unknown")),
            Ok(Ok(Answer::Refused(error))) => Err(error),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    async fn done(&self, ask: Ask) -> Result<(), ActError> {
        match self.ask(ask).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &Answer) -> ActError {
    ActError::Failed(format!("the guard answered something else than was asked: {answer:?}"))
}

impl Guard for GuardClient {
    fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>> {
        self.done(Ask::Start(start)).boxed()
    }

    fn admit(
        &self,
        start: StartInstance,
        placing: Placing,
    ) -> BoxFuture<'_, Result<Option<Admitted>, ActError>> {
        async {
            match self.ask(Ask::Admit(start, placing)).await? {
                Answer::Admitted(group) => Ok(Some(Admitted { group })),
                Answer::Done => Ok(None),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn begun(&self, run: RunId, pid: u32) -> BoxFuture<'_, Result<(), ActError>> {
        self.done(Ask::Begun { run, pid }).boxed()
    }

    fn over(&self, run: RunId, end: EngineEnd) -> BoxFuture<'_, Result<(), ActError>> {
        self.done(Ask::Over { run, end }).boxed()
    }

    fn stop(&self, stop: StopInstance) -> BoxFuture<'_, Result<(), ActError>> {
        self.done(Ask::Stop(stop)).boxed()
    }

    fn forget(&self, slot: SlotId) -> BoxFuture<'_, Result<(), ActError>> {
        self.done(Ask::Forget(slot)).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<BTreeMap<SlotId, SlotReport>, ActError>> {
        async {
            match self.ask(Ask::Inventory).await? {
                Answer::Inventory(all) => Ok(all),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<StartInstance>, ActError>> {
        async {
            match self.ask(Ask::Runs).await? {
                Answer::Runs(all) => Ok(all),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn facts(&self) -> BoxFuture<'_, Result<ExecutorFact, ActError>> {
        async {
            match self.ask(Ask::Facts).await? {
                Answer::Facts(facts) => Ok(facts),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    fn logs(&self, slot: SlotId, query: LogQuery) -> BoxFuture<'_, Result<LogChunk, ActError>> {
        let folder = self.layout.logs(&slot);
        async move {
            let read = tokio::task::spawn_blocking(move || logs::read(&folder, query)).await;
            let failed =
                |error: String| ActError::Failed(format!("cannot read the output of {slot}: {error}"));
            read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
        }
        .boxed()
    }
}

/// The task behind the client.
struct Line {
    options: GuardOptions,
    asked: mpsc::Receiver<(Ask, oneshot::Sender<Answer>)>,
    status: watch::Sender<GuardStatus>,
    changes: watch::Sender<u64>,
    renewed: watch::Sender<u64>,
}

impl Line {
    async fn keep(mut self) {
        let mut pause = Duration::from_millis(20);
        while !self.asked.is_closed() {
            match self.connect().await {
                Ok((stream, welcome)) => {
                    pause = Duration::from_millis(20);
                    let problem = self.talk(stream, welcome).await;
                    self.status.send_modify(|status| {
                        *status = GuardStatus {
                            losses: status.losses + 1,
                            problem: problem.err().map(|error| format!("{error:#}")),
                            ..GuardStatus::default()
                        };
                    });
                }
                Err(error) => {
                    self.status.send_modify(|status| status.problem = Some(format!("{error:#}")));
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
            // Whoever waits for an answer is told at once, instead of after its patience.
            while self.asked.try_recv().is_ok() {}
        }
    }

    /// A session with the guard that runs, or with a new one.
    async fn connect(&self) -> anyhow::Result<(UnixStream, Welcome)> {
        let path = self.options.layout.guard_socket();
        let stream = match reach(&path).await {
            Ok(stream) => stream,
            Err(_) => {
                self.spawn().await?;
                reach(&path).await?
            }
        };
        match timeout(GREETING, greet(stream, &self.options.node)).await {
            Ok(greeted) => greeted,
            Err(_) => bail!("a guard is there but does not answer; it may be frozen"),
        }
    }

    /// Starts a guard that is not this process's child in the end.
    async fn spawn(&self) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(&self.options.program);
        command.arg("guard").arg("--detach").arg("--data-dir").arg(self.options.layout.root());
        command
            .args(&self.options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(before) = crate::host::descriptors_before() {
            command.env(crate::host::DESCRIPTORS, before);
        }
        if let Some(hold) = &self.options.hold {
            command.args(["--hold", "0"]).stdin(Stdio::from(hold.try_clone()?));
        }
        let program = self.options.program.display();
        let child = command.spawn().with_context(|| format!("cannot start the guard from {program}"))?;
        let output = timeout(Duration::from_secs(10), child.wait_with_output()).await;
        let output = output.context("the guard took longer than 10 s to start")??;
        if output.status.success() && output.stdout.starts_with(READY.as_bytes()) {
            return Ok(());
        }
        bail!("the guard did not start: {}", String::from_utf8_lossy(&output.stderr).trim())
    }

    /// Asks and hears until the session breaks.
    async fn talk(&mut self, stream: UnixStream, welcome: Welcome) -> anyhow::Result<()> {
        self.renewed.send_replace(welcome.renewal);
        self.status.send_modify(|status| {
            *status = GuardStatus {
                pid: welcome.pid,
                answering: true,
                problem: None,
                losses: status.losses,
                twin: 0,
                // It says so itself in its next words.
                unarmed: Some(Unavailable {
                    why: "the guard has not said yet who holds the deadlines".to_owned(),
                    remedy: "wait a moment".to_owned(),
                }),
                held_until: welcome.valid_until,
            };
        });
        self.changes.send_modify(|count| *count += 1);
        let (mut reader, mut writer) = stream.into_split();
        let mut waiting: HashMap<u64, oneshot::Sender<Answer>> = HashMap::new();
        let (mut number, mut heard) = (0_u64, Instant::now());
        let mut buffer = Vec::new();
        let mut chunk = vec![0_u8; 64 * 1024];
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ask = tokio::select! {
                asked = self.asked.recv() => {
                    let Some((ask, tell)) = asked else { return Ok(()) };
                    waiting.insert(number + 1, tell);
                    Some(ask)
                }
                read = reader.read(&mut chunk) => {
                    let count = read.context("the session with the guard broke")?;
                    if count == 0 {
                        bail!("the guard is gone");
                    }
                    buffer.extend_from_slice(&chunk[..count]);
                    heard = Instant::now();
                    self.hear(&mut buffer, &mut waiting)?;
                    None
                }
                _ = ping.tick() => {
                    waiting.retain(|_, tell| !tell.is_closed());
                    Some(Ask::Ping)
                }
            };
            let answering = heard.elapsed() < SILENT;
            self.status
                .send_if_modified(|status| std::mem::replace(&mut status.answering, answering) != answering);
            if let Some(ask) = ask {
                number += 1;
                let frame = encode(&Question { number, ask })?;
                // A frozen guard takes nothing in; the wait for it must not be for ever.
                match timeout(PATIENCE, writer.write_all(&frame)).await {
                    Ok(written) => written.context("the session with the guard broke")?,
                    Err(_) => bail!("the guard takes no questions; it may be frozen"),
                }
            }
        }
    }

    fn hear(
        &self,
        buffer: &mut Vec<u8>,
        waiting: &mut HashMap<u64, oneshot::Sender<Answer>>,
    ) -> anyhow::Result<()> {
        while let Some(frame) = next_frame(buffer)? {
            match decode::<Say>(&frame)? {
                Say::Answer { number, answer } => {
                    if let Some(tell) = waiting.remove(&number) {
                        let _ = tell.send(*answer);
                    }
                }
                Say::Holders(Holders { twin, unarmed }) => {
                    self.status.send_modify(|status| (status.twin, status.unarmed) = (twin, unarmed));
                    self.changes.send_modify(|count| *count += 1);
                }
                Say::Changed => self.changes.send_modify(|count| *count += 1),
                Say::Welcome(_) | Say::Unwelcome(_) => bail!("the guard greets twice"),
            }
        }
        Ok(())
    }
}

async fn reach(path: &std::path::Path) -> anyhow::Result<UnixStream> {
    let address = Address::of(path)?;
    UnixStream::connect(address.path()).await.with_context(|| format!("cannot reach {}", path.display()))
}

async fn greet(mut stream: UnixStream, node: &NodeId) -> anyhow::Result<(UnixStream, Welcome)> {
    stream.write_all(&hello(node)).await?;
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > 64 * 1024 {
        bail!("what answers at the guard's socket is no guard");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match decode(&body)? {
        Say::Welcome(welcome) => Ok((stream, welcome)),
        Say::Unwelcome(why) => bail!("{why}"),
        Say::Answer { .. } | Say::Changed | Say::Holders(_) => bail!("the guard did not greet"),
    }
}
