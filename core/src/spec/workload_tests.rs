//! Containers, units and virtual machines: what their descriptions give, what they must refuse and in which
//! words, and which of them cannot share a host.

use super::tests::{error, errors, one};
use super::*;

const CONTAINER: &str = r#"
name: web
executor: docker
spec:
  image: registry.example:5000/shop/web:3
  pull: always
  command: [--port, 8080]
  entrypoint: [/usr/bin/web]
  environment: {MODE: "on", EMPTY: }
  working_dir: /srv//web/./
  user: 1000:users
  ports: ["8080:80", "127.0.0.1:8443:443/tcp", "[0:0::1]:53:53/udp", {host: 9000, container: 9001, transport: udp, address: "::ffff:10.0.0.1"}]
  mounts: ["/srv/data/:/data", cache:/var/cache:ro, {source: "/srv/a:b", target: /ab, read_only: true}, "/:/host:rw"]
  network: shop
  labels: {com.example.team: shop, empty: }
  cpu_limit: 0.5
  memory_limit: 128
  memory_high: 100
  pids_limit: 100
  io_read_limit: 1000000
  io_write_limit: 2000000
health: {exec: {command: [web, --check]}}
state: {dir: data}
"#;

const UNIT: &str = "name: job\nexecutor: systemd\nspec: {command: [/usr/bin/job, -v], environment: {A: b}, \
                    working_dir: /srv, user: job, memory_limit: 64, cpu_limit: 0.25}\nstate: {dir: data}\n";

const MACHINE: &str = "name: vm\nexecutor: libvirt\nspec: {vm_image: /srv/images/vm.qcow2, vm_memory: 512, vm_cpus: 2, \
                       vm_network: bridge:br0, vm_graphics: vnc, boot: {kernel: /srv/vmlinuz, initrd: /srv/initrd, \
                       arguments: console=ttyS0 root=/dev/vda}}\nstop: {signal: TERM}\n";

/// A service of this executor with these keys under `spec`.
fn with(executor: &str, spec: &str) -> String {
    format!("name: a\nexecutor: {executor}\nspec: {{{spec}}}\n")
}

fn container(spec: &str) -> ContainerWorkload {
    match one(&with("docker", spec)).workload {
        Workload::Container(container) => container,
        other => panic!("{other:?}"),
    }
}

fn machine(spec: &str) -> MachineWorkload {
    match one(&with("libvirt", spec)).workload {
        Workload::Machine(machine) => machine,
        other => panic!("{other:?}"),
    }
}

/// Each text has one error, at this field, with these words and this remedy in it.
fn refused<'a>(cases: impl IntoIterator<Item = (String, &'a str, &'a str, &'a str)>) {
    for (text, field, message, remedy) in cases {
        let error = error(&text);
        assert_eq!(error.field, field, "{error}\n{text}");
        assert!(error.message.contains(message), "{error}\n{text}");
        assert!(error.remedy.contains(remedy), "{error}\n{text}");
        assert!(error.line >= 1 && error.column >= 1, "{error}");
    }
}

#[test]
fn every_key_of_a_container_is_read() {
    let spec = one(CONTAINER);
    let Workload::Container(web) = &spec.workload else { panic!("{spec:?}") };
    assert_eq!((spec.workload.executor(), web.engine), (ExecutorKind::Docker, ContainerEngine::Docker));
    assert_eq!((web.image.as_str(), web.pull), ("registry.example:5000/shop/web:3", PullPolicy::Always));
    assert_eq!(
        (&web.command[..], &web.entrypoint[0][..]),
        (&["--port".into(), "8080".into()][..], "/usr/bin/web")
    );
    assert_eq!((&*web.environment["MODE"], &*web.environment["EMPTY"]), ("on", ""));
    assert_eq!((web.working_dir.as_deref(), web.user.as_deref()), (Some("/srv/web"), Some("1000:users")));
    let ports: Vec<String> = web.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080:80/tcp", "127.0.0.1:8443:443/tcp", "[::1]:53:53/udp", "10.0.0.1:9000:9001/udp"]);
    let mounts: Vec<_> =
        web.mounts.iter().map(|m| (m.source.as_str(), m.target.as_str(), m.read_only)).collect();
    assert_eq!(
        mounts,
        [
            ("/srv/data", "/data", false),
            ("cache", "/var/cache", true),
            ("/srv/a:b", "/ab", true),
            ("/", "/host", false)
        ]
    );
    assert_eq!((web.network.as_deref(), &*web.labels["com.example.team"]), (Some("shop"), "shop"));
    assert_eq!((web.limits.cpu, web.limits.memory), (Some(CpuMillis(500)), Some(MemoryMib(128))));
    assert_eq!(web.limits.named().count(), 6);
    assert_eq!(spec.resources, Resources { cpu: CpuMillis(500), memory: MemoryMib(128) });
    assert_eq!(spec.workload.host_ports().len(), 4);
}

