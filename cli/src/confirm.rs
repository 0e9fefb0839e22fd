//! Asking before something is lost.

use std::io::{self, BufRead, IsTerminal};

use crate::app::App;
use crate::failure::{Failure, Result};

/// Of commands that destroy something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Confirm {
    /// Don't ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// Check the request and change nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

impl Confirm {
    /// Refuses before anything is done if nobody can be asked: without a terminal, `--yes` must
    /// say it. `what` reads as in "remove topic flights".
    pub(crate) fn check(self, what: &str) -> Result<()> {
        if self.yes || self.dry_run || io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Failure::usage(format!("won't {what} unasked"))
            .because("standard input is no terminal, so nobody can be asked")
            .hint("add --yes if you mean it, or --dry-run to see what would happen"))
    }

    /// Whether to go on: `question` reads as in "Remove topic flights?". A dry run ends here.
    pub(crate) fn asks(self, app: &mut App, question: &str) -> Result<bool> {
        if self.dry_run {
            app.out
                .note(&format!("dry run, nothing changed: {question}"));
            return Ok(false);
        }
        if self.yes {
            return Ok(true);
        }
        app.out.ask(&format!("{question} [y/N]"));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| {
            Failure::usage("no answer could be read").because(error.to_string())
        })?;
        let yes = matches!(answer.trim(), "y" | "Y" | "yes");
        if !yes {
            app.out.note("nothing changed");
        }
        Ok(yes)
    }
}
