//! Reads a scenario: strict, every error with line, column, field and remedy. Whether the world becomes what is
//! expected, the simulator finds out.

use super::words::{self, Wrong};
use super::{Expectation, Expected, LASTS_MS, Scenario, Setting};
use crate::document::{DocumentError, DocumentErrors, Faults, Field, Fields, parse as parse_tree};
use crate::settings::TimingProfile;
use crate::sim::scene::{self, DeviceFault};
use crate::sim::script::{Deed, Shape, Step};
use crate::units::Millis;
use crate::view::NodeState;

const KEYS: [&str; 8] = ["about", "seed", "cluster", "services", "drawn", "lasts", "steps", "expect"];
const CLUSTER: [&str; 7] = ["nodes", "profile", "armed", "silence", "fencing", "witnesses", "drift_ppm"];
const MOST_STEPS: usize = 200;
const MOST_HOSTS: u64 = 7;
/// The longest text of one line.
const MOST_BYTES: usize = 512;
/// How far a clock may run off: what the waits allow for is 10,000.
const MOST_DRIFT: i64 = 50_000;
const PROFILES: [(&str, TimingProfile); 4] = [
    ("default", TimingProfile::Default),
    ("lan", TimingProfile::Lan),
    ("fast", TimingProfile::Fast),
    ("wan", TimingProfile::Wan),
];
const DEVICES: [(&str, Option<DeviceFault>); 5] = [
    ("none", None),
    ("works", Some(DeviceFault::None)),
    ("fails", Some(DeviceFault::Fails)),
    ("lies", Some(DeviceFault::Lies)),
    ("times-out", Some(DeviceFault::TimesOut)),
];
const STATES: [(&str, NodeState); 4] = [
    ("alive", NodeState::Alive),
    ("suspect", NodeState::Suspect),
    ("lost", NodeState::Lost),
    ("fenced", NodeState::Fenced),
];

/// The word for each profile.
pub(super) fn profile_word(profile: TimingProfile) -> &'static str {
    PROFILES.iter().find(|(_, known)| *known == profile).map_or("lan", |(word, _)| word)
}

/// The word for what is wrong with the fence devices.
pub(super) fn device_word(device: Option<DeviceFault>) -> &'static str {
    DEVICES.iter().find(|(_, known)| *known == device).map_or("none", |(word, _)| word)
}

/// The word for how a node stands.
pub(in crate::sim) fn state_word(state: NodeState) -> &'static str {
    STATES.iter().find(|(_, known)| *known == state).map_or("alive", |(word, _)| word)
}

impl Scenario {
    /// Reads one scenario.
    pub fn parse(text: &str) -> Result<Self, DocumentErrors> {
        let faults = Faults::default();
        let documents = parse_tree(text, &faults);
        let scenario = match documents.as_slice() {
            [document] => read(&Field::root(document, &faults)),
            _ if !faults.is_empty() => None,
            documents => {
                return Err(DocumentError {
                    line: 1,
                    column: 1,
                    field: String::new(),
                    message: format!("{} scenarios are described where one belongs", documents.len()),
                    remedy: "write one scenario in a file".to_owned(),
                }
                .into());
            }
        };
        faults.result(scenario)
    }
}

/// A microsecond of true time, as `3s`, `250ms` or `4.217331s`.
fn moment(text: &str) -> Result<u64, Wrong> {
    let wrong = || {
        (
            format!("{text:?} is no moment"),
            "write it as 3s, 250ms or, to the microsecond, 4.217331s".to_owned(),
        )
    };
    let (number, places) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 3),
        (None, Some(number)) => (number, 6),
        (None, None) => return Err(wrong()),
    };
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || rest.len() > places || !digits(whole) || !digits(rest) {
        return Err(wrong());
    }
    format!("{whole}{rest:0<places$}").parse().map_err(|_| wrong())
}

fn told<T>(field: &Field<'_>, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
    let text = field.text(MOST_BYTES)?;
    match read(&text) {
        Ok(value) => Some(value),
        Err((message, remedy)) => field.fail(message, remedy),
    }
}

