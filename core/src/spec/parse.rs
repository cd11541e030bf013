//! Reads services from YAML or JSON: every default filled in, every error with line, column, field and
//! remedy. Does not know the cluster: whether a node can host it, or a grace is admitted, others judge.

use std::collections::BTreeMap;

use crate::document::{DocumentErrors, Faults, Field, Fields, Node, parse as parse_tree};
use crate::ids::ServiceName;
use crate::units::{CpuMillis, MemoryMib, Millis};

use super::container::container;
use super::health::health;
use super::machine::machine;
use super::process::process;
use super::unit::unit;
use super::words::{PRIORITIES, constraint, is_relative_inside, signal, span};
use super::{
    Affinity, ContainerEngine, ExecutorKind, Placement, Priority, Resources, RestartPolicy, RestartWhen,
    ServiceSpec, Spread, StopPolicy, UnitSource, UnitWorkload, Workload,
};

/// Copies of one service.
pub const MAX_REPLICAS: u32 = 10_000;
/// Services in one file.
const MAX_SERVICES: usize = 1_000;
const MAX_LABELS: usize = 64;
const MAX_LABEL_BYTES: usize = 256;
const MAX_CONDITIONS: usize = 64;
pub(super) const MAX_CPU_MILLIS: u32 = 1_024_000;
pub(super) const MAX_MEMORY_MIB: u64 = 16 * 1024 * 1024;
pub(super) const DAY: Millis = Millis(86_400_000);

/// Every executor by name.
pub const EXECUTORS: [&str; 5] = ["process", "docker", "podman", "systemd", "libvirt"];

const KEYS: [&str; 14] = [
    "name",
    "executor",
    "priority",
    "replicas",
    "exclusive",
    "labels",
    "spec",
    "state",
    "resources",
    "placement",
    "health",
    "stop",
    "restart",
    "on_isolation",
];

/// What holds where the text says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecDefaults {
    /// The cluster's `service.default_priority`.
    pub priority: Priority,
    /// The node's `service.executor_type`, by name.
    pub executor: String,
}

impl Default for SpecDefaults {
    fn default() -> Self {
        Self { priority: Priority::Normal, executor: "process".to_owned() }
    }
}

/// Reads every service of a text; several are separated by `---`.
pub fn parse(text: &str, defaults: &SpecDefaults) -> Result<Vec<ServiceSpec>, DocumentErrors> {
    let faults = Faults::default();
    let documents = parse_tree(text, &faults);
    let mut services: Vec<ServiceSpec> = Vec::new();
    let mut seen = BTreeMap::new();
    let mut count = 0;
    for document in documents.iter().filter(|document| !Field::root(document, &faults).is_null()) {
        count += 1;
        let root = Field::root(document, &faults);
        if count > MAX_SERVICES {
            root.fail::<()>(format!("more than {MAX_SERVICES} services in one file"), "split the file");
            break;
        }
        let Some(service) = service(document, defaults, &faults) else {
            // Whatever refused it has said why; a service must never be left out in silence.
            if faults.is_empty() {
                root.fail::<()>("the service could not be read", "compare it with the reference");
            }
            continue;
        };
        if let Some(line) = seen.insert(service.name.clone(), root.place().line) {
            let message = format!("the service {} is already described on line {line}", service.name);
            root.fail::<()>(message, "keep one of the two, or rename one");
        }
        services.push(service);
    }
    if count == 0 && faults.is_empty() {
        let empty = Node {
            place: crate::document::Place { line: 1, column: 1 },
            value: crate::document::Value::Null,
        };
        Field::root(&empty, &faults)
            .fail::<()>("no service is described here", "give at least name and spec");
    }
    faults.result(Some(services))
}

/// Reads a text that describes exactly one service.
pub fn parse_one(text: &str, defaults: &SpecDefaults) -> Result<ServiceSpec, DocumentErrors> {
    let services = parse(text, defaults)?;
    let count = services.len();
    let mut services = services.into_iter();
    match (services.next(), count) {
        (Some(service), 1) => Ok(service),
        _ => Err(crate::document::DocumentError {
            line: 1,
            column: 1,
            field: String::new(),
            message: format!("{count} services are described where one belongs"),
            remedy: "remove the others".to_owned(),
        }
        .into()),
    }
}

