//! The grammar, and the way from arguments to an exit status.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tidegate_model::code;

use crate::failure::{Exit, Failure, Result};
use crate::names::Namespace;
use crate::output::{Color, Format, Output};
use crate::{
    backup, client, consume, context, demo, group, help, logging, login, message, plugin, publish,
    serve, store, topic, view,
};

const GLOBAL: &str = "Global options";

/// A message broker whose filters are WebAssembly
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version = env!("TIDEGATE_VERSION"),
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Errors carry a code: `tidegate help TG0102` explains one."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// How results are printed
    #[arg(
        short, long, global = true, value_enum, default_value_t, hide_possible_values = true,
        value_name = "table|wide|json|jsonl|name", help_heading = GLOBAL
    )]
    output: Format,
    /// The same as -o json
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// The context to use instead of the one in use
    #[arg(
        long, global = true, value_name = "NAME", env = "TIDEGATE_CONTEXT",
        hide_env_values = true, help_heading = GLOBAL
    )]
    pub(crate) context: Option<String>,
    /// The server's address instead of the context's
    #[arg(
        long, global = true, value_name = "ADDRESS", env = "TIDEGATE_SERVER",
        hide_env_values = true, help_heading = GLOBAL
    )]
    pub(crate) server: Option<String>,
    /// The namespace of all names
    #[arg(
        short, long, global = true, value_name = "NAME", env = "TIDEGATE_NAMESPACE",
        hide_env_values = true, default_value = "default", help_heading = GLOBAL
    )]
    namespace: String,
    /// When to use colours; NO_COLOR is heeded
    #[arg(
        long, global = true, value_enum, default_value_t, hide_possible_values = true,
        value_name = "auto|always|never", help_heading = GLOBAL
    )]
    pub(crate) color: Color,
    /// Print results and errors alone
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    quiet: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Login(login::Args),
    #[command(subcommand)]
    Context(context::Command),
    #[command(subcommand)]
    Client(client::Command),
    #[command(subcommand)]
    Topic(topic::Command),
    #[command(subcommand)]
    Group(group::Command),
    #[command(subcommand)]
    View(view::Command),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(subcommand)]
    Message(message::Command),
    #[command(subcommand)]
    Backup(backup::Command),
    #[command(subcommand)]
    Store(store::Command),
    Publish(publish::Args),
    Consume(consume::Args),
    Demo(demo::Args),
    Help(help::Args),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Compile a component from standard input; the broker starts this
    #[command(name = serve::COMPILE_CHILD, hide = true)]
    CompileChild,
}

/// What a command works with.
pub(crate) struct App {
    pub(crate) out: Output,
    pub(crate) global: Global,
}

impl App {
    pub(crate) fn namespace(&self) -> Result<Namespace> {
        Namespace::parse(&self.global.namespace)
    }
}

/// Reads the arguments, runs the command, tells how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    let format = if cli.global.json {
        Format::Json
    } else {
        cli.global.output
    };
    cli.global.color.choice().write_global();
    let mut app = App {
        out: Output::new(format, cli.global.color, cli.global.quiet),
        global: cli.global,
    };
    let ended = match &cli.command {
        // It has a default of its own.
        Command::Serve(_) => Ok(()),
        _ => logging::start_if_asked(),
    };
    match ended.and_then(|()| run(&mut app, cli.command)) {
        Ok(exit) => exit,
        Err(failure) => {
            if let Failure::Error(report) = &failure {
                app.out.report(report);
            }
            failure.exit()
        }
    }
}

fn run(app: &mut App, command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::Serve(args) => block_on(serve::run(app, args)),
        Command::Login(args) => block_on(login::run(app, args)),
        Command::Context(command) => context::run(app, command),
        Command::Client(command) => block_on(client::run(app, command)),
        Command::Topic(command) => block_on(topic::run(app, command)),
        Command::Group(command) => block_on(group::run(app, command)),
        Command::View(command) => block_on(view::run(app, command)),
        Command::Plugin(command) => block_on(plugin::run(app, command)),
        Command::Message(command) => block_on(message::run(app, command)),
        Command::Backup(command) => block_on(backup::run(app, command)),
        Command::Store(command) => store::run(app, command),
        Command::Publish(args) => block_on(publish::run(app, args)),
        Command::Consume(args) => block_on(consume::run(app, args)),
        Command::Demo(args) => block_on(demo::run(app, args)),
        Command::Help(args) => help::run(app, &args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
            app.out.data(&script)
        }
        Command::CompileChild => return Ok(serve::compile_child()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(code::INTERNAL, "no threads could be started").because(error.to_string())
        })?
        .block_on(work)
}

/// What clap has to say: help and versions are data, the rest are errors of usage.
fn told(error: &clap::Error) -> ExitCode {
    let _unread = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => Exit::Usage.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }
}
