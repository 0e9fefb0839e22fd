//! Random histories against a naive account of what became of every message.
