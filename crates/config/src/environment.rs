//! Reads the environment variables `EBB_…`.
//!
//! E1. Variables without the prefix `EBB_` are ignored.
//! E2. An empty variable counts as not set: templates render empty variables.
//! E3. An unknown variable produces a warning with a suggestion, unless Kubernetes set it for a Service called `ebb…`.

use super::layers::{setting_paths, variable};
use super::{LogFormat, Problems, Source};
use std::ffi::OsString;
use std::fmt;
use strsim::levenshtein;

/// Variables of command-line flags, in addition to those of the settings.
pub const OF_COMMANDS: [&str; 33] = [
    "EBB_ADDR",
    "EBB_ADMIN_ADDR",
    "EBB_CONFIG",
    "EBB_CONFIG_MAP",
    "EBB_INJECTOR_CA_LIFETIME",
    "EBB_INJECTOR_CERTIFICATE_LIFETIME",
    "EBB_INJECTOR_CLIENT_CA",
    "EBB_INJECTOR_CLIENT_NAMES",
    "EBB_INJECTOR_DRAIN_DELAY",
    "EBB_INJECTOR_HTTP_LISTEN",
    "EBB_INJECTOR_IDENTITY",
    "EBB_INJECTOR_LEASE",
    "EBB_INJECTOR_LISTEN",
    "EBB_INJECTOR_LOG_FORMAT",
    "EBB_INJECTOR_LOG_LEVEL",
    "EBB_INJECTOR_LOOK",
    "EBB_INJECTOR_NAMESPACE",
    "EBB_INJECTOR_NAMESPACE_ANNOTATIONS",
    "EBB_INJECTOR_NO_EVENTS",
    "EBB_INJECTOR_PATHS",
    "EBB_INJECTOR_POD_ANNOTATIONS",
    "EBB_INJECTOR_SECRET",
    "EBB_INJECTOR_SERVICE",
    "EBB_INJECTOR_SETTLE",
    "EBB_INJECTOR_TEMPLATE",
    "EBB_INJECTOR_TLS_CERT",
    "EBB_INJECTOR_TLS_KEY",
    "EBB_INJECTOR_WATCHDOG",
    "EBB_INJECTOR_WATCHDOG_EXCLUDED",
    "EBB_INJECTOR_WATCHDOG_INTERVAL",
    "EBB_INJECTOR_WATCHDOG_MAX_PER_MINUTE",
    "EBB_INJECTOR_WEBHOOK",
    "EBB_NAMESPACE",
];

/// The variables of a process that begin with `EBB_`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Name and value of each known variable that is set.
    pub variables: Vec<(String, String)>,
    /// Warnings about unknown variables.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Environment {
    /// The names alone: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Environment").field("variables", &names).field("warnings", &self.warnings).finish()
    }
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Every setting whose variable is not text.
    pub fn of_process() -> Result<Self, Problems> {
        Self::read(std::env::vars_os())
    }

    /// Reads the given variables.
    ///
    /// # Errors
    /// Every setting whose variable is not text.
    pub fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        let mut known: Vec<String> = setting_paths().iter().map(|key| variable(key)).collect();
        known.extend(OF_COMMANDS.map(str::to_owned));
        let mut environment = Self::default();
        let mut problems = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("EBB_")) else { continue };
            let is_known = known.iter().any(|known| known == name);
            match value.to_str().map(str::trim) {
                Some("") => {}
                Some(_) if is_known => {
                    environment.variables.push((name.to_owned(), value.to_string_lossy().into_owned()));
                }
                None if is_known => problems.push(format!("{name}: the value is not UTF-8 text")),
                Some(value) if is_of_a_service(name, value) => {}
                _ => environment.warnings.push(unknown(name, &known)),
            }
        }
        environment.variables.sort();
        environment.warnings.sort();
        if problems.is_empty() { Ok(environment) } else { Err(Problems(problems)) }
    }

    /// The value of a variable.
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The log format before the configuration is validated, since its problems are logged, too.
    pub fn log_format(&self, source: &Source) -> LogFormat {
        let texts = source.read().unwrap_or_default();
        let tree: Option<serde_json::Value> = texts.file.and_then(|(_, text)| crate::yaml::configuration(&text).ok());
        let in_file = tree.and_then(|tree| Some(tree.get("logFormat")?.as_str()?.to_owned()));
        let given = in_file.or_else(|| self.get("EBB_LOG_FORMAT").map(str::to_owned));
        if given.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text }
    }
}

/// The log format before anything else is read, from the variable `name`.
pub fn first_log_format(name: &str) -> LogFormat {
    if std::env::var_os(name).is_some_and(|value| value == "json") { LogFormat::Json } else { LogFormat::Text }
}

/// Whether Kubernetes sets this variable for a Service called `ebb` or `ebb-…`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // `NAME_PORT_7070_TCP`, and the same with `_PROTO`, `_PORT` and `_ADDR`.
    let of_a_port = || {
        let (_, rest) = name.split_once("_PORT_")?;
        let (number, rest) = rest.split_once('_')?;
        let (protocol, part) = rest.split_once('_').unwrap_or((rest, ""));
        let is_one = is_number(number)
            && ["TCP", "UDP", "SCTP"].contains(&protocol)
            && ["", "PROTO", "PORT", "ADDR"].contains(&part);
        is_one.then_some(())
    };
    name.ends_with("_SERVICE_HOST")
        || (name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_")) && is_number(value)
        || name.ends_with("_PORT") && is_url
        || of_a_port().is_some()
}

