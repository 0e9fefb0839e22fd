//! Whether the server still lives, asked only while something is expected of it.
//!
//! The carrier alone notices a dead server when its own timers run out, tens of seconds later: it sends
//! nothing while nothing is to be said. A client that expects nothing says nothing here either.

use std::time::Duration;

use tidegate_model::code;

use super::{ClientSession, Role};
use crate::event::ClientEvent;
use crate::frame::FrameType;
use crate::limits::{PING_ANSWER_TIME_MAX, QUIET_TIME_MAX, QUIET_TIME_MIN};
use crate::proto;
use crate::refusal::Refusal;
use crate::stream::{CONTROL, StreamId};

/// A deadline that is looked at so much later than it was due says that this program didn't run
/// meanwhile: what has come since may not have been taken in yet.
const LATE_MAX: Duration = Duration::from_millis(500);

/// What is known of the server's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Nothing is expected; nobody looks.
    #[default]
    Unwatched,
    /// Something was asked since; calls that ask carry no time, so the clock starts with the next timeout.
    Starting,
    /// Something came then; it may be quiet for `patience`.
    Quiet { since: Duration, patience: Duration },
    /// Nothing came for that long, and a ping was sent then.
    Asked { at: Duration, patience: Duration },
}

/// What a look at the clock leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Ask,
    GiveUp,
}

impl Liveness {
    /// Something is expected from now on.
    pub(super) fn watch(&mut self) {
        match self {
            Self::Unwatched => *self = Self::Starting,
            Self::Quiet { patience, .. } => *patience = QUIET_TIME_MIN,
            Self::Starting | Self::Asked { .. } => {}
        }
    }

    /// Bytes came; on the control stream they may be the answer to a ping, and nothing else happened.
    pub(super) fn heard(&mut self, now: Duration, stream: StreamId) {
        match self {
            Self::Unwatched => {}
            Self::Asked { patience, .. } if stream == CONTROL => {
                *self = Self::answered(now, *patience);
            }
            Self::Quiet { since, .. } if stream == CONTROL => *since = now,
            Self::Starting | Self::Quiet { .. } | Self::Asked { .. } => *self = Self::active(now),
        }
    }

    fn active(now: Duration) -> Self {
        Self::Quiet {
            since: now,
            patience: QUIET_TIME_MIN,
        }
    }

    /// Where there is nothing to say but that one lives, it is asked for ever more rarely: a phone that
    /// waits for messages is not to wake its radio each second.
    fn answered(now: Duration, patience: Duration) -> Self {
        Self::Quiet {
            since: now,
            patience: (patience * 2).min(QUIET_TIME_MAX),
        }
    }

    /// The carrier heard something of its peer since the last timeout.
    fn carrier_heard(&mut self, now: Duration) {
        if let Self::Asked { patience, .. } = self {
            *self = Self::answered(now, *patience);
        }
    }

    fn deadline(self, now: Duration) -> Option<Duration> {
        match self {
            Self::Unwatched => None,
            Self::Starting => Some(now),
            Self::Quiet { since, patience } => Some(since + patience),
            Self::Asked { at, .. } => Some(at + PING_ANSWER_TIME_MAX),
        }
    }

    fn step(&mut self, now: Duration, expecting: bool) -> Step {
        let Some(late) = self.deadline(now).and_then(|due| now.checked_sub(due)) else {
            return Step::Nothing;
        };
        if !expecting {
            *self = Self::Unwatched;
            return Step::Nothing;
        }
        match self {
            Self::Unwatched | Self::Starting => {
                *self = Self::active(now);
                Step::Nothing
            }
            Self::Asked { .. } if late <= LATE_MAX => Step::GiveUp,
            Self::Quiet { patience, .. } | Self::Asked { patience, .. } => {
                let patience = *patience;
                *self = Self::Asked { at: now, patience };
                Step::Ask
            }
        }
    }
}

