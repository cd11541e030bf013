//! The same tests once more where there is nothing but version 2 of control groups: in a small emulated guest, whose
//! first process runs them. Hosts with both versions have their limits in version 1.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rig::{QUORATE, needs};

/// Emulated, a run takes some ten times as long as on the host.
const PATIENCE: &str = "170";

/// Tests whose assertions hold at the speed of an emulated processor.
const TESTS: [&str; 9] = [
    "limits::one_that_takes_too_much_memory_is_told_as_out_of_memory",
    "limits::one_that_spins_gets_its_share_of_a_core",
    "limits::one_that_forks_without_end_is_held",
    "limits::soft_memory_and_disk_limits_are_set_and_last_over_a_restart_in_place",
    "lifecycle::an_instance_runs_stops_within_its_grace_and_leaves_its_token",
    "lifecycle::one_that_ignores_the_signal_is_killed_after_its_grace",
    "lifecycle::ends_are_told_apart_and_stay_on_view",
    "lifecycle::old_tokens_are_refused_and_a_stop_of_nothing_raises_the_token",
    "lifecycle::an_unhealthy_run_makes_room_for_the_next_in_place",
];

#[test]
fn limits_and_ends_hold_where_there_is_only_version_2() {
    let cached = std::env::var("QUORATE_PARTS").unwrap_or_else(|_| "/var/tmp/quorate-test-parts".to_owned());
    let kernel = Path::new(&cached).join("guest-kernel/vmlinuz");
    let able = |program: &str| Command::new(program).arg("--help").output().is_ok();
    if !needs("cgroup2", kernel.exists() && able("qemu-system-x86_64") && able("busybox") && able("cpio")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "var"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    put(&root, &which("busybox"), Path::new("/bin/busybox"));
    for name in
        ["sh", "sleep", "true", "false", "head", "cat", "mount", "mkdir", "echo", "poweroff", "kill", "env"]
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        .unwrap();
    let own = std::env::current_exe().unwrap();
    for program in [own.as_path(), Path::new(QUORATE)] {
        put(&root, program, program);
        let stripped = Command::new("strip").arg(inside(&root, program)).status();
        assert!(stripped.is_ok_and(|status| status.success()), "cannot strip {}", program.display());
        for library in libraries(program) {
            put(&root, &library, &library);
        }
    }
    let each: String = TESTS
        .iter()
        .map(|test| format!("{} --exact {test} --nocapture && echo PASSED {test}\n", own.display()))
        .collect();
    let init = format!(
        "#!/bin/sh\nexport PATH=/bin HOME=/tmp TMPDIR=/tmp QUORATE_REQUIRE=cgroups\n\
         mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev\n\
         mount -t cgroup2 c /sys/fs/cgroup\n\
         echo CONTROLLERS $(cat /sys/fs/cgroup/cgroup.controllers)\n{each}echo OVER\npoweroff -f\n"
    );
    fs::write(root.join("init"), init).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let image = folder.path().join("initrd");
    let pack = format!("find . | cpio -o -H newc --quiet -R 0:0 > {}", image.display());
    let packed = Command::new("sh").args(["-c", &pack]).current_dir(&root).status().unwrap();
    assert!(packed.success());
    let ran = Command::new("timeout")
        .args(["--kill-after=5", PATIENCE, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2"])
        .args(["-m", "1536", "-cpu", "max", "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel)
        .arg("-initrd")
        .arg(&image)
        .args(["-append", "console=ttyS0 quiet panic=1 cgroup_no_v1=all"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).replace('\r', "");
    let failed: Vec<&&str> = TESTS.iter().filter(|test| !said.contains(&format!("PASSED {test}"))).collect();
    assert!(failed.is_empty() && said.contains("OVER"), "{failed:?} did not pass in the guest:\n{said}");
    let controllers = said.lines().find_map(|line| line.split_once("CONTROLLERS ")).unwrap().1;
    println!("version 2 with {controllers}: {} tests passed", TESTS.len());
}

fn which(program: &str) -> PathBuf {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    PathBuf::from(String::from_utf8_lossy(&found.stdout).trim())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}

fn put(root: &Path, from: &Path, to: &Path) {
    let to = inside(root, to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// What the loader maps for a program, itself included.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    words.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
