//! `ebb inject` and `ebb uninject`: add and remove sidecars in manifests, without a cluster.

use super::{Failure, Outcome, manifest, output};
use clap::{Args, ValueEnum};
use ebb_injector::inject::{Template, check_name};
use ebb_injector::offline::{self, Offline};
use ebb_manifest::{Document, PodPath, documents};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Output formats of manifests.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// YAML documents.
    #[default]
    Yaml,
    /// One JSON object; a List for several manifests.
    Json,
}

/// Add a sidecar to the pods and workloads of manifests.
#[derive(Args, Debug)]
#[command(after_help = "\
Documents are read as kubectl reads them. The sidecar is inserted, and every other byte is
printed as it was: comments, quotes, order, line endings. A document that cannot be edited as
text, such as a pod behind an alias, is reprinted, with a warning.

Pods, workloads of Kubernetes and lists of them are known, and Rollout, CloneSet,
DeploymentConfig, Knative Service, JobSet, LeaderWorkerSet, RayCluster, RayJob, RayService, MPIJob
and PyTorchJob. Other documents are printed as they are. A Namespace among the manifests counts,
with its label and annotations.

Standard error lists the injected pods, and the skipped pods with the reason. If a document cannot
be read, nothing is printed, and the exit code is 1. docs/injection.md describes the annotations.

Examples:
  ebb inject -f deployment.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | ebb inject -f - | kubectl apply -f -
  ebb inject -f manifests/ --image REGISTRY/ebb:0.1.0 --set memory-limit=64Mi
  ebb inject -f job.yaml --pod-at 'spec.tasks[*].template'
  helm template ebb charts/ebb --set sidecar.example=true >sidecar.yaml; ebb inject -f pod.yaml --template sidecar.yaml")]
pub(crate) struct InjectArgs {
    /// File, directory of .yaml, .yml and .json files at any depth, or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filenames: Vec<PathBuf>,
    /// File with the PodTemplate of the sidecar, as the chart renders it [default: built in]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Image of the sidecar, in place of the template's
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Annotation for pods that do not have it, such as memory-limit=64Mi; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Inject only into pods with the label ebb-cache.io/inject: enabled, on the pod or its Namespace
    #[arg(long)]
    labelled: bool,
    /// Path of the pod template in kinds that are not known, such as spec.template; repeatable
    #[arg(long, value_name = "PATH")]
    pod_at: Vec<PodPath>,
    /// Output format of the manifests
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Remove the sidecars that `ebb inject` added.
#[derive(Args, Debug)]
#[command(after_help = "\
The annotation ebb-cache.io/status lists what was added. Only that is removed, and every other
byte is printed as it was.

Examples:
  ebb uninject -f deployment.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | ebb uninject -f - | kubectl apply -f -")]
pub(crate) struct UninjectArgs {
    /// File, directory of .yaml, .yml and .json files at any depth, or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filenames: Vec<PathBuf>,
    /// Path of the pod template in kinds that are not known, such as spec.template; repeatable
    #[arg(long, value_name = "PATH")]
    pod_at: Vec<PodPath>,
    /// Output format of the manifests
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Adds sidecars.
pub(crate) fn inject(args: InjectArgs) -> Outcome {
    let mut template = match &args.template {
        None => Template::built_in(),
        Some(path) => {
            let (name, text) = manifest::text(path)?;
            Template::parse(&text).map_err(|error| format!("{name}: {error}"))?
        }
    };
    if let Some(image) = &args.image {
        template.set_image(image).map_err(|error| Failure::Usage(format!("--image: {error}")))?;
    }
    let files = manifest::read(&args.filenames)?;
    // What cannot be read is reported below.
    let objects: Vec<Value> = files
        .iter()
        .filter(|(_, text)| text.contains("Namespace"))
        .flat_map(|(_, text)| documents(text).flatten().map(|document| document.value))
        .collect();
    let offline = Offline {
        template: &template,
        annotations: annotations(&args.set)?,
        needs_label: args.labelled,
        by: concat!("ebb inject ", env!("CARGO_PKG_VERSION")),
        pod_paths: &args.pod_at,
        namespaces: offline::namespaces(&objects),
    };
    drop(objects);
    let changed = run(&files, args.output, |document| offline.inject(document))?;
    if changed > 0 && !template.image().contains('/') {
        output::note(format_args!(
            "warning: image {:?} names no registry, so a cluster cannot pull it; use --image, or set image.repository \
             in the chart's values and use --template",
            template.image()
        ));
    }
    Ok(())
}

/// Removes sidecars.
pub(crate) fn uninject(args: UninjectArgs) -> Outcome {
    let files = manifest::read(&args.filenames)?;
    run(&files, args.output, |document| Offline::uninject(document, &args.pod_at))?;
    Ok(())
}

/// The annotations of `--set`, by full name.
fn annotations(set: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let annotation = |text: &String| {
        let usage = |problem: String| Failure::Usage(format!("--set: {problem}"));
        let pair = text.split_once('=');
        let (name, value) =
            pair.ok_or_else(|| usage(format!("{text:?} is not NAME=VALUE, such as memory-limit=64Mi")))?;
        check_name(name).map_err(|error| usage(error.to_string()))?;
        Ok((format!("{}{name}", ebb_config::annotations::PREFIX), value.to_owned()))
    };
    set.iter().map(annotation).collect()
}

/// Changes every document, and prints all or nothing. Returns the number of changed pods.
fn run(
    files: &[(String, String)],
    how: Output,
    change: impl Fn(&Document<'_>) -> offline::Outcome,
) -> Result<usize, Failure> {
    let (mut printed, mut values, mut changed) = (String::new(), Vec::new(), 0);
    let mut notes = Vec::new();
    for (name, text) in files {
        let mut of_file = String::new();
        for document in documents(text) {
            let document = document.map_err(|error| format!("{name}: {error}"))?;
            let outcome = change(&document);
            changed += outcome.changed;
            notes.extend(outcome.notes);
            match how {
                Output::Yaml => of_file.push_str(&outcome.text),
                Output::Json => {
                    let read = documents(&outcome.text).flatten().map(|document| document.value);
                    values.extend(read.filter(|value| !value.is_null()));
                }
            }
        }
        join(&mut printed, &of_file);
    }
    notes.iter().for_each(|note| output::note(format_args!("{note}")));
    match how {
        Output::Yaml => output::bytes(printed.as_bytes())?,
        Output::Json if values.len() == 1 => output::line(&serde_json::to_string_pretty(&values[0])?)?,
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": values});
            output::line(&serde_json::to_string_pretty(&list)?)?;
        }
    }
    Ok(changed)
}

/// Appends the text of a file, with a marker between the documents of two files.
fn join(all: &mut String, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    if all.is_empty() {
        all.push_str(text);
        return;
    }
    if !all.ends_with('\n') {
        all.push('\n');
    }
    let text = text.trim_start_matches('\u{feff}');
    // After directives, a document needs its own marker, which it has.
    if !text.starts_with("---") && !text.starts_with('%') {
        all.push_str("---\n");
    }
    all.push_str(text);
}
