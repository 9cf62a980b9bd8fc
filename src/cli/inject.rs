//! `ebb inject` and `ebb uninject`: add and remove sidecars in manifests, without a cluster.

use super::{Failure, Outcome, manifest, output};
use clap::{Args, ValueEnum};
use ebb_injector::inject::{Template, check_name, wrong_settings};
use ebb_injector::offline::{self, Offline};
use ebb_manifest::{Chunk, Document, Editor, Part, PodPath, ReadError, Text, chunks, documents};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

/// Threads that change documents, at most.
const MAX_THREADS: usize = 8;
/// Parts of texts that are worth a thread.
const MIN_PARTS: usize = 64;
/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

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
printed as it was: comments, quotes, order, line endings. A document, or an item of a List, that
cannot be edited as text, such as a pod behind an alias, is reprinted, with a warning.

Pods, workloads of Kubernetes and lists of them are known, and Rollout, CloneSet,
DeploymentConfig, Knative Service, JobSet, LeaderWorkerSet, RayCluster, RayJob, RayService, MPIJob
and PyTorchJob. Other documents are printed as they are. A Namespace among the manifests counts,
with its label and annotations.

Standard error lists the injected pods, and the skipped pods with the reason. Standard output gets
all documents or none: if one cannot be read, or has a pod that Kubernetes refuses (a list in
place of an object, a container without a name), every problem is reported with file, document,
line and field, and the exit code is 1. A file that is named twice is printed twice, as kubectl
applies it twice. docs/injection.md describes the annotations.

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
    /// Revision of the injector in place of the template's; pods with a label of another one are skipped
    #[arg(long, value_name = "NAME")]
    rev: Option<String>,
    /// Annotation for pods that do not have it, such as memory-limit=64Mi; repeatable. An invalid value is refused
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
byte is printed as it was. Problems are reported as `ebb inject` reports them.

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
    let paths = args.filenames.iter().map(|path| ("-f", path.as_path()));
    manifest::check_input(paths.chain(args.template.iter().map(|path| ("--template", path.as_path()))))?;
    let mut template = match &args.template {
        None => Template::built_in(),
        Some(path) => {
            let (name, text) = manifest::text(path)?;
            Template::parse(&text).map_err(|error| format!("{name}: {error}"))?
        }
    };
    let annotations = annotations(&args.set)?;
    if let Some(image) = &args.image {
        if annotations.contains_key(&format!("{}image", ebb_config::annotations::PREFIX)) {
            return Err(Failure::Usage(
                "--image and --set image both name the sidecar's image; give one of them".into(),
            ));
        }
        template.set_image(image).map_err(|error| Failure::Usage(format!("--image: {error}")))?;
    }
    if let Some(revision) = &args.rev {
        template = template.of_revision(revision).map_err(|error| Failure::Usage(format!("--rev: {error}")))?;
    }
    let wrong = wrong_settings(&annotations, &template);
    if !wrong.is_empty() {
        return Err(Failure::Usage(format!("--set: {}", wrong.join("\nebb: --set: "))));
    }
    let (files, unread) = manifest::read(&args.filenames);
    // What cannot be read is reported below.
    let all = files.iter().flat_map(|(_, text)| chunks(text)).filter(|chunk| chunk.text().contains("Namespace"));
    let documents = all.flat_map(|chunk| {
        let parts = chunk.parts().into_iter().filter(|part| part.text.contains("Namespace"));
        let read = parts.map(|part| part.read()).collect::<Option<Vec<_>>>();
        read.map_or_else(|| chunk.read().unwrap_or_default(), |read| read.into_iter().flatten().collect())
    });
    let offline = Offline {
        template: &template,
        annotations,
        needs_label: args.labelled,
        by: concat!("ebb inject ", env!("CARGO_PKG_VERSION")),
        pod_paths: &args.pod_at,
        namespaces: offline::namespaces(documents),
    };
    let changed = run(&files, unread, &args.pod_at, args.output, |document, editor| offline.inject(document, editor))?;
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
    manifest::check_input(args.filenames.iter().map(|path| ("-f", path.as_path())))?;
    let (files, unread) = manifest::read(&args.filenames);
    let pods = args.pod_at.as_slice();
    run(&files, unread, pods, args.output, |document, editor| Offline::uninject(document, editor, pods))?;
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
        Ok::<_, Failure>((format!("{}{name}", ebb_config::annotations::PREFIX), value.to_owned()))
    };
    let mut annotations = BTreeMap::new();
    for text in set {
        let (name, value) = annotation(text)?;
        if annotations.insert(name, value).is_some() {
            let name = text.split_once('=').unwrap_or_default().0;
            return Err(Failure::Usage(format!("--set: {name} is given twice; give it once")));
        }
    }
    Ok(annotations)
}