#[test]
fn what_a_container_does_not_say_is_the_images_own() {
    let plain = container("image: nginx");
    assert_eq!((plain.pull, plain.command.len(), plain.entrypoint.len()), (PullPolicy::Missing, 0, 0));
    assert_eq!((plain.working_dir, plain.user, plain.network), (None, None, None));
    assert_eq!((plain.limits, plain.ports.len(), plain.mounts.len()), (Limits::default(), 0, 0));
    let podman = one(&with("podman", "image: nginx, memory_limit: 1")).workload;
    assert_eq!(podman.executor(), ExecutorKind::Podman, "only Docker asks for six MiB");
    assert_eq!(container("image: nginx, memory_limit: 6").limits.memory, Some(MemoryMib(6)));
}

#[test]
fn images_are_taken_by_name_tag_and_digest() {
    let digest = "0123456789abcdef".repeat(4);
    for good in [
        "nginx".to_owned(),
        "library/nginx:1.27-alpine_3".to_owned(),
        "localhost/web".to_owned(),
        "localhost:5000/web:3".to_owned(),
        "[::1]:5000/web".to_owned(),
        "Registry.example/a/b/c_d/e__f/g--h/i.j:T_1".to_owned(),
        format!("nginx@sha256:{digest}"),
        format!("r.io/nginx:1@sha256:{digest}"),
    ] {
        assert_eq!(container(&format!("image: {good:?}")).image, good);
    }
    let long = format!("a/{}", "b".repeat(511));
    let cases = [
        ("", "no name"),
        ("a b", "blank or control"),
        ("a\\tb", "blank or control"),
        ("Nginx", "upper-case"),
        ("shop/Web:1", "upper-case"),
        ("nginx:", "tag"),
        ("nginx:-1", "tag"),
        ("nginx:a+b", "tag"),
        ("nginx@sha256:abc", "digest"),
        ("nginx@md5:0123456789abcdef0123456789abcdef", "digest"),
        ("nginx@sha256", "digest"),
        ("https://r.io/web", "registry"),
        ("r.io:port/web", "registry"),
        ("-r.io/web", "registry"),
        ("/web", "lower-case letters and digits"),
        ("web/", "lower-case letters and digits"),
        ("a//b", "lower-case letters and digits"),
        ("a___b", "lower-case letters and digits"),
        ("a..b", "lower-case letters and digits"),
        ("a_", "lower-case letters and digits"),
        ("a*b", "lower-case letters and digits"),
    ];
    let cases = cases.map(|(image, message)| (with("docker", &format!("image: \"{image}\"")), message));
    refused(cases.map(|(text, message)| (text, "spec.image", message, "nginx:1.27")));
    refused([(with("docker", &format!("image: {long}")), "spec.image", "513 bytes", "shorten")]);
}

