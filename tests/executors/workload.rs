//! The built-in workload: its record, its counter, its pages, and its ways to fail.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{QUORATE, signal_process, until, until_so};

struct Workload {
    child: Child,
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &Path, arguments: &[&str]) -> Workload {
    let mut command = Command::new(QUORATE);
    command.arg("workload").arg("--record").arg(folder.join("record"));
    command.args(arguments).env("QUORATE_STATE_DIR", folder.join("state"));
    for (name, value) in [
        ("QUORATE_SERVICE", "web"),
        ("QUORATE_INSTANCE", "web/0@1.7"),
        ("QUORATE_NODE", "n1"),
        ("QUORATE_FENCING_TOKEN", "1.7"),
    ] {
        command.env(name, value);
    }
    Workload { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
}

fn record(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("record")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn counter(folder: &Path) -> u64 {
    fs::read_to_string(folder.join("state/counter"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn its_record_tells_its_life_and_its_counter_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut first = start(folder.path(), &[]);
    until_so("it ticks", || record(folder.path()).len() > 20).await;
    signal_process(first.child.id(), Signal::TERM);
    assert!(first.child.wait().unwrap().success());
    let lines = record(folder.path());
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((events[0], events[1], events[events.len() - 1]), ("start", "tick", "stop"));
    let line = &lines[1];
    for (field, value) in [("service", "web"), ("instance", "web/0@1.7"), ("node", "n1"), ("token", "1.7")] {
        assert_eq!(line[field], value);
    }
    assert_eq!(line["pid"], first.child.id());
    let times: Vec<u64> = lines.iter().filter_map(|line| line["boottime_ns"].as_u64()).collect();
    assert!(times.len() == lines.len() && times.is_sorted());
    let reached = counter(folder.path());
    assert!(reached >= 20);
    let _second = start(folder.path(), &[]);
    until_so("it counts on", || counter(folder.path()) > reached + 5).await;
}

#[tokio::test]
async fn it_serves_its_pages_late_when_told_and_ignores_the_signal_when_told() {
    let folder = TempDir::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let begun = std::time::Instant::now();
    let mut workload = start(
        folder.path(),
        &["--http", &address, "--slow-start", "0.5", "--ignore-sigterm", "--crash-after", "3"],
    );
    let page = until("it serves", async || get(port, "/").await).await;
    assert!(begun.elapsed().as_millis() >= 500);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains(r#""token":"1.7""#), "{page}");
    assert!(get(port, "/healthz").await.unwrap().contains("200 OK"));
    assert!(get(port, "/other").await.unwrap().contains("404"));
    signal_process(workload.child.id(), Signal::TERM);
    let ticks = record(folder.path()).len();
    until_so("it goes on", || record(folder.path()).len() > ticks + 10).await;
    assert_eq!(workload.child.wait().unwrap().code(), Some(1));
}

async fn get(port: u16, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
