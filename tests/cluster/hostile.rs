//! Input that is wrong, absurd or meant to harm: each gets a clear error, and the node, its leadership and
//! its services are as they were.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate::api::proto;
use rustix::process::Signal;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::rig::{Cluster, http_get, record, runs, send, workload};
use crate::wait::await_some;
use crate::wire::{Caller, HELLO, Packet, connect, headers, hung_up};

/// Longer than any patience of a node with those it does not know.
const LONG: Duration = Duration::from_secs(60);
/// What a node may take beyond what it had, however it is treated.
const MORE_MIB: u64 = 192;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const PUT: &str = "/quorate.v1.KV/Put";
const DEPLOY: &str = "/quorate.v1.ServiceService/DeployService";
const WATCH: &str = "/quorate.v1.ViewService/Watch";

/// A cluster of one node, and room for another, with a service; and what must not change.
struct Target {
    cluster: Cluster,
    secret: String,
    node: u64,
    service: u64,
    term: u64,
    memory_mib: u64,
}

impl Target {
    fn new() -> Self {
        let mut cluster = Cluster::prepared(2);
        cluster.start(0, &[]);
        cluster.ready(0);
        let record_of = cluster.dir.path().join("solo.jsonl");
        cluster.deploy(0, &workload("solo", "exclusive: true", &record_of));
        let service = cluster.running(0, "solo", 1)[0]["pid"].as_u64().unwrap();
        let node = cluster.node(0, 0).unwrap()["pid"].as_u64().unwrap();
        let term = cluster.json(0, &["raft", "status"]).unwrap()["term"].as_u64().unwrap();
        let secret = std::fs::read_to_string(cluster.data(0).join("secret")).unwrap().trim().to_owned();
        Self { secret, node, service, term, memory_mib: peak_mib(node), cluster }
    }

    fn bind(&self) -> u16 {
        self.cluster.members[0].bind
    }

    fn grpc(&self) -> u16 {
        self.cluster.members[0].grpc
    }

    fn http(&self) -> u16 {
        self.cluster.members[0].http
    }

    /// It leads as it did, its service is the same process, it reads and writes, and took little memory.
    #[track_caller]
    fn unharmed(&self) {
        self.cluster.put(0, "after", "all");
        assert_eq!(self.cluster.get(0, "after"), "all");
        assert!(self.cluster.is_ready(0));
        let raft = self.cluster.json(0, &["raft", "status"]).unwrap();
        assert_eq!(
            (raft["role"].as_str(), raft["term"].as_u64()),
            (Some("leader"), Some(self.term)),
            "{raft}"
        );
        assert_eq!(self.cluster.node(0, 0).unwrap()["pid"].as_u64(), Some(self.node));
        let row = self.cluster.running(0, "solo", 1).remove(0);
        assert_eq!(row["pid"].as_u64(), Some(self.service), "{row}");
        assert!(runs(self.service));
        let starts = record(&self.cluster.dir.path().join("solo.jsonl"));
        assert_eq!(starts.iter().filter(|line| line.event == "start").count(), 1);
        let memory = peak_mib(self.node);
        assert!(memory < self.memory_mib + MORE_MIB, "{} MiB, then {memory} MiB", self.memory_mib);
    }
}

/// The most memory that a process ever had.
fn peak_mib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn descriptors(pid: u64) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// As many as stay open: those of callers that have gone are closed in a while.
fn settled_descriptors(pid: u64) -> usize {
    let (mut count, mut times) = (descriptors(pid), 0);
    await_some("its descriptors settle", || {
        let now = descriptors(pid);
        times = if now == count { times + 1 } else { 0 };
        count = now;
        if times >= 20 { Ok(now) } else { Err(format!("{now}, {times} times")) }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(LONG, work).await.expect("an answer in time") })
}

