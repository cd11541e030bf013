//! All that the cockpit remembers: the newest view, where the operator is, tables, popups, the log.
//! Changed only by `update`; read by `draw`.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::ids::{NodeId, ServiceName};
use quorate_core::spec::SpecDefaults;
use quorate_core::view::{
    ClusterKind, ClusterView, InstanceView, Level, NodeState, NodeView, OperationView, ServiceView,
};

use crate::commands;
use crate::keymap::{Chord, Keymap};
use crate::logs::LogPane;
use crate::msg::Connection;
use crate::popups::Popup;
use crate::rows::{Ctx, Subject};
use crate::table::{About, Table, TableId};
use crate::theme::{Surroundings, Theme, ThemeError};

/// What the cockpit is started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What the terminal can do.
    pub surroundings: Surroundings,
    /// Keys in place of the built-in ones: a command's name and its keys, such as `drain` and `ctrl-d`.
    pub keys: Vec<(String, Vec<String>)>,
    /// Whom views will come from, as the first screen names it.
    pub attached_to: String,
    /// Does leaving stop the node and all it started, as in a demo?
    pub leaving_ends_all: bool,
    /// What holds where a spec that is typed says nothing.
    pub spec_defaults: SpecDefaults,
}

/// Where the operator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Screen {
    Overview,
    Nodes,
    Node(NodeId),
    Services,
    Service(ServiceName),
    Operations,
    Events,
    Logs,
    Links,
    Fencing,
}

/// A part of a screen that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Table(TableId),
    Facts,
    Fences,
    Spec,
    Versions,
    Log,
}

/// A screen with what was focused and scrolled there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub screen: Screen,
    pub focus: usize,
    pub scroll: usize,
}

impl Place {
    pub fn at(screen: Screen) -> Place {
        Place { screen, focus: 0, scroll: 0 }
    }
}

/// A line for the operator, above the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub level: Level,
    pub text: String,
    pub until_ms: u64,
}

/// Everything the cockpit remembers.
#[derive(Debug)]
pub struct App {
    pub(crate) view: Option<Arc<ClusterView>>,
    /// Came while the picture was held still.
    pub(crate) held: Option<Arc<ClusterView>>,
    pub(crate) frozen: bool,
    pub(crate) received_ms: u64,
    pub(crate) now_ms: u64,
    pub(crate) connection: Connection,
    pub(crate) size: (u16, u16),
    pub(crate) place: Place,
    pub(crate) trail: Vec<Place>,
    pub(crate) tables: BTreeMap<TableId, Table>,
    pub(crate) popups: Vec<Popup>,
    pub(crate) pending: Vec<Chord>,
    pub(crate) keymap: Keymap,
    pub(crate) theme: Theme,
    /// Above every screen, from whoever started the cockpit.
    pub(crate) line: String,
    pub(crate) notice: Option<Notice>,
    pub(crate) logs: LogPane,
    pub(crate) settings: Settings,
    /// What was asked for and not answered yet, by its number.
    pub(crate) asked: BTreeMap<u64, String>,
    /// A spec that was submitted and not accepted yet.
    pub(crate) draft: Option<String>,
    next_id: u64,
}

/// Older answers than this many are not waited for any more.
const MOST_ASKED: usize = 256;
const NOTICE_MS: u64 = 8_000;
/// From this height on an incident leaves room for the services and nodes.
pub(crate) const ROOMY: u16 = 34;
/// Older data than this is not trusted to be how things are.
const STALE_MS: u64 = 5_000;

impl App {
    /// A cockpit that has seen nothing yet.
    pub fn new(settings: Settings) -> Result<App, ThemeError> {
        let theme = Theme::detect(&settings.surroundings)?;
        let (keymap, problems) = Keymap::new(&settings.keys);
        let mut app = App {
            view: None,
            held: None,
            frozen: false,
            received_ms: 0,
            now_ms: 0,
            connection: Connection::Connecting { to: settings.attached_to.clone() },
            size: (80, 24),
            place: Place::at(Screen::Overview),
            trail: Vec::new(),
            tables: BTreeMap::new(),
            popups: Vec::new(),
            pending: Vec::new(),
            keymap,
            theme,
            line: String::new(),
            notice: None,
            logs: LogPane::default(),
            settings,
            asked: BTreeMap::new(),
            draft: None,
            next_id: 1,
        };
        if !problems.is_empty() {
            app.say(Level::Warning, format!("keys: {}", problems.join("; ")));
        }
        Ok(app)
    }

