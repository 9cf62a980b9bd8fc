//! The table of annotations that are read at injection, and their effects. The reference page and the chart's policy
//! are generated from it.

use super::settings::{followed_bound, followed_policy, variable_policy};
use super::values::{
    address, boolean, enough, id, is_name, names, one_of, quantity, share, size, startup_timeout, storage,
};
use super::wish::{MOST_VARIABLES, Wishes};
use super::workload::guess;
use ebb_config::annotations::SETTINGS;
use std::fmt::Write as _;

/// CEL that converts a size in Ebb's syntax to a quantity; an empty text if it is none.
pub(super) const READ_SIZE: &str = r#"value.trim().matches({{ include "ebb.sizePattern" . | include "ebb.celString" }}) ? value.trim().replace(" ", "").replace("B", "").replace("K", "k").replace("ki", "Ki") : """#;
/// Maximum length of a value, in bytes.
pub(super) const VALUE_BYTES: usize = 4 << 10;
/// An annotation that is read at injection.
pub(super) struct Annotation {
    /// Name without the prefix.
    pub(super) name: &'static str,
    /// Allowed values.
    pub(super) value: Kind,
    /// Description for the reference page.
    pub(super) meaning: &'static str,
    /// Applies the value; `None` if it is invalid.
    pub(super) set: fn(&mut Wishes, &str) -> Option<()>,
}

/// Kinds of values.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Address,
    Boolean,
    ConfigMap,
    Environment,
    Id,
    Image,
    Memory,
    Names,
    OneOf(&'static [&'static str]),
    Port,
    Quantity,
    Share,
    Size,
    Socket,
    StartupTimeout,
    Storage,
}

impl Kind {
    /// The allowed values, as Markdown; completes the sentence "it must be".
    pub(super) fn bound(self) -> String {
        let text = match self {
            Self::Address => "a loopback address, `0.0.0.0` or `::`",
            Self::Boolean => "`true` or `false`",
            Self::ConfigMap => "the name of a ConfigMap",
            Self::Environment => {
                "`NAME=value`, at most 100 separated by commas, none that the template sets; `EBB_…` must be a setting in its \
                 range, no address or file"
            }
            Self::Id => "1 to 2147483647",
            Self::Image => "an image, without spaces",
            Self::Memory => "a quantity of at least `16Mi`",
            Self::Names => "names of containers of the pod, separated by commas",
            Self::OneOf(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                let (last, others) = quoted.split_last().expect("there are words");
                return format!("{} or {last}", others.join(", "));
            }
            Self::Port => "1024 to 65535",
            Self::Quantity | Self::Size => "a quantity above 0, such as `100Mi` or `250m`",
            Self::Share => "a percentage, `1%` to `100%`",
            Self::Socket => {
                "a path such as `/run/ebb/ebb.sock`, below a folder of `/run`, `/tmp`, `/var/run` or `/var/tmp` other than \
                 `secrets`, with 100 characters at most, in a pod that gets a socket"
            }
            Self::StartupTimeout => "`1s` to `1h`; a number without a unit is in seconds",
            Self::Storage => "a quantity of at least `1Mi`",
        };
        text.to_owned()
    }

