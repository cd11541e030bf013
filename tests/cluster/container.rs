//! A node of a test inside of a container: an image of nothing, with the host's own programs mounted into it.

use std::process::{Command, Stdio};

use rand::RngExt;

use crate::rig::{Cluster, needs};

/// Does an engine answer?
pub fn there() -> bool {
    let answers = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    needs("docker", answers.is_ok_and(|output| output.status.success()))
}

/// A container that runs a node once the cluster starts it. Removed with everything in it at the end.
pub struct Container {
    name: String,
}

impl Container {
    /// For a node that is not started yet.
    pub fn of(cluster: &mut Cluster, at: usize) -> Self {
        let name = format!("quorate-test-{:08x}", rand::rng().random::<u32>());
        let tar = cluster.dir.path().join("nothing.tar");
        // Two blocks of zeros are an empty archive.
        std::fs::write(&tar, [0_u8; 1_024]).unwrap();
        let container = Self { name };
        container.engine(&["import", tar.to_str().unwrap(), container.name()]);
        let dir = cluster.dir.path().display().to_string();
        let mut words: Vec<String> = ["run", "-d", "--network", "host", "--tmpfs", "/run", "--tmpfs", "/tmp"]
            .map(str::to_owned)
            .into();
        words.extend(["--name".to_owned(), container.name.clone()]);
        for shared in ["/usr", "/bin", "/lib", "/lib64", "/etc"] {
            words.extend(["-v".to_owned(), format!("{shared}:{shared}:ro")]);
        }
        let command = cluster.command(at);
        let program = command.get_program().to_str().unwrap().to_owned();
        words.extend([
            "-v".to_owned(),
            format!("{program}:{program}:ro"),
            "-v".to_owned(),
            format!("{dir}:{dir}"),
        ]);
        words.extend([container.name.clone(), program]);
        words.extend(["node", "--demo", "--config"].map(str::to_owned));
        words.push(cluster.file(at).display().to_string());
        cluster.launch_by(at, move |arguments| {
            let all = words.iter().map(String::as_str).chain(arguments.iter().copied());
            engine(&all.collect::<Vec<_>>());
        });
        container
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command of the engine that has to succeed.
    pub fn engine(&self, words: &[&str]) {
        engine(words);
    }
}

fn engine(words: &[&str]) {
    let output = Command::new("docker").args(words).output().unwrap();
    assert!(output.status.success(), "docker {words:?}: {output:?}");
}

impl Drop for Container {
    fn drop(&mut self) {
        for words in [["rm", "-f", &self.name], ["rmi", "-f", &self.name]] {
            let _ = Command::new("docker").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