    /// Tells the time: milliseconds on a clock that only goes forward.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.notice.as_ref().is_some_and(|notice| notice.until_ms <= self.now_ms) {
            self.notice = None;
        }
    }

    /// The theme in use.
    pub fn theme(&self) -> &Theme {
        &self.theme
    }

    pub(crate) fn say(&mut self, level: Level, text: impl Into<String>) {
        self.notice = Some(Notice { level, text: text.into(), until_ms: self.now_ms + NOTICE_MS });
    }

    pub(crate) fn next_id(&mut self, what: String) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, what);
        while self.asked.len() > MOST_ASKED {
            self.asked.pop_first();
        }
        id
    }

    /// How old the view is.
    pub(crate) fn age_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.received_ms)
    }

    pub(crate) fn ctx<'a>(&self, view: &'a ClusterView) -> Ctx<'a> {
        Ctx { view, age_ms: self.age_ms(), certain: self.certain(view), glyphs: self.theme.glyphs }
    }

    /// How old the newest word of the leader is.
    pub(crate) fn data_age_ms(&self, view: &ClusterView) -> u64 {
        view.standing.data_age_ms.saturating_add(self.age_ms())
    }

    /// Is what is shown certain enough to be called good?
    pub(crate) fn certain(&self, view: &ClusterView) -> bool {
        let line = matches!(self.connection, Connection::Attached { .. } | Connection::Connecting { .. });
        view.standing.quorum && line && self.data_age_ms(view) < STALE_MS
    }

    /// The panes of the screen, in the order of the tab key.
    pub(crate) fn panes(&self) -> Vec<Pane> {
        let tables: &[TableId] = match self.place.screen {
            // What a small screen leaves out of an incident has no focus either.
            Screen::Overview if self.incident() && self.size.1 < ROOMY => {
                &[TableId::Countdowns, TableId::Timeline, TableId::Running]
            }
            Screen::Overview => &[
                TableId::TopServices,
                TableId::Running,
                TableId::Timeline,
                TableId::Countdowns,
                TableId::TopNodes,
            ],
            Screen::Nodes => &[TableId::Nodes],
            Screen::Node(_) => {
                return vec![
                    Pane::Table(TableId::NodeInstances),
                    Pane::Facts,
                    Pane::Table(TableId::NodeEvents),
                ];
            }
            Screen::Services => &[TableId::Services],
            Screen::Service(_) => {
                return vec![
                    Pane::Table(TableId::ServiceInstances),
                    Pane::Spec,
                    Pane::Versions,
                    Pane::Table(TableId::ServiceEvents),
                ];
            }
            Screen::Operations => &[TableId::Operations],
            Screen::Events => &[TableId::Events],
            Screen::Links => &[TableId::Links],
            Screen::Fencing => return vec![Pane::Table(TableId::Fencing), Pane::Fences],
            Screen::Logs => return vec![Pane::Log],
        };
        tables.iter().copied().map(Pane::Table).collect()
    }

    /// The pane in focus; one that has nothing to show hands it on.
    pub(crate) fn pane(&self) -> Pane {
        let panes = self.panes();
        let from = self.place.focus.min(panes.len().saturating_sub(1));
        let mut shown = panes.iter().cycle().skip(from).take(panes.len());
        shown.find(|pane| crate::draw::shows(self, **pane)).or(panes.get(from)).copied().unwrap_or(Pane::Log)
    }

    /// Is the cluster apart, so that the first screen tells of that alone?
    pub(crate) fn incident(&self) -> bool {
        // A node that is proven off is no other side, however nobody reaches it.
        let off = |node: &NodeId| self.node(node).is_some_and(|node| node.state == NodeState::Fenced);
        let apart = |view: &ClusterView| {
            view.links.sides.len() > 1
                && view.links.sides.iter().any(|side| !side.mine && !side.nodes.iter().all(off))
        };
        self.view.as_ref().is_some_and(|view| apart(view))
    }

    pub(crate) fn about(&self) -> About {
        match &self.place.screen {
            Screen::Node(node) => About::Node(node.clone()),
            Screen::Service(service) => About::Service(service.clone()),
            _ => About::All,
        }
    }

    pub(crate) fn focused(&self) -> Option<&Table> {
        match self.pane() {
            Pane::Table(id) => self.tables.get(&id),
            _ => None,
        }
    }

    pub(crate) fn focused_mut(&mut self) -> Option<&mut Table> {
        match self.pane() {
            Pane::Table(id) => Some(self.tables.entry(id).or_insert_with(|| Table::new(id))),
            _ => None,
        }
    }

    /// Rebuilds the tables of this screen from the view.
    pub(crate) fn refresh(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let about = self.about();
        let mut panes = self.panes();
        if self.place.screen == Screen::Overview {
            // The first screen counts rows of tables that may have no focus.
            panes.extend([Pane::Table(TableId::TopNodes), Pane::Table(TableId::TopServices)]);
        }
        for pane in panes {
            if let Pane::Table(id) = pane {
                let ctx = self.ctx(&view);
                self.tables.entry(id).or_insert_with(|| Table::new(id)).refresh(&about, &ctx);
            }
        }
    }

    /// What commands are about: the row under the cursor, else the object of a detail screen.
    pub(crate) fn subject(&self) -> Subject {
        let Some(view) = &self.view else { return Subject::Nothing };
        let row = self.focused().and_then(|table| table.current()).map(|row| row.subject(view));
        match (row, &self.place.screen) {
            (Some(subject), _) if subject != Subject::Nothing => subject,
            (_, Screen::Node(node)) => Subject::Node(node.clone()),
            (_, Screen::Service(service)) => Subject::Service(service.clone()),
            (_, Screen::Logs) => self.logs.subject(view),
            _ => Subject::Nothing,
        }
    }

    /// Where the operator is, as the registry asks for it.
    pub(crate) fn context(&self) -> u16 {
        let mut context = commands::ANY;
        if matches!(self.pane(), Pane::Table(_)) {
            context |= commands::LIST;
        }
        if self.panes().len() > 1 {
            context |= commands::PANES;
        }
        if self.place.screen == Screen::Logs {
            return context | commands::LOG | if self.simulated() { commands::SIM } else { 0 };
        }
        context |= match self.subject() {
            Subject::Node(_) => commands::NODE,
            Subject::Service(_) => commands::SERVICE,
            Subject::Instance(_) => commands::INSTANCE,
            Subject::Operation(_) => commands::OPERATION,
            Subject::Nothing => 0,
        };
        if self.view.as_ref().is_some_and(|view| view.cluster.kind == ClusterKind::Demo) {
            context |= commands::DEMO;
        }
        if self.simulated() {
            context |= commands::SIM;
        }
        context
    }

    /// Is the cluster a simulated one?
    fn simulated(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.cluster.kind == ClusterKind::Sim)
    }

    pub(crate) fn node(&self, name: &NodeId) -> Option<&NodeView> {
        self.view.as_ref()?.nodes.get(name).map(|n| &**n)
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Option<&ServiceView> {
        self.view.as_ref()?.services.get(name).map(|s| &**s)
    }

    pub(crate) fn instance(&self, key: &str) -> Option<&InstanceView> {
        self.view.as_ref()?.instances.get(key).map(|i| &**i)
    }

    pub(crate) fn operation(&self, id: quorate_core::ids::OperationId) -> Option<&OperationView> {
        self.view.as_ref()?.operations.get(&id).map(|o| &**o)
    }
}