    /// The check for the policy, as CEL: whether `value` is valid, and the expression for `read`, if it is parsed
    /// first. Helm renders the parts in braces.
    fn policy(self, name: &str) -> (String, Option<&'static str>) {
        const READ_SHARE: &str = r#"value.trim().matches("^([1-9][0-9]?|100) *%?$") ? int(value.find("[0-9]+")) : 0"#;
        const READ_SPAN: &str = r#"value.trim().matches("^[0-9]{1,10}$") ? int(value.trim()) * 1000 : value.trim().matches({{ include "ebb.spanPattern" . | include "ebb.celString" }}) ? int([3600001.0, value.findAll("[0-9.]+ *[a-zµμ]+").map(part, double(part.find("[0-9.]+")) * {{ include "ebb.spanUnits" . }}[part.find("[a-zµμ]+")]).sum()].min() + 0.999999) : 0"#;
        let fits = match self {
            Self::Address => "isIP(value) && (ip(value).isLoopback() || ip(value).isUnspecified())",
            Self::Boolean => r#"value in ["true", "false"]"#,
            Self::ConfigMap => {
                r#"value.matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$") && size(value) <= 253"#
            }
            Self::Environment => {
                let of_ebb = variable_policy();
                let fits = format!(
                    r#"size(value.split(",")) <= {MOST_VARIABLES} && value.split(",").map(pair, pair.trim()).all(pair, pair.matches("(?s)^[A-Za-z_][A-Za-z0-9_]*=.*$") && !(pair.split("=")[0] in {{{{ include "ebb.sidecarVariables" . }}}}) && (!pair.startsWith("EBB_") || {of_ebb}))"#
                );
                return (fits, None);
            }
            Self::Id => r#"value.matches("^[0-9]{1,10}$") && int(value) >= 1 && int(value) <= 2147483647"#,
            Self::Image => r#"value.matches("^\\S+$")"#,
            Self::Memory => r#"isQuantity(read) && !quantity(read).isLessThan(quantity("16Mi"))"#,
            // Of a namespace's names, a pod may have none.
            Self::Names => {
                let own = name.replace('-', "_");
                let fits = format!(
                    r#"!variables.{own}_is_own || value.split(",").all(name, name.trim() == "") || value.split(",").exists(name, name.trim() in variables.containers)"#
                );
                return (format!("({fits})"), None);
            }
            Self::OneOf(words) => return (format!("value in {words:?}"), None),
            Self::Port => r#"value.matches("^[0-9]{1,5}$") && int(value) >= 1024 && int(value) <= 65535"#,
            Self::Quantity | Self::Size => r#"isQuantity(read) && quantity(read).isGreaterThan(quantity("0"))"#,
            Self::Share => "read >= 1 && read <= 100",
            Self::Socket => {
                r#"{{ if ne .Values.sidecar.address "socket" }}false && {{ end }}value.matches("^(/var)?/(run|tmp)(/[A-Za-z0-9_-][A-Za-z0-9._-]*){2,}$") && !value.matches("^(/var)?/(run|tmp)/secrets/") && size(value) <= 100"#
            }
            Self::StartupTimeout => "read >= 1000 && read <= 3600000",
            Self::Storage => r#"isQuantity(read) && !quantity(read).isLessThan(quantity("1Mi"))"#,
        };
        let read = match self {
            Self::Memory | Self::Size | Self::Storage => Some(READ_SIZE),
            Self::Quantity => Some("value.trim()"),
            Self::Share => Some(READ_SHARE),
            Self::StartupTimeout => Some(READ_SPAN),
            _ => None,
        };
        (fits.to_owned(), read)
    }
}

