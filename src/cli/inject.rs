//! `ebb inject` and `ebb uninject`: add and remove sidecars in manifests, without a cluster.

use super::{Failure, Outcome, manifest, output};
use clap::{Args, ValueEnum};
use ebb_injector::inject::{Context, Namespace, TakeOut, Template, Verdict, inject as sidecar, take_out};
use serde_json::{Value, json};
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
Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, Jobs, CronJobs, PodTemplates and
lists of them get a sidecar; other documents are printed unchanged. Comments are lost. Standard error lists the injected
pods, and the skipped pods with the reason. docs/injection.md describes the annotations.

Examples:
  ebb inject -f deployment.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | ebb inject -f - | kubectl apply -f -
  ebb inject -f manifests/ --set memory-limit=64Mi
  helm template ebb charts/ebb --set sidecar.example=true >sidecar.yaml; ebb inject -f pod.yaml --template sidecar.yaml")]
pub(crate) struct InjectArgs {
    /// File, directory of .yaml, .yml and .json files, or - for standard input; repeatable.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filenames: Vec<PathBuf>,
    /// File with the PodTemplate of the sidecar, as the chart renders it [default: built in].
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Annotation for pods that do not have it, such as memory-limit=64Mi; repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Inject only into pods with the label ebb-cache.io/inject: enabled.
    #[arg(long)]
    labelled: bool,
    /// Output format of the manifests.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Remove the sidecars that `ebb inject` added.
#[derive(Args, Debug)]
#[command(after_help = "\
Empty fields are removed, even if the original had them. A declared container ebb stays.

Examples:
  kubectl get deployment web -o yaml | ebb uninject -f - | kubectl apply -f -")]
pub(crate) struct UninjectArgs {
    /// File, directory of .yaml, .yml and .json files, or - for standard input; repeatable.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filenames: Vec<PathBuf>,
    /// Output format of the manifests.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Adds sidecars.
pub(crate) fn inject(args: InjectArgs) -> Outcome {
    let template = match &args.template {
        None => Template::built_in(),
        Some(path) => {
            let (name, text) = manifest::text(path)?;
            Template::parse(&text).map_err(|error| format!("{name}: {error}"))?
        }
    };
    let mut annotations = std::collections::BTreeMap::new();
    for text in &args.set {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("--set: {text:?} is not NAME=VALUE, such as memory-limit=64Mi")))?;
        annotations.insert(format!("{}{name}", ebb_config::annotations::PREFIX), value.to_owned());
    }
    let mut documents = manifest::read(&args.filenames)?;
    for document in &mut documents {
        manifest::pods(document, &mut |found| {
            let manifest::Found { owner, namespace, pod } = found;
            let namespace = Namespace { name: namespace, annotations: annotations.clone(), ..Namespace::default() };
            let context = Context {
                namespace: &namespace,
                own_namespace: None,
                needs_label: args.labelled,
                by: concat!("ebb inject ", env!("CARGO_PKG_VERSION")),
            };
            let outcome = sidecar(pod, &context, &template);
            match outcome.verdict {
                Verdict::Inject(operations) => {
                    manifest::apply(pod, &operations);
                    output::note(format_args!("{owner}: injected"));
                }
                Verdict::Skip(reason, detail) => {
                    output::note(format_args!("{owner}: skipped ({}): {detail}", reason.label()))
                }
            }
            outcome.warnings.iter().for_each(|warning| output::note(format_args!("{owner}: warning: {warning}")));
            Ok(())
        })?;
    }
    print(documents, args.output)
}

/// Removes sidecars.
pub(crate) fn uninject(args: UninjectArgs) -> Outcome {
    let mut documents = manifest::read(&args.filenames)?;
    for document in &mut documents {
        manifest::pods(document, &mut |found| {
            let mut pod = found.pod.clone();
            let done = take_out(&mut pod);
            match done {
                TakeOut::Done => {
                    prune(found.pod, &pod);
                    output::note(format_args!("{}: sidecar removed", found.owner));
                }
                TakeOut::NotInjected => output::note(format_args!("{}: skipped: not injected", found.owner)),
                TakeOut::Declared => output::note(format_args!(
                    "{}: skipped: the pod declares the container ebb, whose injected fields cannot be identified",
                    found.owner
                )),
            }
            Ok(())
        })?;
    }
    print(documents, args.output)
}

/// Removes everything from `value` that `wanted` does not contain. Keeps the order.
fn prune(value: &mut Value, wanted: &Value) {
    match (value, wanted) {
        (Value::Object(fields), Value::Object(wanted)) => {
            fields.retain(|key, _| wanted.contains_key(key));
            for (key, value) in fields.iter_mut() {
                prune(value, &wanted[key]);
            }
        }
        (Value::Array(values), Value::Array(wanted)) => {
            let mut left = wanted.iter().peekable();
            values.retain_mut(|value| {
                let is_wanted = left.peek().is_some_and(|wanted| is_same(value, wanted));
                if is_wanted {
                    prune(value, left.next().expect("it was there"));
                }
                is_wanted
            });
        }
        _ => {}
    }
}

/// Whether two list entries are the same, by name or as a whole.
fn is_same(value: &Value, wanted: &Value) -> bool {
    match (value.get("name").and_then(Value::as_str), wanted["name"].as_str()) {
        (Some(name), Some(wanted_name)) if value.get("mountPath").is_none() => name == wanted_name,
        _ => value == wanted,
    }
}

fn print(mut documents: Vec<Value>, how: Output) -> Outcome {
    match how {
        Output::Yaml => {
            let texts: Result<Vec<String>, _> = documents.iter().map(serde_saphyr::to_string).collect();
            output::line(texts?.join("---\n").trim_end())
        }
        Output::Json if documents.len() == 1 => output::line(&serde_json::to_string_pretty(&documents.remove(0))?),
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
            output::line(&serde_json::to_string_pretty(&list)?)
        }
    }
}