#[test]
fn wrong_containers_are_refused_where_they_stand() {
    let long = "x".repeat(65_536);
    let cases = [
        ("pull: always", "spec.image", "missing", "write image"),
        ("image: a, pull: sometimes", "spec.pull", "not a value", "missing, always, never"),
        ("image: a, command: run me", "spec.command", "never one text", "list"),
        ("image: a, command: []", "spec.command", "empty", "remove the key"),
        ("image: a, entrypoint: []", "spec.entrypoint", "empty", "remove the key"),
        ("image: a, entrypoint: ['']", "spec.entrypoint", "no program", "list"),
        ("image: a, environment: {1A: b}", "spec.environment.1A", "name of a variable", "rename"),
        (
            "image: a, environment: {QUORATE_SLOT: b}",
            "spec.environment.QUORATE_SLOT",
            "node itself",
            "rename",
        ),
        ("image: a, working_dir: srv", "spec.working_dir", "not an absolute path", "absolute path"),
        ("image: a, working_dir: /a/../b", "spec.working_dir", "upwards", "without .."),
        ("image: a, user: 'a b'", "spec.user", "not an account", "1000:1000"),
        ("image: a, user: '1000:'", "spec.user", "not an account", "1000:1000"),
        ("image: a, user: '1:2:3'", "spec.user", "not an account", "1000:1000"),
        ("image: a, user: 4294967296", "spec.user", "not an account", "1000:1000"),
        (
            "image: a, network: 'container:db'",
            "spec.network",
            "gone with that container",
            "host, none or bridge",
        ),
        ("image: a, network: a/b", "spec.network", "not a network", "name a network"),
        ("image: a, ports: ['80:80'], network: host", "spec.ports", "ports of its host", "remove ports"),
        ("image: a, ports: ['80:80'], network: none", "spec.ports", "nothing reaches", "remove ports"),
        ("image: a, labels: {quorate.slot: x}", "spec.labels.quorate.slot", "belongs to Quorate", "rename"),
        ("image: a, labels: {'a b': x}", "spec.labels.a b", "without blanks", "rename"),
        ("image: a, labels: [a]", "spec.labels", "a mapping", "a mapping"),
        ("image: a, memory_limit: 5", "spec.memory_limit", "less than 6 MiB", "memory_limit: 6"),
        ("image: a, memory_limit: 64, memory_high: 65", "spec.memory_high", "above memory_limit", "smaller"),
        ("image: a, mem_limit: 64", "spec.mem_limit", "unknown", "did you mean memory_limit?"),
        ("image: a, pid_limit: 64", "spec.pid_limit", "unknown", "did you mean pids_limit?"),
        ("image: a, port: []", "spec.port", "unknown", "did you mean ports?"),
        ("image: a, vm_memory: 64", "spec.vm_memory", "unknown", "image, pull, command"),
    ];
    refused(cases.map(|(spec, field, message, remedy)| (with("docker", spec), field, message, remedy)));
    let text = with("docker", &format!("image: a, environment: {{A: {long}}}"));
    refused([(text, "spec.environment", "at most 65536", "shorten")]);
    refused([("name: a\nexecutor: podman\n".to_owned(), "spec", "missing", "image: nginx")]);
}