/// All annotations that are read at injection, sorted by name.
pub(super) const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: "additional-env",
        value: Kind::Environment,
        meaning: "Additional environment variables of the sidecar.",
        set: |wishes, value| wishes.add_env(value),
    },
    Annotation {
        name: "admin-port",
        value: Kind::Port,
        meaning: "Admin port, on loopback.",
        set: |wishes, value| wishes.set_port(value, &["EBB_ADMIN_LISTEN", "EBB_ADMIN_ADDR"]),
    },
    Annotation {
        name: "app-containers",
        value: Kind::Names,
        meaning: "The only containers that get `EBB_ADDR` and the socket; by default all of `spec.containers`. Init \
                  containers that start after the sidecar can be among them.",
        set: |wishes, value| Some(names(value)).map(|names| wishes.only = Some(names)),
    },
    Annotation {
        name: "bind-address",
        value: Kind::Address,
        meaning: "Listen address of the data port; `127.0.0.1` unless the chart's values set another. Opens the port in a pod \
                  that has only a socket.",
        set: |wishes, value| address(value).map(|address| wishes.set_bind_address(address)),
    },
    Annotation {
        name: "config-map",
        value: Kind::ConfigMap,
        meaning: "ConfigMap with dynamic settings in `ebb.yaml`.",
        set: |wishes, value| is_name(value).then(|| wishes.set_config_map(value)),
    },
    Annotation {
        name: "cpu-limit",
        value: Kind::Quantity,
        meaning: "CPU limit of the sidecar; at least its request.",
        set: |wishes, value| quantity(value).map(|value| wishes.cpu_limit = Some(value)),
    },
    Annotation {
        name: "cpu-request",
        value: Kind::Quantity,
        meaning: "CPU request of the sidecar.",
        set: |wishes, value| quantity(value).map(|value| wishes.cpu_request = Some(value)),
    },
    Annotation {
        name: "ephemeral-storage",
        value: Kind::Storage,
        meaning: "Request and limit of the sidecar's ephemeral storage.",
        set: |wishes, value| storage(value).map(|value| wishes.storage = Some(value)),
    },
    Annotation {
        name: "gid",
        value: Kind::Id,
        meaning: "Group ID of the process and of the socket.",
        set: |wishes, value| id(value).map(|id| wishes.set_group(id)),
    },
    Annotation {
        name: "grpc-port",
        value: Kind::Port,
        meaning: "Data port, on `bind-address`. Opens the port in a pod that has only a socket.",
        set: |wishes, value| wishes.set_port(value, &["EBB_LISTEN", "EBB_ADDR"]),
    },
    Annotation {
        name: "http-port",
        value: Kind::Port,
        meaning: "Port of probes and metrics.",
        set: |wishes, value| wishes.set_port(value, &["EBB_HTTP_LISTEN"]),
    },
    Annotation {
        name: "image",
        value: Kind::Image,
        meaning: "Image of the sidecar.",
        set: |wishes, value| {
            let is_image = !value.is_empty() && !value.contains(char::is_whitespace);
            is_image.then(|| wishes.container["image"] = value.into())
        },
    },
    Annotation {
        name: "image-pull-policy",
        value: Kind::OneOf(PULL_POLICIES),
        meaning: "Image pull policy.",
        set: |wishes, value| {
            one_of(PULL_POLICIES, value).map(|policy| wishes.container["imagePullPolicy"] = policy.into())
        },
    },
    Annotation {
        name: "log-format",
        value: Kind::OneOf(LOG_FORMATS),
        meaning: "Format of log lines.",
        set: |wishes, value| {
            one_of(LOG_FORMATS, value).map(|format| wishes.set_env("EBB_LOG_FORMAT", format.to_owned()))
        },
    },
    Annotation {
        name: "memory-limit",
        value: Kind::Memory,
        meaning: "Memory limit of the sidecar, and its request unless `memory-request` is set.",
        set: |wishes, value| enough(value).map(|value| wishes.memory_limit = Some(value)),
    },
    Annotation {
        name: "memory-request",
        value: Kind::Size,
        meaning: "Memory request of the sidecar; at most its limit.",
        set: |wishes, value| size(value).map(|value| wishes.memory_request = Some(value)),
    },
    Annotation {
        name: "memory-share",
        value: Kind::Share,
        meaning: "Memory limit of the sidecar, as a share of the limits of all of `spec.containers`, 32Mi to 8Gi.",
        set: |wishes, value| share(value).map(|share| wishes.memory_share = Some(share)),
    },
    Annotation {
        name: "metrics-enabled",
        value: Kind::Boolean,
        meaning: "`false` labels the pod `ebb-cache.io/metrics: disabled`, which excludes it from the chart's PodMonitor.",
        set: |wishes, value| boolean(value).map(|wanted| wishes.is_scraped = wanted),
    },
    Annotation {
        name: "position",
        value: Kind::OneOf(POSITIONS),
        meaning: "Position among the init containers; `last` starts the sidecar after them.",
        set: |wishes, value| one_of(POSITIONS, value).map(|position| wishes.is_last = position == "last"),
    },
    Annotation {
        name: "readiness-gate",
        value: Kind::Boolean,
        meaning: "Whether an unready cache makes the pod unready.",
        set: |wishes, value| boolean(value).map(|wanted| wishes.set_readiness(wanted)),
    },
    Annotation {
        name: "skip-containers",
        value: Kind::Names,
        meaning: "Containers that do not get `EBB_ADDR` and the socket.",
        set: |wishes, value| Some(names(value)).map(|names| wishes.never = names),
    },
    Annotation {
        name: "startup-timeout",
        value: Kind::StartupTimeout,
        meaning: "Startup timeout of the sidecar.",
        set: |wishes, value| startup_timeout(value).map(|timeout| wishes.set_startup_timeout(timeout)),
    },
    Annotation {
        name: "uid",
        value: Kind::Id,
        meaning: "User ID of the process.",
        set: |wishes, value| id(value).map(|id| wishes.container["securityContext"]["runAsUser"] = id.into()),
    },
    Annotation {
        name: "unix-socket-path",
        value: Kind::Socket,
        meaning: "Path of the socket in the sidecar and in applications; the shared volume is mounted at its directory.",
        set: |wishes, value| wishes.set_socket(value),
    },
];
/// There is no annotation of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an annotation{}", guess.map_or_else(String::new, |guess| format!("; did you mean {guess}?")))]
pub struct UnknownName {
    name: String,
    guess: Option<&'static str>,
}

