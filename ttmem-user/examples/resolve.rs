//! Prints what can be decoded from one library: `resolve FILE`.

use std::time::Instant;

use ttmem::{
    image::Image,
    resolve::{is_tt_metal, resolve},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: resolve FILE")?;
    let bytes = std::fs::read(&path)?;
    let start = Instant::now();
    let image = Image::parse(bytes.as_slice())?;
    let parsed = start.elapsed();
    let plan = resolve(&image);
    println!("{path}: build id {:?}, tt-metal: {}", image.build_id(), is_tt_metal(&image));
    println!("parsed in {parsed:?}, resolved in {:?}", start.elapsed().saturating_sub(parsed));
    for fact in &plan.facts {
        println!("  {:<36} {:<34} {}", fact.name, fact.value, fact.from);
    }
    println!("  window {:#x}", plan.layout.buffer.window_len);
    for point in &plan.points {
        println!("  {:<12} {} {:?} {}", point.probe.name(), point.offset, point.cost, point.symbol);
    }
    println!("  memory: {:?}", plan.memory);
    for missing in &plan.unresolved {
        println!("  UNRESOLVED {}: {}", missing.probe, missing.reason);
    }
    Ok(())
}
