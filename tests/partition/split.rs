//! A cluster split three to two, with services of all priorities on the smaller side: each stops by its own
//! deadline or runs on, each starts on the other side at its time and not before, nothing ever runs twice, and
//! the heal restarts nothing that did not have to be. QUORATE_ROUNDS says how often, QUORATE_SEED repeats the
//! timings of a run.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::clients::Clients;
use crate::judge::runs::{Reader, Span};
use crate::rig::{Cluster, INTERVAL, LEASE, MARGIN, Service, boottime_ns, ms, setting};
use crate::wait::await_some;

/// How far the rate of a clock may be off, on both sides.
const DRIFT: f64 = 1.01 / 0.99;
/// A heartbeat of a busy machine may be late by this much, and the next one never comes.
const LATE: Duration = Duration::from_secs(1);

/// What a round draws.
struct Draw {
    minority: [usize; 2],
    majority: [usize; 3],
    /// Cut while the ways lose packets already: of a thousand so many.
    loss: u32,
    /// From the services running to the cut.
    before: Duration,
    /// From the last start on the majority to the end of the critical one's node.
    lull: Duration,
    /// Proven by the fence device, or by the operator's word?
    fenced: bool,
    normal: Duration,
    high: Duration,
    stubborn: bool,
}

impl Draw {
    fn new(random: &mut SmallRng) -> Self {
        let mut nodes = [0, 1, 2, 3, 4];
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, random.random_range(0..=at));
        }
        let mut span = |to| Duration::from_millis(random.random_range(0..to));
        let (before, lull, normal, high) = (span(1_500), span(1_000), span(1_500), span(3_000));
        Self {
            minority: [nodes[0], nodes[1]],
            majority: [nodes[2], nodes[3], nodes[4]],
            loss: if random.random_bool(0.3) { random.random_range(20..150) } else { 0 },
            before,
            lull,
            fenced: random.random_bool(0.5),
            normal: normal + Duration::from_millis(100),
            high: high + Duration::from_millis(500),
            stubborn: random.random_bool(0.5),
        }
    }
}

