//! Tokens that work once: the root token, by which the first client of a node gets in, and those of
//! invitations, whose hashes the catalogue keeps.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_broker::Refusal;
use tidegate_model::code;

use crate::identity::random;

/// How long the token is good for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
const ROOT_PREFIX: &str = "tgroot_";
const INVITATION_PREFIX: &str = "tginv_";
const TOKEN_RANDOM_BYTES: usize = 24;

/// Holds the hash of the token until it is used or too old.
pub(crate) struct RootToken {
    state: Mutex<Option<Issued>>,
}

struct Issued {
    hash: digest::Digest,
    until: Instant,
}

/// A token that was taken, for [`RootToken::restore`].
pub(crate) struct Redeemed(Issued);

impl RootToken {
    /// No token: this node has admins already.
    pub(crate) fn none() -> Self {
        Self {
            state: Mutex::new(None),
        }
    }

    /// A new token, and its text, which is kept nowhere.
    pub(crate) fn issue(now: Instant) -> (Self, String) {
        let text = format!(
            "{ROOT_PREFIX}{}",
            URL_SAFE_NO_PAD.encode(random::<TOKEN_RANDOM_BYTES>())
        );
        let issued = Issued {
            hash: hash(&text),
            until: now + TOKEN_LIFE,
        };
        (
            Self {
                state: Mutex::new(Some(issued)),
            },
            text,
        )
    }

    /// Takes the token: it works once.
    ///
    /// # Errors
    /// `TOKEN_INVALID` or `TOKEN_EXPIRED`.
    pub(crate) fn redeem(&self, text: &str, now: Instant) -> Result<Redeemed, Refusal> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let invalid = || {
            Refusal::new(
                code::TOKEN_INVALID,
                "this token is wrong, was used before or was withdrawn",
            )
            .hint("a key that is registered already needs no token: run `tidegate context ls`")
        };
        let issued = state
            .take_if(|issued| {
                constant_time::verify_slices_are_equal(issued.hash.as_ref(), hash(text).as_ref())
                    .is_ok()
            })
            .ok_or_else(invalid)?;
        if now >= issued.until {
            return Err(Refusal::new(
                code::TOKEN_EXPIRED,
                format!(
                    "this root token was good for {} minutes",
                    TOKEN_LIFE.as_secs() / 60
                ),
            )
            .hint("start the server with --new-root-token to get a new one"));
        }
        Ok(Redeemed(issued))
    }

    /// Gives the token back after a login that could not be completed. It ends when it would have
    /// ended anyway.
    pub(crate) fn restore(&self, redeemed: Redeemed) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        *state = Some(redeemed.0);
    }
}

/// A new token of an invitation, and its SHA-256.
pub(crate) fn invitation() -> (String, [u8; 32]) {
    let text = format!(
        "{INVITATION_PREFIX}{}",
        URL_SAFE_NO_PAD.encode(random::<TOKEN_RANDOM_BYTES>())
    );
    let hash = digest_of(&text);
    (text, hash)
}

/// The SHA-256 of a token, if it is one of an invitation.
pub(crate) fn invitation_hash(text: &str) -> Option<[u8; 32]> {
    text.starts_with(INVITATION_PREFIX).then(|| digest_of(text))
}

fn digest_of(text: &str) -> [u8; 32] {
    hash(text)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

fn hash(text: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_once() {
        let now = Instant::now();
        let (token, text) = RootToken::issue(now);
        assert_eq!(refusal(&token, "tgroot_wrong", now), code::TOKEN_INVALID);
        assert!(token.redeem(&text, now).is_ok());
        assert_eq!(refusal(&token, &text, now), code::TOKEN_INVALID);
    }

    #[test]
    fn given_back_it_works_again_and_keeps_its_end() {
        let now = Instant::now();
        let (token, text) = RootToken::issue(now);
        for minute in [1, 14] {
            let then = now + Duration::from_secs(minute * 60);
            let redeemed = token.redeem(&text, then).map_err(|r| r.code).ok();
            token.restore(redeemed.expect("it is good for 15 minutes"));
        }
        assert_eq!(
            refusal(&token, &text, now + TOKEN_LIFE),
            code::TOKEN_EXPIRED
        );
    }

    #[test]
    fn it_ends_after_its_life() {
        let now = Instant::now();
        let (token, text) = RootToken::issue(now);
        assert_eq!(
            refusal(&token, &text, now + TOKEN_LIFE),
            code::TOKEN_EXPIRED
        );
    }

    #[test]
    fn tokens_of_invitations_are_told_from_root_tokens() {
        let (text, hash) = invitation();
        assert_eq!(invitation_hash(&text), Some(hash));
        let (_, root) = RootToken::issue(Instant::now());
        assert_eq!(invitation_hash(&root), None);
    }

    fn refusal(token: &RootToken, text: &str, now: Instant) -> tidegate_model::Code {
        token
            .redeem(text, now)
            .err()
            .expect("the token is refused")
            .code
    }
}