fn service(document: &Node, defaults: &SpecDefaults, faults: &Faults) -> Option<ServiceSpec> {
    let map = Field::root(document, faults).fields(&KEYS)?;
    let name = match map.get("name") {
        Some(field) => field.parsed(256, "write a name such as web", str::parse::<ServiceName>),
        None => map.missing("name", "write name: followed by a name such as web"),
    };
    let (labels, label_priority) = labels(&map);
    let priority = priority(&map, label_priority, defaults);
    let replicas = map.get("replicas").map_or(Some(1), |f| f.whole(0..=u64::from(MAX_REPLICAS)));
    let exclusive = map.get("exclusive").and_then(|field| field.flag());
    let executor = executor(&map, defaults);
    let workload = executor.and_then(|kind| workload(&map, kind));
    let state_dir = map.get("state").and_then(|field| state_dir(&field, workload.as_ref()));
    let resources = resources(&map, workload.as_ref());
    let placement = map.get("placement").map_or(Some(Placement::default()), |field| placement(&field));
    let health = map.get("health").map(|field| health(&field, executor));
    let stop = stop(&map, executor);
    let restart = restart(&map);
    let keep = keep_on_isolation(&map, exclusive);
    Some(ServiceSpec {
        name: name?,
        priority: priority?,
        replicas: u32::try_from(replicas?).ok()?,
        exclusive,
        labels: labels?,
        workload: workload?,
        state_dir,
        resources: resources?,
        placement: placement?,
        health: match health {
            Some(health) => Some(health?),
            None => None,
        },
        stop: stop?,
        restart: restart?,
        keep_on_isolation: keep?,
    })
}

/// The labels without the one that stands for the priority, and that one.
fn labels<'a>(map: &Fields<'a>) -> (Option<BTreeMap<String, String>>, Option<Field<'a>>) {
    let Some(field) = map.get("labels") else { return (Some(BTreeMap::new()), None) };
    let Some(pairs) = field.pairs(MAX_LABELS) else { return (None, None) };
    let (mut labels, mut priority) = (Some(BTreeMap::new()), None);
    for (key, value) in pairs {
        if key == "quorate/priority" || key == "pulsar/priority" {
            priority = Some(value);
        } else if key.is_empty()
            || key.len() > MAX_LABEL_BYTES
            || key.chars().any(|c| c.is_control() || c == ' ')
        {
            value.fail::<()>("a label's key has 1 to 256 bytes without blanks", "rename it");
        } else {
            match (value.text(MAX_LABEL_BYTES), &mut labels) {
                (Some(text), Some(labels)) => _ = labels.insert(key.to_owned(), text),
                (None, _) => labels = None,
                (Some(_), None) => {}
            }
        }
    }
    (labels, priority)
}

fn priority(map: &Fields<'_>, label: Option<Field<'_>>, defaults: &SpecDefaults) -> Option<Priority> {
    let given = map.get("priority").map(|field| field.word(&PRIORITIES));
    let labelled = label.map(|field| (field.word(&PRIORITIES), field));
    match (given, labelled) {
        (None, None) => Some(defaults.priority),
        (Some(given), None) => given,
        (None, Some((labelled, _))) => labelled,
        (Some(given), Some((labelled, field))) => {
            let (given, labelled) = (given?, labelled?);
            if given == labelled {
                return Some(given);
            }
            field
                .fail(format!("the label says {labelled}, the key priority says {given}"), "remove the label")
        }
    }
}

fn executor(map: &Fields<'_>, defaults: &SpecDefaults) -> Option<ExecutorKind> {
    if let Some(field) = map.get("executor") {
        return field.word(&ExecutorKind::ALL.map(|kind| (kind.name(), kind)));
    }
    let standard = ExecutorKind::ALL.into_iter().find(|kind| kind.name() == defaults.executor);
    standard.or_else(|| {
        let message = format!("the executor {:?}, the one by default, is unknown", defaults.executor);
        map.whole().fail(message, "name one, such as executor: process")
    })
}

fn workload(map: &Fields<'_>, executor: ExecutorKind) -> Option<Workload> {
    match executor {
        ExecutorKind::Process => process(map).map(Workload::Process),
        ExecutorKind::Docker => container(map, ContainerEngine::Docker).map(Workload::Container),
        ExecutorKind::Podman => container(map, ContainerEngine::Podman).map(Workload::Container),
        ExecutorKind::Systemd => unit(map).map(Workload::Unit),
        ExecutorKind::Libvirt => machine(map).map(Workload::Machine),
    }
}

fn state_dir(field: &Field<'_>, workload: Option<&Workload>) -> Option<String> {
    let map = field.fields(&["dir"])?;
    let Some(dir) = map.get("dir") else { return map.missing("dir", "write dir: data") };
    let text = dir.text(256)?;
    let none = match workload {
        Some(Workload::Machine(_)) => "a virtual machine",
        Some(Workload::Unit(UnitWorkload { source: UnitSource::Existing(_), .. })) => {
            "a unit that the host has already"
        }
        Some(Workload::Process(_) | Workload::Container(_) | Workload::Unit(_)) | None => "",
    };
    if !none.is_empty() {
        return dir.fail(
            format!("no folder of Quorate is given to {none}, so there is none to copy"),
            "remove state, and keep what must move with it where every node reaches it",
        );
    }
    if is_relative_inside(&text) {
        return Some(text);
    }
    dir.fail(
        format!("{text:?} leaves the instance's own folder"),
        "write a relative path without .., such as data",
    )
}