#[test]
fn wrong_ports_are_refused_where_they_stand() {
    let many = vec!["'1:1'"; 257].join(",");
    let form = "[ADDRESS:]HOST:CONTAINER";
    let cases = [
        ("'80'", "spec.ports[0]", "one port where two belong", form),
        ("'0:80'", "spec.ports[0]", "no number from 1 to 65535", form),
        ("'80:65536'", "spec.ports[0]", "no number from 1 to 65535", form),
        ("'+80:80'", "spec.ports[0]", "no number", form),
        ("'8000-8010:80'", "spec.ports[0]", "no number", form),
        ("'80:80/sctp'", "spec.ports[0]", "tcp or udp", form),
        ("'::1:80:80'", "spec.ports[0]", "in brackets", form),
        ("'[::1:80:80'", "spec.ports[0]", "not closed", form),
        ("'[::1]80:80'", "spec.ports[0]", "not closed", form),
        ("'n1:80:80'", "spec.ports[0]", "not an address", form),
        ("':80:80'", "spec.ports[0]", "not an address", form),
        ("'1:1', '80:80', '80:81'", "spec.ports[2]", "same port of the host as 80:80/tcp", "another port"),
        ("'127.0.0.1:80:80', '0.0.0.0:80:81'", "spec.ports[1]", "same port", "another port"),
        ("'[::]:80:80', '10.0.0.1:80:81'", "spec.ports[1]", "same port", "another port"),
        (
            "'[::1]:80:80', {host: 80, container: 81, address: '0::1'}",
            "spec.ports[1]",
            "same port",
            "remove one",
        ),
        ("{container: 80}", "spec.ports[0].host", "missing", "host: 8080"),
        ("{host: 80}", "spec.ports[0].container", "missing", "container: 80"),
        ("{host: 0, container: 80}", "spec.ports[0].host", "1 to 65535", "whole number"),
        ("{host: 80, container: 80, address: here}", "spec.ports[0].address", "not an address", "127.0.0.1"),
        ("{host: 80, container: 80, transport: sctp}", "spec.ports[0].transport", "not a value", "tcp, udp"),
        ("{host: 80, container: 80, hostname: a}", "spec.ports[0].hostname", "unknown", "address, host"),
        ("[80]", "spec.ports[0]", "a list", "a mapping"),
        (&many, "spec.ports", "257 entries", "shorten"),
    ];
    refused(cases.map(|(ports, field, message, remedy)| {
        (with("podman", &format!("image: a, ports: [{ports}]")), field, message, remedy)
    }));
    let lines = "name: a\nexecutor: docker\nspec:\n  image: a\n  ports:\n    - 80:80\n    - 80:81\n";
    let error = error(lines);
    assert_eq!((error.line, error.column, error.field.as_str()), (7, 7, "spec.ports[1]"));
    for fine in ["'80:80', '80:80/udp'", "'127.0.0.1:80:80', '127.0.0.2:80:80'", "'80:80', '81:80'"] {
        assert_eq!(container(&format!("image: a, ports: [{fine}]")).ports.len(), 2);
    }
}

#[test]
fn wrong_mounts_are_refused_where_they_stand() {
    let form = "SOURCE:TARGET";
    let cases = [
        ("/srv", "spec.mounts[0]", "no place inside", form),
        ("'a:/b:rx'", "spec.mounts[0]", "neither ro nor rw", form),
        ("'/a:b:/c:ro'", "spec.mounts[0]", "written as a mapping", form),
        ("'./a:/b'", "spec.mounts[0]", "neither an absolute path nor the name of a volume", form),
        ("':/b'", "spec.mounts[0]", "neither an absolute path nor", form),
        ("'_a:/b'", "spec.mounts[0]", "neither an absolute path nor", form),
        ("'/a/../b:/b'", "spec.mounts[0]", "upwards", form),
        ("'a:b'", "spec.mounts[0]", "not an absolute path", form),
        ("'a:/.//'", "spec.mounts[0]", "/ itself", form),
        ("'a:/./quorate'", "spec.mounts[0]", "belongs to Quorate", form),
        ("'a:/quorate/run'", "spec.mounts[0]", "belongs to Quorate", form),
        ("'a:/b/../quorate'", "spec.mounts[0]", "upwards", form),
        ("'a:/b', 'c:/b/'", "spec.mounts[1]", "mounted at \"/b\" already", "another place"),
        ("{target: /b}", "spec.mounts[0].source", "missing", "name of a volume"),
        ("{source: /b}", "spec.mounts[0].target", "missing", "target: /data"),
        (
            "{source: a, target: /quorate}",
            "spec.mounts[0].target",
            "belongs to Quorate",
            "absolute path inside",
        ),
        (
            "{source: a, target: /b, read_only: ro}",
            "spec.mounts[0].read_only",
            "true or false",
            "true or false",
        ),
        (
            "{source: a, target: /b, readonly: true}",
            "spec.mounts[0].readonly",
            "unknown",
            "did you mean read_only?",
        ),
    ];
    refused(cases.map(|(mounts, field, message, remedy)| {
        (with("docker", &format!("image: a, mounts: [{mounts}]")), field, message, remedy)
    }));
    assert_eq!(container("image: a, mounts: ['a:/quorated', 'a:/b', 'a:/b/c']").mounts.len(), 3);
}

