//! Manifests by chance: kind × quoting × indentation × order × comments × anchors × empty values × line endings.

use crate::round_trip;
use fastrand::Rng;
use std::fmt::Write as _;

const CASES: usize = 5000;

/// A node before it is written.
#[derive(Clone)]
enum Node {
    Text(String),
    /// Written as it is.
    Raw(&'static str),
    /// A block scalar: its header and its lines.
    Block(&'static str, &'static [&'static str]),
    Map(Vec<(&'static str, Self)>),
    List(Vec<Self>),
}

/// How a document is written.
struct Writer {
    rng: Rng,
    step: usize,
    dash: usize,
    comments: bool,
    blanks: bool,
    flow: u8,
    anchors: usize,
}

impl Writer {
    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    /// A line break, perhaps with a comment before it, and lines of comments or nothing after it.
    fn end(&mut self, out: &mut String, column: usize) {
        if self.comments && self.chance(20) {
            let comment = self.pick(&[" # why", "   # a: b", " # - {", " # '\""]);
            out.push_str(comment);
        } else if self.chance(3) {
            out.push_str("  ");
        }
        out.push('\n');
        while self.comments && self.chance(15) {
            let column = if self.chance(70) { column } else { self.rng.usize(0..8) };
            let _ = writeln!(out, "{}# {}", " ".repeat(column), self.pick(&["note", "- a", "b: c", "---"]));
        }
        if self.blanks && self.chance(15) {
            out.push('\n');
        }
    }

    fn scalar(&mut self, text: &str) -> String {
        match self.rng.u8(0..10) {
            0 => format!("'{text}'"),
            1 => format!("\"{text}\""),
            _ if text.is_empty() || text.contains([':', '#', ' ']) => format!("\"{text}\""),
            2 if self.chance(20) => {
                self.anchors += 1;
                format!("&a{} {text}", self.anchors)
            }
            _ => text.to_owned(),
        }
    }

    fn flow(&mut self, node: &Node) -> String {
        let space = self.pick(&["", "", " "]);
        match node {
            Node::Text(text) => match self.scalar(text) {
                text if text.starts_with('&') => format!("'{}'", text.split(' ').next_back().unwrap_or_default()),
                text if text.contains([',', '[', '{']) && !text.starts_with(['"', '\'']) => format!("\"{text}\""),
                text => text,
            },
            Node::Raw(text) if text.trim().is_empty() => "null".to_owned(),
            Node::Raw(text) => text.trim().to_owned(),
            Node::Block(_, lines) => format!("\"{}\"", lines.join(" ")),
            Node::Map(entries) => {
                let parts: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{key}: {}", self.flow(value))).collect();
                format!("{{{space}{}{space}}}", parts.join(", "))
            }
            Node::List(items) => {
                let parts: Vec<String> = items.iter().map(|item| self.flow(item)).collect();
                format!("[{space}{}{space}]", parts.join(", "))
            }
        }
    }

    /// Writes what follows a key and its colon.
    fn value(&mut self, out: &mut String, node: &Node, column: usize) {
        let is_flow = match node {
            Node::Map(entries) => entries.is_empty() || self.rng.u8(0..100) < self.flow,
            Node::List(items) => items.is_empty() || self.rng.u8(0..100) < self.flow,
            _ => false,
        };
        match node {
            Node::Raw(text) => {
                out.push_str(text);
                self.end(out, column);
            }
            Node::Block(header, lines) => {
                let _ = writeln!(out, " {header}");
                self.block(out, lines, column + self.step);
            }
            Node::Text(text) => {
                let text = self.scalar(text);
                let _ = write!(out, " {text}");
                self.end(out, column);
            }
            node if is_flow => {
                let text = self.flow(node);
                let _ = write!(out, " {text}");
                self.end(out, column);
            }
            Node::Map(entries) => {
                self.end(out, column + self.step);
                self.map(out, entries, column + self.step, false);
            }
            Node::List(items) => {
                let at = column + self.dash;
                self.end(out, at);
                for item in items {
                    let _ = write!(out, "{}-", " ".repeat(at));
                    match item {
                        Node::Map(entries) if !entries.is_empty() && !self.chance(self.flow) => {
                            out.push(' ');
                            self.map(out, entries, at + 2, true);
                        }
                        Node::Block(header, lines) => {
                            let _ = writeln!(out, " {header}");
                            self.block(out, lines, at + 2);
                        }
                        node => {
                            let text = self.flow(node);
                            let _ = write!(out, " {text}");
                            self.end(out, at);
                        }
                    }
                }
            }
        }
    }

    fn block(&mut self, out: &mut String, lines: &[&str], column: usize) {
        for line in lines {
            let indent = if line.is_empty() { 0 } else { column };
            let _ = writeln!(out, "{}{line}", " ".repeat(indent));
        }
    }

    fn map(&mut self, out: &mut String, entries: &[(&'static str, Node)], column: usize, is_after_dash: bool) {
        for (at, (key, value)) in entries.iter().enumerate() {
            if at > 0 || !is_after_dash {
                out.push_str(&" ".repeat(column));
            }
            let quoted = if self.chance(5) { format!("\"{key}\"") } else { (*key).to_owned() };
            out.push_str(&quoted);
            out.push(':');
            self.value(out, value, column);
        }
    }
}

const BLOCKS: &[(&str, &[&str])] = &[
    ("|", &["a: b", "# no comment", "", "  c"]),
    ("|  # header", &["a", ""]),
    (">-", &["a", "", "b", "", ""]),
    ("|+", &["a", "", ""]),
    (">+ # |", &["a", ""]),
    ("|-", &["- a"]),
];

const ANNOTATIONS: &[&str] = &[
    "ebb-cache.io/injected-by",
    "ebb-cache.io/version",
    "ebb-cache.io/status",
    "ebb-cache.io/merged",
    "kubectl.kubernetes.io/default-container",
];

fn text(value: &str) -> Node {
    Node::Text(value.to_owned())
}

/// A field that is absent, empty in one of many ways, or as given.
fn perhaps(rng: &mut Rng, is_list: bool, given: Node) -> Option<Node> {
    let empty = if is_list { Node::List(Vec::new()) } else { Node::Map(Vec::new()) };
    match rng.u8(0..10) {
        0..4 => None,
        4 => Some(empty),
        5 => Some(Node::Raw(["", " ~", " null"][rng.usize(0..3)])),
        _ => Some(given),
    }
}

fn named(name: &str, more: Vec<(&'static str, Node)>) -> Node {
    let mut entries = vec![("name", text(name))];
    entries.extend(more);
    Node::Map(entries)
}

/// Fields that an injection writes, as a pod may have them before.
fn own(rng: &mut Rng, keys: &[&'static str]) -> Vec<(&'static str, Node)> {
    if rng.u8(0..3) > 0 {
        return Vec::new();
    }
    let value = |rng: &mut Rng| match rng.u8(0..10) {
        0 => Node::Raw(["", " ~", " null", " 1", " yes", " [1, {a: b}]"][rng.usize(0..6)]),
        1 => Node::Map(vec![("a", text("b"))]),
        2 => {
            let block = BLOCKS[rng.usize(0..BLOCKS.len())];
            Node::Block(block.0, block.1)
        }
        _ => text(["1.0", "false", "a: b", "true", ""][rng.usize(0..5)]),
    };
    let keys: Vec<&str> = keys.iter().filter(|_| rng.bool()).copied().collect();
    keys.into_iter().map(|key| (key, value(rng))).collect()
}

/// A container that a pod declares for the sidecar, with fields that an injection completes.
fn declared(rng: &mut Rng) -> Node {
    let null = |rng: &mut Rng| Node::Raw(["", " ~", " null", " {}"][rng.usize(0..4)]);
    let mut entries = vec![("name", text("ebb"))];
    for key in ["image", "resources", "securityContext", "startupProbe", "restartPolicy"] {
        match (rng.u8(0..4), key) {
            (0, "image" | "restartPolicy") => entries.push((key, Node::Raw(["", " ~"][rng.usize(0..2)]))),
            (0, _) => entries.push((key, null(rng))),
            _ => {}
        }
    }
    if rng.bool() {
        let requests = Node::Map(vec![("cpu", Node::Raw(" ~")), ("memory", text("64Mi"))]);
        entries.retain(|(key, _)| *key != "resources");
        entries.push(("resources", Node::Map(vec![("requests", requests)])));
    }
    rng.shuffle(&mut entries);
    Node::Map(entries)
}

fn container(rng: &mut Rng, name: &str) -> Node {
    let mut entries = vec![("name", text(name)), ("image", text(["app:1", "app", "a/b"][rng.usize(0..3)]))];
    let env = Node::List(vec![named("A", vec![("value", text("b c"))]), named("B", vec![("value", text(""))])]);
    let mounts = Node::List(vec![Node::Map(vec![("mountPath", text("/data")), ("name", text("data"))])]);
    entries.extend(perhaps(rng, true, env).map(|env| ("env", env)));
    entries.extend(perhaps(rng, true, mounts).map(|mounts| ("volumeMounts", mounts)));
    let block = BLOCKS[rng.usize(0..BLOCKS.len())];
    if rng.bool() {
        entries.push(("args", Node::List(vec![text("--a"), Node::Block(block.0, block.1)])));
    }
    rng.shuffle(&mut entries);
    Node::Map(entries)
}

fn pod(rng: &mut Rng, with_metadata: bool) -> Vec<(&'static str, Node)> {
    let containers = (0..rng.usize(1..4)).map(|at| container(rng, ["app", "b", "c"][at])).collect();
    let mut spec = vec![("containers", Node::List(containers))];
    let mut init = vec![container(rng, "init")];
    if rng.u8(0..6) == 0 {
        init.insert(rng.usize(0..2), declared(rng));
    }
    let init = Node::List(init);
    let volumes = Node::List(vec![named("data", vec![("emptyDir", Node::Map(Vec::new()))])]);
    let security = Node::Map(vec![("fsGroup", text("1")), ("supplementalGroups", Node::List(vec![Node::Raw(" 1")]))]);
    spec.extend(perhaps(rng, true, init).map(|init| ("initContainers", init)));
    spec.extend(perhaps(rng, true, volumes).map(|volumes| ("volumes", volumes)));
    spec.extend(perhaps(rng, false, security).map(|security| ("securityContext", security)));
    if rng.bool() {
        spec.push(("restartPolicy", text("Always")));
    }
    rng.shuffle(&mut spec);
    let mut out = vec![("spec", Node::Map(spec))];
    let mut metadata = if with_metadata { vec![("name", text("x"))] } else { Vec::new() };
    let mut labels = vec![("app", text("web"))];
    labels.extend(own(rng, &["ebb-cache.io/injected", "ebb-cache.io/version", "ebb-cache.io/metrics"]));
    rng.shuffle(&mut labels);
    let labels = Node::Map(labels);
    let block = BLOCKS[rng.usize(0..BLOCKS.len())];
    let mut annotations = vec![("note", text("a: b # c")), ("block", Node::Block(block.0, block.1))];
    annotations.extend(own(rng, ANNOTATIONS));
    rng.shuffle(&mut annotations);
    let annotations = Node::Map(annotations);
    metadata.extend(perhaps(rng, false, labels).map(|labels| ("labels", labels)));
    metadata.extend(perhaps(rng, false, annotations).map(|annotations| ("annotations", annotations)));
    rng.shuffle(&mut metadata);
    if with_metadata || !metadata.is_empty() || rng.bool() {
        out.push(("metadata", Node::Map(metadata)));
    }
    rng.shuffle(&mut out);
    out
}

fn object(rng: &mut Rng) -> Vec<(&'static str, Node)> {
    let kinds: [(&str, &str, &[&str]); 6] = [
        ("v1", "Pod", &[]),
        ("apps/v1", "Deployment", &["spec", "template"]),
        ("apps/v1", "StatefulSet", &["spec", "template"]),
        ("batch/v1", "Job", &["spec", "template"]),
        ("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
        ("argoproj.io/v1alpha1", "Rollout", &["spec", "template"]),
    ];
    let (version, kind, path) = kinds[rng.usize(0..kinds.len())];
    let mut entries = pod(rng, path.is_empty());
    for key in path.iter().rev() {
        let mut around = vec![(*key, Node::Map(entries))];
        if *key == "template" && rng.bool() {
            around.push(("replicas", Node::Raw(" 3")));
            rng.shuffle(&mut around);
        }
        entries = around;
    }
    if !path.is_empty() {
        entries.push(("metadata", named("x", Vec::new())));
    }
    entries.extend([("apiVersion", text(version)), ("kind", text(kind))]);
    rng.shuffle(&mut entries);
    entries
}

/// A List of one to four objects.
fn list(rng: &mut Rng) -> Vec<(&'static str, Node)> {
    let items = (0..rng.usize(1..5)).map(|_| Node::Map(object(rng))).collect();
    let mut entries = vec![("apiVersion", text("v1")), ("kind", text("List")), ("items", Node::List(items))];
    entries.extend(rng.bool().then(|| ("metadata", Node::Map(vec![("resourceVersion", text("x"))]))));
    rng.shuffle(&mut entries);
    entries
}

/// A text of one to three documents.
pub(crate) fn manifest(seed: u64) -> String {
    let mut rng = Rng::with_seed(seed);
    let step = [2, 2, 2, 4][rng.usize(0..4)];
    let mut writer = Writer {
        step,
        dash: [0, step][rng.usize(0..2)],
        comments: rng.bool(),
        blanks: rng.u8(0..4) == 0,
        flow: [0, 0, 20, 60][rng.usize(0..4)],
        anchors: 0,
        rng: rng.fork(),
    };
    let mut out = String::new();
    let count = [1, 1, 2, 3][rng.usize(0..4)];
    for at in 0..count {
        if at > 0 || rng.u8(0..3) == 0 {
            out.push_str(["---\n", "--- # next\n"][rng.usize(0..2)]);
        }
        match rng.u8(0..12) {
            0 => out.push_str("# nothing\n"),
            1 => out.push_str("apiVersion: v1\nkind: ConfigMap\ndata: {a: '0x10', b: \"yes\"}  # kept\n"),
            2..4 => writer.map(&mut out, &list(&mut rng), 0, false),
            _ => writer.map(&mut out, &object(&mut rng), 0, false),
        }
    }
    if rng.u8(0..4) == 0 {
        out.truncate(out.trim_end().len());
    }
    if rng.u8(0..5) == 0 {
        out = out.replace('\n', "\r\n");
    }
    if rng.u8(0..10) == 0 {
        out.insert(0, '\u{feff}');
    }
    out
}

/// The seed of a run; `EBB_SEED` repeats one.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("EBB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("EBB_SEED={seed}");
    seed
}

#[test]
fn every_other_byte_of_generated_manifests_stays() {
    let seed = seed();
    let (mut changed, mut documents, mut reprinted, mut wrong) = (0, 0, 0, Vec::new());
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    for case in 0..CASES {
        let text = manifest(seed.wrapping_add(case as u64));
        match round_trip(&text) {
            Ok(found) => {
                changed += found.changed;
                documents += found.documents;
                reprinted += found.reprinted;
                for note in found.notes.iter().filter(|note| note.contains("reprinted")) {
                    *reasons.entry(note.clone()).or_default() += 1;
                }
                assert!(found.changed == 0 || found.injected.contains("ebb-cache.io/status"));
            }
            Err(problem) => {
                wrong.push(format!("EBB_SEED={}: {problem}\n======\n{text}", seed.wrapping_add(case as u64)))
            }
        }
    }
    println!("{changed} pods in {documents} documents, {reprinted} reprinted: {reasons:#?}");
    assert!(wrong.is_empty(), "{} of {CASES}:\n{}", wrong.len(), wrong[..wrong.len().min(2)].join("\n"));
    assert!(changed > CASES && reprinted * 20 <= documents, "{reprinted} of {documents} documents are reprinted");
}