#[test]
fn wrong_and_absurd_specifications_are_refused_with_their_place_and_a_remedy() {
    let target = Target::new();
    let bomb: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain((1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))))
        .collect();
    let with = |line: &str| format!("name: web\nspec: {{command: [sleep, 60]}}\n{line}\n").into_bytes();
    let deep = format!("name: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "line 1"),
        ("malformed", b"name: web\nspec: {command: [sleep\n".to_vec(), "line"),
        ("tabs", b"name: web\n\tspec: 1\n".to_vec(), "not with tabs"),
        ("bomb", bomb.into_bytes(), "line"),
        ("deep", deep.into_bytes(), "line"),
        ("unknown", with("replicsa: 2"), "did you mean replicas?"),
        ("replicas", with("replicas: 4000000000"), "whole number"),
        ("negative", with("replicas: -1"), "whole number"),
        ("memory", with("resources: {memory_mib: 99999999999999999999999}"), "memory_mib"),
        ("cpu", with("resources: {cpu: 1e99}"), "cpu"),
        ("grace", with("stop: {grace: 999999999h}"), "grace"),
        ("control", with("labels: {\"\\e[2J\": x}"), "labels.\u{fffd}[2J"),
        ("bytes", b"name: \xff\xfe".to_vec(), "UTF-8"),
        ("large", vec![b'#'; 10 * 1024 * 1024], "larger than 1048576 bytes"),
    ];
    let file = target.cluster.dir.path().join("wrong.yaml");
    for (what, text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        for command in ["deploy", "plan"] {
            let output = target.cluster.run(0, &[command, "-f", file.to_str().unwrap()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} {what}: {said}");
            assert!(said.contains(expected), "{command} {what}: {said}");
            assert!(said.len() < 16 * 1024, "{command} {what}: {} bytes of errors", said.len());
        }
    }
    // A client that checks nothing itself.
    run(async {
        let mut caller = Caller::to(target.grpc(), Some(&target.secret)).await;
        for (bytes, code, expected) in [
            (1_500_000, Code::InvalidArgument, "at most 1048576"),
            (10 * 1024 * 1024, Code::OutOfRange, "the limit is"),
        ] {
            let ask = proto::DeployServiceRequest { spec: "#".repeat(bytes), options: None };
            let error = caller.ask::<_, proto::WriteResponse>(DEPLOY, ask).await.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(expected), "{error}");
        }
        for bytes in [1_900_000, 64 * 1024 * 1024] {
            let value = Bytes::from(vec![7; bytes]);
            let ask = proto::PutRequest { key: "k".into(), value, ..proto::PutRequest::default() };
            let error = caller.ask::<_, proto::PutResponse>(PUT, ask).await.unwrap_err();
            let refused = matches!(error.code(), Code::FailedPrecondition | Code::OutOfRange);
            assert!(refused && !error.message().is_empty(), "{bytes}: {error}");
        }
    });
    let services = target.cluster.json(0, &["services"]).unwrap();
    assert_eq!(services["items"].as_array().unwrap().len(), 1, "{services}");
    target.unharmed();
}

#[test]
fn callers_without_the_secret_are_denied_on_every_port_and_only_health_answers_them() {
    let mut target = Target::new();
    let denied = |error: Status| {
        assert_eq!(error.code(), Code::Unauthenticated, "{error}");
        assert!(error.message().starts_with("denied: the cluster secret is"), "{error}");
    };
    run(async {
        for secret in [None, Some("0123456789abcdef0123456789abcdef")] {
            let mut api = Caller::to(target.grpc(), secret).await;
            let paths =
                [PUT, DEPLOY, WATCH, REFLECTION, "/quorate.cluster.v1.Bulk/StateFolder", "/no.such/Call"];
            for path in paths {
                denied(api.ask::<Packet, Packet>(path, Packet::default()).await.unwrap_err());
            }
            let mut node = Caller::to(target.bind(), secret).await;
            let paths = [
                "/quorate.cluster.v1.Cluster/Register",
                "/quorate.cluster.v1.Cluster/Heartbeat",
                "/quorate.cluster.v1.Cluster/Forward",
                "/quorate.internal.v1.Peer/Stream",
                "/quorate.internal.v1.Peer/Snapshot",
            ];
            for path in paths {
                denied(node.ask::<Packet, Packet>(path, Packet::default()).await.unwrap_err());
            }
            for service in ["", "quorate.v1.KV", "quorate.v1.ServiceService"] {
                let ask = HealthCheckRequest { service: service.to_owned() };
                let answer: HealthCheckResponse = api.ask(HEALTH, ask).await.unwrap();
                // 1 is SERVING.
                assert_eq!(answer.status, 1, "{service}");
            }
        }
        let mut api = Caller::to(target.grpc(), Some(&target.secret)).await;
        let list = MessageRequest::ListServices(String::new());
        let ask =
            ServerReflectionRequest { message_request: Some(list), ..ServerReflectionRequest::default() };
        let answer: ServerReflectionResponse = api.ask(REFLECTION, ask).await.unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        for service in ["KV", "NodeService", "ServiceService", "ClusterService", "ViewService"] {
            assert!(names.contains(&format!("quorate.v1.{service}")), "{names:?}");
        }
    });
    // A token that is whole, of this cluster, and carries another secret.
    let good = target.cluster.json(0, &["join-token"]).unwrap()["token"].as_str().unwrap().to_owned();
    let (body, _) = good.rsplit_once('/').unwrap();
    let body = body.replace(&target.secret, "0123456789abcdef0123456789abcdef");
    let sum = xxhash_rust::xxh3::xxh3_64(body.as_bytes()) as u32;
    target.cluster.start(1, &["--token", &format!("{body}/{sum:08x}")]);
    let (code, said) = target.cluster.ended(1);
    assert!(code != 0 && said.contains("the cluster secret is wrong"), "{code}: {said}");
    target.unharmed();
}

