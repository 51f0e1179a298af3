//! [`Terminal`]: a program in a pseudo-terminal, and what its screen shows.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};
use vt100::Parser;

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    // Open, so that the state of the terminal can be read after the program has ended.
    _slave: Box<dyn SlavePty + Send>,
    input: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<Parser>>,
    before: String,
}

fn size(rows: u16, columns: u16) -> PtySize {
    PtySize {
        rows,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    }
}

fn at_least_one(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a size")
}

impl Terminal {
    /// Runs `authgate` with these arguments in a folder.
    pub fn start(folder: &Path, words: &[&str], rows: u16, columns: u16) -> Self {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_authgate"));
        command.args(words);
        command.cwd(folder);
        command.env_remove("AUTHGATE_CONFIG");
        command.env_remove("NO_COLOR");
        Self::of(command, rows, columns)
    }

    /// Runs any command, with its environment.
    pub fn run(command: &Command, rows: u16, columns: u16) -> Self {
        let mut terminal = CommandBuilder::new(command.get_program());
        terminal.args(command.get_args());
        terminal.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                terminal.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            terminal.cwd(folder);
        }
        Self::of(terminal, rows, columns)
    }

    fn of(mut command: CommandBuilder, rows: u16, columns: u16) -> Self {
        let pair = native_pty_system().openpty(size(rows, columns)).expect("a terminal");
        let before = modes(&*pair.master);
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).expect("the program is built");
        let screen = Arc::new(Mutex::new(Parser::new(at_least_one(rows), at_least_one(columns), 0)));
        let (mut output, shown) = (pair.master.try_clone_reader().expect("a reader"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("no test fails inside").process(&bytes[..read]);
            }
        });
        Self {
            input: pair.master.take_writer().expect("a writer"),
            master: pair.master,
            _slave: pair.slave,
            child,
            screen,
            before,
        }
    }

    pub fn text(&self) -> String {
        self.screen.lock().expect("no test fails inside").screen().contents()
    }

    pub fn wait_for(&self, text: &str) {
        let started = Instant::now();
        while !self.text().contains(text) {
            assert!(
                started.elapsed() < PATIENCE,
                "the screen does not show {text:?}:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn send(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).expect("an open terminal");
        self.input.flush().expect("an open terminal");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let mut screen = self.screen.lock().expect("no test fails inside");
        screen.screen_mut().set_size(at_least_one(rows), at_least_one(columns));
        drop(screen);
        self.master.resize(size(rows, columns)).expect("a size");
    }

    pub fn pid(&self) -> u32 {
        self.child.process_id().expect("it runs")
    }

    /// Waits until the program has ended; returns its exit code. The terminal must be as it was before.
    pub fn end(mut self) -> u32 {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(modes(&*self.master), self.before, "the modes of the terminal");
        let screen = || {
            let parser = self.screen.lock().expect("no test fails inside");
            (parser.screen().alternate_screen(), parser.screen().hide_cursor())
        };
        // Its last bytes may still be on their way.
        while screen() != (false, false) {
            assert!(
                started.elapsed() < PATIENCE,
                "alternate screen, hidden cursor: {:?}",
                screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        status.exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The modes of the terminal: whether it echoes, waits for lines, and sends signals.
fn modes(master: &dyn MasterPty) -> String {
    let modes = master.get_termios().expect("a terminal");
    format!(
        "{:?} {:?} {:?}",
        modes.local_flags, modes.input_flags, modes.output_flags
    )
}