/// Changes every document, and prints all or nothing. Returns the number of changed pods.
///
/// # Errors
/// Everything that is wrong is reported: the files that could not be read, and what is wrong in the others.
fn run<'a>(
    files: &'a [(String, String)],
    unread: Vec<String>,
    pod_paths: &[PodPath],
    how: Output,
    change: impl Fn(&Document<'a>, &mut Editor) -> offline::Outcome<'a> + Sync,
) -> Result<usize, Failure> {
    let (mut texts, mut values, mut changed) = (Vec::new(), Vec::new(), 0);
    let (mut notes, mut wrong) = (Vec::new(), unread);
    for (name, text) in files {
        let mut of_file = Vec::new();
        let (mut documents_before, mut lines_before) = (0, 0);
        let chunks = chunks(text);
        for (chunk, (number, outcomes)) in chunks.iter().zip(in_parallel(&chunks, pod_paths, &change)) {
            let (before, lines) = (documents_before, lines_before);
            (documents_before, lines_before) = (documents_before + number, lines_before + chunk.lines());
            let outcomes = outcomes.unwrap_or_else(|errors| {
                wrong.extend(errors.into_iter().map(|error| format!("{name}: {}", error.after(before, lines))));
                Vec::new()
            });
            let mut of_chunk = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                changed += outcome.changed;
                notes.extend(outcome.notes);
                of_chunk.push(outcome.text);
            }
            match how {
                Output::Yaml => of_file.extend(of_chunk),
                Output::Json => {
                    let text: String = of_chunk.iter().flat_map(Text::pieces).collect();
                    let read = documents(&text).flatten().map(|document| document.value);
                    values.extend(read.filter(|value| !value.is_null()));
                }
            }
        }
        texts.push(of_file);
    }
    if !wrong.is_empty() {
        wrong.iter().for_each(|problem| output::note(format_args!("ebb: {problem}")));
        return Err(Failure::Printed);
    }
    notes.iter().for_each(|note| output::note(format_args!("{note}")));
    match how {
        Output::Yaml => {
            let mut to = std::io::BufWriter::with_capacity(BUFFER, output::Stdout);
            let written = joined(&texts).into_iter().try_for_each(|piece| to.write_all(piece.as_bytes()));
            output::outcome(written.and_then(|()| to.flush()))?;
        }
        Output::Json if values.len() == 1 => output::line(&serde_json::to_string_pretty(&values[0])?)?,
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": values});
            output::line(&serde_json::to_string_pretty(&list)?)?;
        }
    }
    Ok(changed)
}

/// The number of documents of a chunk, and the outcomes of its parts in order, or everything that is wrong.
type Outcomes<'a> = (usize, Result<Vec<offline::Outcome<'a>>, Vec<ReadError>>);

