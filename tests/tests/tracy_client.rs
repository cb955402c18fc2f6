//! `--tracy-backend client`: Tracy's own client in a process of its own, against a receiver that
//! takes no nonsense, and what that process may do.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::FileExt as _,
    process::Command,
};

use anyhow::{Context as _, Result};
use e2e::{
    or_skip,
    real::both,
    tracy::{
        Mirrored, STRANGER, agree, ended_exact,
        expected::live_in,
        receiver::Receiver,
        rig,
        scenarios::{self, Backend, lines_are_right},
        stopped::Stopped,
    },
    ttmem::PATIENCE,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const CLIENT: [&str; 2] = ["--tracy-backend", "client"];
/// In the memory of ttmem, and to be in no other.
const SECRET: &str = "TTMEM_TEST_SECRET=correct-horse-battery-staple";
/// Whose processes they are.
const NOBODY: &str = "65534";

fn connect(port: u16) -> Receiver {
    Backend::Client.connect(port).unwrap()
}

/// The processes that a process has started.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(task?.path().join("children"))?;
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// The process that the others are copies of, and those.
fn family(mirrored: &Mirrored) -> Result<(u32, Vec<u32>)> {
    let nursery = *children(mirrored.pid())?.first().context("no process")?;
    Ok((nursery, children(nursery)?))
}

/// Ends a process, and waits until it has.
fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("pid")?;
    let it = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_send_signal(&it, Signal::KILL)?;
    e2e::ttmem::readable_within(&it, PATIENCE)
}

/// Whether a text is anywhere in what a process may read.
fn has_in_memory(pid: u32, text: &str) -> Result<bool> {
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let (range, rest) = line.split_once(' ').context("a range")?;
        let (start, end) = range.split_once('-').context("an end")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        // What is of a file alone is no secret.
        if !rest.starts_with("rw") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(end - start)?];
        // Some cannot be read by anybody.
        let len = memory.read_at(&mut bytes, start).unwrap_or(0);
        if bytes[..len].windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn it_is_what_the_allocators_hold_whenever_one_connects() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::whenever_one_connects(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn allocators_of_one_chip_do_not_mix_and_addresses_come_again() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::addresses_come_again(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn three_hundred_pools() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::three_hundred_pools(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn a_storm_is_told_to_the_last_of_it() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_storm(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn a_storm_and_a_loss_end_in_the_truth() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_storm_and_a_loss(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn the_end_of_the_process_is_told() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::the_end_is_told(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn a_viewer_that_is_stuck_delays_nothing_and_is_told_later() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_viewer_that_is_stopped(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn a_mirror_that_is_stuck_delays_nothing_and_catches_up() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_mirror_that_is_stopped(Backend::Client, &ttmem, driver).unwrap();
}

#[test]
fn the_real_ttnn_on_two_chips_agrees_at_each_checkpoint() {
    let (real, ttmem) = or_skip!(both());
    scenarios::the_real_ttnn(Backend::Client, (&real, &ttmem), &scenarios::ON_TWO_CHIPS).unwrap();
}

#[test]
fn the_real_ttnn_on_eight_chips_agrees_at_each_checkpoint() {
    let (real, ttmem) = or_skip!(both());
    scenarios::the_real_ttnn(Backend::Client, (&real, &ttmem), &scenarios::ON_EIGHT_CHIPS).unwrap();
}

#[test]
fn each_process_has_a_client_of_its_own() {
    let (ttmem, mut one) = or_skip!(rig());
    let (_, mut other) = or_skip!(rig());
    one.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    other.all_ok(&["open mesh 0 1 name=m", "alloc a m L1 8192 2048"]).unwrap();
    let pids = [one.pid().to_string(), other.pid().to_string()];
    let mut arguments =
        vec!["attach", "--pid", &pids[0], "--pid", &pids[1], "--headless", "--no-table"];
    arguments.extend(["--tracy=0", "--tracy-backend", "client"]);
    let mut mirrored = Mirrored::start(&ttmem, &arguments).unwrap();
    let line = mirrored.line_with(" in Tracy: ").unwrap();
    let second: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let is_of_one = line.contains(&format!("process {} ", one.pid()));
    let (first_pid, second_pid) =
        if is_of_one { (other.pid(), one.pid()) } else { (one.pid(), other.pid()) };
    for (port, pid) in [(mirrored.port, first_pid), (second, second_pid)] {
        let mut receiver = connect(port);
        agree(&mut receiver, &ttmem, pid).unwrap();
        receiver.disconnect().unwrap();
    }
    assert_eq!(family(&mirrored).unwrap().1.len(), 2);
    mirrored.end().unwrap();
}

#[test]
fn it_has_no_rights_and_nothing_of_ttmem() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let pid = driver.pid().to_string();
    let mut command =
        ttmem.command(&["attach", "--pid", &pid, "--headless", "--no-table", "--tracy=0"]);
    let (name, value) = SECRET.split_once('=').unwrap();
    command.args(CLIENT).env(name, value).env("TRACY_PORT", "1");
    let mirrored = Mirrored::of(command).unwrap();
    let mut receiver = connect(mirrored.port);
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    assert!(has_in_memory(mirrored.pid(), SECRET).unwrap(), "it would be found");
    let (nursery, clients) = family(&mirrored).unwrap();
    assert_eq!(clients.len(), 1);
    for pid in clients.iter().chain([&nursery]) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> Vec<&str> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect()
        };
        assert_eq!(field("Uid:"), [NOBODY; 4]);
        assert_eq!(field("Gid:"), [NOBODY; 4]);
        assert_eq!(field("Groups:"), [""; 0]);
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "the environment");
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = fs::read_link(fd.unwrap().path()).unwrap();
            let target = target.to_string_lossy();
            let own = ["socket:", "pipe:", "/dev/null"];
            assert!(own.iter().any(|start| target.starts_with(start)), "{target}");
        }
        assert!(!has_in_memory(*pid, SECRET).unwrap(), "{pid} has what ttmem has");
    }
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
}

#[test]
fn killed_it_is_started_anew_once_and_ttmem_goes_on() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "hold 50"]).unwrap();
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("lines");
    let mut more = vec!["--format", "json", "-o", output.to_str().unwrap()];
    more.extend(CLIENT);
    let mut mirrored = Mirrored::attach(&ttmem, driver.pid(), &more).unwrap();
    let mut receiver = connect(mirrored.port);
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    kill(family(&mirrored).unwrap().1[0]).unwrap();
    mirrored.line_with("the process with Tracy's client has ended").unwrap();
    driver.ok("alloc more m DRAM 4096 2048").unwrap();
    let port = mirrored.port_in("it is started anew: ").unwrap();
    let mut receiver = connect(port);
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    kill(family(&mirrored).unwrap().1[0]).unwrap();
    mirrored.line_with("it is not started a third time").unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    driver.ok("alloc last m DRAM 4096 2048").unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    mirrored.end().unwrap();
    ended_exact(&output).unwrap();
    assert!(expected.contains_key("TT_Dev0_DRAM"));
}