#[test]
fn a_unit_is_one_of_the_host_or_made_for_the_run() {
    let spec = one(UNIT);
    let Workload::Unit(unit) = &spec.workload else { panic!("{spec:?}") };
    let UnitSource::Transient { command, environment, working_dir, user, .. } = &unit.source else {
        panic!("{unit:?}")
    };
    assert_eq!((&*command[0], &*environment["A"]), ("/usr/bin/job", "b"));
    assert_eq!((working_dir.as_deref(), user.as_deref()), (Some("/srv"), Some("job")));
    assert_eq!((spec.workload.executor(), spec.workload.user()), (ExecutorKind::Systemd, Some("job")));
    assert_eq!(spec.resources, Resources { cpu: CpuMillis(250), memory: MemoryMib(64) });
    for name in ["nginx.service", "getty@tty1.service", "a@b@.service", "dev-disk\\x2d1:a_b.c.service"] {
        let spec = one(&with("systemd", &format!("unit: '{name}'")));
        assert_eq!(spec.workload.host_unit(), Some(name));
        assert_eq!(spec.resources, Resources::default());
    }
}

#[test]
fn wrong_units_are_refused_where_they_stand() {
    let own = "keeps its own settings";
    let long = format!("unit: {}.service", "x".repeat(255));
    let cases = [
        ("environment: {}", "spec.command", "missing", "unit: NAME.service"),
        ("command: [job]", "spec.command[0]", "systemd searches for no program", "/usr/bin/sleep"),
        ("command: job", "spec.command", "never one text", "list"),
        ("command: []", "spec.command", "no program", "list"),
        ("command: [/a], working_dir: b", "spec.working_dir", "not an absolute path", "absolute path"),
        ("command: [/a], user: 'a b'", "spec.user", "not an account", "account of the node"),
        ("command: [/a], environment: {A-B: c}", "spec.environment.A-B", "name of a variable", "rename"),
        ("command: [/a], memory_limits: 1", "spec.memory_limits", "unknown", "did you mean memory_limit?"),
        ("command: [/a], image: a", "spec.image", "unknown", "unit, command"),
        ("unit: nginx", "spec.unit", "does not end in .service", "nginx.service"),
        ("unit: a.timer", "spec.unit", "does not end in .service", "nginx.service"),
        ("unit: .service", "spec.unit", "not the name of a unit", "nginx.service"),
        ("unit: 'a b.service'", "spec.unit", "not the name of a unit", "nginx.service"),
        ("unit: a/b.service", "spec.unit", "not the name of a unit", "nginx.service"),
        ("unit: '@a.service'", "spec.unit", "not the name of a unit", "nginx.service"),
        ("unit: getty@.service", "spec.unit", "template", "full name"),
        (&long, "spec.unit", "263 bytes", "shorten"),
        ("unit: a.service, command: [/a]", "spec.command", own, "remove command"),
        ("unit: a.service, environment: {A: b}", "spec.environment", own, "in the unit itself"),
        ("unit: a.service, working_dir: /a", "spec.working_dir", own, "remove working_dir"),
        ("unit: a.service, user: a", "spec.user", own, "remove user"),
        ("unit: a.service, memory_limit: 64", "spec.memory_limit", own, "remove memory_limit"),
    ];
    refused(cases.map(|(spec, field, message, remedy)| (with("systemd", spec), field, message, remedy)));
    let all = errors(&with("systemd", "unit: a.service, user: a, pids_limit: 1"));
    assert_eq!(all.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), ["spec.user", "spec.pids_limit"]);
    let stateful = format!("{}state: {{dir: data}}\n", with("systemd", "unit: a.service"));
    refused([(stateful, "state.dir", "a unit that the host has already", "remove state")]);
    let text = with("systemd", &format!("command: [/a], environment: {{A: {}}}", "x".repeat(65_536)));
    refused([(text, "spec.environment", "at most 65536", "shorten")]);
}

