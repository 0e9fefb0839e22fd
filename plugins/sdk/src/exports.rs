//! The exports of the filter world, on top of a [`Plugin`].

use std::cell::RefCell;
use std::marker::PhantomData;

use tidegate_model::guest_call::LAYOUT;

use crate::judge::Judge;
use crate::plugin::Plugin;

#[expect(
    missing_docs,
    reason = "wit-bindgen writes this; the interface's text is its documentation"
)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/filter.wit",
        world: "filter-plugin",
        pub_export_macro: true,
    });
}

pub use bindings::*;

use bindings::exports::tidegate::plugin::filter::{Guest, Manifest, Needs};

/// Bytes of a panic's words that the host takes.
const WORDS_MAX: usize = 512;

thread_local! {
    /// Set by `configure`, once per instance.
    static JUDGE: RefCell<Option<Judge>> = const { RefCell::new(None) };
}

/// Exports a plugin.
pub struct Exports<P>(PhantomData<P>);

impl<P: Plugin> Guest for Exports<P> {
    fn describe() -> Manifest {
        Manifest {
            layout: LAYOUT,
            needs: Needs {
                tag: P::NEEDS.tag,
                group: P::NEEDS.group,
                keys: P::NEEDS.keys,
                properties: P::NEEDS.properties,
                body: P::NEEDS.body,
            },
            stateful: false,
        }
    }

    fn configure(config: Vec<u8>) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| {
            let words = panic.to_string();
            let end = words.floor_char_boundary(WORDS_MAX);
            bindings::tidegate::plugin::failure::report(&words.as_bytes()[..end]);
        }));
        let judge = P::configure(&config)?;
        JUDGE.set(Some(judge));
        Ok(())
    }

    fn check(batch: Vec<u8>) -> Result<Vec<u8>, String> {
        JUDGE.with_borrow(|judge| match judge {
            Some(judge) => judge.check(&batch),
            None => Err("it was not configured".into()),
        })
    }
}