#[test]
fn stopped_it_delays_nothing_and_catches_up() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.ok("open mesh 0 32 name=m").unwrap();
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("lines");
    let more = ["--ring-size", "65536", "--format", "json", "-o", output.to_str().unwrap()];
    let mirrored = Backend::Client.attach(&ttmem, driver.pid(), &more).unwrap();
    let mirrored = mirrored.attached().unwrap();
    let mut receiver = connect(mirrored.port);
    driver.ok("alloc first m DRAM 4096 2048").unwrap();
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    // Nothing is taken from the pipe while more is told than waits there.
    let stopped = Stopped::process(family(&mirrored).unwrap().1[0]).unwrap();
    driver.all_ok(&["free first", "churn 4 8000 3 keep=20"]).unwrap();
    lines_are_right(&output, &mut driver).unwrap();
    stopped.go_on().unwrap();
    receiver
        .until("what was missed", |seen| seen.has_message("Tracy's client was too slow"))
        .unwrap();
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
    ended_exact(&output).unwrap();
}

#[test]
fn a_stranger_may_end_the_client_and_gets_nothing_of_ttmem() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let pid = driver.pid().to_string();
    let mut command =
        ttmem.command(&["attach", "--pid", &pid, "--headless", "--no-table", "--tracy=0"]);
    let (name, value) = SECRET.split_once('=').unwrap();
    command.args(CLIENT).env(name, value);
    let mut mirrored = Mirrored::of(command).unwrap();
    // Where ttmem has its environment, and with it the secret.
    let stack = fs::read_to_string(format!("/proc/{}/stat", mirrored.pid())).unwrap();
    let fields: Vec<&str> = stack.rsplit(')').next().unwrap().split_whitespace().collect();
    let (start, end): (u64, u64) = (fields[47].parse().unwrap(), fields[48].parse().unwrap());
    assert!(end > start && start > 0);
    let script = format!(
        "import socket, struct
s = socket.create_connection(('127.0.0.1', {}))
s.sendall(b'TracyPrf' + struct.pack('<I', 82))
for address in range({start}, {end}, 8):
    try: s.sendall(struct.pack('<BQI', 1, address, 0))
    except OSError: break
s.settimeout(5)
got = b''
try:
    while True:
        more = s.recv(65536)
        if not more: break
        got += more
except OSError: pass
print(got.find(b'correct-horse'))",
        mirrored.port
    );
    let stranger = ["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"];
    let output = Command::new("setpriv")
        .args(stranger)
        .args(["/usr/bin/python3", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "-1", "{output:?}");
    mirrored.line_with("the process with Tracy's client has ended").unwrap();
    let port = mirrored.port_in("it is started anew: ").unwrap();
    let mut receiver = connect(port);
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
}

#[test]
fn what_it_cannot_do_is_said() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.ok("open mesh 0 1 name=m").unwrap();
    let pid = driver.pid().to_string();
    for more in [&["--tracy=0.0.0.0:0"][..], &["--tracy=0", "--tracy-protocol", "66"]] {
        let mut arguments = vec!["attach", "--pid", &pid, "--headless", "--no-table"];
        arguments.extend(CLIENT.iter().chain(more));
        let output = ttmem.run(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("listens on 127.0.0.1 and speaks protocol 82"), "{said}");
    }
    // Garbage and half a handshake are for Tracy to refuse.
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &CLIENT).unwrap();
    let mut garbage = TcpStream::connect(("127.0.0.1", mirrored.port)).unwrap();
    garbage.write_all(&[0xa5; 4096]).unwrap();
    garbage.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    let mut receiver = connect(mirrored.port);
    driver.ok("alloc a m DRAM 4096 2048").unwrap();
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
}

#[test]
fn nothing_is_left_when_ttmem_is_killed() {
    let (ttmem, driver) = or_skip!(rig());
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &CLIENT).unwrap();
    let (nursery, clients) = family(&mirrored).unwrap();
    let all: Result<Vec<_>> = clients
        .iter()
        .chain([&nursery])
        .map(|pid| {
            let pid = Pid::from_raw(i32::try_from(*pid)?).context("pid")?;
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        })
        .collect();
    kill(mirrored.pid()).unwrap();
    for it in all.unwrap() {
        e2e::ttmem::readable_within(&it, PATIENCE).unwrap();
    }
}