impl ClientSession {
    /// The carrier heard something of its peer since the last timeout, if only that packets arrived: the
    /// server lives, even if it doesn't read what we send. Called before [`Self::handle_timeout`].
    pub fn handle_carrier_heard(&mut self, now: Duration) {
        self.link.set_now(now);
        self.liveness.carrier_heard(self.link.now());
    }

    /// Why the session ended the connection, if it did because of the server's silence. The driver hands
    /// it to [`Self::handle_lost`].
    #[must_use]
    pub fn given_up(&self) -> Option<&Refusal> {
        self.given_up.as_ref()
    }

    /// When the server's life is to be looked at again.
    pub(super) fn liveness_deadline(&self) -> Option<Duration> {
        self.liveness
            .deadline(self.link.now())
            .filter(|_| self.welcomed && !self.link.is_closed())
    }

    /// Asks for a sign of life where one is overdue, and ends the connection where none came.
    pub(super) fn look_for_life(&mut self) {
        if !self.welcomed || self.link.is_closed() {
            return;
        }
        let (now, expecting) = (self.link.now(), self.expects_something());
        match self.liveness.step(now, expecting) {
            Step::Nothing => {}
            Step::Ask => self.send_message(FrameType::PING, &proto::Ping::default()),
            Step::GiveUp => {
                let silence = PING_ANSWER_TIME_MAX.as_millis();
                let why = Refusal::new(
                    code::UNREACHABLE,
                    format!(
                        "the server gave no sign of life within {silence} ms of being asked for one"
                    ),
                );
                self.given_up = Some(why.clone());
                self.link.close(why.code, why.message.clone());
                self.events.push_back(ClientEvent::Closing(why));
            }
        }
    }

    /// Whether the server owes an answer or deliveries.
    fn expects_something(&self) -> bool {
        let owed = |role: &Role| match role {
            Role::Request(request) => !request.is_over(),
            Role::Producer(producer) => !producer.is_settled() && !producer.is_over(),
            Role::Control | Role::Unknown | Role::Consume(_) => false,
        };
        self.settles_in_flight > 0
            || !self.consumption.is_empty()
            || self.link.roles().any(|(_, role)| owed(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_program_that_did_not_run_asks_again_before_it_gives_up() {
        let mut life = Liveness::Asked {
            at: SECOND,
            patience: QUIET_TIME_MIN,
        };
        let due = SECOND + PING_ANSWER_TIME_MAX;
        assert_eq!(
            life.step(due - Duration::from_millis(1), true),
            Step::Nothing
        );
        let late = due + LATE_MAX + Duration::from_millis(1);
        assert_eq!(life.step(late, true), Step::Ask);
        assert_eq!(life.step(late + PING_ANSWER_TIME_MAX, true), Step::GiveUp);
    }

    #[test]
    fn nobody_looks_once_nothing_is_expected() {
        let mut life = Liveness::default();
        assert_eq!(life.deadline(SECOND), None);
        life.watch();
        assert_eq!(life.step(SECOND, true), Step::Nothing);
        assert_eq!(life.deadline(SECOND), Some(SECOND + QUIET_TIME_MIN));
        assert_eq!(life.step(SECOND + QUIET_TIME_MIN, false), Step::Nothing);
        assert_eq!(life, Liveness::Unwatched);
    }

    #[test]
    fn who_hears_nothing_but_answers_asks_ever_more_rarely() {
        let mut life = Liveness::default();
        life.watch();
        life.step(SECOND, true);
        let mut asked = Vec::new();
        let mut now = SECOND;
        for _ in 0..6 {
            let due = life.deadline(now).unwrap();
            asked.push((due - now).as_secs());
            now = due;
            assert_eq!(life.step(now, true), Step::Ask);
            life.heard(now, CONTROL);
            life.heard(now, CONTROL);
        }
        assert_eq!(asked, [1, 2, 4, 8, 10, 10]);
        life.heard(now, StreamId::new(true, true, 0));
        assert_eq!(life.deadline(now), Some(now + QUIET_TIME_MIN));
    }
}
