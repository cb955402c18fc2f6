//! `ttmem metrics`: what others share, for Prometheus. Needs no privilege, and takes none.

mod http;

use std::{net::SocketAddr, pin::pin};

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{Outcome, ask::places, event_loop, output, session::quit_signal, watch::Watch};
use crate::{cli::args::readers::MetricsArgs, sink::prometheus, units::ChipId};

/// Runs the command.
pub fn run(args: &MetricsArgs) -> anyhow::Result<Outcome> {
    let chips = args.device.iter().copied().map(ChipId).collect();
    let mut watch = Watch::of(places(args.table_dir.as_ref()), args.pid.clone(), chips);
    match args.listen {
        Some(address) => event_loop()?.block_on(serve(address, watch))?,
        None => output::print(&page(&mut watch)?)?,
    }
    // The page says itself what is exact.
    Ok(Outcome::Complete)
}

fn page(watch: &mut Watch) -> anyhow::Result<String> {
    Ok(prometheus::page(&watch.look()?)?)
}

/// Until it is asked to end.
async fn serve(address: SocketAddr, mut watch: Watch) -> anyhow::Result<()> {
    let quit = pin!(quit_signal()?);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
    // Port 0 is any.
    output::print(&format!("http://{}{}\n", listener.local_addr()?, http::PATH))?;
    tokio::select! {
        () = quit => {}
        () = http::serve(listener, || page(&mut watch)) => {}
    }
    Ok(())
}