fn resources(map: &Fields<'_>, workload: Option<&Workload>) -> Option<Resources> {
    let limits = workload.map_or(Resources::default(), Workload::reserves);
    let Some(field) = map.get("resources") else { return Some(limits) };
    let map = field.fields(&["cpu", "memory_mib"])?;
    let cpu = map.get("cpu").map_or(Some(limits.cpu), |f| f.thousandths(0..=MAX_CPU_MILLIS).map(CpuMillis));
    let memory =
        map.get("memory_mib").map_or(Some(limits.memory), |f| f.whole(0..=MAX_MEMORY_MIB).map(MemoryMib));
    Some(Resources { cpu: cpu?, memory: memory? })
}

fn placement(field: &Field<'_>) -> Option<Placement> {
    let map = field.fields(&["constraints", "affinity", "spread"])?;
    let remedy = "write ATTRIBUTE == VALUE or ATTRIBUTE != VALUE, the attribute being node or a node label";
    let constraints = map.get("constraints").map_or(Some(Vec::new()), |field| {
        field.items(MAX_CONDITIONS)?.iter().map(|item| item.parsed(512, remedy, constraint)).collect()
    });
    let affinity = map.get("affinity").map_or(Some(Vec::new()), |field| {
        field.items(MAX_CONDITIONS)?.iter().map(|item| affinity(item, remedy)).collect()
    });
    let words = [("prefer", Spread::Prefer), ("require", Spread::Require)];
    let spread = map.get("spread").map_or(Some(Spread::default()), |field| field.word(&words));
    Some(Placement { constraints: constraints?, affinity: affinity?, spread: spread? })
}

fn affinity(item: &Field<'_>, remedy: &str) -> Option<Affinity> {
    const DEFAULT_WEIGHT: i64 = 50;
    if item.is_scalar() {
        let constraint = item.parsed(512, remedy, constraint)?;
        return Some(Affinity { constraint, weight: DEFAULT_WEIGHT as i32 });
    }
    let map = item.fields(&["constraint", "weight"])?;
    let constraint = match map.get("constraint") {
        Some(field) => field.parsed(512, remedy, constraint),
        None => map.missing("constraint", remedy),
    };
    let weight = map.get("weight").map_or(Some(DEFAULT_WEIGHT), |field| field.signed(-100..=100));
    Some(Affinity { constraint: constraint?, weight: i32::try_from(weight?).ok()? })
}

fn stop(map: &Fields<'_>, executor: Option<ExecutorKind>) -> Option<StopPolicy> {
    let standard = StopPolicy { signal: 15, grace: Millis(10_000) };
    let Some(field) = map.get("stop") else { return Some(standard) };
    let map = field.fields(&["signal", "grace"])?;
    let remedy = "write a name such as SIGTERM or a number from 1 to 64";
    let signal = map.get("signal").map_or(Some(standard.signal), |field| {
        let signal = field.parsed(32, remedy, signal)?;
        if signal != standard.signal && executor.is_some_and(|kind| !kind.runs_programs()) {
            return field.fail(
                "a virtual machine takes no signals: it is asked to shut down by ACPI",
                "remove signal, or write SIGTERM",
            );
        }
        Some(signal)
    });
    let grace = map.get("grace").map_or(Some(standard.grace), |field| field.length(Millis(0)..=DAY));
    Some(StopPolicy { signal: signal?, grace: grace? })
}

fn restart(map: &Fields<'_>) -> Option<RestartPolicy> {
    let standard =
        RestartPolicy { when: RestartWhen::Always, backoff_min: Millis(1_000), backoff_max: Millis(60_000) };
    let Some(field) = map.get("restart") else { return Some(standard) };
    let map = field.fields(&["policy", "backoff"])?;
    let words = [
        ("always", RestartWhen::Always),
        ("on_failure", RestartWhen::OnFailure),
        ("never", RestartWhen::Never),
    ];
    let when = map.get("policy").map_or(Some(standard.when), |field| field.word(&words));
    let remedy = "write the shortest and the longest wait, such as 1s..60s, from 10ms to 1d";
    let backoff = map.get("backoff").map_or(Some((standard.backoff_min, standard.backoff_max)), |field| {
        field.parsed(64, remedy, |text| span(text, Millis(10)..=DAY))
    });
    let (backoff_min, backoff_max) = backoff?;
    Some(RestartPolicy { when: when?, backoff_min, backoff_max })
}

fn keep_on_isolation(map: &Fields<'_>, exclusive: Option<bool>) -> Option<bool> {
    let Some(field) = map.get("on_isolation") else { return Some(false) };
    let keep = field.word(&[("by_priority", false), ("keep", true)])?;
    if keep && exclusive == Some(true) {
        return field.fail(
            "an exclusive service cannot keep running without a lease: it could run twice",
            "remove on_isolation, or set exclusive: false, or priority: critical",
        );
    }
    Some(keep)
}
