//! `consume --exec`: a command for each message, one at a time.

use std::process::{ExitStatus, Stdio};

use tidegate_client::{Client, Received};
use tidegate_model::code;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::feed::Pull;
use super::outage::Outage;
use super::{Args, Printer};
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;

/// What runs the command.
const SHELL: &str = "/bin/sh";
/// How a shell ends that may not run, or doesn't find, its command.
const NOT_RUN: [i32; 2] = [126, 127];
/// Leases are made longer so many times within their duration.
const EXTENSIONS: u32 = 3;

pub(super) async fn run(
    app: &mut App,
    client: &Client,
    args: &Args,
    mut pull: Pull,
    command: &str,
    printer: &mut Printer,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let mut outage = Outage::watch(client, args.follow);
    let ended = loop {
        if pull.is_done() {
            break Ok(());
        }
        let batch = tokio::select! {
            batch = pull.next(args.idle()) => batch,
            () = interrupt.wait() => break Err(Failure::Interrupted),
        };
        let worked = match batch {
            Ok(batch) => match batch.first() {
                None if args.idle().is_some() => break Ok(()),
                None => Ok(()),
                Some(received) => {
                    outage.over(app);
                    let line = printer.line(received);
                    let status = execute(&pull, args, command, line, received).await;
                    settle(app, &mut pull, &mut outage, received, command, status).await
                }
            },
            Err(failure) => tokio::select! {
                waited = outage.wait(app, failure) => waited,
                () = interrupt.wait() => break Err(Failure::Interrupted),
            },
        };
        if let Err(failure) = worked {
            break Err(failure);
        }
    };
    let settled = pull.settled();
    printer.sum.acknowledged = settled.done;
    printer.sum.failed = settled.refused;
    printer.sum.lapsed = settled.lapsed;
    printer.sum.outage = outage.seen;
    ended
}

/// Runs the command to its end, and keeps the message leased meanwhile. Its output is this program's.
/// Ctrl-C reaches it through its terminal; nothing else is sent to it.
async fn execute(
    pull: &Pull,
    args: &Args,
    command: &str,
    line: &[u8],
    received: &Received,
) -> Result<ExitStatus> {
    let failed = |error: std::io::Error| {
        Failure::new(code::FILE, format!("{SHELL} can't be started"))
            .because(error.to_string())
            .hint("--exec runs its command by that shell")
    };
    let mut child = Command::new(SHELL)
        .args(["-c", command])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            // A command that doesn't read its message is free to; its exit code counts.
            let _unread = stdin.write_all(line).await;
        }
    };
    let keep = async {
        loop {
            tokio::time::sleep(args.invisible / EXTENSIONS).await;
            // A lease that is lost shows when the message is settled.
            let _lost = pull.extend(&received.handle).await;
        }
    };
    let run = async {
        let ((), status) = tokio::join!(write, child.wait());
        status
    };
    tokio::select! {
        status = run => status.map_err(failed),
        () = keep => unreachable!("it never ends"),
    }
}

async fn settle(
    app: &mut App,
    pull: &mut Pull,
    outage: &mut Outage,
    received: &Received,
    command: &str,
    status: Result<ExitStatus>,
) -> Result<()> {
    let done = status.as_ref().is_ok_and(ExitStatus::success);
    loop {
        let said = if done {
            pull.ack(std::slice::from_ref(&received.handle)).await
        } else {
            pull.nack(&received.handle).await
        };
        match said {
            Ok(()) => break,
            Err(failure) => outage.wait(app, failure).await?,
        }
    }
    let status = status?;
    if let Some(number) = status.code().filter(|number| NOT_RUN.contains(number)) {
        return Err(Failure::usage(format!("--exec {command:?} can't be run"))
            .because(format!("{SHELL} ended with {number}"))
            .hint("name a program that is there and may be run; the message comes again"));
    }
    if !status.success() {
        app.out.note(&format!(
            "the command failed for message {} ({status}): it comes again",
            received.message_id
        ));
    }
    Ok(())
}
