//! Arguments of the commands that read what another ttmem shares.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use regex::Regex;

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct WatchArgs {
    /// Every process and every device that you may read; the default.
    #[arg(short, long, conflicts_with_all = ["pid", "device"])]
    pub all: bool,
    /// Only this process; may be repeated.
    #[arg(short, long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only this device; may be repeated.
    #[arg(short, long, value_name = "N")]
    pub device: Vec<i32>,
    /// How often to read, in milliseconds, 10 to 3600000.
    #[arg(short, long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub refresh: u64,
    /// Print once and end.
    #[arg(long)]
    pub once: bool,
    /// Print JSON: the snapshots of `attach --format json`, asked for at the socket.
    #[arg(long)]
    pub json: bool,
    /// Print lines instead of showing the live view.
    #[arg(long)]
    pub headless: bool,
    /// How the live view looks.
    #[command(flatten)]
    pub look: super::look::LookArgs,
    /// Where the tables are [default: TTMEM_TABLE_DIR if it is set, else /run/ttmem, and ttmem in
    /// XDG_RUNTIME_DIR].
    #[arg(long, value_name = "DIR")]
    pub table_dir: Option<PathBuf>,
}

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Serve them at this address by HTTP, under /metrics; port 0 is any that is free [without one:
    /// print them once].
    #[arg(short, long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Only this process; may be repeated.
    #[arg(short, long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only this device; may be repeated.
    #[arg(short, long, value_name = "N")]
    pub device: Vec<i32>,
    /// Where the tables are [default: /run/ttmem, and ttmem in XDG_RUNTIME_DIR].
    #[arg(long, value_name = "DIR")]
    pub table_dir: Option<PathBuf>,
}

/// A port alone is one of this machine that only this machine reaches.
fn address(typed: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = typed.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let problem = "neither a port, 0 to 65535, nor ADDRESS:PORT, such as 0.0.0.0:9464 or [::]:9464";
    typed.parse().map_err(|_| problem.to_owned())
}

/// Arguments of `ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question, one JSON object; see docs/socket.md.
    #[arg(value_name = "JSON")]
    pub request: String,
    /// The process to ask about [default: the only one that is watched].
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Where the sockets are [default: TTMEM_TABLE_DIR if it is set, else /run/ttmem, and ttmem in
    /// XDG_RUNTIME_DIR].
    #[arg(long, value_name = "DIR")]
    pub table_dir: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Every process with tt-metal, now or later; the default.
    #[arg(short, long, conflicts_with = "name")]
    pub all: bool,
    /// Only those whose command line matches.
    #[arg(long, value_name = "REGEX")]
    pub name: Option<Regex>,
    /// Where other processes can read [default: /run/ttmem, or ttmem in XDG_RUNTIME_DIR when not
    /// root].
    #[arg(long, value_name = "DIR")]
    pub table_dir: Option<PathBuf>,
    /// A group whose members may read, besides the user of each process.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// How many failed allocations to keep of each process, 0 to 1000, with what was live then.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub keep_failures: u16,
    /// Read the live buffers again every so many seconds, above 0 and at most 1000000000, and report
    /// every difference.
    #[arg(long, value_name = "S", value_parser = super::seconds)]
    pub audit: Option<f64>,
    /// Watch which program runs when; costs each process a probe hit per dispatch.
    #[arg(long)]
    pub dispatches: bool,
    /// Whether and how call stacks are recorded.
    #[command(flatten)]
    pub stacks: super::stacks::StackArgs,
    /// Room for records on their way from the kernel, in KiB, 4 to 1048576; rounded up to a power of
    /// two.
    #[arg(long, value_name = "KIB", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    pub ring_size: u32,
    /// How to show it in Tracy, if at all.
    #[cfg(feature = "tracy")]
    #[command(flatten)]
    pub tracy: super::tracy::TracyArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_machine() {
        assert_eq!(address("9464"), Ok(SocketAddr::from(([127, 0, 0, 1], 9464))));
        assert_eq!(address("0.0.0.0:9464"), Ok(SocketAddr::from(([0, 0, 0, 0], 9464))));
        assert_eq!(address("[::1]:80").map(|address| address.is_ipv6()), Ok(true));
        for wrong in ["", ":9464", "65536", "localhost:9464", "9464/metrics"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
