//! The `layeryard` binary: parses, matches, delegates.

mod admin;
mod archive;
mod args;
mod build;
mod config;
mod dirs;
mod failure;
mod health;
mod images;
mod logging;
mod names;
mod output;
mod progress;
mod serve;
mod server;
mod sink;
mod traces;
mod worker;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread exists: what it clones must not inherit locks that nobody will ever release.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "zygote")
    {
        runtime::zygote_main();
    }
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Version => output::line(format_args!("layeryard {}", env!("CARGO_PKG_VERSION")))?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "layeryard", &mut script);
            output::bytes(&script)?;
        }
        Command::Serve(args) => serve::run(args)?,
        Command::Verify(args) => block_on(admin::verify(args))?,
        Command::Backup(args) => block_on(admin::backup(args))?,
        Command::Restore(args) => block_on(admin::restore(args))?,
        Command::RebuildMetadata(args) => block_on(admin::rebuild(args))?,
        Command::Config(command) => config::run(command)?,
        Command::Worker => worker::run()?,
        Command::User(args) => block_on(admin::user(args))?,
        Command::Group(args) => block_on(admin::group(args))?,
        Command::Token(args) => block_on(admin::token(args))?,
        Command::Grant(args) => block_on(admin::grant(args))?,
        Command::Build(args) => block_on(build::run(args))?,
        Command::Copy(args) => block_on(images::copy(args))?,
        Command::Import(args) => block_on(archive::import(args))?,
        Command::Load(args) => block_on(archive::load(args))?,
        Command::Save(args) => block_on(archive::save(args))?,
        Command::Gc(args) => block_on(admin::gc(args))?,
        Command::Trash(args) => block_on(admin::trash(args))?,
        Command::Undelete(args) => block_on(admin::undelete(args))?,
        Command::Images(args) => block_on(images::list(args))?,
        Command::Inspect(args) => block_on(images::inspect(args))?,
        Command::Healthcheck { url } => block_on(health::run(&url))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a client command: two threads are plenty beside the blocking ones that hash and compress.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(future)
}
