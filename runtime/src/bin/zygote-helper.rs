//! Stands in for a program that uses this crate, in its tests: as a zygote, or as a worker to be killed.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("zygote") => runtime::zygote_main(),
        Some("bridge") => hold_bridge(arguments.next().unwrap_or_default()),
        _ => Err("`zygote`, or `bridge ID`".into()),
    }
}

/// Makes a bridge, prints its name, and waits for the end of its input.
fn hold_bridge(id: String) -> Result<(), Box<dyn std::error::Error>> {
    let resolver = runtime::network::Resolver::of_this_machine();
    let config = runtime::network::BridgeConfig {
        id,
        resolver,
        denied: Vec::new(),
    };
    let bridge = runtime::network::Bridge::start(&config)?;
    writeln!(std::io::stdout(), "{}", bridge.name())?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
