//! The program: arguments, configuration, log, run, exit code.
#![deny(unsafe_code)]
// They panic where nobody reads what they write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use ombak::cli::{AskCommand, Cli, CliError, Command, Outcome};
use ombak::config::{Config, Effective};
use ombak::server::Idleness;
use tokio::runtime::{Builder, Runtime};

mod allocator;
mod logging;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            logging::tell(format_args!("ombak: {error:#}"));
            ExitCode::from(error.downcast_ref::<CliError>().map_or(1, CliError::exit_code))
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let current_dir = std::env::current_dir().context("cannot tell the current directory")?;
    let effective = ombak::config::load(&cli.sources(current_dir, std::env::vars_os().collect()))?;
    match &cli.command {
        Command::Serve(_) => serve(effective.config),
        Command::Ask(command) => ask(command, &effective),
    }
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    logging::set_up(&config)?;
    allocator::give_back_late();
    let threads = match config.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let idleness = Arc::new(Idleness::new(threads));
    serving_runtime(threads, &idleness)?.block_on(ombak::server::run(config, idleness))?;
    Ok(ExitCode::SUCCESS)
}

fn ask(command: &AskCommand, effective: &Effective) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(ombak::cli::run(command, effective))?;
    print(&outcome)?;
    Ok(ExitCode::from(outcome.exit_code))
}

fn serving_runtime(threads: usize, idleness: &Arc<Idleness>) -> anyhow::Result<Runtime> {
    let (resting, rising) = (idleness.clone(), idleness.clone());
    Builder::new_multi_thread()
        .worker_threads(threads)
        // Taken in small numbers, what arrives is shared out among the threads sooner.
        .max_io_events_per_tick(32)
        .on_thread_park(move || resting.rest())
        .on_thread_unpark(move || rising.rise())
        .enable_all()
        .build()
        .context("cannot start the worker threads")
}

fn print(outcome: &Outcome) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(outcome.text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever read the output has seen enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the output"),
    }
}