#[test]
fn every_key_of_a_virtual_machine_is_read() {
    let spec = one(MACHINE);
    let Workload::Machine(vm) = &spec.workload else { panic!("{spec:?}") };
    assert_eq!((vm.image.as_str(), vm.memory, vm.cpus), ("/srv/images/vm.qcow2", MemoryMib(512), 2));
    assert_eq!((&vm.network, vm.graphics), (&MachineNetwork::Bridge("br0".to_owned()), MachineGraphics::Vnc));
    let boot = vm.boot.as_ref().unwrap();
    assert_eq!((boot.kernel.as_str(), boot.initrd.as_deref()), ("/srv/vmlinuz", Some("/srv/initrd")));
    assert_eq!(boot.arguments, "console=ttyS0 root=/dev/vda");
    assert_eq!(spec.resources, Resources { cpu: CpuMillis(2_000), memory: MemoryMib(512) });
    assert_eq!(spec.stop.signal, 15);
    let plain = machine("vm_image: /a, vm_memory: 16");
    assert_eq!((plain.cpus, plain.graphics, plain.boot), (1, MachineGraphics::None, None));
    let network = |text: &str| machine(&format!("vm_image: /a, vm_memory: 16, vm_network: '{text}'")).network;
    assert_eq!(plain.network, network("network:default"));
    assert_eq!(network("shop"), MachineNetwork::Network("shop".to_owned()));
    assert_eq!(network("network:none"), MachineNetwork::Network("none".to_owned()));
    assert_eq!((network("none"), network("user")), (MachineNetwork::None, MachineNetwork::User));
}

#[test]
fn wrong_virtual_machines_are_refused_where_they_stand() {
    let long = format!("boot: {{kernel: /k, arguments: {}}}", "x".repeat(2_049));
    let cases = [
        ("vm_image: a.qcow2", "spec.vm_image", "not an absolute path", "absolute path"),
        ("vm_image: \"/a\\nb\"", "spec.vm_image", "control character", "absolute path"),
        ("vm_memory: 15", "spec.vm_memory", "16 to", "whole number"),
        ("vm_cpus: 0", "spec.vm_cpus", "1 to 512", "whole number"),
        ("vm_cpus: 513", "spec.vm_cpus", "1 to 512", "whole number"),
        ("vm_network: bridge", "spec.vm_network", "not a network", "bridge:NAME"),
        ("vm_network: 'bridge:'", "spec.vm_network", "not a network", "bridge:NAME"),
        ("vm_network: 'bridge:sixteen-letters1'", "spec.vm_network", "not a network", "bridge:NAME"),
        ("vm_network: 'tap:a'", "spec.vm_network", "not a network", "network:NAME"),
        ("vm_network: 'network:a b'", "spec.vm_network", "not a network", "network:NAME"),
        ("vm_graphics: x11", "spec.vm_graphics", "not a value", "none, vnc, spice"),
        ("boot: {initrd: /a}", "spec.boot.kernel", "missing", "remove boot"),
        ("boot: {kernel: a}", "spec.boot.kernel", "not an absolute path", "absolute path"),
        ("boot: {kernel: /a, initrd: b}", "spec.boot.initrd", "not an absolute path", "absolute path"),
        ("boot: {kernel: /a, arguments: \"a\\nb\"}", "spec.boot.arguments", "control character", "one text"),
        (&long, "spec.boot.arguments", "2049 bytes", "shorten"),
        ("boot: {kernel: /a, cmdline: b}", "spec.boot.cmdline", "unknown", "arguments"),
        ("user: root", "spec.user", "accounts of its own", "vm_cpus and vm_memory"),
        ("command: [a]", "spec.command", "what its image holds", "vm_cpus and vm_memory"),
        ("cpu_limit: 1", "spec.cpu_limit", "limited by its size", "vm_cpus"),
        ("memory_limit: 64", "spec.memory_limit", "limited by its size", "vm_memory"),
        ("memory_high: 64", "spec.memory_high", "limited by its size", "vm_memory"),
        ("pids_limit: 64", "spec.pids_limit", "limited by its size", "vm_cpus and vm_memory"),
        ("io_read_limit: 64", "spec.io_read_limit", "limited by its size", "vm_cpus and vm_memory"),
        ("vm_cpu: 2", "spec.vm_cpu", "unknown", "did you mean vm_cpus?"),
        ("mounts: []", "spec.mounts", "unknown", "vm_image, vm_memory"),
    ];
    refused(cases.map(|(spec, field, message, remedy)| {
        let given =
            |key: &str, or: &str| if spec.starts_with(key) { String::new() } else { format!(", {or}") };
        let rest = given("vm_image", "vm_image: /a") + &given("vm_memory", "vm_memory: 16");
        (with("libvirt", &format!("{spec}{rest}")), field, message, remedy)
    }));
    let found = errors(&with("libvirt", ""));
    let found: Vec<_> = found.iter().map(|e| (e.field.as_str(), e.message.contains("missing"))).collect();
    assert_eq!(found, [("spec.vm_image", true), ("spec.vm_memory", true)]);
    let vm = with("libvirt", "vm_image: /a, vm_memory: 16");
    refused([
        (
            format!("{vm}health: {{exec: {{command: [a]}}}}"),
            "health.exec",
            "inside of a virtual",
            "http, tcp or grpc",
        ),
        (format!("{vm}state: {{dir: data}}"), "state.dir", "a virtual machine", "remove state"),
        (format!("{vm}stop: {{signal: SIGINT}}"), "stop.signal", "ACPI", "SIGTERM"),
        ("name: a\nexecutor: libvirt\n".to_owned(), "spec", "missing", "vm_image"),
    ]);
}

