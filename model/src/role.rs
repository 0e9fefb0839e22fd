//! What a client may do on a server.

use core::fmt;
use core::str::FromStr;

/// What a client is let in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything, in every namespace.
    Admin = 1,
    /// Publish, and see the topics to publish to.
    Producer = 2,
    /// Read, consume and settle, make the groups for it, and see all that.
    Consumer = 3,
}

impl Role {
    /// Every role, by rising number.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Producer, Self::Consumer];

    /// Its number in the log and on the wire; none is ever 0.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self as u8)
    }

    /// The role of this number; `None` for one that this version doesn't know.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.number() == number)
    }

    /// Its name, as commands take it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(RoleError)
    }
}

/// The text is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is admin, producer or consumer")]
pub struct RoleError;

/// The roles of a client. Each adds to what it may do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// The admin's role alone.
    pub const ADMIN: Self = Self(1 << Role::Admin as u8);

    /// These and one more.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether the role is among them.
    #[must_use]
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, by rising number.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        roles.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for Roles {
    /// `producer, consumer`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, role) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            role.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn roles_print_what_they_read_and_keep_their_numbers() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(Role::from_number(role.number()), Some(role));
        }
        assert_eq!("root".parse::<Role>(), Err(RoleError));
        assert_eq!(Role::from_number(0), None);
        let both: Roles = [Role::Consumer, Role::Producer].into_iter().collect();
        assert_eq!(both.to_string(), "producer, consumer");
        assert!(!both.contains(Role::Admin));
        assert!(Roles::ADMIN.contains(Role::Admin));
        assert!(Roles::default().is_empty());
    }
}
