//! Helm, both majors.

use crate::apiserver::Cluster;
use crate::objects::documents;
use crate::process::{Ended, run};
use serde_json::Value;
use std::process::Command;

/// Namespace and name of the release.
pub const NAMESPACE: &str = "ebb-system";
const RELEASE: &str = "ebb";
const CHART: &str = "charts/ebb";

/// A major version of Helm.
#[derive(Clone, Copy, Debug)]
pub enum Helm {
    Three,
    Four,
}

impl Helm {
    pub fn run(self, cluster: &Cluster, words: &[&str]) -> Ended {
        let folder = match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        };
        let mut command = Command::new(cluster.tools.join(folder).join("helm"));
        run(cluster.environment(&mut command).args(words))
    }

    fn must(self, cluster: &Cluster, words: &[&str]) -> String {
        let ended = self.run(cluster, words);
        assert_eq!(ended.code, Some(0), "helm {words:?} ({self:?}): {}", ended.said);
        ended.out
    }

    /// Installs the chart with these values.
    pub fn install(self, cluster: &Cluster, set: &str) {
        self.install_as(cluster, RELEASE, set);
    }

    /// The same as a release of another name.
    pub fn install_as(self, cluster: &Cluster, release: &str, set: &str) {
        let words = ["install", release, CHART, "--namespace", NAMESPACE, "--create-namespace", "--set", set];
        self.must(cluster, &words);
    }

    /// Upgrades the release, with additional arguments.
    pub fn upgrade(self, cluster: &Cluster, set: &str, more: &[&str]) {
        self.must(cluster, &[&["upgrade", RELEASE, CHART, "--namespace", NAMESPACE, "--set", set], more].concat());
    }

    pub fn uninstall(self, cluster: &Cluster) {
        self.uninstall_as(cluster, RELEASE);
    }

    pub fn uninstall_as(self, cluster: &Cluster, release: &str) {
        self.must(cluster, &["uninstall", release, "--namespace", NAMESPACE]);
    }

    /// The `manifest` or the `hooks` of the release.
    pub fn get(self, cluster: &Cluster, what: &str) -> Vec<Value> {
        documents(&self.text(cluster, what))
    }

    /// The objects of the release, as YAML.
    pub fn manifest(self, cluster: &Cluster) -> String {
        self.text(cluster, "manifest")
    }

    fn text(self, cluster: &Cluster, what: &str) -> String {
        self.must(cluster, &["get", what, RELEASE, "--namespace", NAMESPACE])
    }
}

impl Cluster {
    /// A command with access to this cluster only.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let home = self.folder.path().join("home");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("KUBECONFIG", self.kubeconfig())
    }

    /// Runs the kubectl that comes with Helm 4.
    pub fn kubectl(&self, words: &[&str]) -> Ended {
        let mut command = Command::new(self.tools.join("helm4/kubectl"));
        run(self.environment(&mut command).args(words))
    }
}
