//! What a description must give and what it must refuse, with the words an operator sees.

use super::*;

const FULL: &str = r#"
name: web
executor: process
priority: high
replicas: 3
exclusive: false
labels: {team: shop, release: 1.10, tier: "7"}
spec: {command: [/usr/bin/web, --port, 8080], environment: {MODE: "on", RATE: 1.50}, working_dir: , user: www-data, cpu_limit: 0.5, memory_limit: 128, pids_limit: 100}
state: {dir: data}
resources: {cpu: 0.2, memory_mib: 64}
placement: {constraints: ["zone == a", node != n1], affinity: [disk == ssd, {constraint: rack != r1, weight: -20}], spread: require}
health: {http: {port: 8080, path: /healthz}, interval: 1s, timeout: 500ms, failures: 3, successes: 1, start_period: 2s}
stop: {signal: SIGTERM, grace: 10s}
restart: {policy: always, backoff: 1s..60s}
on_isolation: keep
"#;

pub(super) fn one(text: &str) -> ServiceSpec {
    parse_one(text, &SpecDefaults::default()).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

pub(super) fn errors(text: &str) -> Vec<SpecError> {
    parse(text, &SpecDefaults::default()).expect_err(text).0
}

/// The only error of the text.
pub(super) fn error(text: &str) -> SpecError {
    let mut errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn with(line: &str) -> String {
    format!("name: web\nspec: {{command: [web]}}\n{line}\n")
}

#[test]
fn every_word_of_the_description_is_read() {
    let spec = one(FULL);
    let Workload::Process(process) = &spec.workload else { panic!("{spec:?}") };
    assert_eq!(spec.priority, Priority::High);
    assert_eq!((spec.replicas, spec.exclusive, spec.keep_on_isolation), (3, Some(false), true));
    assert_eq!(spec.labels["release"], "1.10");
    assert_eq!(process.command, ["/usr/bin/web", "--port", "8080"]);
    assert_eq!((&*process.environment["MODE"], &*process.environment["RATE"]), ("on", "1.50"));
    assert_eq!((&process.working_dir, process.user.as_deref()), (&None, Some("www-data")));
    assert_eq!(process.limits.cpu, Some(CpuMillis(500)));
    assert_eq!((process.limits.memory, process.limits.pids), (Some(MemoryMib(128)), Some(100)));
    assert_eq!(spec.state_dir.as_deref(), Some("data"));
    assert_eq!(spec.resources, Resources { cpu: CpuMillis(200), memory: MemoryMib(64) });
    let conditions: Vec<String> = spec.placement.constraints.iter().map(ToString::to_string).collect();
    assert_eq!(conditions, ["zone == a", "node != n1"]);
    assert_eq!(spec.placement.affinity[1].weight, -20);
    assert_eq!(spec.placement.spread, Spread::Require);
    let health = spec.health.unwrap();
    assert_eq!(health.probe, HealthProbe::Http { port: 8080, path: "/healthz".to_owned() });
    assert_eq!((health.interval, health.timeout), (Millis(1_000), Millis(500)));
    assert_eq!(spec.stop, StopPolicy { signal: 15, grace: Millis(10_000) });
    assert_eq!(spec.restart.backoff_max, Millis(60_000));
}

#[test]
fn json_is_read_like_yaml() {
    let json = r#"{"name": "web", "spec": {"command": ["web"]}, "stop": {"signal": "INT", "grace": "5s"}}"#;
    assert_eq!(one(json), one(&with("stop: {signal: 2, grace: 5s}")));
}

#[test]
fn what_is_not_said_is_the_default() {
    let spec = one("name: web\nspec: {command: [web], cpu_limit: 2, memory_limit: 64}\n");
    assert_eq!((spec.priority, spec.replicas, spec.exclusive), (Priority::Normal, 1, None));
    assert_eq!(spec.resources, Resources { cpu: CpuMillis(2_000), memory: MemoryMib(64) });
    assert_eq!((spec.health, spec.state_dir, spec.keep_on_isolation), (None, None, false));
    let low = SpecDefaults { priority: Priority::Low, ..SpecDefaults::default() };
    assert_eq!(parse_one(&with(""), &low).unwrap().priority, Priority::Low);
}

#[test]
fn the_priority_may_come_from_either_label() {
    for label in ["quorate/priority", "pulsar/priority"] {
        let spec = one(&with(&format!("labels: {{{label}: critical, a: b}}")));
        assert_eq!(spec.priority, Priority::Critical);
        assert_eq!(spec.labels.len(), 1, "the label is kept beside the priority it became");
    }
    let error = error(&with("priority: low\nlabels: {quorate/priority: high}"));
    assert!(error.message.contains("label says high"), "{error}");
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known() {
    let error = error(&with("health:\n  tcp: {port: 80}\n  intervall: 2s"));
    assert_eq!((error.line, error.column, error.field.as_str()), (5, 3, "health.intervall"));
    assert_eq!(error.remedy, "did you mean interval?");
    assert_eq!(
        error.to_string(),
        "line 5, column 3: health.intervall: the key \"intervall\" is unknown; did you mean interval?"
    );
}

#[test]
fn all_errors_of_a_text_are_told_at_once_in_order() {
    let found = errors(
        "name: a/b\nreplicas: 10001\nexecutor: dcoker\nspec: {command: [], memory_limit: 1GB}\nstop: {signal: SIGFOO}\n",
    );
    let fields: Vec<_> = found.iter().map(|error| (error.line, error.field.as_str())).collect();
    assert_eq!(fields, [(1, "name"), (2, "replicas"), (3, "executor"), (5, "stop.signal")]);
    assert!(found[2].remedy.contains("did you mean docker"), "{}", found[2]);
    let found = errors("name: a\nspec: {command: [], memory_limit: 1GB}\n");
    assert_eq!(
        found.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(),
        ["spec.command", "spec.memory_limit"]
    );
}

#[test]
fn wrong_values_are_refused_where_they_stand() {
    let cases = [
        ("replicas: three", "replicas", "whole number"),
        ("replicas: -1", "replicas", "whole number"),
        ("replicas: '3'", "replicas", "whole number"),
        ("exclusive: yes", "exclusive", "true or false"),
        ("priority: urgent", "priority", "not a value"),
        ("labels: [a]", "labels", "a mapping"),
        ("state: {dir: ../x}", "state.dir", "leaves"),
        ("state: {dir: /x}", "state.dir", "leaves"),
        ("resources: {cpu: 1e3}", "resources.cpu", "a number"),
        ("placement: {constraints: [zone]}", "placement.constraints[0]", "not a condition"),
        (
            "placement: {affinity: [{constraint: a == b, weight: 101}]}",
            "placement.affinity[0].weight",
            "-100 to 100",
        ),
        ("health: {interval: 1s}", "health", "asks nothing"),
        ("health: {tcp: {port: 1}, http: {port: 1}}", "health.tcp", "too many"),
        ("health: {tcp: {port: 70000}}", "health.tcp.port", "65535"),
        ("health: {tcp: {port: 1}, interval: 10}", "health.interval", "length of time"),
        ("health: {http: {port: 1, path: x}}", "health.http.path", "not a path"),
        ("stop: {grace: 25h}", "stop.grace", "out of range"),
        ("stop: {signal: 65}", "stop.signal", "not a signal"),
        ("restart: {backoff: 60s..1s}", "restart.backoff", "longer"),
        ("restart: {policy: sometimes}", "restart.policy", "not a value"),
        ("exclusive: true\non_isolation: keep", "on_isolation", "twice"),
    ];
    for (line, field, message) in cases {
        let error = error(&with(line));
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(!error.remedy.is_empty() && error.line >= 3, "{error}");
    }
}

#[test]
fn wrong_processes_are_refused_where_they_stand() {
    let long = "x".repeat(65_536);
    let many = vec!["x"; 257].join(",");
    let cases = [
        ("command: run me".to_owned(), "spec.command", "never one text"),
        ("command: ['']".to_owned(), "spec.command", "no program"),
        (format!("command: [{many}]"), "spec.command", "257 entries"),
        (format!("command: [a, {long}]"), "spec.command", "65537 bytes"),
        ("command: [\"a\\0b\"]".to_owned(), "spec.command[0]", "zero byte"),
        ("command: [a], environment: {1A: b}".to_owned(), "spec.environment.1A", "name of a variable"),
        (
            "command: [a], environment: {QUORATE_NODE: b}".to_owned(),
            "spec.environment.QUORATE_NODE",
            "node itself",
        ),
        (format!("command: [a], environment: {{A: {long}}}"), "spec.environment", "bytes"),
        ("command: [a], user: 'a b'".to_owned(), "spec.user", "not an account"),
        ("command: [a], cpu_limit: 0".to_owned(), "spec.cpu_limit", "0.001"),
        ("command: [a], image: nginx".to_owned(), "spec.image", "unknown"),
        ("environment: {}".to_owned(), "spec.command", "missing"),
    ];
    for (inner, field, message) in cases {
        let error = error(&format!("name: web\nspec: {{{inner}}}\n"));
        assert_eq!(error.field, field, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn several_services_may_share_a_file_but_not_a_name() {
    let text = format!("---\n{}---\n{}", with(""), with("").replace("web", "db"));
    let specs = parse(&text, &SpecDefaults::default()).unwrap();
    assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["web", "db"]);
    assert!(parse_one(&text, &SpecDefaults::default()).unwrap_err().0[0].message.contains("2 services"));
    let twice = error(&format!("{}---\n{}", with(""), with("")));
    assert!(twice.message.contains("already described on line 1"), "{twice}");
    for nothing in ["", "---\n", "# only words\n"] {
        assert!(error(nothing).message.contains("no service"));
    }
}

#[test]
fn hostile_texts_are_refused_with_one_clear_error() {
    assert!(error("name: [web").line >= 1);
    assert!(error("name: web\n\tspec: x\n").remedy.contains("tabs"));
    assert!(errors("- a\n- b\n")[0].message.contains("a list where a mapping"));
    let ten_megabytes = "a: b\n".repeat(2_000_000);
    assert!(error(&ten_megabytes).message.contains("10000000 bytes"));
    let unknown: String = (0..10_000).map(|n| format!("key{n}: 1\n")).collect();
    assert_eq!(errors(&unknown).len(), 50);
    let twice = error(&with("name: other"));
    assert!(twice.message.contains("already on line 1"), "{twice}");
}

#[test]
fn the_canonical_text_reads_back_as_the_same_service() {
    let odd = with(
        "exclusive: true\nlabels: {'a:#b': \"x\\ny # 'é' \\u2028\", empty: '', yes: 'no', n: '0x1', d: '- x'}\n\
         health: {exec: {command: [sh, -c, 'exit 0']}, interval: 90s}\nstop: {signal: 40, grace: 1500ms}\n\
         resources: {cpu: 1.005}\nrestart: {policy: never, backoff: 10ms..1d}",
    );
    for text in [FULL, &odd, &with("health: {grpc: {port: 1, service: a.B}}"), &with("replicas: 0")] {
        let spec = one(text);
        let canonical = spec.to_yaml();
        assert_eq!(one(&canonical), spec, "{canonical}");
        assert_eq!(one(&canonical).to_yaml(), canonical);
    }
}

#[test]
fn differences_are_told_by_field() {
    let old = one(FULL);
    let mut new = old.clone();
    new.replicas = 5;
    new.labels.remove("team");
    new.health = None;
    let Workload::Process(process) = &mut new.workload else { panic!("{new:?}") };
    process.environment.insert("NEW".to_owned(), "1".to_owned());
    let changes: Vec<String> = diff(&old, &new)
        .iter()
        .map(|c| format!("{}: {:?} -> {:?}", c.path, c.old.as_deref(), c.new.as_deref()))
        .collect();
    assert_eq!(changes[0], "replicas: Some(\"3\") -> Some(\"5\")");
    assert_eq!(changes[1], "spec.environment.NEW: None -> Some(\"\\\"1\\\"\")");
    assert_eq!(changes[2], "labels.team: Some(\"shop\") -> None");
    assert_eq!(changes.len(), 3 + 7, "{changes:#?}");
    assert_eq!(diff(&old, &old), []);
}
