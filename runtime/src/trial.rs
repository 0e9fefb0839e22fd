//! The first calls of a component, in the compiling child: an engine that breaks on it takes the child
//! along, and not the server.

use tidegate_model::guest_call::{CallBuilder, GuestBatch};
use tidegate_model::section::Codec;
use tidegate_model::{Message, Offset, Section, SectionBuilder, Timestamp};

use crate::budget::{Budget, Interrupt};
use crate::cache::Compiled;
use crate::clock::Clock;
use crate::digest::PluginDigest;
use crate::engine::host_engine;
use crate::error::{Failure, PluginError};
use crate::instance::{Instance, Runner};
use crate::limits::{Limits, TRIAL_CPU};
use crate::plugin::{self, Manifest, Plugin};

/// One instance lives at a time; a slot is freed before the next is made.
const INSTANCES: usize = 2;
/// Time that the sample is of: any.
const SAMPLE_TIME: Timestamp = Timestamp(1_700_000_000_000);

/// Has a component say what it is, then configures it with nothing and has it judge one message. What
/// it makes of those two is its own business: it may want another configuration, or fail on such a
/// message.
///
/// # Errors
/// What [`plugin::link`] and [`plugin::accept`] refuse, and a failing `describe`.
pub(crate) fn try_out(component: &[u8], code: &[u8]) -> Result<Manifest, PluginError> {
    let engine = host_engine(INSTANCES)?;
    let clock = Clock::start(engine.clone()).map_err(|error| PluginError::Engine {
        message: format!("its clock can't start: {error}"),
    })?;
    let runner = Runner {
        engine,
        clock,
        instances_max: INSTANCES,
    };
    let compiled = Compiled {
        component_bytes: component.len() as u64,
        manifest: Manifest::NONE,
        code: code.to_vec(),
    };
    let mut budget = Budget::new(TRIAL_CPU, Interrupt::default());
    let (pre, exports) = plugin::link(&runner.engine, &compiled)?;
    let manifest = Instance::start(&runner, &pre, Limits::default(), &mut budget)
        .map_err(|failure| match failure {
            Failure::InstancesFull { .. } => PluginError::NotRunnable {
                message: "an instance of it needs more than the server has for one".into(),
            },
            failure => PluginError::Failed {
                phase: "start",
                failure,
            },
        })?
        .describe(&runner, &exports, &mut budget)?;
    plugin::accept(&manifest)?;
    let info = plugin::info(PluginDigest([0; 32]), compiled.component_bytes, manifest);
    let plugin = Plugin { pre, exports, info };
    judge_sample(&runner, &plugin, &mut budget)?;
    Ok(manifest)
}

fn judge_sample(runner: &Runner, plugin: &Plugin, budget: &mut Budget) -> Result<(), PluginError> {
    let wrong = |error: String| PluginError::Engine {
        message: format!("the sample message: {error}"),
    };
    let message = Message::new(*b"{}").tag("sample").key("sample");
    let mut builder = SectionBuilder::new();
    builder
        .push(&message)
        .map_err(|error| wrong(error.to_string()))?;
    let bytes = builder.finish().map_err(|error| wrong(error.to_string()))?;
    let section =
        Section::parse(&bytes, 1, 1, Codec::None).map_err(|error| wrong(error.to_string()))?;
    let mut call = CallBuilder::new();
    call.begin(SAMPLE_TIME, plugin.info.manifest.needs.body);
    call.push(&GuestBatch::new(section, Offset(0), SAMPLE_TIME), 0, 1);
    let call = call.finish();
    let configured = plugin.start(runner, Limits::default(), b"", budget).ok();
    let instance = match configured {
        Some(instance) => Some(instance),
        // It wants another configuration; what it does without any is as good a trial.
        None => Instance::start(runner, &plugin.pre, Limits::default(), budget).ok(),
    };
    if let Some(mut instance) = instance {
        let _ = instance.check(runner, &plugin.exports, 1, call, budget);
    }
    Ok(())
}