fn read(root: &Field<'_>) -> Option<Scenario> {
    let fields = root.fields(&KEYS)?;
    let about = match fields.get("about") {
        Some(about) => about.text(MOST_BYTES),
        None => fields.missing("about", "say in a sentence what it shows"),
    };
    let seed = fields.get("seed").map_or(Some(1), |seed| seed.whole(0..=u64::MAX));
    let lasts = match fields.get("lasts") {
        Some(lasts) => lasts.length(Millis(1_000)..=Millis(600_000)),
        None => Some(Millis(LASTS_MS)),
    };
    let world = match (fields.get("drawn"), fields.get("cluster")) {
        (Some(drawn), Some(_)) => {
            drawn.fail("a world is drawn or written, not both", "keep either drawn or cluster")
        }
        (Some(drawn), None) => match fields.get("services") {
            Some(services) => services.fail("a drawn world has drawn services", "remove the services"),
            None => drawn_world(&drawn),
        },
        (None, cluster) => written_world(cluster.as_ref(), &fields),
    };
    let (seed, lasts, world) = (seed?, lasts?, world?);
    let hosts = match &world {
        Setting::Written { shape, .. } => shape.hosts,
        Setting::Drawn { .. } => scene::hosts_of(seed),
    };
    let steps = list(&fields, "steps", |item| step(item, hosts, lasts, &world));
    let expect = list(&fields, "expect", |item| expectations(item, hosts, lasts));
    let expect = expect?.into_iter().flatten().collect();
    Some(Scenario { about: about?, seed, world, lasts_ms: lasts.0, steps: steps?, expect })
}

/// Everything that can be read of a list; nothing if anything could not.
fn list<T>(fields: &Fields<'_>, key: &str, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let Some(field) = fields.get(key) else { return Some(Vec::new()) };
    // Each is read, so that all that is wrong is said at once.
    let read: Vec<Option<T>> = field.items(MOST_STEPS)?.iter().map(read).collect();
    read.into_iter().collect()
}

fn drawn_world(field: &Field<'_>) -> Option<Setting> {
    let fields = field.fields(&["faults", "operators", "chance"])?;
    let faults = fields.get("faults").map_or(Some(12), |faults| faults.whole(0..=1_000))?;
    let flag = |key: &str| fields.get(key).map_or(Some(true), |flag| flag.flag());
    let faults = u32::try_from(faults).unwrap_or_default();
    Some(Setting::Drawn { faults, operators: flag("operators")?, chance: flag("chance")? })
}

fn written_world(cluster: Option<&Field<'_>>, fields: &Fields<'_>) -> Option<Setting> {
    let mut shape = Shape::default();
    if let Some(cluster) = cluster {
        shape = read_shape(&cluster.fields(&CLUSTER)?)?;
    }
    let cast: Vec<(&str, &str)> = scene::cast().map(|name| (name, name)).collect();
    let services = match fields.get("services") {
        Some(services) => {
            let names = services.items(cast.len())?;
            names.iter().map(|name| name.word(&cast).map(ToOwned::to_owned)).collect::<Option<_>>()?
        }
        None => Vec::new(),
    };
    Some(Setting::Written { shape, services })
}

fn read_shape(fields: &Fields<'_>) -> Option<Shape> {
    let usual = Shape::default();
    let hosts = match fields.get("nodes") {
        Some(nodes) => usize::try_from(nodes.whole(1..=MOST_HOSTS)?).ok()?,
        None => usual.hosts,
    };
    let flag = |key: &str| fields.get(key).map_or(Some(true), |flag| flag.flag());
    let node = |field: &Field<'_>| told(field, |text| words::host(text, hosts));
    let mut drift_ppm = vec![0; hosts];
    if let Some(drift) = fields.get("drift_ppm") {
        for (name, ppm) in drift.pairs(hosts)? {
            match words::host(name, hosts) {
                Ok(host) => drift_ppm[host] = ppm.signed(-MOST_DRIFT..=MOST_DRIFT)?,
                Err((message, remedy)) => return ppm.fail(message, remedy),
            }
        }
    }
    Some(Shape {
        hosts,
        profile: fields.get("profile").map_or(Some(usual.profile), |profile| profile.word(&PROFILES))?,
        armed: flag("armed")?,
        silence_counts: flag("silence")?,
        fencing: fields.get("fencing").map_or(Some(None), |fencing| fencing.word(&DEVICES))?,
        witnesses: match fields.get("witnesses") {
            Some(witnesses) => witnesses.items(hosts)?.iter().map(node).collect::<Option<_>>()?,
            None => Vec::new(),
        },
        drift_ppm: if drift_ppm.iter().all(|ppm| *ppm == 0) { Vec::new() } else { drift_ppm },
    })
}