#[test]
fn garbage_and_silence_on_every_port_are_hung_up_on() {
    let target = Target::new();
    let ports = [target.bind(), target.grpc(), target.http()];
    let garbage: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let fragments: [(&str, &[u8]); 5] = [
        ("garbage", &garbage),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("an absurd frame", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
        ("half a hello", &HELLO[..10]),
        ("nothing", b""),
    ];
    std::thread::scope(|scope| {
        for port in ports {
            for (what, bytes) in fragments {
                scope.spawn(move || {
                    use std::io::Write;
                    let mut stream = connect(port);
                    // It may be hung up on before all is sent.
                    let _ = stream.write_all(bytes);
                    hung_up(stream, &format!("{what} at {port}"), b"", LONG);
                });
            }
        }
        let (http, grpc, bind) = (target.http(), target.grpc(), target.bind());
        scope.spawn(move || hung_up(connect(http), "drops of a header", b"x", LONG));
        scope.spawn(move || {
            hung_up(connect(http), "headers without end", b"GET / HTTP/1.1\r\nA: b\r\n", LONG)
        });
        for port in [grpc, bind] {
            // Each opens HTTP/2 as it should and goes on with nothing, or with a call that never ends.
            let calls = [HELLO.to_vec(), headers(PUT, "none"), headers(PUT, &target.secret)];
            for (at, bytes) in calls.into_iter().enumerate() {
                scope.spawn(move || {
                    use std::io::Write;
                    let mut stream = connect(port);
                    stream.write_all(&bytes).unwrap();
                    let came = hung_up(stream, &format!("call {at} at {port}"), b"", LONG);
                    assert!(!came.is_empty(), "call {at} at {port}");
                });
            }
        }
    });
    assert!(http_get(target.http(), "/../../etc/passwd").unwrap().starts_with("HTTP/1.1 404"));
    run(async {
        // Those who know the secret may be mad too.
        let mut node = Caller::to(target.bind(), Some(&target.secret)).await;
        let endless = Bytes::from_static(b"\x01\xff\xff\xff\xff\x0f");
        for body in [Bytes::new(), Bytes::from(garbage.clone()), endless] {
            let (path, packet) = ("/quorate.cluster.v1.Cluster/Register", Packet { body: body.clone() });
            let error = node.ask::<_, Packet>(path, packet).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{path}: {error}");
            for path in ["/quorate.cluster.v1.Cluster/Heartbeat", "/quorate.cluster.v1.Cluster/Relay"] {
                let asks = futures::stream::iter([Packet { body: body.clone() }]);
                let asks = asks.chain(futures::stream::pending());
                let mut answers = node.call::<_, Packet>(path, asks).await.unwrap();
                assert!(matches!(answers.message().await, Ok(None)), "{path}: the stream ends");
            }
        }
    });
    target.unharmed();
}

#[test]
fn strangers_without_number_and_watchers_that_never_read_keep_no_member_out() {
    quorate::host::more_descriptors();
    let mut target = Target::new();
    let before = settled_descriptors(target.node);
    let ports = [target.bind(), target.grpc(), target.http()];
    // Its connection answers pings all along.
    let runtime = runtime();
    let watchers: Vec<_> = runtime.block_on(async {
        let mut caller = Caller::to(target.grpc(), Some(&target.secret)).await;
        let mut open = Vec::new();
        let refused = loop {
            let ask = futures::stream::iter([proto::WatchViewRequest {}]);
            match caller.call::<_, proto::ViewChange>(WATCH, ask).await {
                Ok(stream) => open.push(stream),
                Err(status) => break status,
            }
            assert!(open.len() <= 1_000, "no limit");
        };
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("streams are open"), "{refused}");
        open
    });
    assert!(watchers.len() > 100);
    let flood: Vec<_> = ports.iter().flat_map(|port| (0..400).map(|_| connect(*port))).collect();
    let all = descriptors(target.node);
    // The limit of each port, and room for what is being closed and what the node itself has opened since.
    assert!(all <= before + 3 * 256 + 96, "{before} descriptors, then {all}");
    target.cluster.put(0, "during", "it");
    assert!(http_get(target.http(), "/readyz").unwrap().starts_with("HTTP/1.1 200"));
    target.cluster.join(1);
    target.cluster.ready(1);
    assert_eq!(target.cluster.get(1, "during"), "it");
    for (at, stream) in flood.into_iter().enumerate() {
        hung_up(stream, &format!("stranger {at}"), b"", LONG);
    }
    drop((watchers, runtime));
    await_some("all their connections are closed", || {
        let left = descriptors(target.node);
        if left <= before + 32 { Ok(()) } else { Err(format!("{before} descriptors, then {left}")) }
    });
    await_some("a watcher finds room again", || {
        run(async {
            let mut caller = Caller::to(target.grpc(), Some(&target.secret)).await;
            let first = caller.ask::<_, proto::ViewChange>(WATCH, proto::WatchViewRequest {}).await;
            first.map(|first| assert!(first.reset)).map_err(|status| status.message().to_owned())
        })
    });
    target.unharmed();
}

