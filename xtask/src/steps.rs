//! A sequence of named, timed steps; the first that fails ends it, and a summary closes it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What has run so far.
pub(crate) struct Steps {
    done: Vec<(&'static str, Outcome)>,
    began: Instant,
}

enum Outcome {
    Passed(Duration),
    Skipped(&'static str),
    Failed(Duration),
}

impl Steps {
    /// Nothing has run yet.
    pub(crate) fn new() -> Self {
        Self {
            done: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Runs one step.
    ///
    /// # Errors
    /// What the step returned, under its name; the summary has been printed then.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        eprintln!("==> {name}");
        let began = Instant::now();
        let result = step();
        let took = began.elapsed();
        if result.is_ok() {
            eprintln!("    {name}: ok, {:.1} s", took.as_secs_f64());
            self.done.push((name, Outcome::Passed(took)));
        } else {
            self.done.push((name, Outcome::Failed(took)));
            self.summary();
        }
        result.with_context(|| format!("step `{name}` failed"))
    }

    /// Notes a step that can't run here, and why.
    pub(crate) fn skip(&mut self, name: &'static str, why: &'static str) {
        eprintln!("==> {name}: skipped, {why}");
        self.done.push((name, Outcome::Skipped(why)));
    }

    /// Prints every step with its time.
    pub(crate) fn summary(&self) {
        eprintln!();
        for (name, outcome) in &self.done {
            match outcome {
                Outcome::Passed(took) => eprintln!("ok       {:8.1} s  {name}", took.as_secs_f64()),
                Outcome::Failed(took) => eprintln!("FAILED   {:8.1} s  {name}", took.as_secs_f64()),
                Outcome::Skipped(why) => eprintln!("skipped             {name}: {why}"),
            }
        }
        eprintln!(
            "         {:8.1} s  in all",
            self.began.elapsed().as_secs_f64()
        );
    }
}

/// Runs a command with its output passed through.
///
/// # Errors
/// If it can't be started or ends with a failure; the message holds the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_names_its_command_line() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c exit 3` ended with exit status: 3"
        );
    }

    #[test]
    fn a_failed_step_is_named() {
        let mut steps = Steps::new();
        steps.run("first", || Ok(())).unwrap();
        let error = steps.run("second", || bail!("no")).unwrap_err();
        assert_eq!(format!("{error:#}"), "step `second` failed: no");
        assert_eq!(steps.done.len(), 2);
    }
}