/// When it is, before everything is healed.
fn when(fields: &Fields<'_>, lasts: Millis) -> Option<u64> {
    let Some(at) = fields.get("at") else {
        return fields.missing("at", "say when, such as at: 3s");
    };
    let at_us = told(&at, moment)?;
    if at_us >= lasts.0 * 1_000 {
        return at.fail(format!("everything is healed after {lasts}"), "make it earlier, or lasts longer");
    }
    Some(at_us)
}

fn step(item: &Field<'_>, hosts: usize, lasts: Millis, world: &Setting) -> Option<Step> {
    let fields = item.fields(&["at", "do", "ask"])?;
    let at_us = when(&fields, lasts);
    let deed = match (fields.get("do"), fields.get("ask")) {
        (Some(fault), None) => told(&fault, |text| words::fault(text, hosts)).map(Deed::Fault),
        (None, Some(ask)) if matches!(world, Setting::Drawn { .. }) => {
            ask.fail("the operators of a drawn world are drawn too", "only faults take their place here")
        }
        (None, Some(ask)) => {
            told(&ask, |text| words::ask(text, hosts)).map(|command| Deed::Ask(Box::new(command)))
        }
        (Some(_), Some(ask)) => ask.fail("a step is one thing", "write two steps with the same at"),
        (None, None) => fields.missing("do", "write what goes wrong as do, or what is asked as ask"),
    };
    Some(Step { at_us: at_us?, deed: deed? })
}

fn expectations(item: &Field<'_>, hosts: usize, lasts: Millis) -> Option<Vec<Expectation>> {
    let fields = item.fields(&["at", "leader", "runs", "nodes", "why", "sees"])?;
    let at_us = when(&fields, lasts)?;
    let node = |text: &str| words::host(text, hosts);
    let mut all = Vec::new();
    let mut add = |what| all.push(Expectation { at_us, what });
    if let Some(leader) = fields.get("leader") {
        let one = |text: &str| if text == "nobody" { Ok(None) } else { node(text).map(Some) };
        add(Expected::Leads(told(&leader, one)?));
    }
    for (slot, on) in pairs(&fields, "runs")? {
        let Ok(slot) = slot.parse() else {
            return on.fail(format!("{slot} is no slot"), "write slots such as db/0");
        };
        add(Expected::Runs { slot, on: places(&on, hosts)? });
    }
    for (name, state) in pairs(&fields, "nodes")? {
        let node = named(name, &state, hosts)?;
        add(Expected::Stands { node, state: state.word(&STATES)? });
    }
    for (subject, words) in pairs(&fields, "why")? {
        add(Expected::Why { subject: subject.to_owned(), words: words.text(MOST_BYTES)? });
    }
    for (name, words) in pairs(&fields, "sees")? {
        add(Expected::Sees { node: named(name, &words, hosts)?, words: words.text(MOST_BYTES)? });
    }
    if all.is_empty() {
        return item.fail("nothing is expected here", "say leader, runs, nodes, why or sees");
    }
    Some(all)
}

fn pairs<'a>(fields: &Fields<'a>, key: &str) -> Option<Vec<(&'a str, Field<'a>)>> {
    fields.get(key).map_or(Some(Vec::new()), |field| field.pairs(MOST_STEPS))
}

