//! Whatever panics while the live view is shown, the terminal is as it was, and then the message is
//! on it. Each test runs itself once more, as a program in a terminal of its own, and panics there.

use std::{
    env, future,
    io::Read as _,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use tokio::sync::watch;
use ttmem::{
    ledger::report::Report,
    tui::{TerminalGuard, Theme, Ui, run},
};

/// Set in the program that panics.
const INSIDE: &str = "TTMEM_TEST_INSIDE";
const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";
const MOUSE_OFF: &str = "\x1b[?1000l";
const CURSOR_OFF: &str = "\x1b[?25l";
const CURSOR_ON: &str = "\x1b[?25h";

fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the test of this name in a terminal; what it wrote there, and whether it succeeded.
fn in_a_terminal(test: &str) -> (String, bool) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let settings = || format!("{:?}", tcgetattr(&theirs).unwrap());
    let before = settings();
    let end = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--color", "never"]).env(INSIDE, "1");
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // It holds their end of the terminal.
    drop(command);
    let reader = thread::spawn(move || {
        let mut written = Vec::new();
        // Ends with an error once nobody has the other end.
        let _ = std::fs::File::from(ours).read_to_end(&mut written);
        String::from_utf8_lossy(&written).into_owned()
    });
    let status = child.wait().unwrap();
    assert_eq!(settings(), before, "the terminal's settings");
    drop(theirs);
    (reader.join().unwrap(), status.success())
}

/// That the screen was taken and given back, and that the message came after that and nothing on it.
fn assert_given_back(written: &str, message: &str) {
    let find =
        |what: &str| written.find(what).unwrap_or_else(|| panic!("no {what:?}: {written:?}"));
    let (taken, left) = (find(ENTERED), find(LEFT));
    assert!(taken < left && left < find(message), "{written:?}");
    assert!(find(MOUSE_OFF) < find(message), "{written:?}");
    assert_eq!(written.matches(ENTERED).count(), 1, "{written:?}");
    assert!(written.rfind(CURSOR_ON) > written.rfind(CURSOR_OFF), "{written:?}");
    // That the cursor is there may be said once more.
    let after = written[find(message)..].replace(CURSOR_ON, "");
    assert!(!after.contains('\x1b'), "drawn on after the message: {after:?}");
}

fn show(ui: Ui, reports: watch::Receiver<Arc<Report>>, quit: impl Future) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(ui, reports, None, |_| None, quit))
}

#[test]
fn when_a_frame_panics() {
    if is_inside() {
        let mut terminal = TerminalGuard::enter().unwrap();
        terminal.draw(|frame| frame.render_widget("a frame", frame.area())).unwrap();
        terminal.draw(|_| panic!("within a frame")).unwrap();
    }
    let (written, success) = in_a_terminal("when_a_frame_panics");
    assert!(written.contains("a frame") && !success, "{written:?}");
    assert_given_back(&written, "within a frame");
}

#[test]
fn when_the_loop_panics() {
    if is_inside() {
        let (_sender, reports) = watch::channel(Arc::default());
        let quit = future::poll_fn(|_| -> std::task::Poll<()> { panic!("within the loop") });
        show(Ui::new(Theme::colored()), reports, quit).unwrap();
    }
    let (written, success) = in_a_terminal("when_the_loop_panics");
    assert!(!success, "{written:?}");
    assert_given_back(&written, "within the loop");
}

/// The view ends: it has no terminal any more.
#[test]
fn when_the_thread_that_reports_panics() {
    if is_inside() {
        let (sender, reports) = watch::channel(Arc::new(Report::default()));
        let (drawn, has_drawn) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _sender = sender;
            has_drawn.recv().unwrap();
            panic!("within a thread");
        });
        let never = future::poll_fn(move |_| {
            let _ = drawn.send(());
            std::task::Poll::<()>::Pending
        });
        let ended = show(Ui::new(Theme::colored()), reports, never);
        assert!(ended.unwrap_err().to_string().contains("panic"));
        assert!(thread.join().is_err());
        return;
    }
    let (written, success) = in_a_terminal("when_the_thread_that_reports_panics");
    assert!(success, "{written:?}");
    assert_given_back(&written, "within a thread");
}
