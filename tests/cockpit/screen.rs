//! A pseudo-terminal with the real program in it: what it drew, and keys for it.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// A terminal with a program in it.
pub struct Screen {
    drawn: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    _master: Box<dyn MasterPty + Send>,
}

impl Screen {
    /// Starts the program with these arguments; `home` keeps everything it writes by default.
    pub fn of(arguments: &[&str], home: &Path) -> Self {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(arguments);
        Self::with(command, home, (80, 24))
    }

    /// A shell that knows the program, in a larger terminal.
    pub fn shell(home: &Path) -> Self {
        let mut command = CommandBuilder::new("/bin/sh");
        let folder = Path::new(env!("CARGO_BIN_EXE_quorate")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path);
        command.env("PS1", "$");
        Self::with(command, home, (120, 36))
    }

    fn with(mut command: CommandBuilder, home: &Path, (cols, rows): (u16, u16)) -> Self {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        for name in ["QUORATE_ENDPOINT", "QUORATE_DATA_DIR", "QUORATE_SECRET_FILE", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        command.env("HOME", home);
        command.env("XDG_STATE_HOME", home.join("state"));
        command.env("XDG_CONFIG_HOME", home.join("config"));
        command.cwd(home);
        // What a shell of the test's own surroundings would read.
        command.env_remove("ENV");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let drawn = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 0)));
        let mut output = pair.master.try_clone_reader().unwrap();
        let parser = drawn.clone();
        std::thread::spawn(move || {
            let mut piece = [0_u8; 4_096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                parser.lock().unwrap().process(&piece[..count]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Self { drawn, keys, child, _master: pair.master }
    }

    /// What is on it now.
    pub fn text(&self) -> String {
        self.drawn.lock().unwrap().screen().contents()
    }

    /// Is the program on the alternate screen, as a full-screen program is?
    pub fn taken(&self) -> bool {
        self.drawn.lock().unwrap().screen().alternate_screen()
    }

    /// Waits until what is drawn satisfies `holds`.
    #[track_caller]
    pub fn until(&self, what: &str, within: Duration, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + within;
        while !holds(&self.text()) {
            assert!(Instant::now() < deadline, "not within {within:?}: {what}; drawn is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for the program's end and gives its exit code.
    #[track_caller]
    pub fn ended(&mut self, within: Duration) -> u32 {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.exit_code();
            }
            assert!(Instant::now() < deadline, "the program goes on; drawn is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
