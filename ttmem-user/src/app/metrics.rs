//! `ttmem metrics`: what others share, for Prometheus. Needs no privilege, and takes none.

mod http;

use std::{net::SocketAddr, pin::pin};

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{Outcome, ask::places, event_loop, output, signals, watch::Tables};
use crate::{cli::args::readers::MetricsArgs, sink::prometheus, units::ChipId};

/// Runs the command.
pub fn run(args: &MetricsArgs) -> anyhow::Result<Outcome> {
    let chips = args.device.iter().copied().map(ChipId).collect();
    let mut tables = Tables::new(places(args.table_dir.as_ref()), args.pid.clone(), chips);
    match args.listen {
        Some(address) => event_loop()?.block_on(serve(address, tables))?,
        None => output::print(&page(&mut tables)?)?,
    }
    // The page says itself what is exact.
    Ok(Outcome::Complete)
}

fn page(tables: &mut Tables) -> anyhow::Result<String> {
    Ok(prometheus::page(&tables.read()?)?)
}

/// Until it is asked to end.
async fn serve(address: SocketAddr, mut tables: Tables) -> anyhow::Result<()> {
    let quit = pin!(signals::quit()?);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
    // Port 0 is any.
    output::print(&format!("http://{}{}\n", listener.local_addr()?, http::PATH))?;
    tokio::select! {
        () = quit => {}
        () = http::serve(listener, || page(&mut tables)) => {}
    }
    Ok(())
}
