//! The one registry of commands: name, keys, where each applies, its risk, and what help says. Keys,
//! footer, menus, palette and help are all made from it; what a command does is `update`'s.

/// Everywhere.
pub(crate) const ANY: u16 = 1;
/// A list has the focus.
pub(crate) const LIST: u16 = 2;
/// The focus is on a node.
pub(crate) const NODE: u16 = 4;
/// The focus is on a service.
pub(crate) const SERVICE: u16 = 8;
/// The focus is on an instance or a waiting slot.
pub(crate) const INSTANCE: u16 = 16;
/// The focus is on an operation.
pub(crate) const OPERATION: u16 = 32;
/// The log screen.
pub(crate) const LOG: u16 = 64;
/// The cluster is a demo.
pub(crate) const DEMO: u16 = 128;
/// There is more than one pane.
pub(crate) const PANES: u16 = 256;

/// The cluster is simulated.
pub(crate) const SIM: u16 = 512;

/// What it takes to confirm a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risk {
    /// Only looks.
    Looks,
    /// Harmless and undone as easily.
    None,
    /// `y`.
    Yes,
    /// The name is typed, then ctrl-x.
    Name,
    /// The name and a reason are typed, then ctrl-x in time.
    NameReason,
}

impl Risk {
    pub fn words(self) -> &'static str {
        match self {
            Risk::Looks => "",
            Risk::None => "at once",
            Risk::Yes => "asks: y",
            Risk::Name => "asks: type the name",
            Risk::NameReason => "asks: name, reason, ctrl-x",
        }
    }
}

/// Everything that can be told to the cockpit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmd {
    Overview,
    Nodes,
    Services,
    Operations,
    Events,
    Logs,
    Links,
    Fencing,
    NextPane,
    PreviousPane,
    Down,
    Up,
    PageDown,
    PageUp,
    Top,
    Bottom,
    Open,
    Back,
    Filter,
    Sort,
    SortReverse,
    Mark,
    Unmark,
    Why,
    Palette,
    Help,
    Freeze,
    Theme,
    Copy,
    Leave,
    Quit,
    Deploy,
    Edit,
    Scale,
    Restart,
    Stop,
    Delete,
    Migrate,
    Drain,
    Cordon,
    Undo,
    Fence,
    TestFence,
    Attest,
    Cancel,
    SimPause,
    SimStep,
    SimFaster,
    SimSlower,
    SimBack,
    SimOn,
    SimNode,
    ShowLogs,
    Follow,
    Search,
    SearchNext,
    SearchPrevious,
    DemoKill,
    DemoFreeze,
    DemoThaw,
    DemoCut,
    DemoHeal,
    DemoRestart,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Entry {
    pub cmd: Cmd,
    pub name: &'static str,
    pub keys: &'static [&'static str],
    /// Any of these must hold.
    pub at: u16,
    /// All of these must hold.
    pub needs: u16,
    /// None of these may hold.
    pub without: u16,
    pub risk: Risk,
    /// What the footer says; empty keeps it out of there.
    pub short: &'static str,
    pub help: &'static str,
}

impl Entry {
    pub fn applies(&self, context: u16) -> bool {
        self.at & (context | ANY) != 0 && self.needs & context == self.needs && self.without & context == 0
    }

    /// Can both apply at once? An object is of one type, and the log screen has no objects.
    pub fn meets(&self, other: &Entry) -> bool {
        if self.needs & other.without != 0 || other.needs & self.without != 0 {
            return false;
        }
        self.at & ANY != 0 || other.at & ANY != 0 || self.at & other.at != 0
    }
}

const fn looks(
    cmd: Cmd,
    name: &'static str,
    keys: &'static [&'static str],
    at: u16,
    short: &'static str,
    help: &'static str,
) -> Entry {
    Entry { cmd, name, keys, at, needs: 0, without: 0, risk: Risk::Looks, short, help }
}

const fn acts(
    cmd: Cmd,
    name: &'static str,
    keys: &'static [&'static str],
    at: u16,
    risk: Risk,
    short: &'static str,
    help: &'static str,
) -> Entry {
    // Nothing that is asked of a simulated cluster reaches it.
    Entry { cmd, name, keys, at, needs: 0, without: SIM, risk, short, help }
}

const fn demo(
    cmd: Cmd,
    name: &'static str,
    keys: &'static [&'static str],
    risk: Risk,
    help: &'static str,
) -> Entry {
    Entry { cmd, name, keys, at: NODE, needs: DEMO, without: 0, risk, short: "", help }
}

const fn sim(
    cmd: Cmd,
    name: &'static str,
    keys: &'static [&'static str],
    short: &'static str,
    help: &'static str,
) -> Entry {
    Entry { cmd, name, keys, at: ANY, needs: SIM, without: 0, risk: Risk::Looks, short, help }
}

