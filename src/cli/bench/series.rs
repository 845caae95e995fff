//! What each second of a run saw, in a file of lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use hdrhistogram::Histogram;

use crate::cli::CliError;

/// The seconds of a run that are over, and the one that goes on.
pub(super) struct Series {
    seconds: Vec<Second>,
    current: Histogram<u64>,
}

/// The replies of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Second {
    requests: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl Series {
    /// Takes a histogram for latencies in microseconds that is empty.
    pub(super) fn new(empty: Histogram<u64>) -> Self {
        Self { seconds: Vec::new(), current: empty }
    }

    /// Takes note of replies that came in a second, counted from the beginning: the one of those before, or a later one.
    pub(super) fn take(&mut self, second: u64, latency_us: u64, replies: u64) {
        self.end_before(second);
        self.current.saturating_record_n(latency_us, replies);
    }

    /// All seconds before this one are over, also those that saw nothing.
    pub(super) fn end_before(&mut self, second: u64) {
        while (self.seconds.len() as u64) < second {
            let at = |quantile| self.current.value_at_quantile(quantile);
            let (requests, max_us) = (self.current.len(), self.current.max());
            self.seconds.push(Second { requests, p50_us: at(0.5), p99_us: at(0.99), max_us });
            self.current.reset();
        }
    }

    fn write(&self, begin_unix_ms: u64, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "unix_ms,requests,p50_us,p99_us,max_us")?;
        for (number, Second { requests, p50_us, p99_us, max_us }) in (0..).zip(&self.seconds) {
            writeln!(out, "{},{requests},{p50_us},{p99_us},{max_us}", begin_unix_ms + 1000 * number)?;
        }
        Ok(())
    }
}

/// Where a series is written to. It is made before the run, so that none is done in vain.
pub(super) struct SeriesFile {
    path: PathBuf,
    file: File,
}

impl SeriesFile {
    pub(super) fn create(path: PathBuf) -> Result<Self, CliError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(cause) => Err(failed(&path, &cause)),
        }
    }

    pub(super) fn write(self, series: &Series, begin_unix_ms: u64) -> Result<(), CliError> {
        let mut out = BufWriter::new(self.file);
        let written = series.write(begin_unix_ms, &mut out).and_then(|()| out.flush());
        written.map_err(|cause| failed(&self.path, &cause))
    }
}

fn failed(path: &std::path::Path, cause: &io::Error) -> CliError {
    CliError::Failed { reason: format!("cannot write {}: {cause}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_a_line() {
        let mut series = Series::new(Histogram::new_with_max(60_000_000, 3).unwrap());
        series.take(0, 100, 2);
        series.take(0, 300, 1);
        // Nothing came in the second second.
        series.take(2, 50, 1);
        series.take(3, 7, 1);
        // The fourth is not over.
        series.end_before(3);
        let mut out = Vec::new();
        series.write(5000, &mut out).unwrap();
        let lines = "unix_ms,requests,p50_us,p99_us,max_us\n5000,3,100,300,300\n6000,0,0,0,0\n7000,1,50,50,50\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told_of_before_the_run() {
        let refused = SeriesFile::create("/nowhere/at/all".into()).err().unwrap();
        assert!(refused.to_string().contains("cannot write /nowhere/at/all"), "{refused}");
    }
}
