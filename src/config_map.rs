//! Follows a ConfigMap through the API server, for a cache that is not a sidecar. A change arrives at once, not with
//! the next sync of the kubelet. The account needs the rights to get, list and watch this ConfigMap.

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwapOption;
use ebb_config::Source;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The key with the configuration.
const KEY: &str = "ebb.yaml";
/// Timeout of the first answer of the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows `NAMESPACE/NAME` on its own thread, and waits for the current content.
///
/// # Errors
/// Why the ConfigMap cannot be read, and the required rights.
pub(crate) fn follow(reference: &str) -> anyhow::Result<Source> {
    let parts: Vec<&str> = reference.split('/').collect();
    let [namespace, name] = parts.as_slice() else {
        bail!("--config-map: {reference:?} is not NAMESPACE/NAME");
    };
    let (namespace, name) = ((*namespace).to_owned(), (*name).to_owned());
    let source = format!("ConfigMap {reference}");
    let text = Arc::new(ArcSwapOption::empty());
    let (ready, first) = mpsc::channel::<anyhow::Result<()>>();
    let (into, called) = (text.clone(), source.clone());
    let thread = std::thread::Builder::new().name("ebb-config-map".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error).context("cannot start a runtime"))),
        };
        runtime.block_on(async move {
            let client = match Client::try_default().await {
                Ok(client) => client,
                // The error's own text has its causes; as a cause of this one it would be printed with them again.
                Err(error) => return drop(ready.send(Err(anyhow!("cannot reach the API server: {error}")))),
            };
            let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
            match api.get(&name).await {
                Ok(found) => into.store(content(found)),
                Err(error) => return drop(ready.send(Err(said(&called, &error)))),
            }
            drop(ready.send(Ok(())));
            let mut changes = Box::pin(watcher::watch_object(api, &name).default_backoff());
            while let Some(change) = changes.next().await {
                match change {
                    Ok(found) => into.store(found.and_then(content)),
                    Err(error) => tracing::warn!(%error, config_map = called, "failed to watch the ConfigMap"),
                }
            }
        });
    });
    thread.context("cannot start a thread")?;
    match first.recv_timeout(PATIENCE) {
        Ok(Ok(())) => Ok(Source::Watched { name: source, text }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(anyhow!("{source}: the API server did not answer within {} s", PATIENCE.as_secs())),
    }
}

fn content(mut found: ConfigMap) -> Option<Arc<String>> {
    found.data.as_mut().and_then(|data| data.remove(KEY)).map(Arc::new)
}

fn said(source: &str, error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("{source}: the account lacks permission; it needs get, list and watch: {}", status.message)
        }
        error => anyhow!("{source}: {error}"),
    }
}
