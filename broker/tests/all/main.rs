//! The broker from outside: a node without disk or network carries out its effects.

mod admin;
mod consume;
mod model;
mod node;
mod produce;