/// Changes the documents of chunks on all processors. Returns the outcomes in order.
fn in_parallel<'a>(
    chunks: &[Chunk<'a>],
    pod_paths: &[PodPath],
    change: &(impl Fn(&Document<'a>, &mut Editor) -> offline::Outcome<'a> + Sync),
) -> Vec<Outcomes<'a>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let parts: Vec<_> = chunks.iter().map(Chunk::parts).collect();
    let all: Vec<&Part<'a>> = parts.iter().flatten().collect();
    // A thread takes neighbors, since the documents of one author are alike.
    let share = all.len().div_ceil(threads).max(MIN_PARTS);
    let of = |parts: &[&Part<'a>]| -> Vec<Option<Vec<offline::Outcome<'a>>>> {
        let mut editor = Editor::default();
        let mut of_part = |part: &Part<'a>| {
            let outcomes = part.read()?.into_iter().map(|document| change(&document, &mut editor));
            outcomes.map(|outcome| (!outcome.is_malformed).then_some(outcome)).collect()
        };
        parts.iter().map(|part| of_part(part)).collect()
    };
    let outcomes: Vec<_> = match all.len() <= share {
        true => of(&all),
        false => std::thread::scope(|scope| {
            let shares: Vec<_> = all.chunks(share).map(|share| scope.spawn(|| of(share))).collect();
            shares.into_iter().flat_map(|share| share.join().expect("an injection does not panic")).collect()
        }),
    };
    let mut outcomes = outcomes.into_iter();
    let of_chunk = |(chunk, parts): (&Chunk<'a>, &Vec<Part<'a>>)| {
        let outcomes: Vec<_> = outcomes.by_ref().take(parts.len()).collect();
        if let Some(outcomes) = outcomes.into_iter().collect::<Option<Vec<_>>>() {
            let documents = match parts.as_slice() {
                [_] => outcomes[0].len(),
                parts => parts.iter().filter(|part| part.is_first).count(),
            };
            return (documents, Ok(outcomes.into_iter().flatten().collect()));
        }
        match chunk.read() {
            Err(error) => (error.document(), Err(vec![error])),
            Ok(documents) => (documents.len(), whole(&documents, pod_paths, change)),
        }
    };
    chunks.iter().zip(&parts).map(of_chunk).collect()
}

/// Changes the documents of a chunk, or reports everything that is wrong in them.
fn whole<'a>(
    documents: &[Document<'a>],
    pod_paths: &[PodPath],
    change: impl Fn(&Document<'a>, &mut Editor) -> offline::Outcome<'a>,
) -> Result<Vec<offline::Outcome<'a>>, Vec<ReadError>> {
    let (mut wrong, mut lines) = (Vec::new(), 0);
    for (at, document) in documents.iter().enumerate() {
        let malformed = |(line, problem)| ReadError::Malformed { document: at + 1, line: lines + line, problem };
        wrong.extend(offline::problems(document, pod_paths).into_iter().map(malformed));
        lines += document.text.matches('\n').count();
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut editor = Editor::default();
    Ok(documents.iter().map(|document| change(document, &mut editor)).collect())
}

/// The documents of all files in a row, with a marker between those of two files.
fn joined<'a>(files: &'a [Vec<Text<'_>>]) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    let is_blank = |file: &&Vec<Text<'_>>| file.iter().flat_map(Text::pieces).all(|piece| piece.trim().is_empty());
    for file in files.iter().filter(|file| !is_blank(file)) {
        let mut pieces = file.iter().flat_map(Text::pieces).filter(|piece| !piece.is_empty()).peekable();
        let is_first = all.is_empty();
        if !is_first && !all.last().is_some_and(|last| last.ends_with('\n')) {
            all.push("\n");
        }
        if let Some(first) = pieces.next_if(|_| !is_first) {
            let first = first.trim_start_matches('\u{feff}');
            let mut lines = first.lines().skip_while(|line| line.trim().is_empty() || line.starts_with('#'));
            match lines.next() {
                // Directives must follow the end of a document.
                Some(line) if line.starts_with('%') => all.push("...\n"),
                _ if first.starts_with("---") => {}
                _ => all.push("---\n"),
            }
            all.push(first);
        }
        all.extend(pieces);
    }
    all
}
