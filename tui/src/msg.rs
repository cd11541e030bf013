//! What comes into the cockpit and what goes out of it. The only words it shares with whatever holds
//! the cluster's other end: a node in the same process, or a stream from afar.

use std::sync::Arc;

use crossterm::event::KeyEvent;
use quorate_core::command::Command;
use quorate_core::ids::{NodeId, Revision};
use quorate_core::view::{ClusterView, Level};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has so many columns and rows.
    Resize(u16, u16),
    /// The cluster looks like this now. Worth sending every second even when nothing changed: its age is
    /// shown, and an equal picture costs no byte.
    View(Arc<ClusterView>),
    /// The line to the cluster changed.
    Connection(Connection),
    /// What is shown above every screen from now on, such as how a demo's scenario goes; empty for nothing.
    Line(String),
    /// Lines of a log that was asked for.
    LogLines {
        /// The number given in [`LogRequest::Open`].
        stream: u64,
        /// Oldest first.
        lines: Vec<LogLine>,
        /// Why no more will come, once that is so.
        ended: Option<String>,
    },
    /// What a deployment would do.
    PlanPreview {
        /// The number given in [`Out::Preview`].
        id: u64,
        /// The planner's answer, or why there is none.
        outcome: Result<Preview, String>,
    },
    /// What fencing a node would lead to.
    Foreseen {
        /// The number given in [`Out::Foresee`].
        id: u64,
        /// The planner's answer, or why there is none.
        outcome: Result<Foresight, String>,
    },
    /// What became of something asked for.
    CommandResult {
        /// The number given in [`Out::Submit`], [`Out::TestFence`] or [`Out::Demo`].
        id: u64,
        /// In words: what was accepted, or why it was not.
        outcome: Result<String, String>,
    },
    /// Time passed and something on screen shows time.
    Tick,
}

/// The line to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Nothing was heard yet.
    Connecting {
        /// From whom it should come.
        to: String,
    },
    /// Views come from there.
    Attached {
        /// From whom.
        to: String,
    },
    /// It broke.
    Lost {
        /// From whom views came.
        from: String,
        /// What is known of the cause.
        why: String,
    },
    /// It broke and another node is being asked.
    Moving {
        /// From whom views came.
        from: String,
        /// Who is asked now.
        to: String,
    },
}

/// One line of a service's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Which copy wrote it, as `SERVICE/ORDINAL`.
    pub slot: String,
    /// Written to standard error?
    pub error: bool,
    /// Without its line end.
    pub text: String,
}

/// What the planner would do with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The State it was worked out on; what is submitted afterwards is bound to it.
    pub revision: Revision,
    /// One line each, in the order it would happen.
    pub lines: Vec<PreviewLine>,
}

/// One line of a preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLine {
    /// How good or bad it is.
    pub level: Level,
    /// In words.
    pub text: String,
}

/// What the planner makes of fencing a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foresight {
    /// The State it was worked out on; the deed is bound to it.
    pub revision: Revision,
    /// The copies that lose their node, the most important first.
    pub loses: Vec<Loss>,
    /// What would be done, in order.
    pub actions: Vec<String>,
    /// What would wait, and for what.
    pub waiting: Vec<String>,
    /// What happens by itself if nothing is asked for.
    pub otherwise: Vec<Ahead>,
    /// What is left of the quorum.
    pub quorum: String,
}

/// A copy that loses its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Which, as `SERVICE/ORDINAL`.
    pub slot: String,
    /// `critical`, `high`, `normal` or `low`.
    pub priority: String,
    /// May no second one run?
    pub exclusive: bool,
    /// Does it keep state on that node alone?
    pub state: bool,
    /// Where it starts instead, if anywhere.
    pub to: Option<String>,
    /// Why there, or why nowhere.
    pub because: String,
}

/// One thing ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// After how long; `None` for what no time ends.
    pub after_ms: Option<u64>,
    /// What.
    pub what: String,
}

/// Something to be done by others.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// Ask the cluster for this.
    Submit {
        /// Comes back in [`Msg::CommandResult`].
        id: u64,
        /// What is asked.
        command: Box<Command>,
        /// The revision that was on screen when it was confirmed.
        expected: Option<Revision>,
    },
    /// Ask the planner what a deployment would do.
    Preview {
        /// Comes back in [`Msg::PlanPreview`].
        id: u64,
        /// The spec's text.
        spec: String,
    },
    /// Ask the planner what fencing a node would lead to.
    Foresee {
        /// Comes back in [`Msg::Foreseen`].
        id: u64,
        /// Which one.
        node: NodeId,
    },
    /// Ask the fence devices of a node for its power state; nothing is switched.
    TestFence {
        /// Comes back in [`Msg::CommandResult`].
        id: u64,
        /// Which one.
        node: NodeId,
    },
    /// Open or close a log.
    Logs(LogRequest),
    /// Steer a node of the demo.
    Demo {
        /// Comes back in [`Msg::CommandResult`].
        id: u64,
        /// What to do with it.
        action: DemoAction,
        /// Which one.
        node: NodeId,
    },
    /// Steer the world that is played.
    Sim(SimAction),
    /// Put text into the terminal's clipboard.
    Copy(String),
    /// Leave the cockpit; the node runs on.
    Leave,
    /// Stop the node.
    Quit,
}

/// About the output of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRequest {
    /// Send what there is, at most so many last lines, and what follows.
    Open {
        /// Names the stream in [`Msg::LogLines`].
        stream: u64,
        /// Which copy, as `SERVICE/ORDINAL`, or all copies of `SERVICE`.
        slot: String,
        /// How many old lines.
        tail: u32,
        /// Go on with new ones?
        follow: bool,
    },
    /// Send no more.
    Close {
        /// Which stream.
        stream: u64,
    },
}

/// What can be done to a node of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoAction {
    /// Kill its process.
    Kill,
    /// Stop it without killing it.
    Freeze,
    /// Let it go on.
    Thaw,
    /// Cut it from all others.
    Cut,
    /// Connect it with all others again.
    Heal,
    /// Start it again.
    Restart,
}

/// What can be done with a world that is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimAction {
    /// Let it stand still, or go on.
    Pause,
    /// Go on to the next thing worth telling, and stand still there.
    Step,
    /// Play it faster.
    Faster,
    /// Play it slower.
    Slower,
    /// Go back a little.
    Back,
    /// Jump on a little.
    On,
    /// Look from the next node.
    NextNode,
}

impl DemoAction {
    /// As `demo ctl` has it.
    pub fn word(self) -> &'static str {
        match self {
            DemoAction::Kill => "kill",
            DemoAction::Freeze => "freeze",
            DemoAction::Thaw => "thaw",
            DemoAction::Cut => "cut",
            DemoAction::Heal => "heal",
            DemoAction::Restart => "restart",
        }
    }
}
