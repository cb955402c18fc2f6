//! `ttmem metrics`: what Prometheus is told is what the socket answers, also by HTTP, and to a user
//! without any right but to read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    sharing::{Rig, Service, said},
    ttmem::PATIENCE,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A user and a group that nobody has.
const STRANGER: u32 = 54_321;

/// Chips, and a buffer of each kind that a stand-in has.
const FIRST: [&str; 5] = [
    "open mesh 0 2 name=m",
    "alloc a m DRAM 1073741824 2048",
    "alloc b m L1 41943040 2048",
    "alloc c m L1_SMALL 4096 1024",
    "alloc d m SYSTEM_MEMORY 200000000 2000",
];

/// Finds a figure in a pool of a snapshot.
type Find = fn(&Value) -> Option<f64>;

/// The figures of a pool: the name on the page, and what it is in a snapshot.
const FIGURES: [(&str, Find); 7] = [
    ("ttmem_used_bytes", |pool| pool["used_bytes"].as_f64()),
    ("ttmem_capacity_bytes", |pool| pool["capacity_bytes"].as_f64()),
    ("ttmem_peak_used_bytes", |pool| pool["peak_used_bytes"].as_f64()),
    ("ttmem_logical_bytes", |pool| pool["logical_bytes"].as_f64()),
    ("ttmem_buffers", |pool| pool["buffers"].as_f64()),
    ("ttmem_allocations_total", |pool| pool["allocations"].as_f64()),
    ("ttmem_frees_total", |pool| {
        Some(pool["frees"].as_f64()? + pool["pre_attach_frees"].as_f64()?)
    }),
];

/// The value of one sample; `None` if there is none.
fn sample(page: &str, name: &str, labels: &str) -> Option<f64> {
    let start = format!("{name}{{{labels}}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

/// Compares each figure of each pool that is used; returns how many there were.
fn compare(page: &str, pid: u32, snapshot: &Value) -> Result<usize> {
    ensure!(snapshot["exact"] == true, "{snapshot}");
    ensure!(sample(page, "ttmem_exact", &format!("pid=\"{pid}\"")) == Some(1.0), "{page}");
    let mut compared = 0;
    for device in snapshot["devices"].as_array().context("devices")? {
        let used = |pool: &&Value| pool["allocations"] != 0;
        for pool in device["pools"].as_array().context("pools")?.iter().filter(used) {
            let (chip, kind) = (&device["chip"], &pool["type"]);
            let labels = format!("pid=\"{pid}\",chip=\"{chip}\",type={kind}");
            for (name, figure) in FIGURES {
                let (said, expected) = (sample(page, name, &labels), figure(pool));
                ensure!(said == expected, "{name}{{{labels}}}: {said:?}, not {expected:?}\n{page}");
                compared += 1;
            }
        }
    }
    Ok(compared)
}

fn snapshot(rig: &Rig) -> Result<Value> {
    rig.sync()?;
    rig.ask()?.ask(&json!({"get": "snapshot"}))
}

#[test]
fn the_page_says_what_the_socket_answers() {
    let mut rig = or_skip!(Rig::new());
    let _first = rig.attach(&[]).unwrap();
    rig.driver.all_ok(&FIRST).unwrap();
    rig.driver.ok("free b").unwrap();
    let expected = snapshot(&rig).unwrap();
    let (page, code) = said(&mut rig.reading(&["metrics"])).unwrap();
    assert_eq!(code, Some(0), "{page}");
    // Two chips, four types.
    assert_eq!(compare(&page, rig.driver.pid(), &expected).unwrap(), 2 * 4 * FIGURES.len());
    let (page, _) = said(&mut rig.reading(&["metrics", "-d", "1"])).unwrap();
    assert!(page.contains("chip=\"1\"") && !page.contains("chip=\"0\""), "{page}");
}

#[test]
fn where_nothing_is_watched_the_page_says_so() {
    let rig = or_skip!(Rig::new());
    let (page, code) = said(&mut rig.reading(&["metrics"])).unwrap();
    assert!(page.contains("\nttmem_processes 0\n"), "{page}");
    assert_eq!(code, Some(0));
    let (refused, code) = said(&mut rig.reading(&["metrics", "--pid", "1"])).unwrap();
    assert!(refused.contains("no table of process 1"), "{refused}");
    assert_eq!(code, Some(1));
}

/// `ttmem metrics --listen 0`, and where it listens.
fn listening(rig: &Rig) -> Result<(Service, SocketAddr)> {
    let mut command = rig.reading(&["metrics", "--listen", "0"]);
    command.stdout(Stdio::piped()).uid(STRANGER).gid(STRANGER);
    let mut service = Service(command.spawn()?);
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let address =
        line.trim_end().strip_prefix("http://").and_then(|it| it.strip_suffix("/metrics"));
    Ok((service, address.with_context(|| line.clone())?.parse()?))
}

fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(answer)
}

#[test]
fn each_scrape_is_of_its_moment_and_needs_no_right() {
    let mut rig = or_skip!(Rig::new());
    let group = STRANGER.to_string();
    let first = rig.attach(&["--group", &group]).unwrap();
    let pid = rig.driver.pid();
    let (mut service, address) = listening(&rig).unwrap();
    rig.driver.all_ok(&FIRST).unwrap();
    let expected = snapshot(&rig).unwrap();
    compare(&get(address).unwrap(), pid, &expected).unwrap();
    rig.driver.ok("free a").unwrap();
    let expected = snapshot(&rig).unwrap();
    compare(&get(address).unwrap(), pid, &expected).unwrap();
    first.signal(Signal::TERM).unwrap();
    first.finish().unwrap();
    // What it wrote last stays readable, and is not called exact any more.
    let page = get(address).unwrap();
    assert_ne!(sample(&page, "ttmem_exact", &format!("pid=\"{pid}\"")), Some(1.0), "{page}");
    service.signal(Signal::TERM).unwrap();
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
}
