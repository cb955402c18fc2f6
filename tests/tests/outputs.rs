//! Outputs that cannot be written to, and what they held before.

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Stdio,
};

use e2e::{
    or_skip,
    refusal::{Program, end_of},
    sharing::{Rig, Service, served},
    ttmem::{PATIENCE, Ttmem},
};
use rustix::pipe::pipe;

/// A pipe that nobody reads, as behind a `tee` that has ended.
fn unread() -> Stdio {
    let (_, write) = pipe().unwrap();
    Stdio::from(write)
}

fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

#[test]
fn where_no_error_can_be_written_the_exit_code_still_says_it() {
    let ttmem = or_skip!(Ttmem::locate());
    let stderrs: [fn() -> Stdio; 2] = [unread, full];
    for stderr in stderrs {
        for arguments in [&["ask", "{"][..], &["snapshot", "--pid", "4194304"]] {
            let output = ttmem.command(arguments).stderr(stderr()).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
    }
}

#[test]
fn a_command_keeps_its_exit_code_where_nothing_can_be_said_of_it() {
    let ttmem = or_skip!(Ttmem::locate());
    let arguments = ["run", "--headless", "-o", "/dev/full", "--", "sh", "-c", "exit 7"];
    let output = ttmem.command(&arguments).stderr(unread()).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_service_that_nobody_listens_to_goes_on() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let notices = rig.outer.path().join("notify");
    let systemd = UnixDatagram::bind(&notices).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = rig.reading(&["serve"]);
    let command = command.env("NOTIFY_SOCKET", &notices).stderr(unread());
    let mut service = Service(command.spawn().unwrap());
    served(&rig.place(), rig.driver.pid()).unwrap();
    // It tells systemd after it has said whom it watches.
    let mut bytes = [0; 4096];
    loop {
        let len = systemd.recv(&mut bytes).expect("systemd is told");
        if String::from_utf8_lossy(&bytes[..len]).contains("1 processes are watched") {
            break;
        }
    }
    rig.driver.ok("alloc b m DRAM 4096 2048").unwrap();
    rig.sync().unwrap();
    assert!(service.0.try_wait().unwrap().is_none(), "it has ended");
}

#[test]
fn what_a_file_held_stays_where_nothing_can_be_watched() {
    let ttmem = or_skip!(Ttmem::locate());
    let program = Program::start(Path::new("cat"), &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    fs::write(&file, "of yesterday\n").unwrap();
    let mut command = ttmem.command(&["attach", "--pid", &program.pid().to_string(), "-o"]);
    command.arg(&file);
    assert_eq!(end_of(command).unwrap().status.code(), Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), "of yesterday\n");
}
