//! The registry alone, for trying it out: `cargo run -p layeryard-registry --example serve -- DATA-DIR ADDRESS`.

use registry::{Config, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut config = Config::new(args.next().ok_or("data directory?")?);
    config.listen = vec![args.next().ok_or("address?")?.parse()?];
    config.sparse_indexes = args.next().as_deref() == Some("sparse");
    let server = Server::start(config).await?;
    server
        .run_until(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(())
}
