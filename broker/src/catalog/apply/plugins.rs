//! Plugin versions: a name and version stand for one component for ever.

use tidegate_model::{Timestamp, code};

use super::super::refuse::{argument, full, users_name};
use super::super::{Catalog, Plugin, no_plugin};
use crate::limit::{COMPONENT_BYTES_MAX, PLUGINS_MAX, WORLD_BYTES_MAX};
use crate::reference::PluginRef;
use crate::refusal::Refusal;

impl Catalog {
    pub(super) fn check_deploy_plugin(
        &self,
        plugin: &PluginRef,
        digest: &[u8; 32],
        world: &str,
        component: &[u8],
    ) -> Result<(), Refusal> {
        for (kind, name) in [
            ("namespace", &plugin.namespace),
            ("plugin", &plugin.plugin),
            ("version", &plugin.version),
        ] {
            users_name(kind, name)?;
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(Refusal::new(
                code::PLUGIN_TOO_LARGE,
                format!(
                    "a component has at most {COMPONENT_BYTES_MAX} bytes; {plugin} has {}",
                    component.len()
                ),
            ));
        }
        if world.len() > WORLD_BYTES_MAX {
            return Err(argument(format!(
                "a world's name has at most {WORLD_BYTES_MAX} bytes; that of {plugin} has {}",
                world.len()
            )));
        }
        match self.plugins.get(plugin) {
            Some(known) if known.digest != *digest => Err(Refusal::new(
                code::PLUGIN_EXISTS,
                format!("plugin {plugin} stands for another component already"),
            )),
            Some(_) => Ok(()),
            None if self.plugins.len() >= PLUGINS_MAX => Err(full("plugin versions", PLUGINS_MAX)),
            None => Ok(()),
        }
    }

    pub(super) fn deploy_plugin(
        &mut self,
        now: Timestamp,
        name: &PluginRef,
        digest: [u8; 32],
        world: &str,
        size: u64,
    ) {
        self.plugins.entry(name.clone()).or_insert_with(|| Plugin {
            name: name.clone(),
            digest,
            world: world.to_owned(),
            size,
            deployed: now,
        });
    }

    pub(super) fn check_remove_plugin(&self, plugin: &PluginRef) -> Result<(), Refusal> {
        if !self.plugins.contains_key(plugin) {
            return Err(no_plugin(plugin));
        }
        match self.bound_to(plugin).first() {
            Some(user) => Err(Refusal::new(
                code::IN_USE,
                format!("plugin {plugin} is bound to {user}"),
            )
            .hint("Remove the view, or unbind the plugin from the group's subscription.")),
            None => Ok(()),
        }
    }
}