/// In the order in which help and footer list them.
pub(crate) const ALL: &[Entry] = &[
    looks(
        Cmd::Overview,
        "overview",
        &["1"],
        ANY,
        "",
        "where you stand, what happens by itself, what is wrong",
    ),
    looks(Cmd::Nodes, "nodes", &["2"], ANY, "", "all nodes, worst first"),
    looks(Cmd::Services, "services", &["3"], ANY, "", "all services, worst first"),
    looks(Cmd::Operations, "operations", &["4"], ANY, "", "drains, migrations, rollouts, fencing"),
    looks(Cmd::Events, "events", &["5"], ANY, "", "what happened, newest first"),
    looks(Cmd::Logs, "logs", &["6"], ANY, "", "the output of a service's copies"),
    looks(Cmd::Links, "links", &["7"], ANY, "", "who reaches whom on each segment, and the sides of a split"),
    looks(
        Cmd::Fencing,
        "fencing",
        &["8"],
        ANY,
        "",
        "how each node can be fenced, what is under way or blocked, and what was done",
    ),
    sim(Cmd::SimPause, "sim-pause", &["space"], "pause", "let the simulated world stand still, or go on"),
    sim(Cmd::SimStep, "sim-step", &["."], "step", "to the next thing that happens, and stand still there"),
    sim(Cmd::SimFaster, "sim-faster", &["+"], "", "play the world faster"),
    sim(Cmd::SimSlower, "sim-slower", &["-"], "", "play the world slower"),
    sim(Cmd::SimBack, "sim-back", &["["], "", "two seconds back: the world is played again until there"),
    sim(Cmd::SimOn, "sim-on", &["]"], "", "two seconds on"),
    sim(Cmd::SimNode, "sim-node", &["v"], "node", "look from the next node"),
    looks(Cmd::NextPane, "next-pane", &["tab"], PANES, "pane", "to the next pane of this screen"),
    looks(Cmd::PreviousPane, "previous-pane", &["backtab"], PANES, "", "to the pane before"),
    looks(Cmd::Down, "down", &["j", "down"], ANY, "", "one row down"),
    looks(Cmd::Up, "up", &["k", "up"], ANY, "", "one row up"),
    looks(Cmd::PageDown, "page-down", &["ctrl-d", "pagedown"], ANY, "", "half a screen down"),
    looks(Cmd::PageUp, "page-up", &["ctrl-u", "pageup"], ANY, "", "half a screen up"),
    looks(Cmd::Top, "top", &["g", "home"], ANY, "", "to the first row"),
    looks(Cmd::Bottom, "bottom", &["G", "end"], ANY, "", "to the last row"),
    looks(Cmd::Open, "open", &["enter"], LIST, "detail", "everything about what is selected"),
    looks(Cmd::Back, "back", &["esc"], ANY, "", "back to where you were; ends a filter first"),
    looks(
        Cmd::Why,
        "why",
        &["w"],
        NODE | SERVICE | INSTANCE | OPERATION,
        "why",
        "why it runs, stops or waits, and what is next",
    ),
    acts(Cmd::Deploy, "deploy", &["d"], ANY, Risk::Yes, "deploy", "write a spec, see the plan, deploy it"),
    acts(Cmd::Edit, "edit", &["e"], SERVICE | INSTANCE, Risk::Yes, "edit", "change the spec of this service"),
    acts(Cmd::Scale, "scale", &["S"], SERVICE | INSTANCE, Risk::Yes, "scale", "change the number of copies"),
    acts(
        Cmd::Restart,
        "restart",
        &["r"],
        SERVICE | INSTANCE,
        Risk::Yes,
        "restart",
        "replace the running copies, one after the other",
    ),
    acts(
        Cmd::Migrate,
        "migrate",
        &["m"],
        SERVICE | INSTANCE,
        Risk::Yes,
        "migrate",
        "move a copy to another node",
    ),
    acts(
        Cmd::Stop,
        "stop",
        &["s"],
        SERVICE | INSTANCE,
        Risk::Name,
        "stop",
        "keep the service, run nothing of it",
    ),
    acts(Cmd::Delete, "delete", &["X"], SERVICE, Risk::Name, "", "forget the service once its copies ended"),
    acts(Cmd::Drain, "drain", &["D"], NODE, Risk::Yes, "drain", "move everything off this node"),
    acts(Cmd::Cordon, "cordon", &["c"], NODE, Risk::None, "cordon", "place nothing new on this node"),
    acts(
        Cmd::Undo,
        "undo",
        &["u"],
        NODE,
        Risk::None,
        "uncordon",
        "end the cordon and the drain of this node",
    ),
    acts(Cmd::Fence, "fence", &["F"], NODE, Risk::NameReason, "fence", "power this node off and prove it"),
    looks(
        Cmd::TestFence,
        "fence-test",
        &["t"],
        NODE,
        "",
        "ask this node's fence devices for its power state; nothing is switched",
    ),
    acts(
        Cmd::Attest,
        "attest",
        &["A"],
        NODE,
        Risk::NameReason,
        "",
        "your word that this node is dead, as evidence",
    ),
    acts(
        Cmd::Cancel,
        "cancel",
        &["x"],
        OPERATION,
        Risk::Yes,
        "cancel",
        "stop this operation and undo what it did",
    ),
    looks(
        Cmd::ShowLogs,
        "show-logs",
        &["l"],
        SERVICE | INSTANCE,
        "logs",
        "follow the output of this service or copy",
    ),
    looks(
        Cmd::Filter,
        "filter",
        &["/"],
        LIST,
        "filter",
        "words, column:word, !not; such as pri:critical !healthy",
    ),
    looks(Cmd::Sort, "sort", &["o"], LIST, "sort", "sort by the next column"),
    looks(Cmd::SortReverse, "sort-reverse", &["O"], LIST, "", "turn the order around"),
    Entry {
        without: SIM,
        ..looks(Cmd::Mark, "mark", &["space"], LIST, "", "mark for a command on several at once")
    },
    Entry { without: SIM, ..looks(Cmd::Unmark, "unmark", &["U"], LIST, "", "unmark all") },
    looks(Cmd::Follow, "follow", &["f"], LOG, "follow", "stay at the newest line, or do not"),
    looks(Cmd::Search, "search", &["/"], LOG, "search", "find a text in the log"),
    looks(Cmd::SearchNext, "search-next", &["n"], LOG, "next", "the next line with it"),
    looks(Cmd::SearchPrevious, "search-previous", &["N"], LOG, "", "the line before with it"),
    demo(Cmd::DemoKill, "demo-kill", &["K k"], Risk::Yes, "kill -9 this node of the demo"),
    demo(Cmd::DemoFreeze, "demo-freeze", &["K f"], Risk::Yes, "freeze this node of the demo"),
    demo(Cmd::DemoThaw, "demo-thaw", &["K t"], Risk::None, "let a frozen node of the demo go on"),
    demo(Cmd::DemoCut, "demo-cut", &["K c"], Risk::Yes, "cut this node of the demo from all others"),
    demo(Cmd::DemoHeal, "demo-heal", &["K h"], Risk::None, "connect this node of the demo again"),
    demo(Cmd::DemoRestart, "demo-restart", &["K r"], Risk::None, "start a killed node of the demo again"),
    looks(Cmd::Palette, "palette", &[":"], ANY, "commands", "find a command by a part of its name"),
    looks(Cmd::Help, "help", &["?"], ANY, "help", "all keys that work here"),
    looks(Cmd::Copy, "copy", &["y"], ANY, "", "copy a summary of the situation to the clipboard"),
    looks(Cmd::Freeze, "freeze", &["z"], ANY, "", "hold the picture still; the cluster goes on"),
    looks(Cmd::Theme, "theme", &["T"], ANY, "", "the next theme"),
    looks(Cmd::Leave, "leave", &["q"], ANY, "leave", "leave the cockpit; the node runs on"),
    acts(
        Cmd::Quit,
        "quit",
        &["Q"],
        ANY,
        Risk::Yes,
        "",
        "stop this node; its services run on until their deadlines",
    ),
];