fn named(name: &str, field: &Field<'_>, hosts: usize) -> Option<usize> {
    match words::host(name, hosts) {
        Ok(host) => Some(host),
        Err((message, remedy)) => field.fail(message, remedy),
    }
}

/// `n1`, `nowhere`, or a list of nodes.
fn places(field: &Field<'_>, hosts: usize) -> Option<Vec<usize>> {
    let one = |field: &Field<'_>| told(field, |text| words::host(text, hosts));
    let mut on: Vec<usize> = if field.is_list() {
        field.items(hosts * 2)?.iter().map(one).collect::<Option<_>>()?
    } else if field.text(MOST_BYTES)? == "nowhere" {
        Vec::new()
    } else {
        vec![one(field)?]
    };
    on.sort_unstable();
    Some(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "about: all that can be said\nseed: 7\ncluster:\n  nodes: 4\n  profile: fast\n  armed: false\n  \
        silence: false\n  fencing: lies\n  witnesses: [n4]\n  drift_ppm: {n2: -9000}\nservices: [db, vital]\n\
        lasts: 9s\nsteps:\n  - {at: 1s, do: isolate n1 for 2s}\n  - {at: 1.500001s, ask: drain n2}\nexpect:\n  \
        - {at: 2s, leader: n2, runs: {db/0: n1, vital/0: nowhere}, nodes: {n1: lost}}\n  \
        - {at: 3s, leader: nobody, runs: {db/0: [n1, n2]}, why: {db/0: \"nothing: proves\"}, sees: {n1: NO QUORUM}}\n";

    #[test]
    fn a_scenario_reads_back_as_it_is_written() {
        let scenario = Scenario::parse(WHOLE).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(scenario.expect.len(), 8);
        assert_eq!(scenario.steps[1].at_us, 1_500_001);
        let written = scenario.to_yaml();
        assert_eq!(
            Scenario::parse(&written).unwrap_or_else(|errors| panic!("{written}\n{errors}")),
            scenario
        );
        let drawn = "about: found\nseed: 9\ndrawn: {faults: 3, operators: false}\nsteps:\n  - {at: 2s, do: restart n1}\n";
        let drawn = Scenario::parse(drawn).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(Scenario::parse(&drawn.to_yaml()), Ok(drawn));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_remedy() {
        let says = |text: &str, wanted: &[&str]| {
            let errors = Scenario::parse(text).unwrap_err().to_string();
            assert!(wanted.iter().all(|wanted| errors.contains(wanted)), "{errors}");
        };
        says("about: x\nclutser: {}\n", &["line 2", "did you mean cluster?"]);
        says("seed: 1\n", &["about is missing"]);
        says("about: x\ncluster: {nodes: 9}\n", &["1 to 7"]);
        says("about: x\nservices: [dbs]\n", &["did you mean db?"]);
        says("about: x\nsteps:\n  - {at: 1s, do: isolate n4 for 1s}\n", &["line 3", "n1 to n3"]);
        says("about: x\nsteps:\n  - {at: 30s, do: restart n1}\n", &["everything is healed after 24s"]);
        says("about: x\nsteps:\n  - {at: soon, do: restart n1}\n", &["4.217331s"]);
        says("about: x\nsteps:\n  - {at: 1s}\n", &["do is missing"]);
        says("about: x\nsteps:\n  - {at: 1s, do: restart n1, ask: drain n1}\n", &["one thing"]);
        says("about: x\ndrawn: {}\ncluster: {}\n", &["not both"]);
        says("about: x\ndrawn: {}\nsteps:\n  - {at: 1s, ask: drain n1}\n", &["drawn too"]);
        says("about: x\nexpect:\n  - {at: 1s}\n", &["nothing is expected"]);
        says("about: x\nexpect:\n  - {at: 1s, runs: {db: n1}, nodes: {n1: gone}}\n", &["db/0"]);
        says("about: x\n---\nabout: y\n", &["2 scenarios"]);
        says("", &["0 scenarios"]);
    }
}