#[test]
fn a_member_that_hangs_with_open_streams_costs_nothing_once_it_is_left() {
    let target = Target::new();
    let before = settled_descriptors(target.node);
    // Real clients, frozen in the middle of what they read.
    let clients: Vec<_> = [&["logs", "solo/0", "-f"][..], &["kv", "watch", "", "--prefix"]]
        .into_iter()
        .map(|arguments| {
            crate::rig::quorate()
                .arg("--data-dir")
                .arg(target.cluster.data(0))
                .args(arguments)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    await_some("both are connected", || {
        let now = descriptors(target.node);
        if now >= before + 2 { Ok(()) } else { Err(format!("{before}, then {now}")) }
    });
    for client in &clients {
        send(client.id(), Signal::STOP);
    }
    await_some("both are left", || {
        target.cluster.put(0, "flood", &"x".repeat(4_096));
        let now = descriptors(target.node);
        if now <= before + 1 { Ok(()) } else { Err(format!("{before}, then {now}")) }
    });
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    target.unharmed();
}

#[test]
fn a_node_that_says_nothing_is_named_and_left_by_the_command_line() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let output = crate::rig::quorate()
        .args(["--endpoint", &endpoint, "--secret-file", secret.to_str().unwrap(), "status"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(&endpoint) && said.contains("does not answer"), "{said}");
}

#[test]
fn a_call_whose_connection_breaks_in_the_middle_is_made_again_at_another_node() {
    use std::io::{Read, Write};
    let cluster = Cluster::formed(1);
    let dying = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = dying.local_addr().unwrap().port();
    let taken = std::thread::spawn(move || {
        let (mut stream, _) = dying.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&HELLO[HELLO.len() - 9..]).unwrap();
        let (mut came, mut piece) = (Vec::new(), [0; 4096]);
        while !came.windows(8).any(|bytes| bytes == b"held-key") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the call never came");
            came.extend_from_slice(&piece[..count]);
        }
    });
    let endpoints = format!("127.0.0.1:{port},127.0.0.1:{}", cluster.members[0].grpc);
    let output = cluster.run(0, &["--endpoint", &endpoints, "kv", "put", "held-key", "value"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    taken.join().unwrap();
    assert_eq!(cluster.get(0, "held-key"), "value");
}
