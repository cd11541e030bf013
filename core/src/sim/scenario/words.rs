//! Faults and requests as people write and read them: `isolate n1 for 6s`, `drain n2`. One table reads faults;
//! one match says each of them again, so that what was found by chance can be written down and played once more.

use crate::command::Command;
use crate::document::nearest;
use crate::ids::{NodeId, OperationId, ServiceName, SlotId};
use crate::settings::SettingChange;
use crate::sim::faults::Fault;
use crate::sim::network::SEGMENTS;
use crate::units::Millis;

/// Nothing in a world lasts longer.
const LONGEST: Millis = Millis(3_600_000);
/// Copies that may be asked for.
const MOST_COPIES: u32 = 100;

/// What the placeholders of a form stood for, in their order.
#[derive(Default)]
struct Values {
    nodes: Vec<usize>,
    times: Vec<u64>,
    number: u64,
    by: i64,
}

impl Values {
    fn node(&self, at: usize) -> usize {
        self.nodes.get(at).copied().unwrap_or_default()
    }

    fn ms(&self, at: usize) -> u64 {
        self.times.get(at).copied().unwrap_or_default()
    }
}

/// How a fault is written, and what it is then.
type Form = (&'static str, fn(&Values) -> Fault);

const FAULTS: &[Form] = &[
    ("crash NODE for TIME", |v| Fault::Crash { host: v.node(0), ms: v.ms(0) }),
    ("restart NODE", |v| Fault::Restart { host: v.node(0) }),
    ("restart-old NODE", |v| Fault::RestartOld { host: v.node(0) }),
    ("kill-guard NODE for TIME", |v| Fault::KillGuard { host: v.node(0), ms: v.ms(0) }),
    ("kill-twin NODE for TIME", |v| Fault::KillTwin { host: v.node(0), ms: v.ms(0) }),
    ("reboot NODE for TIME", |v| Fault::Reboot { host: v.node(0), ms: v.ms(0) }),
    ("power-loss for TIME", |v| Fault::PowerLoss { ms: v.ms(0) }),
    ("freeze-node NODE for TIME", |v| Fault::FreezeNode { host: v.node(0), ms: v.ms(0) }),
    ("freeze-guard NODE for TIME", |v| Fault::FreezeGuard { host: v.node(0), ms: v.ms(0) }),
    ("freeze-twin NODE for TIME", |v| Fault::FreezeTwin { host: v.node(0), ms: v.ms(0) }),
    ("freeze-both NODE for TIME", |v| Fault::FreezeBoth { host: v.node(0), ms: v.ms(0) }),
    ("freeze-all NODE for TIME", |v| Fault::FreezeAll { host: v.node(0), ms: v.ms(0) }),
    ("pause NODE for TIME", |v| Fault::Pause { host: v.node(0), ms: v.ms(0) }),
    ("suspend NODE for TIME", |v| Fault::Suspend { host: v.node(0), ms: v.ms(0) }),
    ("wall-jump NODE by MS", |v| Fault::WallJump { host: v.node(0), by_ms: v.by }),
    ("isolate NODE for TIME", |v| Fault::Isolate { host: v.node(0), ms: v.ms(0) }),
    ("one-way NODE to NODE for TIME", |v| Fault::OneWay { from: v.node(0), to: v.node(1), ms: v.ms(0) }),
    ("cut NODE from NODE for TIME", |v| Fault::Pair { from: v.node(0), to: v.node(1), ms: v.ms(0) }),
    ("split after NODE for TIME", |v| Fault::Split { first: v.node(0) + 1, ms: v.ms(0) }),
    ("mute NODE for TIME", |v| Fault::Mute { host: v.node(0), ms: v.ms(0) }),
    ("deafen NODE for TIME", |v| Fault::Deaf { host: v.node(0), ms: v.ms(0) }),
    ("lose-segment SEGMENT for TIME", |v| Fault::LoseSegment { segment: at(v.number), ms: v.ms(0) }),
    ("slow NODE to NODE by TIME for TIME", |v| Fault::Slow {
        from: v.node(0),
        to: v.node(1),
        most_ms: v.ms(0),
        ms: v.ms(1),
    }),
    ("lossy PERCENT for TIME", |v| Fault::Lossy { percent: v.number, ms: v.ms(0) }),
    ("transfer to NODE", |v| Fault::Transfer { to: v.node(0) }),
    ("crash-leader for TIME", |v| Fault::CrashLeader { ms: v.ms(0) }),
    ("freeze-leader for TIME", |v| Fault::FreezeLeader { ms: v.ms(0) }),
    ("isolate-leader for TIME", |v| Fault::IsolateLeader { ms: v.ms(0) }),
    ("isolate-and-crash NODE for TIME", |v| Fault::IsolateAndCrash { host: v.node(0), ms: v.ms(0) }),
    ("isolate-and-freeze NODE for TIME", |v| Fault::IsolateAndFreeze { host: v.node(0), ms: v.ms(0) }),
    ("wipe NODE for TIME", |v| Fault::Wipe { host: v.node(0), ms: v.ms(0) }),
    ("wipe-running NODE", |v| Fault::WipeRunning { host: v.node(0) }),
    ("copy-disk NODE to NODE for TIME", |v| Fault::CopyDisk { from: v.node(0), to: v.node(1), ms: v.ms(0) }),
    ("disk-full NODE for TIME", |v| Fault::DiskFull { host: v.node(0), ms: v.ms(0) }),
    ("engine-fails NODE for TIME", |v| Fault::EngineFails { host: v.node(0), ms: v.ms(0) }),
    ("engine-hangs NODE for TIME", |v| Fault::EngineHangs { host: v.node(0), ms: v.ms(0) }),
    ("force-quorum from NODE for TIME", |v| Fault::ForcedQuorum {
        first: v.node(0),
        ms: v.ms(0),
        crash: false,
    }),
    ("force-quorum-after-crash from NODE for TIME", |v| Fault::ForcedQuorum {
        first: v.node(0),
        ms: v.ms(0),
        crash: true,
    }),
    ("restore NODE for TIME", |v| Fault::Restore { host: v.node(0), ms: v.ms(0), crash: false }),
    ("restore-after-crash NODE for TIME", |v| Fault::Restore { host: v.node(0), ms: v.ms(0), crash: true }),
];

/// How requests are written.
const ASKS: [&str; 14] = [
    "scale SERVICE N",
    "restart SERVICE",
    "stop SERVICE",
    "delete SERVICE",
    "drain NODE",
    "cordon NODE",
    "uncordon NODE",
    "migrate SLOT to NODE",
    "fence NODE",
    "attest NODE",
    "leave NODE",
    "cancel OPERATION",
    "set NAME VALUE",
    "put KEY VALUE",
];

/// What is wrong with a line, and what to write instead.
pub(super) type Wrong = (String, String);

fn at(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A host's name: `n1` is the first.
pub(in crate::sim) fn name(host: usize) -> String {
    format!("n{}", host + 1)
}

/// The host of a name, of so many.
pub(super) fn host(name: &str, hosts: usize) -> Result<usize, Wrong> {
    let number = name.strip_prefix('n').and_then(|digits| digits.parse::<usize>().ok());
    match number.and_then(|number| number.checked_sub(1)).filter(|host| *host < hosts) {
        Some(host) => Ok(host),
        None => Err((format!("there is no node {name}"), format!("the nodes are n1 to n{hosts}"))),
    }
}

fn time(text: &str) -> Result<u64, Wrong> {
    let length: Millis = text
        .parse()
        .map_err(|error| (format!("{error}"), "write a length of time such as 500ms or 6s".to_owned()))?;
    if length > LONGEST {
        return Err((format!("{length} is too long"), format!("nothing lasts longer than {LONGEST}")));
    }
    Ok(length.0)
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, Wrong> {
    let wrong = || (format!("{text} does not fit"), format!("write a whole number from {least} to {most}"));
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(wrong)
}

/// Forms that begin with the same word as the line, or the nearest to it.
fn remedy(first: &str, forms: &[&str]) -> String {
    let verb = |form: &&str| form.split(' ').next().unwrap_or_default().to_owned();
    let same: Vec<&str> = forms.iter().filter(|form| verb(form) == first).copied().collect();
    if !same.is_empty() {
        return format!("write {}", same.join(" or "));
    }
    let verbs: Vec<String> = forms.iter().map(verb).collect();
    let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
    match nearest(first, &verbs) {
        Some(near) => format!("did you mean {near}? it takes {}", verbs.join(", ")),
        None => format!("it takes {}", verbs.join(", ")),
    }
}

/// Reads a fault, in a world of so many hosts.
pub(super) fn fault(text: &str, hosts: usize) -> Result<Fault, Wrong> {
    let said: Vec<&str> = text.split_whitespace().collect();
    for (form, make) in FAULTS {
        if let Some(values) = fits(form, &said, hosts)? {
            let fault = make(&values);
            return match fault {
                Fault::OneWay { from, to, .. }
                | Fault::Pair { from, to, .. }
                | Fault::Slow { from, to, .. }
                | Fault::CopyDisk { from, to, .. }
                    if from == to =>
                {
                    Err(("it names the same node twice".to_owned(), "name two nodes".to_owned()))
                }
                Fault::Split { first, .. } if first >= hosts => Err((
                    "nobody is left on the other side".to_owned(),
                    format!("split after a node before n{hosts}"),
                )),
                fault => Ok(fault),
            };
        }
    }
    let forms: Vec<&str> = FAULTS.iter().map(|(form, _)| *form).collect();
    Err((format!("{text:?} is no fault"), remedy(said.first().copied().unwrap_or_default(), &forms)))
}

/// What the placeholders stand for, if the words fit the form.
fn fits(form: &str, said: &[&str], hosts: usize) -> Result<Option<Values>, Wrong> {
    let form: Vec<&str> = form.split(' ').collect();
    let literal = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let same = form.iter().zip(said).all(|(wanted, word)| !literal(wanted) || wanted == word);
    if form.len() != said.len() || !same {
        return Ok(None);
    }
    let mut values = Values::default();
    for (wanted, word) in form.into_iter().zip(said) {
        match wanted {
            "NODE" => values.nodes.push(host(word, hosts)?),
            "TIME" => values.times.push(time(word)?),
            "PERCENT" => values.number = number(word, 0, 100)?,
            "SEGMENT" => values.number = number(word, 0, SEGMENTS as u64 - 1)?,
            "MS" => {
                let limit = i64::try_from(LONGEST.0).unwrap_or(i64::MAX);
                let fits = word.parse().ok().filter(|by: &i64| (-limit..=limit).contains(by));
                let wrong = || {
                    (format!("{word} does not fit"), format!("write milliseconds from -{limit} to {limit}"))
                };
                values.by = fits.ok_or_else(wrong)?;
            }
            _ => {}
        }
    }
    Ok(Some(values))
}

fn after(crash: bool) -> &'static str {
    if crash { "-after-crash" } else { "" }
}

fn gone(crash: bool) -> &'static str {
    if crash { "crashed" } else { "powerless" }
}

/// A fault as it is written, and as it is told.
pub(in crate::sim) fn said(fault: &Fault) -> (String, String) {
    let n = |host: &usize| name(*host);
    let t = |ms: &u64| Millis(*ms).to_string();
    match fault {
        Fault::Crash { host, ms } => (
            format!("crash {} for {}", n(host), t(ms)),
            format!("the node process of {} dies; another starts after {}", n(host), t(ms)),
        ),
        Fault::Restart { host } => {
            (format!("restart {}", n(host)), format!("the node process of {} is restarted", n(host)))
        }
        Fault::RestartOld { host } => (
            format!("restart-old {}", n(host)),
            format!("the node process of {} is restarted and begins with an older State", n(host)),
        ),
        Fault::KillGuard { host, ms } => (
            format!("kill-guard {} for {}", n(host), t(ms)),
            format!("the guard of {} dies; another starts after {}", n(host), t(ms)),
        ),
        Fault::KillTwin { host, ms } => (
            format!("kill-twin {} for {}", n(host), t(ms)),
            format!("the second holder of {} dies; another starts after {}", n(host), t(ms)),
        ),
        Fault::Reboot { host, ms } => (
            format!("reboot {} for {}", n(host), t(ms)),
            format!("{} loses power and boots again after {}", n(host), t(ms)),
        ),
        Fault::PowerLoss { ms } => {
            (format!("power-loss for {}", t(ms)), format!("every host loses power for {}", t(ms)))
        }
        Fault::FreezeNode { host, ms } => freeze("freeze-node", "the node process", *host, *ms),
        Fault::FreezeGuard { host, ms } => freeze("freeze-guard", "the guard", *host, *ms),
        Fault::FreezeTwin { host, ms } => freeze("freeze-twin", "the second holder", *host, *ms),
        Fault::FreezeBoth { host, ms } => freeze("freeze-both", "node process and guard", *host, *ms),
        Fault::FreezeAll { host, ms } => {
            freeze("freeze-all", "node process, guard and second holder", *host, *ms)
        }
        Fault::Pause { host, ms } => (
            format!("pause {} for {}", n(host), t(ms)),
            format!("{} stands still for {}, and its clock with it", n(host), t(ms)),
        ),
        Fault::Suspend { host, ms } => (
            format!("suspend {} for {}", n(host), t(ms)),
            format!("{} stands still for {}; its clock counts on", n(host), t(ms)),
        ),
        Fault::WallJump { host, by_ms } => (
            format!("wall-jump {} by {by_ms}", n(host)),
            format!("the wall clock of {} jumps by {by_ms} ms", n(host)),
        ),
        Fault::Isolate { host, ms } => (
            format!("isolate {} for {}", n(host), t(ms)),
            format!("{} is cut off from all others for {}", n(host), t(ms)),
        ),
        Fault::OneWay { from, to, ms } => (
            format!("one-way {} to {} for {}", n(from), n(to), t(ms)),
            format!("nothing from {} reaches {} for {}; the other way is open", n(from), n(to), t(ms)),
        ),
        Fault::Pair { from, to, ms } => (
            format!("cut {} from {} for {}", n(from), n(to), t(ms)),
            format!("{} and {} do not reach one another for {}", n(from), n(to), t(ms)),
        ),
        Fault::Split { first, ms } => (
            format!("split after {} for {}", n(&first.saturating_sub(1)), t(ms)),
            match first {
                1 => format!("n1 and the others do not reach one another for {}", t(ms)),
                _ => format!("n1 to n{first} and the others do not reach one another for {}", t(ms)),
            },
        ),
        Fault::Mute { host, ms } => (
            format!("mute {} for {}", n(host), t(ms)),
            format!("nobody hears {} for {}; it hears all", n(host), t(ms)),
        ),
        Fault::Deaf { host, ms } => (
            format!("deafen {} for {}", n(host), t(ms)),
            format!("{} hears nobody for {}; all hear it", n(host), t(ms)),
        ),
        Fault::LoseSegment { segment, ms } => (
            format!("lose-segment {segment} for {}", t(ms)),
            format!("segment {segment} carries nothing for {}", t(ms)),
        ),
        Fault::Slow { from, to, most_ms, ms } => (
            format!("slow {} to {} by {} for {}", n(from), n(to), t(most_ms), t(ms)),
            format!("what {} sends to {} comes up to {} late for {}", n(from), n(to), t(most_ms), t(ms)),
        ),
        Fault::Lossy { percent, ms } => (
            format!("lossy {percent} for {}", t(ms)),
            format!("{percent} % of all messages are lost for {}", t(ms)),
        ),
        Fault::Transfer { to } => {
            (format!("transfer to {}", n(to)), format!("the leader is to hand over to {}", n(to)))
        }
        Fault::ForcedQuorum { first, ms, crash } => (
            format!("force-quorum{} from {} for {}", after(*crash), n(first), t(ms)),
            format!(
                "a minority from {} on goes on by an operator's word; the {} others come back after {}",
                n(first),
                gone(*crash),
                t(ms)
            ),
        ),
        Fault::Restore { host, ms, crash } => (
            format!("restore{} {} for {}", after(*crash), n(host), t(ms)),
            format!(
                "a saved State is restored on {}; the {} others come back after {}",
                n(host),
                gone(*crash),
                t(ms)
            ),
        ),
        Fault::CrashLeader { ms } => (
            format!("crash-leader for {}", t(ms)),
            format!("the leader's node process dies; another starts after {}", t(ms)),
        ),
        Fault::FreezeLeader { ms } => (
            format!("freeze-leader for {}", t(ms)),
            format!("the leader's node process stands still for {}", t(ms)),
        ),
        Fault::IsolateLeader { ms } => (
            format!("isolate-leader for {}", t(ms)),
            format!("the leader is cut off from all others for {}", t(ms)),
        ),
        Fault::IsolateAndCrash { host, ms } => (
            format!("isolate-and-crash {} for {}", n(host), t(ms)),
            format!("{} is cut off for {}, and its node process dies", n(host), t(ms)),
        ),
        Fault::IsolateAndFreeze { host, ms } => (
            format!("isolate-and-freeze {} for {}", n(host), t(ms)),
            format!("{} is cut off for {}; its node process and guard stand still", n(host), t(ms)),
        ),
        Fault::Wipe { host, ms } => (
            format!("wipe {} for {}", n(host), t(ms)),
            format!("{} is switched off and comes back after {} with an empty disk", n(host), t(ms)),
        ),
        Fault::WipeRunning { host } => (
            format!("wipe-running {}", n(host)),
            format!("the data directory of {} is emptied; what runs goes on", n(host)),
        ),
        Fault::CopyDisk { from, to, ms } => (
            format!("copy-disk {} to {} for {}", n(from), n(to), t(ms)),
            format!(
                "{} is switched off and comes back after {} with a copy of {}'s disk",
                n(to),
                t(ms),
                n(from)
            ),
        ),
        Fault::DiskFull { host, ms } => (
            format!("disk-full {} for {}", n(host), t(ms)),
            format!("nothing can be written to the disk of {} for {}", n(host), t(ms)),
        ),
        Fault::EngineFails { host, ms } => (
            format!("engine-fails {} for {}", n(host), t(ms)),
            format!("the engine of {} fails every start for {}", n(host), t(ms)),
        ),
        Fault::EngineHangs { host, ms } => (
            format!("engine-hangs {} for {}", n(host), t(ms)),
            format!("the engine of {} hangs in every call for {}", n(host), t(ms)),
        ),
    }
}

fn freeze(verb: &str, who: &str, host: usize, ms: u64) -> (String, String) {
    let (n, t) = (name(host), Millis(ms));
    let goes = if who.contains(" and ") { "stand" } else { "stands" };
    (format!("{verb} {n} for {t}"), format!("{who} of {n} {goes} still for {t}"))
}

/// Reads a request, in a world of so many hosts.
pub(super) fn ask(text: &str, hosts: usize) -> Result<Command, Wrong> {
    const REASON: &str = "the scenario asks for it";
    let said: Vec<&str> = text.split_whitespace().collect();
    let node = |word: &str| -> Result<NodeId, Wrong> {
        let host = host(word, hosts)?;
        name(host).parse().map_err(|error| (format!("{error}"), String::new()))
    };
    let service = |word: &str| -> Result<ServiceName, Wrong> {
        word.parse().map_err(|error| (format!("{error}"), "name a service of the scenario".to_owned()))
    };
    Ok(match said[..] {
        ["scale", name, copies] => {
            let replicas = u32::try_from(number(copies, 0, u64::from(MOST_COPIES))?).unwrap_or(MOST_COPIES);
            Command::Scale { service: service(name)?, replicas }
        }
        ["restart", name] => Command::Restart { service: service(name)? },
        ["stop", name] => Command::StopService { service: service(name)? },
        ["delete", name] => Command::DeleteService { service: service(name)? },
        ["drain", name] => Command::Drain { node: node(name)?, max_in_flight: 2 },
        ["cordon", name] => Command::Cordon { node: node(name)?, on: true },
        ["uncordon", name] => Command::Uncordon { node: node(name)? },
        ["migrate", slot, "to", to] => {
            let slot: SlotId =
                slot.parse().map_err(|error| (format!("{error}"), "write a slot such as db/0".to_owned()))?;
            Command::Migrate { slot, to: Some(node(to)?), parent: None }
        }
        ["fence", name] => Command::Fence { node: node(name)?, reason: REASON.to_owned() },
        ["attest", name] => Command::AttestDead { node: node(name)?, reason: REASON.to_owned() },
        ["leave", name] => Command::Leave { node: node(name)? },
        ["cancel", operation] => {
            let wrong = |_| (format!("{operation} is no operation"), "write its number".to_owned());
            Command::CancelOperation { operation: operation.parse::<OperationId>().map_err(wrong)? }
        }
        ["set", name, value] => {
            let change = SettingChange { name: name.to_owned(), value: value.to_owned() };
            Command::ChangeSettings(vec![change])
        }
        ["put", key, value] => {
            let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
            Command::KvPut { key, value, ttl: None, if_revision: None }
        }
        _ => {
            let first = said.first().copied().unwrap_or_default();
            return Err((format!("{text:?} is no request"), remedy(first, &ASKS)));
        }
    })
}

/// What an operator asks, in a few words.
pub(in crate::sim) fn asked(command: &Command) -> String {
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes).map_or_else(|_| format!("{} bytes", bytes.len()), ToOwned::to_owned)
    };
    match command {
        Command::Deploy { spec } => format!("deploy {}", spec.name),
        Command::Scale { service, replicas } => format!("scale {service} {replicas}"),
        Command::Restart { service } => format!("restart {service}"),
        Command::StopService { service } => format!("stop {service}"),
        Command::DeleteService { service } => format!("delete {service}"),
        Command::Drain { node, .. } => format!("drain {node}"),
        Command::Cordon { node, on: true } => format!("cordon {node}"),
        Command::Cordon { node, on: false } | Command::Uncordon { node } => format!("uncordon {node}"),
        Command::Migrate { slot, to: Some(to), .. } => format!("migrate {slot} to {to}"),
        Command::Migrate { slot, to: None, .. } => format!("migrate {slot}"),
        Command::Fence { node, .. } => format!("fence {node}"),
        Command::AttestDead { node, .. } => format!("attest {node}"),
        Command::Leave { node } => format!("leave {node}"),
        Command::CancelOperation { operation } => format!("cancel {operation}"),
        Command::ChangeSettings(changes) => {
            let changes: Vec<String> =
                changes.iter().map(|change| format!("{} {}", change.name, change.value)).collect();
            format!("set {}", changes.join(", "))
        }
        Command::KvPut { key, value, .. } => format!("put {} {}", text(key), text(value)),
        Command::KvDelete { key, .. } => format!("remove {}", text(key)),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A form with something in place of each of its placeholders.
    fn example(form: &str) -> String {
        let mut nodes = ["n1", "n2"].into_iter();
        let word = |word: &str| match word {
            "NODE" => nodes.next().unwrap().to_owned(),
            "TIME" => "1500ms".to_owned(),
            "PERCENT" => "20".to_owned(),
            "SEGMENT" => "1".to_owned(),
            "MS" => "-3000".to_owned(),
            "SERVICE" => "db".to_owned(),
            "SLOT" => "db/0".to_owned(),
            "N" | "OPERATION" => "3".to_owned(),
            other => other.to_lowercase(),
        };
        form.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_fault_and_request_reads_back_as_it_is_said() {
        for (form, _) in FAULTS {
            let line = example(form);
            let fault = fault(&line, 3).unwrap_or_else(|wrong| panic!("{line}: {wrong:?}"));
            assert_eq!(said(&fault).0, line);
            assert!(!said(&fault).1.is_empty());
        }
        for form in ASKS {
            let line = example(form);
            let command = ask(&line, 3).unwrap_or_else(|wrong| panic!("{line}: {wrong:?}"));
            assert_eq!(asked(&command), line);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_write() {
        let wrong = |line: &str| {
            let (message, remedy) = fault(line, 3).unwrap_err();
            format!("{message}; {remedy}")
        };
        assert!(wrong("isolate n9 for 1s").contains("n1 to n3"));
        assert!(wrong("isolate n1").contains("isolate NODE for TIME"));
        assert!(wrong("isolat n1 for 1s").contains("did you mean isolate"));
        assert!(wrong("isolate n1 for 9").contains("500ms"));
        assert!(wrong("isolate n1 for 9d").contains("too long"));
        assert!(wrong("cut n1 from n1 for 1s").contains("two nodes"));
        assert!(wrong("split after n3 for 1s").contains("other side"));
        assert!(wrong("lossy 200 for 1s").contains("0 to 100"));
        assert!(wrong("").contains("it takes crash"));
        let (message, remedy) = ask("drian n1", 3).unwrap_err();
        assert!(message.contains("no request") && remedy.contains("did you mean drain"), "{remedy}");
        assert!(ask("drain n4", 3).unwrap_err().1.contains("n1 to n3"));
    }
}