/// Every command as a table in Markdown, for the reference: name, built-in keys, how it is confirmed, what
/// it does.
pub fn reference() -> String {
    let mut out = String::from("| command | keys | asks | what it does |\n| --- | --- | --- | --- |\n");
    for entry in ALL {
        let keys: Vec<String> = entry.keys.iter().map(|key| format!("`{key}`")).collect();
        let asks = entry.risk.words().trim_start_matches("asks: ");
        out.push_str(&format!("| {} | {} | {asks} | {} |\n", entry.name, keys.join(" "), entry.help));
    }
    out
}

pub(crate) fn by_name(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

pub(crate) fn entry(cmd: Cmd) -> &'static Entry {
    // Every command is in the registry; a test holds that.
    ALL.iter().find(|entry| entry.cmd == cmd).unwrap_or(&ALL[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_registered_once_under_its_own_name() {
        assert_eq!(ALL.len(), Cmd::DemoRestart as usize + 1, "the last command counts them all");
        for (at, entry) in ALL.iter().enumerate() {
            let others = &ALL[at + 1..];
            assert!(
                others.iter().all(|other| other.cmd != entry.cmd && other.name != entry.name),
                "{}",
                entry.name
            );
            assert!(!entry.keys.is_empty() && !entry.help.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn what_changes_the_cluster_says_what_it_asks() {
        assert!(
            ALL.iter().filter(|entry| entry.risk > Risk::Looks).all(|entry| !entry.risk.words().is_empty())
        );
        assert!(entry(Cmd::Fence).risk == Risk::NameReason && entry(Cmd::Attest).risk == Risk::NameReason);
    }
}