#[test]
fn a_split_of_three_to_two_stops_each_service_by_its_deadline_and_starts_it_elsewhere_only_after() {
    let Some(mut cluster) = Cluster::formed(5) else { return };
    let rounds = setting("QUORATE_ROUNDS").unwrap_or(3);
    let seed = setting("QUORATE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{rounds} rounds with QUORATE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut reader = Reader::default();
    let clients = Clients::start(&cluster);
    let bystanders: Vec<Service> =
        (0..5).map(|at| Service::new(format!("by-{at}"), "normal").at(cluster.name(at))).collect();
    cluster.deploy(0, &bystanders);
    for round in 0..rounds {
        one_round(&mut cluster, &mut reader, round, &Draw::new(&mut random));
    }
    let history = clients.judge(&cluster);
    reader.catch_up(&cluster.records());
    println!(
        "{rounds} rounds: {} slots, {} overlaps; {} writes acknowledged, {} refused, {} unknown, {} reads, {} breaches",
        reader.runs.slots().count(),
        reader.runs.overlaps().len(),
        history.acknowledged,
        history.refused,
        history.unknown,
        history.reads,
        history.breaches.len()
    );
    for breach in &history.breaches {
        println!("breach: {breach}");
    }
    assert!(reader.runs.overlaps().is_empty(), "{:#?}", reader.runs.overlaps());
    assert!(reader.runs.disorder().is_empty(), "{:#?}", reader.runs.disorder());
    assert!(history.breaches.is_empty());
    assert!(
        history.acknowledged > 0 && history.refused > 0 && history.reads > 0,
        "the clients did too little"
    );
}

fn one_round(cluster: &mut Cluster, reader: &mut Reader, round: u64, draw: &Draw) {
    let Draw { minority, majority, .. } = draw;
    let [dies, stays] = *minority;
    let safe = majority[0];
    let service =
        |kind: &'static str, at: usize| Service::new(format!("{kind}-{round}"), kind).at(cluster.name(at));
    let low = service("low", dies);
    let normal = Service { grace: draw.normal, stubborn: draw.stubborn, ..service("normal", stays) };
    let high = Service { grace: draw.high, stubborn: !draw.stubborn, ..service("high", dies) };
    let critical = service("critical", dies);
    let kept = Service { name: format!("kept-{round}"), ..service("critical", stays) };
    let stopping = [(&low, Duration::ZERO, dies), (&normal, draw.normal, stays), (&high, draw.high, dies)];
    cluster.deploy(safe, &[&low, &normal, &high, &critical, &kept].map(Clone::clone));
    for (service, at) in [(&low, dies), (&normal, stays), (&high, dies), (&critical, dies), (&kept, stays)] {
        cluster.await_home(reader, &service.slot(), at);
    }
    // What the cut need not touch: the bystanders, and what was deployed for this round. Services of the round before
    // may have ended a moment ago.
    let of_before =
        |span: &&Span| !span.slot.starts_with("by-") && !span.slot.contains(&format!("-{round}/"));
    std::thread::sleep(draw.before);
    reader.catch_up(&cluster.records());
    let on = |at: usize, span: &&Span| span.node == cluster.name(at);
    let untouched: Vec<Span> = reader
        .runs
        .slots()
        .filter_map(|slot| reader.runs.of(slot).last())
        .filter(|span| !of_before(span))
        .filter(|span| majority.iter().any(|at| on(*at, span)) && ms(span.last, boottime_ns()) < 500)
        .chain(reader.runs.of(&kept.slot()).last())
        .cloned()
        .collect();
    assert!(!untouched.is_empty());

    let apart = |from: usize, to: usize| minority.contains(&from) != minority.contains(&to);
    let begun = boottime_ns();
    if draw.loss > 0 {
        cluster.lab.lose(draw.loss, |way| apart(way.from, way.to));
        std::thread::sleep(Duration::from_millis(500));
    }
    cluster.lab.cut(|way| apart(way.from, way.to));
    let cut = boottime_ns();

    let mut figures = Vec::new();
    for (service, grace, home) in &stopping {
        let later = cluster.await_life(reader, &service.slot(), majority);
        let lives = reader.runs.of(&service.slot());
        let earlier = &lives[lives.len() - 2];
        assert_eq!(earlier.node, cluster.name(*home), "{lives:#?}");
        let (ended, started) = (ms(cut, earlier.last), ms(begun, later.first));
        let deadline = LEASE + *grace + MARGIN;
        assert!(
            ended <= millis(deadline),
            "{}: still ran {ended} ms after the cut: {lives:#?}",
            service.name
        );
        let asked = ms(begun, earlier.stopped.unwrap_or(earlier.last));
        assert!(asked >= millis(LEASE) - millis(LATE), "{}: ended after {ended} ms", service.name);
        let due = deadline.mul_f64(DRIFT);
        assert!(
            started >= millis(due) - millis(LATE),
            "{}: started {started} ms after the cut",
            service.name
        );
        assert!(
            service.priority != "low" || earlier.stopped.is_none(),
            "low was asked to end, and not killed"
        );
        figures.push(format!("{} ended {ended} started {started}", service.priority));
    }

    // The critical ones run on where they were, and nowhere else.
    let held = |reader: &mut Reader, service: &Service, at: usize| {
        let life = cluster.await_life(reader, &service.slot(), &[at]);
        let since = reader.runs.of(&service.slot()).iter().filter(|life| life.last > begun).count();
        assert_eq!(since, 1, "{} ran elsewhere too", service.name);
        life
    };
    held(reader, &critical, dies);
    held(reader, &kept, stays);
    await_some("the critical one is told as running unconfirmed", || {
        let rows = cluster.instances(safe)?;
        let row = rows.iter().find(|row| row["service"] == critical.name.as_str());
        let good = row.is_some_and(|row| row["state"] == "running_unconfirmed");
        if good { Ok(()) } else { Err(format!("{row:?}")) }
    });
    let status = cluster.json(stays, &["status", "--local"]).unwrap();
    assert_eq!(status["standing"]["quorum"], false, "{status}");

    std::thread::sleep(draw.lull);
    let last_of = held(reader, &critical, dies);
    let name = cluster.name(dies).to_owned();
    if draw.fenced {
        cluster.done(safe, &["fence", &name, "--reason", "its side is cut off"]);
    } else {
        cluster.lab.power_off(dies);
        cluster.done(safe, &["attest", &name, "--dead", "--reason", "its power was cut"]);
    }
    let dead = boottime_ns();
    let later = cluster.await_life(reader, &critical.slot(), majority);
    cluster.buried(dies);
    let last = reader.runs.of(&critical.slot()).iter().find(|life| life.pid == last_of.pid).unwrap().last;
    figures.push(format!("critical ended {} started {}", ms(cut, last), ms(cut, later.first)));
    assert!(later.first > last, "critical started before its node was dead");
    if !draw.fenced {
        assert!(later.first > begun && ms(dead, later.first) < 30_000);
    }

    cluster.lab.heal();
    cluster.start(dies, &[]);
    cluster.await_whole();
    // Whoever would be restarted by the heal would be by then.
    std::thread::sleep(2 * INTERVAL);
    reader.catch_up(&cluster.records());
    for before in &untouched {
        let now = reader.runs.of(&before.slot).last().unwrap();
        let same = (now.pid, now.token) == (before.pid, before.token);
        assert!(same && ms(now.last, boottime_ns()) < 1_000, "restarted or ended: {before:?} is now {now:?}");
    }
    println!(
        "round {round}: {:?} cut off, loss {}, {}, {} untouched; ms after the cut: {}",
        cluster.names(minority),
        draw.loss,
        if draw.fenced { "fenced" } else { "attested" },
        untouched.len(),
        figures.join(", ")
    );
    for service in [&low, &normal, &high, &critical, &kept] {
        cluster.done(safe, &["delete", &service.name]);
    }
    await_some("what the round deployed is gone", || {
        let rows = cluster.instances(safe)?;
        let left = rows.iter().filter(|row| row["service"].as_str().unwrap().ends_with(&format!("-{round}")));
        let left: Vec<_> = left.filter(|row| !row["service"].as_str().unwrap().starts_with("by-")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap()
}
