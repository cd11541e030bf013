//! A management controller for a node of a test: OpenIPMI's simulator, whose power switch really kills what
//! belongs to the node (node, guard, instances) by its pids, and really starts the node again.

use std::fs::Permissions;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::rig::{Cluster, needs};
use crate::wait::await_some;

/// What the simulator is told to expect.
const PASSWORD: &str = "Tr0ub4dor-test";

/// Called by the simulator as `chassis.sh ADDRESS get|set PARAMETER [VALUE]..`; answers `PARAMETER:VALUE`.
/// What belongs to a node names its data directory or its file, in its arguments or its environment.
const CHASSIS: &str = r#"#!/bin/bash
here=$(dirname "$0")
shift; op=$1; shift
left() {
  for file in $(grep -laF -f "$here/marks" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/}; pid=${pid%%/*}
    # A command line that asks the node something is no part of it.
    [ "$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | sed -n 2p)" = --data-dir ] || echo "$pid"
  done | sort -un
}
off() {
  clean=0
  while [ $clean -lt 2 ]; do
    pids=$(left)
    if [ -n "$pids" ]; then clean=0; kill -9 $pids 2>/dev/null; else clean=$((clean + 1)); fi
  done
}
on() { [ -n "$(left)" ] || { setsid $(cat "$here/start") <&0 >/dev/null 2>&1 & }; }
echo "$op $*" >>"$here/calls"
while [ $# -gt 0 ]; do case "$op $1" in
  "get power") [ -n "$(left)" ] && echo power:1 || echo power:0; shift ;;
  "set power") [ "$2" = 1 ] && on || off; shift 2 ;;
  "set shutdown" | "set reset") off; shift 2 ;;
  get*) echo "$1:0"; shift ;;
  *) shift 2 2>/dev/null || shift ;;
esac; done
"#;

/// Are the agents and the simulator there?
pub fn there() -> bool {
    let found = |name: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists())
    };
    needs("fencing", ["fence_ipmilan", "fence_dummy", "ipmitool", "ipmi_sim"].iter().all(|name| found(name)))
}

/// A running simulator.
pub struct Bmc {
    dir: PathBuf,
    port: u16,
    sim: Child,
}

impl Bmc {
    /// The controller of a node that is not started yet.
    pub fn of(cluster: &Cluster, at: usize) -> Self {
        let name = &cluster.members[at].name;
        let dir = cluster.dir.path().join(format!("bmc-{name}"));
        std::fs::create_dir_all(dir.join("state")).unwrap();
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
        write("marks", &format!("{}\n{}\n", cluster.data(at).display(), cluster.file(at).display()));
        let start = cluster.command(at);
        let words = std::iter::once(start.get_program()).chain(start.get_args());
        write("start", &words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" "));
        write("chassis.sh", CHASSIS);
        std::fs::set_permissions(dir.join("chassis.sh"), Permissions::from_mode(0o755)).unwrap();
        write("password", &format!("{PASSWORD}\n"));
        std::fs::set_permissions(dir.join("password"), Permissions::from_mode(0o600)).unwrap();
        let here = dir.display();
        let auths = ["callback", "user", "operator", "admin"]
            .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
            .concat();
        write(
            "lan.conf",
            &format!(
                "name \"{name}\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit \
                 admin\n{auths}    guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \
                 \"{here}/chassis.sh 0x20\"\n  startnow false\n  user 1 true \"\" \"test\" user 10 none md2 md5 \
                 straight\n  user 2 true \"ipmiusr\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n"
            ),
        );
        write(
            "sim.emu",
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nsel_enable 0x20 1000 \
             0x0a\nmc_enable 0x20\n",
        );
        let log = std::fs::File::create(dir.join("sim.log")).unwrap();
        let sim = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(dir.join("lan.conf"))
            .arg("-f")
            .arg(dir.join("sim.emu"))
            .arg("-s")
            .arg(dir.join("state"))
            // The node that it starts hangs on the same pipe as all others.
            .stdin(cluster.held())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let bmc = Self { dir, port, sim };
        await_some("the controller answers", || bmc.power("status"));
        bmc
    }

    /// The keys of its method in a node's file.
    pub fn method(&self, name: &str, limits: &str) -> String {
        self.method_at(name, self.port, limits)
    }

    /// As if its address were another, where nothing answers.
    pub fn method_at(&self, name: &str, port: u16, limits: &str) -> String {
        format!(
            "{{name: {name}, agent: fence_ipmilan, parameters: {{ip: 127.0.0.1, ipport: {port}, username: \
             ipmiusr, lanplus: 1, cipher: 3}}, password_file: {}/password, {limits}}}",
            self.dir.display()
        )
    }

    /// `chassis power` by the vendor's own tool.
    pub fn power(&self, word: &str) -> Result<String, String> {
        let output = Command::new("ipmitool")
            .args(["-I", "lanplus", "-H", "127.0.0.1", "-p", &self.port.to_string(), "-U", "ipmiusr"])
            .args(["-C", "3", "-f"])
            .arg(self.dir.join("password"))
            .args(["chassis", "power", word])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// What the simulator was asked to do, in order.
    pub fn calls(&self) -> String {
        std::fs::read_to_string(self.dir.join("calls")).unwrap_or_default()
    }

    pub const fn password() -> &'static str {
        PASSWORD
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        let _ = self.sim.kill();
        let _ = self.sim.wait();
        // What it may have started is no child of this process.
        let _ = Command::new(self.dir.join("chassis.sh")).args(["0x20", "set", "power", "0"]).status();
    }
}