#[test]
fn the_executor_may_be_the_nodes_default() {
    let text = "name: a\nspec: {image: nginx}\n";
    let defaults = |executor: &str| SpecDefaults { executor: executor.to_owned(), ..SpecDefaults::default() };
    for kind in [ExecutorKind::Docker, ExecutorKind::Podman] {
        assert_eq!(parse_one(text, &defaults(kind.name())).unwrap().workload.executor(), kind);
    }
    assert_eq!(EXECUTORS, ExecutorKind::ALL.map(ExecutorKind::name));
    let unknown = parse_one(text, &defaults("jail")).unwrap_err().0.remove(0);
    assert!(
        unknown.message.contains("\"jail\"") && unknown.remedy.contains("executor: process"),
        "{unknown}"
    );
}

/// Descriptions of every executor, each with some keys and without the others.
fn many() -> Vec<String> {
    let keys = |executor: &str, must: &str, may: &[&str]| -> Vec<String> {
        let subsets = 0..1_u32 << may.len();
        let text = |set: u32| {
            let chosen = may.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, key)| *key);
            with(executor, &std::iter::once(must).chain(chosen).collect::<Vec<_>>().join(", "))
        };
        subsets.map(text).collect()
    };
    let container = [
        "command: [a, '']",
        "entrypoint: ['x y']",
        "environment: {A: 'yes', B: \"1\\n2\"}",
        "user: 0:0, working_dir: /",
        "ports: ['80:80', '[::]:81:80', {host: 80, container: 1, transport: udp, address: 127.0.0.1}]",
        "mounts: ['a:/b:ro', {source: '/x:y', target: '/z z'}, {source: /x, target: '/ro:ro', read_only: true}]",
        "labels: {'a.b/c': '', 'x:y': 'no'}",
        "memory_limit: 64, cpu_limit: 0.05, memory_high: 32, pids_limit: 9, io_read_limit: 1, io_write_limit: 2",
    ];
    let limits = "cpu_limit: 1, memory_limit: 2, pids_limit: 3";
    let machine = [
        "vm_cpus: 512",
        "vm_network: network:user",
        "vm_graphics: spice",
        "boot: {kernel: '/a b', arguments: 'x=\"y\"'}",
    ];
    [
        keys("docker", "image: 'a:1', pull: never", &container),
        keys("podman", "image: localhost/a, network: host", &container[..4]),
        keys(
            "systemd",
            "command: [/a, 'b c']",
            &["environment: {A: ''}", "working_dir: '/b c'", "user: 1000", limits],
        ),
        keys("systemd", "unit: 'a@b\\x2d.service'", &[]),
        keys("libvirt", "vm_image: '/a b', vm_memory: 99", &machine),
        keys("libvirt", "vm_image: /a, vm_memory: 99, vm_network: none, boot: {kernel: /k, initrd: /i}", &[]),
    ]
    .concat()
}

