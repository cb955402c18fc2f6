//! `--tracy` against a receiver of our own, which takes no nonsense: names, balance, order, and
//! what is live, whoever connects when.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
};

use e2e::{
    or_skip,
    real::both,
    stacks::are_in_order,
    standin::Standin,
    tracy::{
        Mirrored, STRANGER, agree,
        receiver::{Receiver, Seen},
        rig,
        scenarios::{self, Backend},
    },
    ttmem::{PATIENCE, Ttmem},
};

#[test]
fn it_is_what_the_allocators_hold_whenever_one_connects() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::whenever_one_connects(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn allocators_of_one_chip_do_not_mix_and_addresses_come_again() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::addresses_come_again(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn three_hundred_pools() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::three_hundred_pools(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn a_storm_is_told_to_the_last_of_it() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_storm(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn a_storm_and_a_loss_end_in_the_truth() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_storm_and_a_loss(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn the_end_of_the_process_is_told() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::the_end_is_told(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn a_viewer_that_is_stuck_delays_nothing_and_is_told_later() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_viewer_that_is_stopped(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn a_mirror_that_is_stuck_delays_nothing_and_catches_up() {
    let (ttmem, driver) = or_skip!(rig());
    scenarios::a_mirror_that_is_stopped(Backend::Wire, &ttmem, driver).unwrap();
}

#[test]
fn the_real_ttnn_on_two_chips_agrees_at_each_checkpoint() {
    let (real, ttmem) = or_skip!(both());
    scenarios::the_real_ttnn(Backend::Wire, (&real, &ttmem), &scenarios::ON_TWO_CHIPS).unwrap();
}

#[test]
fn the_real_ttnn_on_eight_chips_agrees_at_each_checkpoint() {
    let (real, ttmem) = or_skip!(both());
    scenarios::the_real_ttnn(Backend::Wire, (&real, &ttmem), &scenarios::ON_EIGHT_CHIPS).unwrap();
}

#[test]
fn viewers_of_every_protocol_are_told_the_same() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "hold 100"]).unwrap();
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap().attached().unwrap();
    for version in [66, 69, 72, 74, 76, 82] {
        let mut receiver = Receiver::connect_as(mirrored.port, version).unwrap();
        agree(&mut receiver, &ttmem, driver.pid()).unwrap();
        driver.ok(&format!("churn 2 200 {version} keep=10")).unwrap();
        driver.caught("oom m DRAM").unwrap();
        agree(&mut receiver, &ttmem, driver.pid()).unwrap();
        receiver.until("it", |seen| seen.has_message("failed allocation: ")).unwrap();
        let seen = receiver.disconnect().unwrap();
        assert_eq!(seen.program.1, u64::from(driver.pid()), "{version}");
        assert!(seen.program.0.starts_with("driver "), "{version}: {:?}", seen.program);
        assert!(seen.events > 400, "{version}: {}", seen.events);
        assert!(seen.threads.values().any(|name| name == "driver"), "{version}: {seen:?}");
        assert!(seen.plots["TT_Dev0_DRAM used"].0 > 0, "{version}: {:?}", seen.plots);
        // 4 is an error.
        assert_eq!(seen.severities.contains(&4), version >= 77, "{version}");
    }
    mirrored.end().unwrap();
}

/// Whoever connects, before or after; of older buffers nobody knows who called.
#[test]
fn call_stacks_are_those_of_the_target() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "alloc old m L1 65536 2048"]).unwrap();
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &["--stacks"]).unwrap();
    let mirrored = mirrored.attached().unwrap();
    for version in [66, 72, 82] {
        let mut receiver = Receiver::connect_as(mirrored.port, version).unwrap();
        agree(&mut receiver, &ttmem, driver.pid()).unwrap();
        driver.ok(&format!("alloc of{version} m TRACE 8192 2048")).unwrap();
        driver.ok(&format!("churn 2 200 {version} keep=5")).unwrap();
        agree(&mut receiver, &ttmem, driver.pid()).unwrap();
        let pools = receiver.seen().pools.clone();
        let mut known = 0;
        for (name, pool) in pools.iter().filter(|(name, _)| name.starts_with("TT_")) {
            for address in pool.live.keys() {
                let functions = receiver.functions(name, *address);
                if functions.is_empty() {
                    assert!(name.ends_with("_L1"), "{version}: {name} at {address:#x}");
                    continue;
                }
                let calls = ["tt::tt_metal::GraphTracker::track_allocate", "standin::allocate"];
                assert!(are_in_order(&functions, &calls), "{version}: {functions:?}");
                known += 1;
            }
        }
        println!("{version}: {known} stacks");
        let all: usize = pools.values().map(|pool| pool.live.len()).sum();
        assert_eq!(known, all - 2, "all but the older one, which is on two chips");
        receiver.disconnect().unwrap();
    }
    mirrored.end().unwrap();
}

