//! Where log lines go.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use ombak::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Lines go to standard error: standard output belongs to what a command was asked for.
pub(crate) fn set_up(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("cannot read the log filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lossy(io::stderr()));
    // What goes wrong with a line would be told on standard error, by means that panic where nobody reads it.
    let lines = lines.log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// Writes a line to standard error, or drops it where nobody reads that.
pub(crate) fn tell(line: std::fmt::Arguments) {
    // It cannot fail.
    let _ = writeln!(Lossy(io::stderr()), "{line}");
}

/// Writes what can be written and drops the rest: a reader that left, as `tee` does on a full disk, is nothing that a server
/// should stop for.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = self.0.write_all(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Filling(Vec<u8>, usize);

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1 - self.0.len();
            if room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = &bytes[..room.min(bytes.len())];
            self.0.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn what_cannot_be_written_is_dropped() {
        let mut lines = Lossy(Filling(Vec::new(), 6));
        for line in ["one\n", "two\n", "three\n"] {
            assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len());
            lines.write_all(line.as_bytes()).unwrap();
            lines.flush().unwrap();
        }
        assert_eq!(lines.0.0, b"one\non");
    }
}