fn unknown(name: &str, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|known| levenshtein(known, name)).expect("there are settings");
    // Suggest a name if at most a third of the characters differ.
    let hint = match levenshtein(nearest, name) <= (name.len() - "EBB_".len()).div_ceil(3) {
        true => format!("; did you mean {nearest}?"),
        false => String::new(),
    };
    format!("environment: {name} is not a variable of Ebb{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn read(variables: &[(&str, &[u8])]) -> Result<Environment, Problems> {
        let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Environment::read(variables.iter().map(|(name, value)| (os(name.as_bytes()), os(value))))
    }

    #[test]
    fn variables_of_others_may_hold_anything() {
        let odd = OsString::from_vec(b"EBB_\xff".to_vec());
        let variables = [(odd.clone(), "1".into()), ("LATIN".into(), odd), ("EBB_CORES".into(), "2".into())];
        let environment = Environment::read(variables.into_iter()).unwrap();
        assert_eq!(environment.variables, [("EBB_CORES".to_owned(), "2".to_owned())]);
        assert_eq!(environment.warnings, [""; 0]);
    }

    #[test]
    fn an_empty_variable_is_not_given() {
        let environment = read(&[("EBB_MAX_MEMORY", b""), ("EBB_TICK", b"  "), ("EBB_NONSENSE", b"")]).unwrap();
        assert_eq!(environment, Environment::default());
    }

    #[test]
    fn a_knob_that_is_not_text_is_refused_by_name() {
        let problems = read(&[("EBB_MAX_MEMORY", b"64\xff"), ("EBB_SOCKET", b"/tmp/\xc3\x28")]).unwrap_err();
        assert_eq!(problems.0.len(), 2);
        assert_eq!(problems.0[0], "EBB_MAX_MEMORY: the value is not UTF-8 text");
    }

    #[test]
    fn a_misspelled_variable_is_a_warning_with_a_guess() {
        let cases = [
            ("EBB_MAX_MEMROY", "EBB_MAX_MEMORY"),
            ("EBB_MAXMEMORY", "EBB_MAX_MEMORY"),
            ("EBB_WATERMARK_HIGH", "EBB_WATERMARKS_HIGH"),
            ("EBB_LOGLEVEL", "EBB_LOG_LEVEL"),
            ("EBB_PORT", "EBB_"),
        ];
        let is_guessed = |name: &str, guess: &str, environment: &Environment| {
            let [warning] = environment.warnings.as_slice() else { return false };
            let ends = name == "EBB_PORT" || warning.ends_with(&format!("did you mean {guess}?"));
            ends && warning.contains(name) && environment.variables.is_empty()
        };
        let wrong: Vec<_> = cases
            .map(|(name, guess)| (name, guess, read(&[(name, b"7070")]).unwrap()))
            .into_iter()
            .filter(|(name, guess, environment)| !is_guessed(name, guess, environment))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let far = read(&[("EBB_SOMETHING_ELSE_ENTIRELY", b"1")]).unwrap();
        assert!(!far.warnings[0].contains("did you mean"), "{far:?}");
    }

    #[test]
    fn what_kubernetes_makes_of_a_service_is_no_misspelling() {
        let variables: &[(&str, &[u8])] = &[
            ("EBB_SERVICE_HOST", b"10.0.0.7"),
            ("EBB_SERVICE_PORT", b"7070"),
            ("EBB_SERVICE_PORT_GRPC", b"7070"),
            ("EBB_PORT", b"tcp://10.0.0.7:7070"),
            ("EBB_PORT_7070_TCP", b"tcp://10.0.0.7:7070"),
            ("EBB_PORT_7070_TCP_PROTO", b"tcp"),
            ("EBB_PORT_7070_TCP_PORT", b"7070"),
            ("EBB_PORT_7070_TCP_ADDR", b"10.0.0.7"),
            ("EBB_PORT_53_UDP_ADDR", b"fd00::7"),
            ("EBB_INJECTOR_SERVICE_HOST", b"10.0.0.8"),
            ("EBB_INJECTOR_PORT_443_TCP", b"tcp://10.0.0.8:443"),
        ];
        assert_eq!(read(variables).unwrap(), Environment::default());
    }

    #[test]
    fn the_format_of_the_log_is_known_before_the_rest_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ebb.yaml");
        std::fs::write(&file, "logFormat: json\nmaxMemory: [nonsense]\n").unwrap();
        let source = Source::at(file);
        assert_eq!(Environment::default().log_format(&source), LogFormat::Json);
        assert_eq!(Environment::default().log_format(&Source::Nothing), LogFormat::Text);
        let json = read(&[("EBB_LOG_FORMAT", b"json")]).unwrap();
        assert_eq!(json.log_format(&Source::Nothing), LogFormat::Json);
    }
}