/// Checks the name of an annotation, without its prefix.
///
/// # Errors
/// There is none of this name. Holds the most similar name, if one is similar.
pub fn check_name(name: &str) -> Result<(), UnknownName> {
    let names = || ANNOTATIONS.iter().map(|known| known.name).chain(SETTINGS.iter().map(|(known, _)| *known));
    if names().any(|known| known == name) {
        return Ok(());
    }
    Err(UnknownName { name: name.to_owned(), guess: guess(name, names()) })
}

const LOG_FORMATS: &[&str] = &["text", "json"];
const POSITIONS: &[&str] = &["first", "last"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Generates `charts/ebb/files/annotations.yaml`, the checks of the chart's policy. The file is a Helm template.
pub fn chart_file() -> String {
    let mut file = String::from(
        "# Generated by `EBB_BLESS=1 cargo test --test inject`; do not edit. A Helm template.\n\n\
         # Maximum length of a value, in bytes.\n",
    );
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let _ = write!(file, "valueBytes: {VALUE_BYTES}\n\n");
    file.push_str(
        "# Read at injection. `fits` is a CEL expression of `value`; `must` completes \"it must be\". `as` is a CEL expression\n\
         # of `value` whose result is `read` in `fits`.\ninjection:\n",
    );
    for Annotation { name, value, .. } in ANNOTATIONS {
        let (fits, read) = value.policy(name);
        let _ = writeln!(file, "  {name}:");
        if let Some(read) = read {
            let _ = writeln!(file, "    as: {}", quoted(read));
        }
        let _ = writeln!(file, "    fits: {}\n    must: {}", quoted(&fits), quoted(&value.bound().replace('`', "")));
    }
    file.push_str("\n# The sidecar follows these annotations; the policy warns about values that it will not accept.\nfollowed:\n");
    for (name, key) in SETTINGS {
        let (fits, read) = followed_policy(key);
        let _ = writeln!(file, "  {name}:");
        if let Some(read) = read {
            let _ = writeln!(file, "    as: {}", quoted(read));
        }
        let _ = writeln!(file, "    fits: {}\n    must: {}", quoted(&fits), quoted(&followed_bound(key)));
    }
    file
}