#[test]
fn circular_buffers_have_pools_of_their_own() {
    let (ttmem, mut driver) = or_skip!(rig());
    // Programs from before the attach are not known.
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap().attached().unwrap();
    let mut receiver = Receiver::connect(mirrored.port).unwrap();
    driver
        .all_ok(&[
            "open mesh 0 2 name=m",
            "program p",
            "cb p 4096 0,0-1,1",
            "cb p 8192 0,0-0,0",
            "dispatch p m",
            "program q",
            "cb q 1024 0,0-1,1",
            "dispatch q m",
        ])
        .unwrap();
    let sizes = |seen: &Seen, chip: u32| -> Vec<u64> {
        let pool = seen.pools.get(&format!("TT_Dev{chip}_CB"));
        pool.map_or_else(Vec::new, |pool| pool.live.values().copied().collect())
    };
    let both = |seen: &Seen| [0, 1].iter().all(|chip| sizes(seen, *chip) == [4096, 8192]);
    receiver.until("those of the larger program", both).unwrap();
    driver.ok("end p").unwrap();
    receiver.until("those that are left", |seen| sizes(seen, 0) == [1024]).unwrap();
    let fullest = "TT_Dev0_CB on the fullest core";
    let is_less = |seen: &Seen| seen.plots.get(fullest).is_some_and(|plot| plot.0 == 1024);
    receiver.until("the plot", is_less).unwrap();
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
}

#[test]
fn names_can_be_those_of_tt_metal() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open device 3 name=d", "alloc a d L1_SMALL 4096 2048"]).unwrap();
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &["--tracy-names", "ttmetal"]).unwrap();
    let mut receiver = Receiver::connect(mirrored.port).unwrap();
    receiver.until("the pool", |seen| seen.pools.contains_key("Device 3 L1_SMALL")).unwrap();
    receiver.disconnect().unwrap();
    mirrored.end().unwrap();
}

#[test]
fn each_process_has_a_port_of_its_own() {
    let (ttmem, mut one) = or_skip!(rig());
    let (_, mut other) = or_skip!(rig());
    for driver in [&mut one, &mut other] {
        driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    }
    let pids = [one.pid().to_string(), other.pid().to_string()];
    let arguments =
        ["attach", "--pid", &pids[0], "--pid", &pids[1], "--headless", "--no-table", "--tracy=0"];
    let mut mirrored = Mirrored::start(&ttmem, &arguments).unwrap();
    let second = mirrored.port_in(" in Tracy: ").unwrap();
    for port in [mirrored.port, second] {
        let mut receiver = Receiver::connect(port).unwrap();
        let pid = u32::try_from(receiver.seen().program.1).unwrap();
        assert!(pid == one.pid() || pid == other.pid());
        agree(&mut receiver, &ttmem, pid).unwrap();
        receiver.disconnect().unwrap();
    }
    mirrored.end().unwrap();
}

