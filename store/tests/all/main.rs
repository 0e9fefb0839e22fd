//! The store seen from outside: through its public calls only.

mod support;

mod ack;
mod limits;
mod model;
mod power_cut;
mod recovery;
