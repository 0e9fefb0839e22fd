//! Places for peers that nobody knows yet: how many there may be, in all and from one network.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Networks from which somebody was known lately that are remembered; the oldest is forgotten.
const KNOWN_NETWORKS_MAX: usize = 4096;

/// Where a peer comes from, as far as it is its own doing: an IPv4 address, or the /64 of an IPv6
/// address, within which a peer may take any address it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network(u64);

impl Network {
    fn of(addr: IpAddr) -> Self {
        let v4 = |addr: Ipv4Addr| Self(u64::from(u32::from(addr)));
        match addr.to_canonical() {
            IpAddr::V4(addr) => v4(addr),
            IpAddr::V6(addr) => {
                let [a, b, c, d, ..] = addr.segments().map(u64::from);
                let prefix = a << 48 | b << 32 | c << 16 | d;
                // IPv4 addresses stand where no IPv6 address that is in use has its prefix, but for the
                // loopback address and what is mapped.
                Self(if prefix == 0 { u64::MAX } else { prefix })
            }
        }
    }
}

/// Places of a listener for peers before it knows who they are. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    state: Arc<Mutex<State>>,
    max: usize,
    network_max: usize,
    kept: usize,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    by_network: HashMap<Network, usize>,
    /// Oldest first.
    known: VecDeque<Network>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<Mutex<State>>,
    network: Network,
}

/// How many places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Of all.
    pub all: usize,
    /// By the network of the peer asked for.
    pub network: usize,
}

impl Places {
    /// `max` places in all and `network_max` for one network. Of all, `kept` are kept for networks from
    /// which somebody was known.
    #[must_use]
    pub fn new(max: usize, network_max: usize, kept: usize) -> Self {
        Self {
            state: Arc::default(),
            max,
            network_max,
            kept,
        }
    }

    /// How many places are taken.
    #[must_use]
    pub fn taken(&self, peer: IpAddr) -> Taken {
        let state = lock(&self.state);
        let network = state.by_network.get(&Network::of(peer));
        Taken {
            all: state.taken,
            network: network.copied().unwrap_or(0),
        }
    }

    /// Takes a place for a peer; `None` if there is none for it.
    #[must_use]
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let network = Network::of(peer);
        let mut state = lock(&self.state);
        let kept = match state.known.contains(&network) {
            true => 0,
            false => self.kept,
        };
        if state.taken + kept >= self.max {
            return None;
        }
        let of_network = state.by_network.entry(network).or_default();
        if *of_network >= self.network_max {
            return None;
        }
        *of_network += 1;
        state.taken += 1;
        Some(Place {
            state: Arc::clone(&self.state),
            network,
        })
    }
}

impl Place {
    /// The peer is known now: its network has a claim on the places that are kept. The place is free
    /// again.
    pub fn known(self) {
        let mut state = lock(&self.state);
        state.known.retain(|network| *network != self.network);
        if state.known.len() == KNOWN_NETWORKS_MAX {
            state.known.pop_front();
        }
        state.known.push_back(self.network);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.taken -= 1;
        if let Some(of_network) = state.by_network.get_mut(&self.network) {
            *of_network -= 1;
            if *of_network == 0 {
                state.by_network.remove(&self.network);
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("the test names an address")
    }

    #[test]
    fn a_network_has_its_share_and_no_more() {
        let places = Places::new(8, 2, 0);
        let first = places.take(ip("192.0.2.1"));
        let second = places.take(ip("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(places.take(ip("192.0.2.1")).is_none());
        let other = places.take(ip("192.0.2.2"));
        assert!(other.is_some());
        assert_eq!(places.taken(ip("192.0.2.1")), Taken { all: 3, network: 2 });
        drop(second);
        assert!(places.take(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn the_addresses_of_a_64_are_one_network() {
        let places = Places::new(8, 1, 0);
        let _first = places.take(ip("2001:db8:0:1::1"));
        assert!(places.take(ip("2001:db8:0:1:ffff::9")).is_none());
        let _other = places.take(ip("2001:db8:0:2::1"));
        assert_eq!(places.taken(ip("2001:db8:0:2::")).network, 1);
        let _loopback = places.take(ip("::1"));
        assert_eq!(places.taken(ip("0.0.0.1")).network, 0);
    }

    #[test]
    fn some_are_kept_for_networks_from_which_somebody_was_known() {
        let places = Places::new(8, 4, 2);
        places.take(ip("192.0.2.9")).expect("there is room").known();
        let strangers: Vec<_> = (0..10)
            .filter_map(|last| places.take(ip(&format!("198.51.100.{last}"))))
            .collect();
        assert_eq!(strangers.len(), 6);
        let known: Vec<_> = (0..3).map(|_| places.take(ip("192.0.2.9"))).collect();
        let got = known.iter().filter(|place| place.is_some()).count();
        assert_eq!(got, 2);
        drop((strangers, known));
        assert_eq!(places.taken(ip("192.0.2.9")), Taken { all: 0, network: 0 });
    }
}
