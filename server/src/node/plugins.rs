//! What the node does before a request that has to do with plugins reaches the owner: a component is
//! compiled, and a binding's configuration is shown to its plugin.

use std::sync::Arc;
use std::time::Duration;

use tidegate_broker::request::BindingSpec;
use tidegate_broker::{PluginFacts, Refusal, Reply, Request};
use tidegate_model::{Name, code};
use tidegate_runtime::{Cancel, FILTER_WORLD, PluginDigest, PluginError, PluginHost};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Node;
use crate::components::Claim;
use crate::input::{Deploying, Input, Looked, stopped};

/// How often a binding looks whether the code of its plugin is there by now.
const COMPILING_LOOK: Duration = Duration::from_millis(50);

/// Ends a compile when the request is dropped that waits for it.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Node {
    /// Carries out a deploy. Dropped, it gives up its place and its compile; what has reached the
    /// owner by then takes effect all the same.
    pub(super) async fn deploy(&self, client: &Name, request: Request) -> Result<Reply, Refusal> {
        let Request::DeployPlugin(deploy) = &request else {
            unreachable!("called with a deploy");
        };
        let component = deploy.component.clone();
        let _upload = self
            .uploads
            .admit(client, component.len())
            .inspect_err(|refusal| self.metrics.refused(refusal.code))?;
        PluginHost::look_at(&component).map_err(|error| self.refused(&error))?;
        let digest = blocking({
            let component = component.clone();
            move || Ok(PluginDigest::of(&component))
        })
        .await?;
        let facts = PluginFacts {
            digest: digest.0,
            world: FILTER_WORLD.to_owned(),
        };
        // Nothing is compiled or kept that the catalogue would refuse.
        if let Looked::Done(reply) = self.look(request.clone(), Some(facts.clone())).await? {
            self.mend(digest, component).await?;
            return Ok(reply);
        }
        let claim = Arc::new(self.components.claim(digest, &self.inputs));
        let turn = self.uploads.compiler().await;
        self.compile(component, Arc::clone(&claim)).await?;
        drop(turn);
        let admitted = self.inputs.admit(0)?;
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Call {
            request,
            deploy: Some(Deploying { facts, claim }),
            answer,
            admitted,
        });
        answered.await.map_err(|_| stopped())?
    }

    async fn compile(&self, component: bytes::Bytes, claim: Arc<Claim>) -> Result<(), Refusal> {
        let wanted = CancelOnDrop(Cancel::default());
        let (components, cancel) = (Arc::clone(&self.components), wanted.0.clone());
        let compiled = blocking(move || {
            let installed = components.host().install_unless(&component, &cancel);
            let kept = match installed {
                Ok(info) => Ok(components.keep(info.digest, &component).map_err(not_kept)),
                Err(error) => Err(error),
            };
            // What was made before the request was dropped goes with it.
            drop(claim);
            Ok(kept)
        });
        compiled.await?.map_err(|error| self.refused(&error))?
    }

    /// The component is there by name; where its file isn't what it should be, this is the upload
    /// that mends it.
    async fn mend(&self, digest: PluginDigest, component: bytes::Bytes) -> Result<(), Refusal> {
        let components = Arc::clone(&self.components);
        blocking(move || components.mend(digest, &component).map_err(not_kept)).await
    }

    /// Shows each binding's configuration to its plugin, within the limits of delivery.
    pub(super) async fn try_bindings(&self, request: &Request) -> Result<(), Refusal> {
        let _trying = self
            .uploads
            .admit_bindings()
            .inspect_err(|refusal| self.metrics.refused(refusal.code))?;
        let Looked::Free(digests) = self.look(request.clone(), None).await? else {
            return Ok(());
        };
        for (binding, digest) in request.bindings().iter().zip(digests) {
            while let Err(error) = self.try_binding(binding, digest).await? {
                if !matches!(error, PluginError::Compiling { .. }) {
                    self.metrics.refused(error.code());
                    return Err(refused_binding(binding, &error));
                }
                tokio::time::sleep(COMPILING_LOOK).await;
            }
        }
        Ok(())
    }

    async fn try_binding(
        &self,
        binding: &BindingSpec,
        digest: PluginDigest,
    ) -> Result<Result<(), PluginError>, Refusal> {
        let _place = self.uploads.configuration().await;
        let (components, config) = (Arc::clone(&self.components), binding.config.clone());
        blocking(move || {
            let bound = components.try_config(digest, &config);
            Ok(bound.map(drop))
        })
        .await
    }

    /// What the owner thinks of a request, before anything is done for it.
    async fn look(&self, request: Request, facts: Option<PluginFacts>) -> Result<Looked, Refusal> {
        let admitted = self.inputs.admit(0)?;
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Look {
            request,
            facts,
            answer,
            admitted,
        });
        answered.await.map_err(|_| stopped())?
    }

    fn refused(&self, error: &PluginError) -> Refusal {
        self.metrics.refused(error.code());
        Refusal::new(error.code(), error.to_string()).hint(error.hint())
    }
}

fn refused_binding(binding: &BindingSpec, error: &PluginError) -> Refusal {
    let plugin = &binding.plugin;
    let text = match error {
        PluginError::ConfigRefused { message } => {
            format!("plugin {plugin} refused its configuration: {message}")
        }
        error => format!("plugin {plugin} can't be bound: {error}"),
    };
    Refusal::new(error.code(), text).hint(error.hint())
}

fn not_kept(error: std::io::Error) -> Refusal {
    Refusal::new(code::FILE, format!("the component can't be kept: {error}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(code::INTERNAL, error.to_string()))?
}