#[test]
fn the_canonical_text_of_every_executor_reads_back_as_the_same_service() {
    let texts = many();
    assert!(texts.len() > 300, "{}", texts.len());
    for text in texts.iter().map(String::as_str).chain([CONTAINER, UNIT, MACHINE]) {
        let spec = one(text);
        let canonical = spec.to_yaml();
        assert_eq!(one(&canonical), spec, "{canonical}");
        assert_eq!(one(&canonical).to_yaml(), canonical);
        assert_eq!(diff(&spec, &one(&canonical)), []);
        assert_eq!(spec.workload.lacks(), None, "{canonical}");
    }
}

#[test]
fn differences_of_workloads_are_told_by_field() {
    let changes = |old: &str, new: &str| -> Vec<String> {
        let show = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        diff(&one(old), &one(new))
            .into_iter()
            .map(|c| format!("{}: {} -> {}", c.path, show(c.old), show(c.new)))
            .collect()
    };
    assert_eq!(
        changes(
            &with("docker", "image: 'a:1', ports: ['80:80'], labels: {x: y}"),
            &with("podman", "image: 'a:2', ports: ['80:80', '[::1]:81:80/udp'], mounts: ['v:/d']")
        ),
        [
            "executor: docker -> podman",
            "spec.image: \"a:1\" -> \"a:2\"",
            "spec.ports: [\"80:80/tcp\"] -> [\"80:80/tcp\", \"[::1]:81:80/udp\"]",
            "spec.mounts: - -> [\"v:/d:rw\"]",
            "spec.labels.x: \"y\" -> -",
        ]
    );
    assert_eq!(
        changes(&with("systemd", "command: [/a]"), &with("systemd", "unit: a.service")),
        ["spec.unit: - -> a.service", "spec.command: [/a] -> -"]
    );
    let boot = "vm_image: /a, vm_memory: 99, boot: {kernel: /k}";
    assert_eq!(
        changes(&with("libvirt", "vm_image: /a, vm_memory: 98"), &with("libvirt", boot)),
        ["spec.vm_memory: 98 -> 99", "spec.boot.kernel: - -> /k", "resources.memory_mib: 98 -> 99"]
    );
}

#[test]
fn ports_overlap_at_the_same_address_or_at_all_of_them() {
    let port = |text: &str| container(&format!("image: a, ports: ['{text}']")).ports.remove(0);
    let cases = [
        ("80:1", "80:2", true),
        ("80:1", "81:1", false),
        ("80:1", "80:1/udp", false),
        ("80:1", "10.0.0.1:80:1", true),
        ("0.0.0.0:80:1", "[::1]:80:1", true),
        ("[::]:80:1", "10.0.0.1:80:1", true),
        ("10.0.0.1:80:1", "10.0.0.1:80:2", true),
        ("10.0.0.1:80:1", "10.0.0.2:80:1", false),
        ("127.0.0.1:80:1", "[::1]:80:1", false),
    ];
    for (a, b, overlap) in cases {
        assert_eq!(port(a).overlaps(&port(b)), overlap, "{a} and {b}");
        assert_eq!(port(b).overlaps(&port(a)), overlap, "{b} and {a}");
    }
    assert_eq!(port("80:1").on_host(), "80/tcp");
    assert_eq!(port("[::1]:80:1/udp").on_host(), "[::1]:80/udp");
}

#[test]
fn what_two_instances_cannot_both_have_of_a_host_is_named() {
    let run = |executor: &str, spec: &str| one(&with(executor, spec)).workload;
    let web = run("docker", "image: a, ports: ['81:80', '10.0.0.1:80:80']");
    let other = run("podman", "image: b, ports: ['80:8080']");
    assert_eq!(web.collision(&other).as_deref(), Some("port 10.0.0.1:80/tcp"));
    assert_eq!(other.collision(&web).as_deref(), Some("port 80/tcp"));
    let unit = run("systemd", "unit: nginx.service");
    assert_eq!(unit.collision(&unit).as_deref(), Some("unit nginx.service"));
    assert_eq!(unit.collision(&run("systemd", "unit: db.service")), None);
    assert_eq!(unit.collision(&web), None);
    for alone in [
        run("docker", "image: a"),
        run("systemd", "command: [/a]"),
        run("libvirt", "vm_image: /a, vm_memory: 16"),
    ] {
        assert!(!alone.claims_of_host() && alone.collision(&alone).is_none(), "{alone:?}");
    }
}