#[test]
fn a_command_is_followed_from_its_start() {
    let standin = or_skip!(Standin::locate("pimpl"));
    let ttmem = or_skip!(Ttmem::locate());
    let shell = format!("'{}'; exit 0", standin.driver().display());
    let arguments = ["run", "--headless", "--no-table", "--tracy=0", "--", "sh", "-c", &shell];
    let mut command = ttmem.command(&arguments);
    command.stdin(Stdio::piped());
    let mut mirrored = Mirrored::of(command).unwrap();
    // It may be there before the process is.
    let mut receiver = Receiver::connect(mirrored.port).unwrap();
    receiver.until("the attach", |seen| seen.has_message("the probes are in place")).unwrap();
    mirrored.tell("open mesh 0 2 name=m\nstorm 300\nalloc a m DRAM 4096 2048\nquit\n").unwrap();
    let seen = receiver.until_end().unwrap();
    assert!(seen.has_message("the process has exited"), "{:?}", seen.messages);
    assert!(seen.pools["TT_Dev0_DRAM"].live.is_empty());
    assert!(seen.pools["TT_Dev0_DRAM"].came > 0);
    mirrored.ended().unwrap();
}

#[test]
fn nonsense_on_the_port_harms_nobody() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap();
    let port = mirrored.port;
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let half = connect();
    (&half).write_all(b"Tracy").unwrap();
    let silent = connect();
    let mut garbage = connect();
    garbage.write_all(&[0xa5; 4096]).unwrap();
    let answer = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        // Closed with data unread is a reset.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    };
    assert!(answer(&mut garbage).is_empty());
    let mut old = connect();
    old.write_all(b"TracyPrf\x40\0\0\0").unwrap();
    assert_eq!(answer(&mut old), [2_u8], "a mismatch");
    mirrored.line_with("what connects is no Tracy viewer").unwrap();
    let line = mirrored.line_with("the viewer speaks protocol 64").unwrap();
    assert!(line.contains("82 (Tracy 0.14)"), "{line}");
    // A viewer that then asks nonsense.
    let mut asks = connect();
    asks.write_all(b"TracyPrf\x52\0\0\0").unwrap();
    asks.write_all(&[0x5a; 13 * 1000]).unwrap();
    drop(asks);
    let mut receiver = Receiver::connect(mirrored.port).unwrap();
    agree(&mut receiver, &ttmem, driver.pid()).unwrap();
    receiver.disconnect().unwrap();
    drop((half, silent));
    mirrored.end().unwrap();
}

#[test]
fn a_protocol_that_is_chosen_is_the_only_one() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.ok("open mesh 0 1 name=m").unwrap();
    let mut mirrored = Mirrored::attach(&ttmem, driver.pid(), &["--tracy-protocol=tt-83"]).unwrap();
    let refused = Receiver::connect(mirrored.port).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("refused with 2")));
    mirrored.line_with("Tenstorrent's 83, as --tracy-protocol says").unwrap();
    mirrored.end().unwrap();
}

#[test]
fn a_taken_port_is_passed_over() {
    let (ttmem, driver) = or_skip!(rig());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let pid = driver.pid().to_string();
    let option = format!("--tracy={port}");
    let arguments = ["attach", "--pid", &pid, "--wait", "--headless", "--no-table", &option];
    let mut command = ttmem.command(&arguments);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let stderr = child.stderr.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.contains(&format!("{port} is taken by process {} (", std::process::id())),
        "{line}"
    );
    assert!(line.contains("Tracy viewers can connect to 127.0.0.1:"), "{line}");
}

#[test]
fn a_stranger_sees_nothing() {
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap();
    // Asks for a name, and for 64 bytes at each of some addresses of the agent.
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", mirrored.pid())).unwrap();
    let addresses: Vec<String> =
        maps.lines().filter_map(|line| Some(format!("0x{}", line.split('-').next()?))).collect();
    let script = format!(
        "import socket, struct
s = socket.create_connection(('127.0.0.1', {}))
s.sendall(b'TracyPrf' + struct.pack('<I', 82))
for address in [{}]:
    try: s.sendall(struct.pack('<BQI', 1, address, 0))
    except OSError: break
s.settimeout(20)
got = b''
try:
    while True:
        more = s.recv(65536)
        if not more: break
        got += more
except OSError: pass
print(len(got))",
        mirrored.port,
        addresses.join(",")
    );
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            STRANGER,
            "--regid",
            STRANGER,
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            &script,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "0", "{}", String::from_utf8_lossy(&output.stderr));
    let line = mirrored.line_with("may not see this process").unwrap();
    assert!(line.contains(STRANGER), "{line}");
    mirrored.end().unwrap();
}
